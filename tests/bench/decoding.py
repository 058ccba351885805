"""Decode and resize on one thread: Pillow with torchvision's Resize, as in the notebook.
As a program it is the counterpart of worker/data/examples/decode.rs, with the same arguments.
"""

import subprocess
import sys
import time

SAMPLES = 300


def compare(python, script, example, paths, size, rounds):
    """Images a second of both, measured alternately: {"pillow": […], "ours": […]}."""
    chosen = "".join(f"{path}\n" for path in paths[::max(1, len(paths) // SAMPLES)])
    commands = {"pillow": [python, script, str(size), "2"], "ours": [example, str(size), "2"]}
    rates = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            done = subprocess.run(command, input=chosen, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{command[0]}: {done.stderr}")
            # The first pass warms the caches up.
            rates[name].append(float(done.stdout.split()[-1]))
    return rates


def main():
    from PIL import Image
    from torchvision import transforms
    size, rounds = int(sys.argv[1]), int(sys.argv[2])
    paths = sys.stdin.read().splitlines()
    resize = transforms.Resize((size, size))
    for _ in range(rounds):
        began = time.perf_counter()
        for path in paths:
            with Image.open(path) as image:
                resize(image.convert("RGB"))
        print(f"{len(paths) / (time.perf_counter() - began):.1f}")


if __name__ == "__main__":
    main()
