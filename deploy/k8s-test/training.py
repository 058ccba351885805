"""The run, as its coordinator and its volume show it."""

import json
from dataclasses import dataclass
from typing import Any

from kubectl import Kubectl
from waiting import Deadline, Failed, NotYet

POD = "coordinator-0"
METRICS = 9095
DIRECTORY = "/runs/main"


@dataclass(frozen=True)
class Status:
    """`/status` of the coordinator."""

    state: str
    ranks: int
    epoch: int
    step: int
    # Finished epochs.
    losses: tuple[float, ...]
    events: tuple[dict[str, Any], ...]

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.step

    def __str__(self) -> str:
        return f"{self.state} with {self.ranks} ranks at {shown(self.position)}"


def shown(position: tuple[int, int]) -> str:
    return f"step {position[1]} of epoch {position[0]}"


class Training:
    """Reads the run."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def status(self) -> Status:
        read = json.loads(self.kubectl.page(POD, METRICS, "/status"))
        return Status(
            state=read["state"],
            ranks=read["world_size"],
            epoch=read["epoch"],
            step=read["step"],
            losses=tuple(row["train_loss"] for row in read["history"]),
            events=tuple(read["events"]),
        )

    def trains(self, ranks: int) -> Status:
        now = self.status()
        if now.state != "training" or now.ranks != ranks:
            raise NotYet(f"the run is {now}, not training with {ranks}")
        return now

    def goes_on(self, ranks: int, within: Deadline) -> Status:
        """Waits until the run trains with so many ranks, and then makes steps."""
        first = within.until(lambda: self.trains(ranks))

        def later() -> Status:
            now = self.trains(ranks)
            if now.position <= first.position:
                raise NotYet(f"the run makes no step: it is {now}")
            return now

        return within.until(later)

    def resumed(self, before: Status) -> Status:
        """The run of a new coordinator, once that has opened it. It must have continued where the
        former one was stopped: at SIGTERM that writes a checkpoint."""
        now = self.status()
        resumed = [
            event for event in now.events
            if event["event"] == "resumed" and event not in before.events
        ]
        if not resumed and now.state == "waiting":
            raise NotYet("the coordinator has not resumed the run on its volume")
        if not resumed:
            raise Failed("the coordinator began a new run instead of resuming the one on its volume")
        at = resumed[-1]["epoch"], resumed[-1]["completed"]
        if now.losses[: len(before.losses)] != before.losses:
            raise Failed(f"{len(before.losses)} epochs were finished, and not all of them are there")
        if at < before.position:
            raise Failed(f"the run went back from {shown(before.position)} to {shown(at)}")
        return now

    def ended(self) -> None:
        if not self.kubectl.holds("exec", POD, "--", "test", "-e", "/tmp/ended"):
            raise NotYet("the run has not ended")

    def files(self) -> dict[str, list[dict[str, Any]]]:
        """The lines of the files that tell the history of the run."""
        return {
            name: [
                json.loads(line)
                for line in self.kubectl.run("exec", POD, "--", "cat", f"{DIRECTORY}/{name}").splitlines()
            ]
            for name in ("metrics.jsonl", "events.jsonl")
        }

    def has_weights(self) -> bool:
        return self.kubectl.holds("exec", POD, "--", "test", "-s", f"{DIRECTORY}/best.safetensors")
