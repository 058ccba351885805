"""Runs one command and measures it from outside: wall time, CPU time and memory of all of its
processes, and the time of its first optimizer step.
"""

import json
import os
import pathlib
import re
import subprocess
import threading
import time
import urllib.request

TIMEOUT = 3600


def run(variant, command, environment, out):
    """The measurements of one run. All times are from exec."""
    out.mkdir(parents=True)
    log = out / "output.txt"
    with open(log, "w") as output:
        began = time.time()
        process = subprocess.Popen(command, env=os.environ | environment, cwd=out, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT)
    monitor = Monitor(process.pid, log if variant == "ours" else None)
    killer = threading.Timer(TIMEOUT, process.terminate)
    killer.start()
    _, status, usage = os.wait4(process.pid, 0)
    ended = time.time()
    process.returncode = os.waitstatus_to_exitcode(status)
    killer.cancel()
    monitor.stop()
    if process.returncode != 0:
        raise SystemExit(f"{variant} exited with code {process.returncode}; the end of {log}:\n{log.read_text()[-3000:]}")
    first, epochs = of_coordinator(out, monitor) if variant == "ours" else of_pytorch(out)
    return {"first_step": first - began, "job": ended - began, "epochs": epochs,
            "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_pss": monitor.pss, "peak_rss": monitor.rss}


def of_pytorch(out):
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return events[0]["first_step"], events[1:]


def of_coordinator(out, monitor):
    """The coordinator's metrics under the names of the PyTorch programs."""
    split = json.loads((out / "run/split.json").read_text())
    epochs = []
    for line in (out / "run/metrics.jsonl").read_text().splitlines():
        epoch = json.loads(line)
        epochs.append({"epoch": epoch["epoch"], "train_seconds": len(split["train"]) / epoch["images_per_second"],
                       "validation_seconds": epoch["seconds"]["validation"], "seconds": epoch["seconds"]["total"],
                       "train_loss": epoch["train_loss"], "validation_loss": epoch["validation_loss"],
                       "accuracy": epoch["validation_accuracy"]})
    if monitor.first_step is None:
        raise SystemExit(f"the metrics of the run in {out} never showed a step")
    return monitor.first_step, epochs


class Monitor:
    """Threads that poll the memory of a process and its descendants, and the coordinator's metrics."""

    def __init__(self, pid, log):
        self.pid, self.log = pid, log
        self.pss = self.rss = 0
        self.first_step = None
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.memory)]
        self.threads += [threading.Thread(target=self.steps)] if log else []
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def memory(self):
        """Polls rarely: reading the memory of a process takes time from the run that is measured."""
        while not self.over.wait(2):
            sums = [memory_of(pid) for pid in descendants(self.pid)]
            self.pss = max(self.pss, sum(pss for pss, _ in sums))
            self.rss = max(self.rss, sum(rss for _, rss in sums))

    def steps(self):
        """Polls every 20 ms until the first step is counted."""
        address = None
        while not self.over.wait(0.02):
            if address is None:
                found = re.search(r"metrics: (http://\S+)", self.log.read_text())
                address = found and found[1]
                continue
            try:
                text = urllib.request.urlopen(address, timeout=5).read().decode()
            except OSError:
                continue  # The coordinator is about to exit.
            if (count := value(text, "finetune_steps_total")) >= 1:
                # After one step its timestamp is exact; after several short steps now is close enough.
                stamp = value(text, "finetune_last_step_timestamp_seconds")
                self.first_step = stamp if count == 1 else time.time()
                return


def value(text, series):
    found = re.search(rf"^{series} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def descendants(pid):
    """The process and its descendants."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # The process has just exited.
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def memory_of(pid):
    """Proportional and resident set size in bytes; the former counts shared pages once."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    read = {name: int(size) * 1024 for name, size in re.findall(r"^(Pss|Rss): +(\d+) kB", text, re.MULTILINE)}
    return read.get("Pss", 0), read.get("Rss", 0)
