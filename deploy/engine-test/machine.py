"""How this machine reaches apt, cargo and pip: proxies, mirrors and certificates, for base images
that build here. All of it is read from the machine. Credentials in files of their own, such as
/etc/apt/auth.conf and cargo's credentials, are not taken."""

import os
import re
import subprocess
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Installing the package ca-certificates writes that file anew, so an image has the bundle elsewhere.
INSTALLED = "/etc/ssl/machine.crt"
PASSED = re.compile(
    r"(https?|no|all|ftp)_proxy|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|PROXY|DEFAULT_TIMEOUT)"
    r"|CARGO_(HTTP_PROXY|REGISTRIES_.+_INDEX|REGISTRY_DEFAULT|NET_.+|SOURCE_.+)",
    re.IGNORECASE,
)


def certificates() -> Path | None:
    """The bundle that this machine trusts."""
    named = Path(os.environ.get("SSL_CERT_FILE") or CERTIFICATES)
    return named if named.is_file() else None


def environment() -> dict[str, str]:
    """Variables for the base images."""
    found = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
    if certificates():
        found |= dict.fromkeys(("SSL_CERT_FILE", "CARGO_HTTP_CAINFO", "PIP_CERT"), INSTALLED)
    return found


def files() -> dict[str, str]:
    """Files for the base images: the path there, and the text."""
    found = {}
    if bundle := certificates():
        found[INSTALLED] = bundle.read_text()
    apt = f'Acquire::https::CaInfo "{INSTALLED}";\n' if found else ""
    found["/etc/apt/apt.conf.d/90machine"] = apt + settings_of_apt()
    home = Path.home()
    cargo = Path(os.environ.get("CARGO_HOME") or home / ".cargo")
    wanted = {
        "/etc/pip.conf": [
            Path(os.environ.get("PIP_CONFIG_FILE") or "/etc/pip.conf"),
            home / ".config/pip/pip.conf",
            home / ".pip/pip.conf",
        ],
        "/usr/local/cargo/config.toml": [cargo / "config.toml", cargo / "config"],
    }
    for target, sources in wanted.items():
        for source in sources:
            if source.is_file():
                found[target] = source.read_text()
                break
    return found


def settings_of_apt() -> str:
    """Proxies and the like; not the suites, which are those of the image."""
    try:
        done = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""  # Not Debian.
    wanted = re.compile(r"Acquire::(https?|Retries|ForceIPv4|ForceIPv6)\b.* \".+\";")
    return "".join(f"{line}\n" for line in done.stdout.splitlines() if wanted.match(line))


def mirror(suite: str) -> str | None:
    """Where this machine gets that release of Debian from, if it uses the same."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(source.read_text() for source in sources if source.suffix in (".list", ".sources"))
    line = re.search(rf"^deb (?:\[.*\] )?(\S+) {suite} ", text, re.M)
    stanza = re.search(rf"^URIs: (\S+)$(?:\n.+)*?\nSuites:.*\b{suite}\b(?!-)", text, re.M)
    found = line or stanza
    return found[1] if found else None
