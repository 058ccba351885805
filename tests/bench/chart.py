"""The chart in the README: time to the first step, time of the whole job and training speed."""

import statistics

from commands import NAMES
from table import ROWS, values

COLOURS = {"notebook": "#9aa5b1", "tuned": "#52606d", "compiled": "#323f4b", "ours": "#d9480f"}


def draw(result, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    shown = [row for row in ROWS if row[0].startswith(("exec", "whole", "training"))]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(9, 2.6), layout="constrained")
    for axis, row in zip(axes, shown):
        for group, (workers, measured) in enumerate(result["runs"].items()):
            for place, (variant, runs) in enumerate(measured.items()):
                numbers = values(runs, row, result["images"])
                middle = statistics.median(numbers)
                at = group * (len(measured) + 0.7) + place
                axis.bar(at, middle, 0.9, color=COLOURS[variant], label=NAMES[variant] if group == 0 else None,
                         yerr=[[middle - min(numbers)], [max(numbers) - middle]], ecolor="#7b8794")
                axis.annotate(f"{middle:.3g}", (at, max(numbers)), ha="center", va="bottom", fontsize=7)
        count = len(next(iter(result["runs"].values())))
        axis.set_xticks([group * (count + 0.7) + (count - 1) / 2 for group in range(len(result["runs"]))],
                        [f"{each} worker{'s' if each != '1' else ''}" for each in result["runs"]], fontsize=8)
        axis.set_title(row[0], fontsize=9)
        axis.margins(y=0.15)
        axis.tick_params(axis="y", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
