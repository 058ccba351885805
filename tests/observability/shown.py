"""What a panel shows of its series: names, numbers with units, and colours."""

import math
import re

# Close to Grafana's dark theme.
COLORS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2", "purple": "#b877d9",
          "yellow": "#fade2a", "transparent": "none"}
PALETTE = ["green", "yellow", "blue", "orange", "red", "purple"]


def name(legend, labels):
    """The legend of a series, as Grafana makes it from a template."""
    if legend == "__auto":
        return ",".join(f"{key}={value}" for key, value in labels.items())
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend)


def override(panel, series, ref=None):
    """The properties that the overrides of a panel set for a series, or for all of a query."""
    found = {}
    for each in panel["fieldConfig"]["overrides"]:
        matcher = each["matcher"]
        if matcher["options"] == (series if matcher["id"] == "byName" else ref):
            found |= {one["id"]: one["value"] for one in each["properties"]}
    return found


def color(panel, value, properties):
    """The colour of a number: a fixed one, else that of its threshold."""
    if fixed := properties.get("color"):
        return COLORS[fixed["fixedColor"]]
    steps = properties.get("thresholds", panel["fieldConfig"]["defaults"].get("thresholds", {})).get("steps", [])
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLORS[reached[-1]] if reached else "#d8d9da"


def number(value, unit, decimals=None):
    """A value with its unit."""
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{100 * value:.{decimals or 0}f} %"
    if unit == "sci":
        return f"{value:.2e}"
    if unit in ("bytes", "Bps"):
        power = min(int(math.log(value, 1024)), 4) if value >= 1 else 0
        return f"{value / 1024 ** power:.3g} {['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}{'/s' if unit == 'Bps' else ''}"
    text = f"{value:.{decimals}f}" if decimals is not None else f"{value:.4g}"
    if unit == "s":
        return f"{text} s" if value < 60 else f"{value / 60:.1f} min"
    return text + unit.removeprefix("suffix:") if unit.startswith("suffix:") else text
