"""What the containers may do, as the kernel says it: not what the compose file asks for."""

from pathlib import PurePosixPath

from deployment import Deployment
from tools import Failed, Json

# The user of each service; the others run as that of the project.
USERS = {"prometheus": "65534", "grafana": "472"}
USER = "10001"


def check(deployment: Deployment) -> str:
    wrong: list[str] = []
    for service in deployment.services:
        for container in deployment.containers(service):
            wrong += [f"{container} {what}" for what in container_is_locked(deployment, service, container)]
    if wrong:
        raise Failed("; ".join(wrong))
    containers = len(deployment.all())
    return f"{containers} containers: no root, no capabilities, no new privileges, read-only, nothing outside volumes"


def written(diff: list[str], container: Json) -> list[str]:
    """The lines of `docker diff` without the folders that Docker makes to mount something there."""
    mounted = [mount["Destination"] for mount in container["Mounts"]]
    mounted += container["HostConfig"].get("Tmpfs") or []
    allowed = {str(path) for one in mounted for path in (PurePosixPath(one), *PurePosixPath(one).parents)}
    return [line for line in diff if line.split(maxsplit=1)[1] not in allowed]


def container_is_locked(deployment: Deployment, service: str, container: str) -> list[str]:
    docker = deployment.engine.docker
    wrong = []
    status = dict(
        line.split(":", 1)
        for line in docker("exec", container, "cat", "/proc/1/status").splitlines()
        if ":" in line
    )
    users = set(status["Uid"].split())
    if users != {USERS.get(service, USER)}:
        wrong.append(f"runs as {sorted(users)}")
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status[kind], 16):
            wrong.append(f"has {kind} {status[kind].strip()}")
    if status["NoNewPrivs"].strip() != "1":
        wrong.append("may gain privileges")
    mounts = docker("exec", container, "cat", "/proc/mounts").splitlines()
    (root,) = [line.split() for line in mounts if line.split()[1] == "/"]
    if "ro" not in root[3].split(","):
        wrong.append("has a writable root file system")
    if changed := written(docker("diff", container).splitlines(), deployment.engine.inspect(container)):
        wrong.append(f"wrote outside its volumes: {', '.join(changed)}")
    return wrong


def workers_are_confined(deployment: Deployment) -> str:
    """A worker cannot connect to an address that the coordinator, in a network with a way out, can.
    Routes do not show it: Docker 20.10 gives workers one, and drops their packets."""
    address = deployment.engine.outside
    assert address
    (coordinator,) = deployment.containers("coordinator")
    if not connects(deployment, coordinator, address):
        raise Failed(f"the coordinator cannot connect to {address}, so nothing is shown of the workers")
    for worker in deployment.containers("worker-cpu"):
        if connects(deployment, worker, address):
            raise Failed(f"{worker} connects to {address}, outside of its network")
    return f"no worker connects to {address}, the coordinator does"


def connects(deployment: Deployment, container: str, address: str) -> bool:
    """Whether a program in the container can; Perl is in each image of Debian."""
    host, port = address.split(":")
    program = (
        "use Socket; alarm 3; socket(S, PF_INET, SOCK_STREAM, 0);"
        f" exit !connect(S, sockaddr_in({port}, inet_aton('{host}')))"
    )
    # Perl exits with 1 when it is refused; the signal of `alarm` ends it with 142.
    output = deployment.engine.docker(
        "exec", container, "/bin/sh", "-c", 'perl -e "$1"; echo "code $?"', "sh", program
    )
    code = output.split()[-1]
    if code not in ("0", "1", "142"):
        raise Failed(f"perl in {container} exits with {code}")
    return code == "0"
