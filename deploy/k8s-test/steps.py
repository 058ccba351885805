"""The steps of the test, in their order. Each returns what it found, and raises Failed if it does not
hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster import Cluster, uid_of
from kubectl import Kubectl
from overlay import LABEL, Overlay
from training import POD, Status, Training, shown
from undo import Undo
from waiting import Deadline, Failed

CLAIM = f"runs-{POD}"
# The run ends this many epochs after the one that was finished last.
EPOCHS_LEFT = 2


def workers(count: int) -> list[str]:
    return [f"worker-{index}" for index in range(count)]


@dataclass
class Test:
    """What the steps share."""

    kubectl: Kubectl
    overlay: Overlay
    undo: Undo
    cluster: Cluster = field(init=False)
    training: Training = field(init=False)
    # What the volume had when the run had ended.
    left_behind: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    claim: str = ""

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.kubectl)
        self.training = Training(self.kubectl)

    def answers(self, within: Deadline) -> str:
        nodes = self.cluster.schedulable()
        if not nodes:
            raise Failed("no node is ready and takes pods")
        return f"{len(nodes)} schedulable node{'s' if len(nodes) > 1 else ''}"

    def apply(self, within: Deadline) -> str:
        self.undo.add(f"the namespace {self.overlay.name}", self.remove)
        # It fails if there is such a namespace.
        self.kubectl.run("create", "-k", str(self.overlay.namespace), seconds=within.left())
        self.kubectl.run("apply", "-k", str(self.overlay.run), seconds=within.left())
        return f"namespace {self.overlay.name}"

    def remove(self) -> None:
        """Deletes the namespace, if it is from this test."""
        found = self.kubectl.get("namespace", self.overlay.name)
        if found and (found["metadata"].get("labels") or {}).get(LABEL) == self.overlay.name:
            self.kubectl.run(
                "delete", "namespace", self.overlay.name, "--wait", "--timeout=240s", seconds=250
            )

    def ready(self, within: Deadline) -> str:
        pods = within.until(lambda: self.cluster.only_ready([POD, *workers(2)]))
        self.claim = uid_of(self.cluster.claim(CLAIM))
        return ", ".join(f"{name} on {pods[name]['spec']['nodeName']}" for name in sorted(pods))

    def trains(self, within: Deadline) -> str:
        return str(self.training.goes_on(2, within))

    def scale(self, count: int) -> Callable[[Deadline], str]:
        def step(within: Deadline) -> str:
            self.kubectl.run("scale", "statefulset/worker", f"--replicas={count}")
            within.until(lambda: self.cluster.only_ready([POD, *workers(count)]))
            return str(self.training.goes_on(count, within))

        return step

    def drain(self, within: Deadline) -> str:
        """With a second node the workers of one move. The node of the coordinator is spared: its
        volume may be bound to that node."""
        pods, nodes = self.cluster.pods(), self.cluster.schedulable()
        at = {name: pods[name]["spec"]["nodeName"] for name in (POD, *workers(2))}
        here = [name for name in workers(2) if at[name] in nodes]
        if not here:
            raise Failed("no worker is on a schedulable node")
        away = [name for name in here if at[name] != at[POD]]
        moves = bool(away) and len(nodes) > 1
        node = at[away[0] if moves else here[0]]
        evicted = [name for name in here if at[name] == node] if moves else here[:1]
        selector = f"{LABEL}={self.overlay.name}"
        if not moves:
            selector += f",statefulset.kubernetes.io/pod-name={evicted[0]}"

        def uncordon() -> None:
            self.kubectl.run("uncordon", node)

        self.undo.add(f"the node {node}, which is cordoned: kubectl uncordon {node}", uncordon)
        # Only pods of this test: the cluster may have others.
        self.kubectl.run(
            "drain", node, f"--pod-selector={selector}", "--ignore-daemonsets",
            "--delete-emptydir-data", f"--timeout={max(1, int(within.left()))}s",
            seconds=within.left() + 5,
        )
        if not moves:
            self.undo.last()
        for name in evicted:
            within.until(lambda name=name: self.cluster.replaced(name, pods[name]))
        now = within.until(lambda: self.cluster.only_ready([POD, *workers(2)]))
        if moves:
            for name in evicted:
                if now[name]["spec"]["nodeName"] == node:
                    raise Failed(f"{name} is still on the cordoned node {node}")
            self.undo.last()
        self.training.goes_on(2, within)
        names = ", ".join(evicted)
        if moves:
            return f"drained {node}: {names} moved to {now[evicted[0]]['spec']['nodeName']}"
        return f"no other node without the coordinator: cordoned {node} and evicted {names}"

    def coordinator_deleted(self, within: Deadline) -> str:
        before: Status = self.training.goes_on(2, within)
        pod = self.cluster.pods()[POD]
        self.kubectl.run("delete", "pod", POD, "--wait", seconds=within.left())
        within.until(lambda: self.cluster.replaced(POD, pod))
        within.until(lambda: self.training.resumed(before))
        now = self.training.goes_on(2, within)
        return f"was at {shown(before.position)}, resumed, and is at {shown(now.position)}"

    def ends(self, within: Deadline) -> str:
        """The number of epochs is lowered: as any change of a template it restarts the coordinator,
        which resumes."""
        before = self.training.goes_on(2, within)
        pod = self.cluster.pods()[POD]
        self.overlay.train(len(before.losses) + EPOCHS_LEFT)
        self.kubectl.run("apply", "-k", str(self.overlay.run), seconds=within.left())
        within.until(lambda: self.cluster.replaced(POD, pod))
        within.until(self.training.ended)
        files = self.training.files()
        losses = tuple(row["train_loss"] for row in files["metrics.jsonl"])
        if losses[: len(before.losses)] != before.losses:
            raise Failed("metrics.jsonl does not have the epochs of the former coordinator")
        last = files["events.jsonl"][-1]
        if last["event"] != "ended" or not last["ok"]:
            raise Failed(f"the last event of the run is {last}")
        if not self.training.has_weights():
            raise Failed("the run directory has no best.safetensors")
        # Otherwise the StatefulSet would not roll out the next change.
        within.until(lambda: self.cluster.ready([POD]))
        self.left_behind = files
        return f"{len(losses)} epochs, {last['reason']}; {POD} is ready"

    def deleted(self, within: Deadline) -> str:
        self.kubectl.run(
            "delete", "-k", str(self.overlay.run), f"--timeout={max(1, int(within.left()))}s",
            seconds=within.left() + 5,
        )
        within.until(self.cluster.gone)
        if uid_of(self.cluster.claim(CLAIM)) != self.claim:
            raise Failed(f"the claim {CLAIM} is another one than before")
        return f"{CLAIM} is still there"

    def applied_again(self, within: Deadline) -> str:
        self.kubectl.run("apply", "-k", str(self.overlay.run), seconds=within.left())
        within.until(self.training.ended)
        for name, lines in self.training.files().items():
            if lines != self.left_behind[name]:
                raise Failed(f"{name} of the old run has changed: {len(lines)} lines instead of "
                             f"{len(self.left_behind[name])}")
        return f"{len(self.left_behind['metrics.jsonl'])} epochs, as before"

    def removed(self, within: Deadline) -> str:
        self.undo.last()
        if self.kubectl.get("namespace", self.overlay.name) is not None:
            raise Failed(f"the namespace {self.overlay.name} is still there")
        return "nothing is left"

    def steps(self) -> list[tuple[str, float, Callable[[Deadline], str]]]:
        """Name, time limit in seconds, and what to do."""
        return [
            ("the cluster answers", 30, self.answers),
            ("apply", 60, self.apply),
            ("all pods are ready", 600, self.ready),
            ("it trains", 300, self.trains),
            ("3 workers", 300, self.scale(3)),
            ("1 worker", 300, self.scale(1)),
            ("2 workers", 300, self.scale(2)),
            ("a node is drained", 300, self.drain),
            ("the coordinator is deleted", 300, self.coordinator_deleted),
            ("the run ends", 600, self.ends),
            ("delete keeps the volume", 180, self.deleted),
            ("applied again: the old run", 300, self.applied_again),
            ("all is removed", 300, self.removed),
        ]
