"""The queries of a dashboard, as Grafana's front end sends them: with the values of the variables."""

import re

DATASOURCE = "prometheus"  # The uid in deploy/grafana/provisioning/datasources.
STEPS = 300


class Asked:
    """The queries of a panel or an annotation, and their legends by letter."""

    def __init__(self, title, targets, variables, seconds):
        self.title = filled(title, variables)
        self.legends = {target["refId"]: target["legendFormat"] for target in targets}
        self.queries = [{
            **target,
            "expr": filled(target["expr"], {**variables, "__range": f"{seconds}s"}),
            "datasource": {"type": "prometheus", "uid": DATASOURCE},
            "intervalMs": max(5, seconds // STEPS) * 1000,
            "maxDataPoints": STEPS,
        } for target in targets]


def filled(text, variables):
    """The text with the values of the variables; others stay as they are."""
    return re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), text)


def panels(dashboard):
    """The panels, those in collapsed rows too; each with whether it is visible at first."""
    for each in dashboard["panels"]:
        if each["type"] != "row":
            yield each, True
        yield from ((panel, False) for panel in each.get("panels", []))


def asked(dashboard, variables, seconds):
    for panel, _ in panels(dashboard):
        yield Asked(panel["title"], panel["targets"], variables, seconds)
    for note in dashboard["annotations"]["list"]:
        # Grafana itself adds one that has no query.
        if "expr" in note:
            target = {"refId": "A", "expr": note["expr"], "legendFormat": note["titleFormat"],
                      "range": True, "instant": False, "format": "time_series"}
            yield Asked(note["name"], [target], variables, seconds)
