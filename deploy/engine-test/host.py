"""This machine: the programs that the test needs, and the traces that an engine could leave."""

import os
import shutil
import subprocess
from pathlib import Path

# The name of the control group, and part of every path, of the engine that the test starts.
NAME = "finetune-engine-test"
CGROUPS = Path("/sys/fs/cgroup")

# Each program with the package of Debian and Ubuntu that has it.
PROGRAMS = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "iptables": "iptables",
    "slirp4netns": "slirp4netns",
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
}


def missing(own_engine: bool) -> list[str]:
    """What keeps the test from running, one sentence each."""
    wanted = PROGRAMS if own_engine else {"docker": "docker.io"}
    # These are in folders that only root's PATH has.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    absent = [program for program in wanted if shutil.which(program) is None]
    found = []
    if absent:
        packages = " ".join(sorted({wanted[program] for program in absent}))
        found.append(
            f"missing: {', '.join(absent)}; on Debian or Ubuntu: apt install --no-install-recommends {packages}"
        )
    if own_engine and os.geteuid() != 0:
        found.append(
            "missing: root, to start a Docker engine; run as root, or name a running engine with ENGINE="
        )
    if own_engine and not Path("/dev/net/tun").exists():
        found.append("missing: /dev/net/tun, over which the engine reaches the network; modprobe tun")
    return found


def groups() -> list[Path]:
    """The control groups of the engine, deepest first; in version 1 each controller has its own."""
    found: list[Path] = []
    for top in [CGROUPS / NAME, *CGROUPS.glob(f"*/{NAME}")]:
        if top.is_dir():
            found += [top, *(path for path in top.rglob("*") if path.is_dir())]
    return sorted(found, key=lambda path: -len(path.parts))


def remove_groups() -> None:
    """Removes them; one with a process in it stays, and `traces` shows it."""
    for group in groups():
        try:
            group.rmdir()
        except OSError:
            pass


def traces(state: Path) -> list[str]:
    """What belongs to the engine of the test and lasts outside its folder `state`."""
    found = [f"control group {group}" for group in groups()]
    # Paths in the table are relative to nothing and escaped; the test's own have no odd characters.
    found += [
        f"mount {line.split()[1]}"
        for line in Path("/proc/mounts").read_text().splitlines()
        if str(state) in line or NAME in line
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # It has just exited.
        if int(process.name) != os.getpid() and f"/run/{NAME}" in command:
            found.append(f"process {process.name}: {command[:80]}")
    return found


def network() -> dict[str, str]:
    """Everything of the network that a Docker engine changes: packet filter, forwarding, links."""
    seen = {
        "ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "links": " ".join(sorted(link.name for link in Path("/sys/class/net").iterdir())),
    }
    for table in ("iptables-save", "ip6tables-save", "iptables-legacy-save"):
        if shutil.which(table):
            text = subprocess.run([table], capture_output=True, text=True, check=False).stdout
            # Not the comments, which hold the time, nor the counters.
            seen[table] = "\n".join(
                line.split("[")[0] for line in text.splitlines() if not line.startswith("#")
            )
    return seen


def processor_seconds() -> float | None:
    """Processor time of all containers of the engine so far, those of builds included."""
    one = CGROUPS / "cpuacct" / NAME / "cpuacct.usage"
    two = CGROUPS / NAME / "cpu.stat"
    if one.exists():
        return int(one.read_text()) / 1e9
    if two.exists():
        return int(two.read_text().split()[1]) / 1e6
    return None
