"""Training speed in the containers beside that of the same demo run on the bare host."""

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from deployment import Deployment
from engine import Engine
from tools import Failed, Json, uninterrupted

# The share by which containers may be slower.
TOLERANCE = 0.10
# A machine is quiet while others use less than this share of it; it is awaited this long.
QUIET, WAIT = 0.10, 120
# The first epoch has the first steps, in which libtorch warms up.
WARM = 1


def compare(engine: Engine, programs: Path, workers: int, grafana: bool) -> str:
    loads = [quiet()]
    host = median(on_host(programs, workers))
    loads.append(quiet())
    containers = median(in_containers(engine, workers, grafana))
    share = containers / host
    text = f"{containers:.0f} images/s in containers, {host:.0f} on the host: {share:.0%}"
    if max(loads) > QUIET:
        text += f" (not a quiet machine: others used {max(loads):.0%} of it before)"
    if share < 1 - TOLERANCE:
        raise Failed(f"{text}; at least {1 - TOLERANCE:.0%} is required")
    return text


def median(epochs: list[Json]) -> float:
    return statistics.median(float(epoch["images_per_second"]) for epoch in epochs[WARM:])


def on_host(programs: Path, workers: int) -> list[Json]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [programs / "coordinator", f"--workers={workers}", "--data=demo", "--run-dir=run",
             f"--worker-binary={programs / 'worker'}", "--metrics-listen=127.0.0.1:0", "--metrics-linger=0"],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )
        if done.returncode:
            raise Failed(f"coordinator on the host: exit code {done.returncode}\n  {done.stderr[-2000:]}")
        text = (Path(folder) / "run" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def in_containers(engine: Engine, workers: int, grafana: bool) -> list[Json]:
    deployment = Deployment(engine, f"speed-{workers}", workers, grafana)
    try:
        deployment.up()
        deployment.trains()
        deployment.ends(600)
        return deployment.epochs()
    finally:
        with uninterrupted():
            deployment.down()


def quiet() -> float:
    """Waits for a quiet machine; returns the share of its processors that others use then."""
    deadline = time.monotonic() + WAIT
    while (used := busy()) > QUIET and time.monotonic() < deadline:
        pass
    return used


def busy() -> float:
    """The share of processor time that was used within two seconds."""

    def read() -> tuple[int, int]:
        times = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(times), times[3] + times[4]

    total, idle = read()
    time.sleep(2)
    now_total, now_idle = read()
    return 1 - (now_idle - idle) / (now_total - total)
