"""Draws a dashboard with the data of a run: each panel at its place and in its size, with the
curves, numbers, tables and colours that Grafana would show. The style is close to Grafana's, not
the same."""

import time

import matplotlib
import shown
from expressions import PHASE

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot  # noqa: E402

INCH = 0.4  # The height of a unit of the grid.
BACKGROUND, PANEL, TEXT, DIM = "#111217", "#181b1f", "#d8d9da", "#8e8e8e"


class Series:
    """A series, with the letter and the index of its query."""

    def __init__(self, found, legend, ref):
        self.labels = {k: v for k, v in found["metric"].items() if k not in ("__name__", "job", "instance")}
        self.name, self.ref = shown.name(legend, found["metric"]), ref
        self.points = [(float(at), float(value)) for at, value in found.get("values") or [found["value"]]]
        self.last = self.points[-1][1]


def draw(path, title, panels, headings, prometheus, run):
    """Writes the dashboard `title` with the data of `run`."""
    began, ended = run.began, run.ended
    bottom = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in [*headings, *(panel.content for panel in panels)])
    with pyplot.style.context("dark_background"):
        figure = pyplot.figure(figsize=(18, INCH * (bottom + 1)), facecolor=BACKGROUND)
        figure.text(0.005, 1 - 0.5 / (bottom + 1), f"{title} / {run.name}", fontsize=13, va="center", color=TEXT)
        for each in headings:
            figure.text(0.006, 1 - (each["gridPos"]["y"] + 1.5) / (bottom + 1), each["title"], fontsize=11, va="center", color=TEXT)
        for panel in panels:
            place(figure, panel, bottom + 1, list(data(panel, prometheus, run)), (began, ended))
        figure.savefig(path, dpi=75, facecolor=BACKGROUND)
        pyplot.close(figure)


def data(panel, prometheus, run):
    for at, (expr, legend, instant) in enumerate(panel.filled(run.name, run.ended - run.began)):
        found = prometheus.at(expr, run.ended) if instant else prometheus.over(expr, run.began, run.ended)
        yield from (Series(one, legend, "ABCDEFGH"[at]) for one in found)


def place(figure, panel, rows, series, times):
    """Draws a panel at its place in the grid."""
    content = panel.content
    x, y, w, h = (content["gridPos"][key] for key in "xywh")
    figure.add_artist(pyplot.Rectangle((x / 24 + 0.002, 1 - (y + 1 + h) / rows + 0.05 / rows), w / 24 - 0.004,
                                       (h - 0.1) / rows, facecolor=PANEL, edgecolor="#2c3235", zorder=-1))
    figure.text(x / 24 + 0.006, 1 - (y + 1.35) / rows, content["title"].replace("$phase", PHASE), fontsize=9, va="center", color=TEXT)
    legend = content["options"].get("legend", {}).get("showLegend")
    left, below = (0.03, 1.6 if legend else 0.8) if content["type"] in ("timeseries", "barchart") else (0.006, 0.2)
    axes = figure.add_axes((x / 24 + left, 1 - (y + 1 + h - below) / rows, w / 24 - left - 0.01, (h - below - 0.8) / rows))
    axes.set_facecolor(PANEL)
    {"timeseries": curves, "barchart": bars, "table": table}.get(content["type"], numbers)(axes, content, series, times)


def curves(axes, panel, series, times):
    custom, defaults = panel["fieldConfig"]["defaults"]["custom"], panel["fieldConfig"]["defaults"]
    unit, decimals, total = defaults["unit"], defaults.get("decimals"), {}
    for at, one in enumerate(series):
        given = shown.override(panel, one.name)
        color = shown.COLORS[given.get("color", {}).get("fixedColor", shown.PALETTE[at % len(shown.PALETTE)])]
        steps = given.get("custom.lineInterpolation", custom["lineInterpolation"]) == "stepAfter"
        style = {"drawstyle": "steps-post" if steps else "default", "linewidth": given.get("custom.lineWidth", custom["lineWidth"]), "color": color,
                 "label": f"{one.name}  {shown.number(one.last, unit, decimals)}",
                 "linestyle": "--" if "custom.lineStyle" in given else "-"}
        if custom["drawStyle"] == "points":
            style |= {"marker": "o", "markersize": 3, "linestyle": ""}
        if custom["stacking"]["mode"] == "normal":
            upper = {when: total.get(when, 0) + value for when, value in one.points}
            axes.fill_between(list(upper), [total.get(when, 0) for when in upper], list(upper.values()),
                              color=color, alpha=0.6, linewidth=0, step="post" if steps else None, label=style["label"])
            total |= upper
        else:
            axes.plot([when for when, _ in one.points], [value for _, value in one.points], **style)
    if "thresholdsStyle" in custom:
        axes.axhline(defaults["thresholds"]["steps"][-1]["value"], color=shown.COLORS["orange"], linestyle=":", linewidth=1)
    axes.set_xlim(*times)
    axes.set_ylim(defaults.get("min"), defaults.get("max"))
    marks = axes.get_xticks()
    axes.set_xticks(marks, [time.strftime("%H:%M:%S", time.localtime(mark)) for mark in marks])
    axes.yaxis.set_major_formatter(lambda value, _: shown.number(value, unit))
    finish(axes, panel)


def bars(axes, panel, series, times):
    """Stacked bars: ranks along the axis, and the other label of the transformation as colour."""
    column = panel["transformations"][0]["options"]["columnField"]
    ranks = sorted({one.labels["rank"] for one in series}, key=int)
    kinds = sorted({one.labels[column] for one in series})
    bottom = dict.fromkeys(ranks, 0.0)
    for at, kind in enumerate(kinds):
        values = {one.labels["rank"]: one.last for one in series if one.labels[column] == kind}
        axes.bar(ranks, [values.get(rank, 0) for rank in ranks], bottom=list(bottom.values()), label=kind,
                 color=shown.COLORS[shown.PALETTE[at]], alpha=0.8, width=0.9)
        bottom = {rank: bottom[rank] + values.get(rank, 0) for rank in ranks}
    axes.yaxis.set_major_formatter(lambda value, _: shown.number(value, panel["fieldConfig"]["defaults"]["unit"]))
    finish(axes, panel)


def finish(axes, panel):
    axes.tick_params(labelsize=6.5, colors=DIM, length=0)
    axes.grid(color="#2c3235", linewidth=0.5)
    for side in axes.spines.values():
        side.set_visible(False)
    if axes.get_legend_handles_labels()[0] and panel["options"]["legend"]["showLegend"]:
        height = panel["gridPos"]["h"] - 2.4
        axes.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(-0.02, -0.5 / height), ncols=6, frameon=False,
                    labelcolor=TEXT, handlelength=1)


def numbers(axes, panel, series, _):
    """The last values, one below the other."""
    axes.axis("off")
    defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
    if not series:
        value = defaults.get("noValue", "No data")
        axes.text(0.5, 0.5, value, ha="center", va="center", fontsize=14, color=shown.color(panel, 0, {}))
    size = 20 if len(series) == 1 else 13
    for at, one in enumerate(series):
        value = shown.number(one.last, defaults["unit"], defaults.get("decimals"))
        mode = options.get("textMode", "auto")
        if mode == "name":
            value = one.name
        elif mode == "value_and_name" or len(series) > 1:
            value = f"{one.name}  {value}"
        color = shown.color(panel, one.last, shown.override(panel, one.name, one.ref))
        axes.text(0.5, 1 - (at + 0.5) / len(series), value, ha="center", va="center", fontsize=size, color=color)
        if panel["type"] == "bargauge":
            axes.barh(0.1, min(one.last, 1), height=0.15, color=color)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
        if options.get("graphMode") == "area":
            behind = axes.inset_axes((0, 0, 1, 0.35))
            behind.axis("off")
            behind.fill_between([when for when, _ in one.points], [value for _, value in one.points], color=color, alpha=0.3)
            behind.set_ylim(0)


def table(axes, panel, series, _):
    """A row for each set of labels, with the columns that the transformations keep."""
    axes.axis("off")
    titles = panel["transformations"][-1]["options"]["renameByName"]
    several, rows = len(panel["targets"]) > 1, {}
    for one in series:
        row = rows.setdefault(tuple(sorted(one.labels.items())), dict(one.labels))
        row[f"Value #{one.ref}" if several else "Value"] = one.last
    rows = list(rows.values())
    for order in reversed(panel["options"].get("sortBy", [])):
        field = next(field for field, title in titles.items() if title == order["displayName"])
        rows.sort(key=lambda row: row.get(field, 0), reverse=order["desc"])
    line = 1 / ((panel["gridPos"]["h"] - 1) * INCH / 0.26)
    for column, (field, title) in enumerate(titles.items()):
        axes.text(column / len(titles), 1, title, fontsize=8, va="top", color="#6e9fff")
        given = shown.override(panel, title)
        for at, row in enumerate(rows[:int(1 / line) - 1]):
            value = row.get(field, "")
            unit = given.get("unit", "none")
            if unit == "dateTimeAsIso":
                value = time.strftime("%H:%M:%S", time.localtime(value / 1000))
            elif isinstance(value, float):
                value = shown.number(value, unit, given.get("decimals"))
            axes.text(column / len(titles), 1 - (at + 1) * line, value, fontsize=8, va="top", color=TEXT)
    if not rows:
        axes.text(0.5, 0.5, panel["fieldConfig"]["defaults"].get("noValue", "No data"), ha="center", color=DIM)
