"""Draws the queries of each panel with the data of a run. Curves, bars and numbers are those that
Grafana would show; the style is not."""

import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot  # noqa: E402


NUMBERS = ("stat", "bargauge", "table", "barchart")


def named(legend, labels):
    if legend == "__auto":
        return ",".join(f"{key}={value}" for key, value in labels.items())
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend)


def draw(path, title, panels, prometheus, run):
    """Writes the dashboard `title` with the data of `run`, numbers and tables first."""
    columns = 3
    panels = sorted(panels, key=lambda panel: panel.kind not in NUMBERS)
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(18, 3 * rows), squeeze=False, layout="constrained")
    figure.suptitle(f"{title}: {run.name}")
    places = [place for line in axes for place in line]
    for place, panel in zip(places, panels):
        place.set_title(f"{panel.title} [{panel.unit}]", fontsize=9)
        place.tick_params(labelsize=7)
        if panel.kind in NUMBERS:
            place.axis("off")
            place.text(0.02, 0.95, "\n".join(lines(panel, prometheus, run))[:700], va="top", fontsize=8)
        else:
            curves(place, panel, prometheus, run)
    for place in places[len(panels):]:
        place.axis("off")
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def lines(panel, prometheus, run):
    for expr, legend, instant in panel.filled(run.name):
        # An instant query looks back over the run; other series end a little before the run does.
        for series in prometheus.at(expr, run.ended if instant else run.ended - 3):
            labels = {k: v for k, v in series["metric"].items() if k not in ("__name__", "job", "instance")}
            yield f"{labels if instant else named(legend, labels)}: {float(series['value'][1]):.4g}"


def curves(place, panel, prometheus, run):
    for expr, legend, _ in panel.filled(run.name):
        for series in prometheus.over(expr, run.began, run.ended):
            times = [float(at) - run.began for at, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            place.plot(times, values, marker=".", markersize=2, linewidth=1, label=named(legend, series["metric"]))
    place.set_xlabel("seconds since the start", fontsize=6)
    if place.lines:
        place.legend(fontsize=6)
