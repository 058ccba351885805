"""The queries of the dashboards, with values for their variables."""

import json


class Panel:
    """A panel or an annotation, and its expressions."""

    def __init__(self, dashboard, title, kind, queries, unit=""):
        self.dashboard, self.title, self.kind, self.queries, self.unit = dashboard, title, kind, queries, unit

    def filled(self, run):
        """Expression, legend and whether it is an instant query, of each query."""
        values = {"$run": run, "$rank": ".*", "$phase": "forward_backward", "$__range": "10m"}
        for expr, legend, instant in self.queries:
            for name, value in values.items():
                expr = expr.replace(name, value)
            yield expr, legend, instant


def panels(folder):
    """Every panel and annotation of every dashboard."""
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for note in content["annotations"]["list"]:
            yield Panel(content["title"], note["name"], "annotation", [(note["expr"], note["name"], False)])
        for each in content["panels"]:
            for panel in [each, *each.get("panels", [])]:
                if panel["type"] != "row":
                    queries = [(t["expr"], t["legendFormat"], t["instant"]) for t in panel["targets"]]
                    yield Panel(content["title"], panel["title"], panel["type"], queries,
                                panel["fieldConfig"]["defaults"]["unit"])
