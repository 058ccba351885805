"""A description of the machine, for the file of results."""

import datetime
import os
import pathlib
import re
import subprocess

# Instruction sets that determine the speed of a step.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")


def describe(python, scripts):
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^flags\s*: (.*)$", cpu, re.MULTILINE)[1].split())
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1])
    gpus = output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    versions = output(python, "-c", "import time; t = time.time(); import torch, torchvision;"
                    "print(torch.__version__, torchvision.__version__, f'{time.time() - t:.1f}')").split()
    torch, torchvision, seconds = versions if len(versions) == 3 else ("?", "?", "0")
    return {"cpu": re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)[1], "cores": len(os.sched_getaffinity(0)),
            "flags": [flag for flag in FLAGS if flag in flags], "memory_gib": round(memory / 2**20), "gpus": gpus,
            "torch": torch, "torchvision": torchvision,
            "torch_import_seconds": float(seconds), "load_before": round(os.getloadavg()[0], 2),
            "revision": output("git", "-C", scripts, "describe", "--always", "--dirty"),
            "date": datetime.date.today().isoformat()}


def slug(machine):
    """A file name for the machine."""
    words = " ".join(gpu.split(",")[0] for gpu in machine["gpus"]) or f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((R|TM)\)", "", words).lower()).strip("-")


def sentence(machine):
    parts = [f"{machine['cores']} cores of {machine['cpu']} ({', '.join(machine['flags'])})",
             f"{machine['memory_gib']} GiB", *machine["gpus"], f"torch {machine['torch']}",
             f"revision {machine['revision']}", machine["date"]]
    return ", ".join(parts)


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
