"""Real runs of the coordinator with two local workers on the demo set, and a fault for a thread."""

import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

from prom import get, until

SMALL = ["--workers=2", "--data=demo", "--image-size=32", "--global-batch=16",
         "--precision=fp32", "--batch-norm=frozen", "--device=cpu", "--threads-per-worker=1"]
ENDLESS = ["--limit-per-class=12", "--epochs=2000", "--patience=1000", "--layer-lr=uniform=1e-4", "--lr-schedule=constant"]


class Run:
    """One run. At the end of `with` all of its processes are killed. With `resume` it is a run
    of that name that was killed before."""

    def __init__(self, programs, folder, name, *flags, port=0, resume=False):
        self.name, self.began = name, time.time()
        self.output = folder / f"{name}.log"
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                [programs["coordinator"], *SMALL, f"--worker-binary={programs['worker']}",
                 f"--metrics-listen=127.0.0.1:{port}", f"--{'resume' if resume else 'run-dir'}={folder / name}", *flags],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.address = until(f"the address of {name}", 30, self.metrics_address)

    def metrics_address(self):
        """The address of the metrics, once it is printed."""
        assert self.process.poll() is None, self.output.read_text()
        return self.printed(r"metrics: http://([^/]+)/")

    def printed(self, pattern):
        found = re.search(pattern, self.output.read_text())
        return found and found[1]

    def value(self, series):
        """The value of a series, as its line begins."""
        for line in get(f"http://{self.address}/metrics").splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def total(self, name):
        """The sum of all series with this name."""
        lines = get(f"http://{self.address}/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line))

    def steps(self):
        return self.value("finetune_steps_total")

    def workers(self):
        """Process ids of the live workers, in the order of their local ranks."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        found = {}
        try:
            listed = {int(pid) for each in children for pid in each.read_text().split()}
        except OSError:
            return []  # A thread has just exited.
        for child in listed:
            try:
                environment = pathlib.Path(f"/proc/{child}/environ").read_bytes()
            except OSError:
                continue  # The process has just exited.
            if rank := re.search(rb"FINETUNE_LOCAL_RANK=(\d+)", environment):
                found[int(rank[1])] = child
        return [found[rank] for rank in sorted(found)]

    def both(self):
        """The two workers, once both have started."""
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


class HungThread:
    """Stops the training thread of a worker, while its other threads continue: a hung step, with
    heartbeats. At the end of `with` the thread continues."""

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
        # This fails if the process was replaced meanwhile.
        self.ptrace(self.DETACH, self.thread, None, None)
