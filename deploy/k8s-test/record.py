"""What is saved of a test that failed."""

from pathlib import Path

from cluster import name_of
from kubectl import Kubectl
from waiting import Failed


def save(kubectl: Kubectl, folder: Path) -> None:
    """Writes events, pods and logs into a folder. What cannot be read is left out."""
    folder.mkdir(parents=True, exist_ok=True)

    def keep(file: str, *arguments: str) -> None:
        try:
            (folder / file).write_text(kubectl.run(*arguments))
        except Failed as reason:
            (folder / file).write_text(f"{reason}\n")

    keep("events.txt", "get", "events", "--sort-by=.lastTimestamp")
    keep("pods.txt", "describe", "pods")
    keep("objects.yaml", "get", "statefulsets,pods,persistentvolumeclaims", "--output=yaml")
    try:
        pods = [name_of(pod) for pod in kubectl.items("pods")]
    except Failed:
        return
    for pod in pods:
        keep(f"{pod}.log", "logs", pod, "--timestamps")
        # Fails where the container was never restarted.
        keep(f"{pod}.previous.log", "logs", pod, "--timestamps", "--previous")
