"""What the test asks of Grafana's HTTP API: health, dashboards by uid, and data of queries."""

import base64
import json
import urllib.error
import urllib.request


class Unreachable(Exception):
    """There is no Grafana at the address, or it does not admit the test."""


class Grafana:
    """A Grafana server; without credentials, an anonymous viewer."""

    def __init__(self, url, token=None, user=None):
        self.url, self.headers = url.rstrip("/"), {}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        elif user:
            self.headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()

    def ask(self, path, body=None):
        """The status and the answer."""
        request = urllib.request.Request(
            self.url + path, None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Accept": "application/json", **self.headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        except OSError as error:
            raise Unreachable(f"{self.url} does not answer: {error}; is it the address of a Grafana?") from error
        if status in (401, 403):
            raise Unreachable(f"{self.url}{path}: {status}; give --token or --user of a viewer")
        try:
            return status, json.loads(text)
        except ValueError as error:
            raise Unreachable(f"{self.url}{path} answers {status} without JSON; is it the address of a Grafana?") from error

    def version(self):
        _, health = self.ask("/api/health")
        if health.get("database") != "ok":
            raise Unreachable(f"{self.url}/api/health: {health}; is it the address of a Grafana?")
        return health.get("version", "unknown")

    def dashboard(self, uid):
        """The dashboard with this uid; nothing if there is none."""
        status, found = self.ask(f"/api/dashboards/uid/{uid}")
        return found["dashboard"] if status == 200 else None

    def data(self, queries, began, ended):
        """From the letter of each query to its frames, and to its error."""
        body = {"from": str(int(began * 1000)), "to": str(int(ended * 1000)), "queries": queries}
        status, answer = self.ask("/api/ds/query", body)
        results = answer.get("results", {})
        frames = {ref: result.get("frames", []) for ref, result in results.items()}
        errors = {ref: result["error"] for ref, result in results.items() if result.get("error")}
        if not results:
            errors = {query["refId"]: answer.get("message", f"status {status}") for query in queries}
        return frames, errors


def values(frames):
    """The rows of the frames that have any: from the name or the label of a column to its value."""
    for frame in frames:
        columns = frame.get("data", {}).get("values", [])
        if not columns or not columns[0]:
            continue
        labels = {}
        for field in frame["schema"]["fields"]:
            labels |= field.get("labels") or {}
        for row in zip(*columns):
            yield {**labels, **{field["name"]: one for field, one in zip(frame["schema"]["fields"], row)}}
