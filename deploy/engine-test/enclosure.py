"""Namespaces for an engine of the test's own. It has its own network, mounts and processes, so its
bridges, packet filter, forwarding, mounts and containers end with them, however the test ends. Only
control groups are the machine's: they have a name of their own and are removed here.

slirp4netns connects the namespaces to the network as an ordinary process of this machine.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import host
from tools import STOPPING, Failed, Stopped, until

# How long the test inside may take to end its containers after a signal.
ENDING = 60


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Creates the folder of the test, and keeps other tests out of it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another engine test uses {state}; wait for its end") from None
        yield


def run(arguments: Sequence[str]) -> int:
    """Runs this program again inside the namespaces, and returns its exit code."""
    host.remove_groups()
    inside = slirp = None
    try:
        inside = started = start(arguments)
        first = until("the namespaces", 10, lambda: child(started))
        slirp = connect(first)
        assert started.stdin
        started.stdin.close()  # It waits for this.
        return started.wait()
    finally:
        # A second signal would leave things behind.
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        if inside:
            end(inside)
        if slirp:
            slirp.terminate()
            slirp.wait()
        # The kernel empties the groups a moment after the processes have ended.
        deadline = time.monotonic() + 10
        while host.groups() and time.monotonic() < deadline:
            host.remove_groups()
            time.sleep(0.1)


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # `setpriv` ends `unshare`, and that everything inside, even if this process is killed. A session
    # of its own: the terminal's Ctrl-C reaches this process only, which tells the others.
    return subprocess.Popen(
        [
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc",
            sys.executable, "-B", str(Path(__file__).parent), "--inside", *arguments,
        ],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def child(process: subprocess.Popen[bytes]) -> int | None:
    """The process id of the first process inside, once it has its own network."""
    if process.poll() is not None:
        raise Stopped(f"unshare ended with exit code {process.returncode}")
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if not text or os.readlink(f"/proc/{text[0]}/ns/net") == os.readlink("/proc/self/ns/net"):
        return None
    return int(text[0])


def connect(pid: int) -> subprocess.Popen[bytes]:
    """Gives the network of a process a way out, and waits until it works."""
    ready, told = os.pipe()
    slirp = subprocess.Popen(
        [
            "setpriv", "--pdeathsig", "KILL",
            "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback",
            f"--ready-fd={told}", str(pid), "tap0",
        ],
        pass_fds=[told],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(told)
    with os.fdopen(ready, "rb") as end_of_pipe:
        if not end_of_pipe.read(1):
            assert slirp.stderr
            text = slirp.stderr.read().decode(errors="replace").strip()
            raise Failed(f"slirp4netns gives the engine no network: {text}")
    return slirp


def first_process() -> int | None:
    """Divides the first process inside in two. `None` in the new one, which is the test; the first
    returns the exit code of that. It reaps what loses its parent, as the first process has to:
    otherwise each container leaves a zombie."""
    test = os.fork()
    if test == 0:
        return None
    for number in STOPPING:
        signal.signal(number, lambda got, _: os.kill(test, got))
    while True:
        pid, status = os.wait()
        if pid == test:
            return os.waitstatus_to_exitcode(status)


def end(inside: subprocess.Popen[bytes]) -> None:
    """Lets the test inside end by itself, and then kills all that is left there."""
    if inside.poll() is None:
        if pid := child(inside):
            os.kill(pid, signal.SIGTERM)
        try:
            inside.wait(ENDING)
        except subprocess.TimeoutExpired:
            inside.kill()
            inside.wait()
