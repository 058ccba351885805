"""The compose file of the project, under a project name of the test's own."""

import json
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from engine import Engine
from tools import DEPLOY, Failed, Json, until

PROJECT = "finetune-engine-test"
PAGE, PROMETHEUS = "http://127.0.0.1:9095", "http://127.0.0.1:9090"
LONG = str(Path(__file__).with_name("long.yaml"))


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: bytes = answer.read()
    return text.decode()


@dataclass(frozen=True)
class Moment:
    """How far a run is."""

    state: str
    generation: int
    world: int
    position: tuple[int, int]
    events: tuple[Json, ...]


class Deployment:
    """One run of the compose file with the profile `cpu`; a `long` run is there to be disturbed."""

    def __init__(self, engine: Engine, name: str, workers: int, grafana: bool, long: bool = False) -> None:
        self.engine, self.name, self.workers = engine, name, workers
        self.services = ["coordinator", "worker-cpu", "prometheus", *(["grafana"] if grafana else [])]
        self.files = ["-f", str(DEPLOY / "compose.yaml"), *(["-f", LONG] if long else [])]

    def compose(self, *arguments: str, log: str | None = None) -> str:
        # Without the variables of a file `deploy/.env`.
        return self.engine.compose(
            "-p", PROJECT, "--env-file", "/dev/null", *self.files, "--profile", "cpu", *arguments,
            log=log, RUN=self.name, WORKERS=str(self.workers),
        )

    def build(self) -> None:
        self.compose("build", *self.services, log="build.log")

    def up(self) -> None:
        self.compose("up", "-d", *self.services, log=f"up-{self.name}.log")

    def down(self) -> None:
        """Removes the containers, networks and volumes; what the containers logged stays."""
        self.compose("logs", "--no-color", log=f"containers-{self.name}.log")
        self.compose("down", "--volumes", log=f"down-{self.name}.log")

    def containers(self, service: str) -> list[str]:
        """Names of the containers of a service, in the order of their numbers."""
        listed = self.engine.docker(
            "ps", "-a", "--format", "{{.Names}}",
            "--filter", f"label=com.docker.compose.project={PROJECT}",
            "--filter", f"label=com.docker.compose.service={service}",
        )
        return sorted(listed.split())

    def all(self) -> list[str]:
        return [name for service in self.services for name in self.containers(service)]

    def state(self, container: str) -> Json:
        found: Json = self.engine.inspect(container)["State"]
        return found

    def healthy(self) -> bool:
        """Whether all containers run and all health checks pass."""
        states = [self.state(name) for name in self.all()]
        return all(state.get("Health", {}).get("Status") == "healthy" for state in states)

    def moment(self) -> Moment:
        status = json.loads(get(f"{PAGE}/status"))
        return Moment(
            status["state"], status["generation"], status["world_size"],
            (status["epoch"] or 0, status["step"] or 0), tuple(status["events"]),
        )

    def trains(self, after: int = 0, seconds: float = 90) -> float:
        """Waits until all workers make steps in a group newer than `after`; returns how long."""
        began = time.monotonic()

        def formed() -> Moment | None:
            now = self.moment()
            fits = now.state == "training" and now.world == self.workers and now.generation > after
            return now if fits else None

        first = until(f"{self.workers} workers in a group after number {after}", seconds, formed)
        until("a step", 60, lambda: self.moment().position > first.position, pause=0.05)
        return time.monotonic() - began

    def complete(self) -> None:
        """Starts what does not run, and waits until all workers train."""
        self.engine.docker("start", *self.all())
        self.trains()

    def ends(self, seconds: float) -> None:
        ends = {"finished", "failed"}
        until("the end of the run", seconds, lambda: self.moment().state in ends, pause=1)
        if (state := self.moment().state) != "finished":
            raise Failed(f"the run is {state}")

    def epochs(self) -> list[Json]:
        """The records of the run, from its directory, which is copied as an operator does."""
        with tempfile.TemporaryDirectory() as folder:
            self.compose("cp", f"coordinator:/runs/{self.name}", f"{folder}/results")
            text = (Path(folder) / "results" / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


def query(path: str, **parameters: str) -> Json:
    """An answer of Prometheus."""
    answer = json.loads(get(f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
    if answer["status"] != "success":
        raise Failed(f"Prometheus answers {answer}")
    data: Json = answer["data"]
    return data
