"""The compose file: its schema, what compose makes of it, and what the containers may do."""

import json
from functools import cache

from tools import DEPLOY, complaints, run

FILE = str(DEPLOY / "compose.yaml")


@cache
def services(profile):
    """The services as compose would start them."""
    done = run(
        "docker-compose", "-f", FILE, "--profile", profile, "config", "--format", "json",
        "--no-path-resolution",
    )
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return json.loads(done.stdout)["services"]


def follows_the_specification():
    """compose.yaml: follows the compose specification's schema."""
    return complaints(
        run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FILE)
    )


def profiles_start_what_they_should():
    """compose.yaml: compose reads it, and each profile starts its own workers only."""
    always = {"token", "coordinator", "prometheus", "grafana"}
    for profile in ("cpu", "gpu"):
        found, wanted = set(services(profile)), always | {f"worker-{profile}"}
        if found != wanted:
            yield f"{profile} starts {sorted(found)}, not {sorted(wanted)}"


def containers_are_locked():
    """compose.yaml: every container is without root, capabilities and a writable root."""
    for profile in ("cpu", "gpu"):
        for name, service in services(profile).items():
            user = service.get("user", "").split(":")[0]
            if not user.isdigit() or user == "0":
                yield f"{name} runs as root or by a name"
            if service.get("read_only") is not True:
                yield f"{name} may write to its root file system"
            if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
                yield f"{name} has capabilities"
            if "no-new-privileges:true" not in service.get("security_opt", []):
                yield f"{name} may gain privileges"
            if service.get("privileged") or "host" in (
                service.get("network_mode"), service.get("pid"), service.get("ipc"),
            ):
                yield f"{name} shares the host's namespaces"
            for port in service.get("ports", []):
                if port.get("host_ip") != "127.0.0.1":
                    yield f"{name} shows port {port['target']} to other machines"


CHECKS = [
    follows_the_specification,
    profiles_start_what_they_should,
    containers_are_locked,
]
