"""Prometheus and Grafana of the compose file, while a run makes steps and after its end."""

import json

from deployment import Deployment, get, query
from tools import Failed, Json, until

GRAFANA = "http://127.0.0.1:3000"


def rules() -> str:
    """All rules are evaluated without an error."""

    def evaluated() -> list[Json]:
        found = [rule for group in query("rules")["groups"] for rule in group["rules"]]
        wrong = [f"{rule['name']}: {rule.get('lastError')}" for rule in found if rule["health"] == "err"]
        if wrong:
            raise Failed("; ".join(wrong))
        return found if all(rule["health"] == "ok" for rule in found) else []

    return f"{len(until('the evaluation of all rules', 60, evaluated))} rules ok"


def steps_arrive() -> str:
    """A query shows steps of the run that is in progress."""

    def speed() -> list[Json]:
        result: list[Json] = query("query", query="rate(finetune_steps_total[30s]) > 0")["result"]
        return result

    found = until("steps in Prometheus", 60, speed)
    return f"{float(found[0]['value'][1]):.1f} steps a second"


def finished_is_seen() -> str:
    """A finished run is still read after more than the 15 s for which a coordinator serves
    Prometheus by default: there are 6 samples, one each 5 s."""

    def samples() -> float:
        expr = 'sum(sum_over_time(finetune_run_state{state="finished"}[5m]))'
        result = query("query", query=expr)["result"]
        number = float(result[0]["value"][1]) if result else 0
        return number if number >= 6 else 0

    return f"{until('six samples of the finished run', 60, samples):.0f} samples of it in Prometheus"


def dashboards(deployment: Deployment) -> str:
    """Grafana has the dashboards, and its data source answers."""
    assert "grafana" in deployment.services
    found = {one["title"] for one in json.loads(get(f"{GRAFANA}/api/search?type=dash-db"))}
    if not found >= {"Run", "Fleet", "Coordinator"}:
        raise Failed(f"Grafana has the dashboards {sorted(found)}")
    (source,) = json.loads(get(f"{GRAFANA}/api/frontend/settings"))["datasources"].values()
    answer = json.loads(get(f"{GRAFANA}/api/datasources/proxy/uid/{source['uid']}/api/v1/query?query=up"))
    if not answer["data"]["result"]:
        raise Failed("Grafana's data source has no data")
    return "3 dashboards, live data"
