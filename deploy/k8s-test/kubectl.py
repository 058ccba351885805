"""The client `kubectl`, for one context and one namespace."""

import json
import re
import subprocess
import threading
import urllib.request
from typing import Any

from waiting import Failed, NotYet

# For a single answer of the API server.
SECONDS = 30.0


class Unusable(Exception):
    """The test cannot begin: kubectl or the context is missing. The text says what to give."""


def last_line(text: str) -> str:
    """The line of kubectl's output that says what is wrong: klog writes its own before it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


class Kubectl:
    """Runs commands in a session of their own, so that Ctrl-C reaches this program only, which then
    puts the cluster back."""

    def __init__(self, context: str, namespace: str) -> None:
        self.context, self.namespace = context, namespace

    @classmethod
    def execute(cls, arguments: list[str], seconds: float) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        try:
            done = subprocess.run(
                ["kubectl", *arguments], capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL, timeout=max(1.0, seconds), start_new_session=True,
            )
        except FileNotFoundError:
            raise Unusable("kubectl is not installed: https://kubernetes.io/docs/tasks/tools") from None
        except subprocess.TimeoutExpired:
            return 1, "", f"it did not end within {seconds:.0f} s"
        return done.returncode, done.stdout, done.stderr

    @classmethod
    def contexts(cls) -> list[str]:
        """The contexts of the current kubeconfig."""
        code, out, error = cls.execute(["config", "get-contexts", "--output=name"], SECONDS)
        if code:
            raise Unusable(f"kubectl config get-contexts: {last_line(error)}")
        return out.split()

    def here(self, *arguments: str) -> list[str]:
        return [f"--context={self.context}", f"--namespace={self.namespace}", *arguments]

    def run(self, *arguments: str, seconds: float = SECONDS) -> str:
        """The output of a command that must succeed."""
        code, out, error = self.execute(self.here(*arguments), seconds)
        if code:
            raise Failed(f"`kubectl {' '.join(arguments)}`: {last_line(error or out)}")
        return out

    def get(self, *arguments: str) -> Any:
        """The objects of `kubectl get`, as JSON; None if there is no such object."""
        text = self.run("get", *arguments, "--ignore-not-found", "--output=json")
        return json.loads(text) if text.strip() else None

    def items(self, *arguments: str) -> list[Any]:
        """The objects of a list."""
        return (self.get(*arguments) or {"items": []})["items"]

    def holds(self, *arguments: str) -> bool:
        """Whether a command succeeds."""
        return self.execute(self.here(*arguments), SECONDS)[0] == 0

    def page(self, pod: str, port: int, path: str) -> str:
        """What a pod answers over HTTP. It comes by a forwarded port, to which network policies do
        not apply, unlike to the proxy of the API server."""
        process = subprocess.Popen(
            ["kubectl", *self.here("port-forward", "--address=127.0.0.1", f"pod/{pod}", f":{port}")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        patience = threading.Timer(SECONDS, process.kill)
        patience.start()
        try:
            # The first line is the address, or an error.
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:\d+", line)
            if found is None:
                raise NotYet(f"{pod} cannot be reached: {line.strip() or 'no answer'}")
            with urllib.request.urlopen(f"http://{found[0]}{path}", timeout=SECONDS / 2) as answer:
                return answer.read().decode()
        except OSError as error:
            raise NotYet(f"{pod} does not answer: {error}") from None
        finally:
            patience.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
