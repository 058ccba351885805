"""The images that the Dockerfile and the compose file start from: pulled where a registry answers,
otherwise built from Debian's packages and this machine's Rust toolchain, under the same names."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import machine
from engine import Engine
from tools import DEPLOY, Failed, run

BASES = str(Path(__file__).with_name("bases.yaml"))
# A registry that cannot be reached may never answer.
PULL = "120"


@dataclass(frozen=True)
class Images:
    """The names of the images, as the files of the deployment have them."""

    debian: str
    rust: str
    prometheus: str
    grafana: str

    @property
    def suite(self) -> str:
        """The release of Debian, as in `rust:1.95.0-slim-bookworm`."""
        return self.rust.rsplit("-", 1)[1]


def images() -> Images:
    """Reads the names from the Dockerfile and the compose file."""
    dockerfile = (DEPLOY / "docker" / "Dockerfile").read_text()
    pinned = dict(re.findall(r"^ARG (DEBIAN|RUST)=(\S+)$", dockerfile, re.M))
    compose = (DEPLOY / "compose.yaml").read_text()
    others = dict(re.findall(r"^ +image: (?:prom|grafana)/(\w+):(\S+)$", compose, re.M))
    return Images(
        pinned["DEBIAN"], pinned["RUST"],
        f"prom/prometheus:{others['prometheus']}", f"grafana/grafana:{others['grafana']}",
    )


def provide(engine: Engine, state: Path, seen: Callable[[str], None]) -> bool:
    """Provides all of them but Grafana's; returns whether there is Grafana's."""
    names = images()
    how = {}
    for image in (names.debian, names.rust, names.prometheus, names.grafana):
        if engine.has(image):
            how[image] = "present"
        elif pulled(engine, image):
            how[image] = "pulled"
        elif image == names.debian:
            debian(engine, names, state)
            how[image] = "built"
        elif image == names.rust:
            rust(engine, names)
            how[image] = "built"
        elif image == names.prometheus:
            prometheus(engine, names, state)
            how[image] = "built"
        else:
            how[image] = "absent"
    seen(", ".join(f"{image} {what}" for image, what in how.items()))
    return how[names.grafana] != "absent"


def pulled(engine: Engine, image: str) -> bool:
    try:
        run("timeout", PULL, "docker", "pull", "--quiet", image, env=engine.env)
    except Failed:
        return False
    return True


def debian(engine: Engine, names: Images, state: Path) -> None:
    """Debian as debootstrap installs it, with this machine's certificates and proxies."""
    folder = state / f"debian-{names.suite}"
    if not (folder / "etc/debian_version").is_file():
        # Without a trace of one that was interrupted.
        new = state / "debian-new"
        shutil.rmtree(new, ignore_errors=True)
        mirror = machine.mirror(names.suite)
        run(
            "debootstrap", "--variant=minbase", names.suite, new, *([mirror] if mirror else []),
            log=engine.logs / "debootstrap.log",
        )
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    for path, text in machine.files().items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    changes = [f"--change=ENV {name}={quoted(value)}" for name, value in machine.environment().items()]
    with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as archive:
        assert archive.stdout
        run("docker", "import", *changes, "-", names.debian, env=engine.env, stdin=archive.stdout.fileno())
    if archive.returncode:
        raise Failed(f"tar of {folder}: exit code {archive.returncode}")


def quoted(value: str) -> str:
    """A value for the instruction ENV."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def rust(engine: Engine, names: Images) -> None:
    """The compilers of this machine, which must be those that the Dockerfile pins."""
    wanted = names.rust.split(":")[1].split("-")[0]
    found = run("rustc", "--version").split()[1]
    if found != wanted:
        raise Failed(
            f"no registry has {names.rust}, and this machine's Rust is {found}: "
            f"rustup default {wanted}, or ENGINE= names an engine that has the image"
        )
    toolchain = run("rustc", "--print", "sysroot").strip()
    build(engine, names, "rust", TOOLCHAIN=toolchain, EMPTY=toolchain)


def prometheus(engine: Engine, names: Images, state: Path) -> None:
    """Debian's Prometheus, which is older than the one that the compose file names."""
    empty = state / "empty"
    empty.mkdir(exist_ok=True)
    build(engine, names, "prometheus", TOOLCHAIN=str(empty), EMPTY=str(empty))


def build(engine: Engine, names: Images, service: str, **variables: str) -> None:
    engine.compose(
        "-f", BASES, "build", service, log=f"base-{service}.log",
        DEBIAN=names.debian, RUST=names.rust, PROMETHEUS=names.prometheus, **variables,
    )
