"""What the cluster has: pods, nodes, claims."""

from collections.abc import Iterable
from typing import Any

from kubectl import Kubectl
from waiting import Failed, NotYet

# The kubelet tries again, but without an image nothing else can be tested.
NO_IMAGE = ("ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName")

Object = dict[str, Any]


def name_of(one: Object) -> str:
    return one["metadata"]["name"]


def uid_of(one: Object) -> str:
    return one["metadata"]["uid"]


def true(one: Object, condition: str) -> bool:
    """Whether a condition of an object is true."""
    return any(
        each["type"] == condition and each["status"] == "True"
        for each in one.get("status", {}).get("conditions") or []
    )


def why_not_ready(pod: Object) -> str:
    """What a pod says about itself."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            message = waiting.get("message")
            return waiting["reason"] + (f" ({message})" if message else "")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')} ({condition.get('message')})"
    return status.get("phase", "unknown")


class Cluster:
    """The objects of the test, as `kubectl get` shows them."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def pods(self) -> dict[str, Object]:
        """The pods that are not being deleted."""
        return {
            name_of(pod): pod
            for pod in self.kubectl.items("pods")
            if not pod["metadata"].get("deletionTimestamp")
        }

    def ready(self, names: Iterable[str]) -> dict[str, Object]:
        """These pods and others, once these are ready."""
        pods = self.pods()
        for name in names:
            if name not in pods:
                raise NotYet(f"there is no pod {name}")
            if not true(pods[name], "Ready"):
                reason = why_not_ready(pods[name])
                if reason.startswith(NO_IMAGE):
                    raise Failed(f"{name} has no image: {reason}; set REGISTRY, or load the images")
                raise NotYet(f"{name} is not ready: {reason}")
        return pods

    def only_ready(self, names: Iterable[str]) -> dict[str, Object]:
        """These pods, once they are ready and there are no others, leaving ones included."""
        wanted = list(names)
        pods = self.ready(wanted)
        surplus = sorted({name_of(pod) for pod in self.kubectl.items("pods")} - set(wanted))
        if surplus:
            raise NotYet(f"{', '.join(surplus)} is still there")
        return pods

    def replaced(self, name: str, former: Object) -> Object:
        """The pod that replaced another one of its name."""
        pod = self.pods().get(name)
        if pod is None or uid_of(pod) == uid_of(former):
            raise NotYet(f"{name} was not replaced")
        return pod

    def gone(self) -> None:
        left = self.kubectl.items("pods")
        if left:
            raise NotYet(f"{name_of(left[0])} is still there")

    def claim(self, name: str) -> Object:
        found = self.kubectl.get("persistentvolumeclaim", name)
        if found is None or found["metadata"].get("deletionTimestamp"):
            raise Failed(f"the claim {name}, with the runs, was deleted")
        return found

    def schedulable(self) -> list[str]:
        """The nodes that take any pod."""
        return [
            name_of(node)
            for node in self.kubectl.items("nodes")
            if not node["spec"].get("unschedulable")
            and not any(
                taint["effect"] in ("NoSchedule", "NoExecute")
                for taint in node["spec"].get("taints") or []
            )
            and true(node, "Ready")
        ]
