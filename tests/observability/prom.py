"""A Prometheus server: start, query over HTTP, stop."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request


# The prefix of the alerts whose times are shortened.
SHORT = "Short"


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def shortened(text):
    """The alerts under other names and with shorter times, so that they fire within seconds."""
    text = text.replace("name: finetune", "name: short").replace("alert: Finetune", f"alert: {SHORT}Finetune")
    text = re.sub(r"for: \d+m", "for: 3s", text)
    windows = {"2m": "5s", "5m": "10s", "10m": "60s", "15m": "120s", "30m": "120s"}
    text = re.sub(r"\[(\d+m)\]", lambda window: f"[{windows[window[1]]}]", text)
    return text.replace("offset 15m", "offset 60s")


class Prometheus:
    """A server that scrapes every second and evaluates the rules of `deploy`, and the alerts with
    shortened times as well. There is one server for both, because a coordinator whose run is over
    exits after its first scrape."""

    def __init__(self, folder, deploy, port):
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"
        folder.mkdir()
        for rules in (deploy / "rules").glob("*.yml"):
            (folder / rules.name).write_text(rules.read_text())
        (folder / "short.yml").write_text(shortened((deploy / "rules/alerts.yml").read_text()))
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            "rule_files: [recording.yml, alerts.yml, short.yml]\n"
            "scrape_configs:\n"
            "  - job_name: finetune\n"
            "    file_sd_configs: [{files: [targets.json], refresh_interval: 1s}]\n"
        )
        (folder / "targets.json").write_text("[]")
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=self.log, stderr=self.log)
        try:
            until("Prometheus to answer", 60, self.ready)
        except AssertionError:
            self.end()
            raise

    def ready(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return get(f"{self.url}/-/ready")

    def watch(self, *addresses):
        """Sets the addresses to scrape."""
        new = self.folder / "new.json"
        new.write_text(json.dumps([{"targets": list(addresses)}]))
        new.rename(self.folder / "targets.json")

    def ask(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def over(self, expr, start, end):
        """The series of an expression over a time range, without empty ones."""
        step = max(1, (end - start) / 300)
        return self.ask("query_range", query=expr, start=start, end=end, step=step)["result"]

    def at(self, expr, when):
        return self.ask("query", query=expr, time=when)["result"]

    def alerts(self):
        """The current alerts: from the name to the states of its instances."""
        states = {}
        for alert in self.ask("alerts")["alerts"]:
            states.setdefault(alert["labels"]["alertname"], set()).add(alert["state"])
        return states

    def end(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def until(what, seconds, holds):
    """Waits until `holds` returns a true value, and returns that."""
    deadline, why = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except OSError as error:
            why = f" ({error})"
        time.sleep(0.2)
    raise AssertionError(f"timed out after {seconds} s waiting for {what}{why}")
