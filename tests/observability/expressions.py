"""The queries of the dashboards, with values for their variables."""

import json

PHASE = "forward_backward"  # The value of the variable `phase`.


class Panel:
    """A panel or an annotation of a dashboard, and its queries: expression, legend, and whether it
    is an instant query."""

    def __init__(self, dashboard, title, queries, content=None):
        self.dashboard, self.title, self.queries, self.content = dashboard, title, queries, content

    def filled(self, run, seconds=600):
        """Expression, legend and whether it is an instant query, of each query."""
        values = {"$__range": f"{max(int(seconds), 1)}s", "$run": run, "$rank": ".*", "$phase": PHASE}
        for expr, legend, instant in self.queries:
            for name, value in values.items():
                expr = expr.replace(name, value)
            yield expr, legend, instant


def panels(folder):
    """Every panel and annotation of every dashboard."""
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        for note in content["annotations"]["list"]:
            yield Panel(content["title"], note["name"], [(note["expr"], note["titleFormat"], False)])
        for each in content["panels"]:
            for panel in [each, *each.get("panels", [])]:
                if panel["type"] != "row":
                    queries = [(t["expr"], t["legendFormat"], t["instant"]) for t in panel["targets"]]
                    yield Panel(content["title"], panel["title"], queries, panel)


def headings(folder, title):
    """The rows of the dashboard with this title."""
    contents = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    content = next(one for one in contents if one["title"] == title)
    return [each for each in content["panels"] if each["type"] == "row"]
