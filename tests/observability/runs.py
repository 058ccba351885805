"""Real runs of the coordinator with two local workers on the demo set, and what is done to them."""

import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

from prom import get, until

SMALL = ["--workers=2", "--data=demo", "--image-size=32", "--global-batch=16",
         "--precision=fp32", "--batch-norm=frozen", "--device=cpu", "--threads-per-worker=1",
         "--metrics-listen=127.0.0.1:0"]
ENDLESS = ["--limit-per-class=12", "--epochs=2000", "--patience=1000", "--layer-lr=uniform=1e-4", "--lr-schedule=constant"]


class Run:
    """One run. `with` ends all of its processes."""

    def __init__(self, programs, folder, name, *flags):
        self.name, self.began = name, time.time()
        self.output = folder / f"{name}.log"
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                [programs["coordinator"], *SMALL, f"--worker-binary={programs['worker']}",
                 f"--run-dir={folder / name}", *flags],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.address = until(f"the address of {name}", 30, self.shown)

    def shown(self):
        """Where it shows its metrics, once it does."""
        assert self.process.poll() is None, self.output.read_text()
        return self.said(r"metrics: http://([^/]+)/")

    def said(self, pattern):
        found = re.search(pattern, self.output.read_text())
        return found and found[1]

    def value(self, series):
        """The value of a series, as its line begins."""
        for line in get(f"http://{self.address}/metrics").splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def steps(self):
        return self.value("finetune_steps_total")

    def workers(self):
        """Process ids of the live workers, in the order of their local ranks."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        found = {}
        try:
            listed = {int(pid) for each in children for pid in each.read_text().split()}
        except OSError:
            return []  # A thread ended just now.
        for child in listed:
            try:
                environment = pathlib.Path(f"/proc/{child}/environ").read_bytes()
            except OSError:
                continue  # It ended just now.
            if rank := re.search(rb"FINETUNE_LOCAL_RANK=(\d+)", environment):
                found[int(rank[1])] = child
        return [found[rank] for rank in sorted(found)]

    def both(self):
        """Its two workers, once there are two."""
        return until("both workers", 60, lambda: (found := self.workers()) and len(found) == 2 and found)

    def wait(self, seconds):
        code = self.process.wait(seconds)
        self.ended = time.time()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        left = self.workers() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.ended = getattr(self, "ended", time.time())


class HeldThread:
    """Holds the training thread of a worker, while its other threads go on: a hung step, with
    heartbeats. `with` lets it go."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, pid):
        self.ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        self.thread = next(int(task.name) for task in tasks if (task / "comm").read_text() == "train\n")
        for request in (self.SEIZE, self.INTERRUPT):
            if self.ptrace(request, self.thread, None, None) != 0:
                raise OSError(ctypes.get_errno(), "ptrace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its process may have been replaced meanwhile.
        self.ptrace(self.DETACH, self.thread, None, None)
