"""`make bench`: this project and PyTorch on the same images, samples and steps.

Reads the settings, runs all programs in turn, and prints the results; with --results and --chart it
writes them. commands.py has the command lines, measure.py the measurement, table.py the summary.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

import chart
import commands
import decoding
import machine
import measure
import order
import table

SCRIPTS = pathlib.Path(__file__).resolve().parent
NOTEBOOK = "stem=1e-5,layer1=1e-5,layer2=4.64e-5,layer3=2.15e-4,layer4=1e-3,fc=1e-3"
SCRATCH = ",".join(f"{group}=1e-3" for group in ("stem", "layer1", "layer2", "layer3", "layer4", "fc"))


def settings():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch and torchvision")
    parser.add_argument("--target", type=pathlib.Path, required=True, help="folder of the release binaries")
    parser.add_argument("--results", type=pathlib.Path, help="folder for the results")
    parser.add_argument("--chart", type=pathlib.Path, help="file for the chart")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--weights", type=pathlib.Path)
    parser.add_argument("--limit", type=int, help="images of each class")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--patience", type=int, default=3)
    parser.add_argument("--global-batch", type=int, default=128)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variants", nargs="+", choices=commands.NAMES, default=["notebook", "tuned", "ours"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print the commands only")
    given = parser.parse_args()
    given.cores, given.scripts = len(os.sched_getaffinity(0)), SCRIPTS
    given.coordinator, given.worker = given.target.resolve() / "coordinator", given.target.resolve() / "worker"
    given.example = given.target.resolve() / "examples/decode"
    given.rates = NOTEBOOK if given.weights else SCRATCH
    given.seed = 42
    if given.weights:
        given.weights = given.weights.resolve()
    return given


def demo_set(given, folder):
    """The demo set, which a worker creates if it does not exist."""
    data = folder / "data/demo"
    if not data.is_dir() and not given.dry:
        folder.mkdir(parents=True, exist_ok=True)
        words = [given.coordinator, "--data", "demo", "--limit-per-class", 2, "--image-size", 48, "--epochs", 1,
                 "--worker-binary", given.worker, "--run-dir", folder / "demo-run", "--metrics-listen", "127.0.0.1:0"]
        subprocess.run([str(word) for word in words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder / "demo-run")
    return data


def main():
    given = settings()
    kept = given.target.resolve().parent / "bench"
    usual = pathlib.Path("data/caltech101")
    given.data = (given.data or (usual if usual.is_dir() else demo_set(given, kept))).resolve()
    plan = list(commands.rounds(given.variants, given.workers, given.rounds))
    if given.dry:
        for number, workers, variant in plan:
            given.seed, given.start = 42 + number, f"OUT/start-{number}.safetensors"
            words = commands.command(variant, workers, given, f"OUT/{number}-{workers}-{variant}")
            extra = " ".join(f"{name}={value}" for name, value in commands.environment(workers, given).items())
            print(extra, shlex.join(words))
        return 0

    paths, _, classes = order.listed(given.data, given.limit)
    described = machine.describe(given.python, SCRIPTS)
    if given.device == "cuda" and max(given.workers) > len(described["gpus"]):
        raise SystemExit(f"{max(given.workers)} workers need as many GPUs; this machine has {len(described['gpus'])}")
    runs = {str(workers): {variant: [] for variant in given.variants} for workers in given.workers}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for place, (number, workers, variant) in enumerate(plan, 1):
            given.seed, given.start = 42 + number, pathlib.Path(folder) / f"start-{number}.safetensors"
            if not given.start.exists():
                made = [given.python, SCRIPTS / "start.py", given.start, len(classes), given.seed, given.weights]
                subprocess.run([str(word) for word in made if word is not None], check=True)
            out = pathlib.Path(folder) / f"{number}-{workers}-{variant}"
            took = measure.run(variant, commands.command(variant, workers, given, out),
                               commands.environment(workers, given), out)
            if variant == "ours":
                check_split(paths, given.seed, out)
            runs[str(workers)][variant].append(took)
            print(f"{place}/{len(plan)} {commands.NAMES[variant]}, {workers} worker(s): first step after "
                  f"{took['first_step']:.1f} s, job {took['job']:.1f} s, "
                  f"validation loss {took['epochs'][-1]['validation_loss']:.4f}", flush=True)
            shutil.rmtree(out)
    decoded = decoding.compare(given.python, SCRIPTS / "decoding.py", given.example, paths, given.size, given.rounds)

    train, validation = order.split(len(paths), 0.2, 42)
    result = {
        "title": f"Beside PyTorch, on the {'GPU' if given.device == 'cuda' else 'CPU'}",
        "machine": described, "machine_sentence": machine.sentence(described), "images": len(train),
        "what": f"ResNet18 from {'pretrained' if given.weights else 'random'} weights, {len(paths)} images of "
                f"{len(classes)} classes ({len(train)} to train on, {len(validation)} to validate), {given.size} px, "
                f"batch {given.global_batch} over all workers, {given.epochs} epochs, {given.rounds} rounds in turn. "
                f"Every time counts from exec; `import torch, torchvision` takes "
                f"{described['torch_import_seconds']:.1f} s of PyTorch's.",
        "runs": runs, "decoding": decoded}
    text = table.markdown(result)
    print(f"\n{text}")
    if given.results:
        given.results.mkdir(parents=True, exist_ok=True)
        name = given.results / machine.slug(described)
        name.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        name.with_suffix(".md").write_text(text)
        print(f"written: {name}.md, .json")
    if given.chart:
        chart.draw(result, given.chart)
        print(f"written: {given.chart}")
    return 1 if any(table.differences(measured) for measured in runs.values()) else 0


def check_split(paths, seed, out):
    """Checks that the coordinator's split is that of order.py."""
    written = json.loads((out / "run/split.json").read_text())
    for name, indices in zip(("train", "validation"), order.split(len(paths), 0.2, seed)):
        ours = [f"{paths[index].parent.name}/{paths[index].name}" for index in indices]
        if ours != written[name]:
            raise SystemExit(f"the {name} set of {out} differs from the one of the PyTorch programs")


if __name__ == "__main__":
    sys.exit(main())
