"""The compose file: its schema, its services, and the privileges of the containers."""

import json
from functools import cache

from tools import DEPLOY, complaints, run

FILE = str(DEPLOY / "compose.yaml")


@cache
def services(profile):
    """The services, as compose reads them."""
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
    """compose.yaml: each profile starts its own workers only."""
    always = {"token", "coordinator", "prometheus", "grafana"}
    for profile in ("cpu", "gpu"):
        found, wanted = set(services(profile)), always | {f"worker-{profile}"}
        if found != wanted:
            yield f"{profile} starts {sorted(found)}, not {sorted(wanted)}"


def containers_are_locked():
    """compose.yaml: no container has root, capabilities or a writable root file system."""
    for profile in ("cpu", "gpu"):
        for name, service in services(profile).items():
            user = service.get("user", "").split(":")[0]
            if not user.isdigit() or user == "0":
                yield f"{name} runs as root, or its user is not a number"
            if service.get("read_only") is not True:
                yield f"{name} has a writable root file system"
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
                    yield f"{name} publishes port {port['target']} to other machines"


def completed_runs_stay_visible():
    """compose.yaml: the coordinator serves the page and the metrics after a completed run."""
    coordinator = services("cpu")["coordinator"]
    if not any(one.startswith("--metrics-linger=") for one in coordinator["command"]):
        yield "no --metrics-linger: after a run the container is healthy, and its page refuses"


CHECKS = [
    follows_the_specification,
    profiles_start_what_they_should,
    containers_are_locked,
    completed_runs_stay_visible,
]
