"""The kinds of panels. A panel is a call with title, unit, description and queries; these
functions have the options that all panels of a kind share.

Colours are names of Grafana's palette, which has a shade of each for the dark and for the light
theme.
"""

from source.queries import SOURCE


def panel(kind, title, unit, about, queries, size, options, custom=None, **more):
    defaults = {"unit": unit, "custom": custom or {}}
    for key in ("min", "max", "decimals", "noValue", "thresholds", "color", "mappings"):
        if key in more:
            defaults[key] = more.pop(key)
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "gridPos": {"x": 0, "y": 0, "w": size[0], "h": size[1]},
        "targets": [q.target(chr(ord("A") + at)) for at, q in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        "options": options,
        **more,
    }


def graph(title, unit, about, *queries, width=12, height=8, legend=True, stack=False, steps=False, points=False,
          limit=None, **more):
    """Curves over time. The legend is one line below, with the last values; without one, pointing
    at the curves names them. `limit`: a dashed line at the value from which on something is wrong."""
    custom = {
        "drawStyle": "points" if points else "line",
        "lineInterpolation": "stepAfter" if steps else "linear",
        "lineWidth": 1 if stack else 2,
        "fillOpacity": 60 if stack else 0,
        "showPoints": "always" if points else "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    options = {
        "legend": {
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": legend,
            "calcs": ["lastNotNull"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        more |= {"thresholds": limits((None, "transparent"), (limit, "orange")), "color": {"mode": "palette-classic"}}
    return panel("timeseries", title, unit, about, queries, (width, height), options, custom, **more)


def number(title, unit, about, *queries, width=4, height=4, words=False, text=None, curve=False, **more):
    """The last value; with `words` the legend of the series that has one; with `curve` its course
    in the background; `text` is another of Grafana's text modes."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": text or ("name" if words else "auto"),
        "graphMode": "area" if curve else "none",
        "colorMode": "value",
        "justifyMode": "center",
        "orientation": "horizontal" if len(queries) > 1 else "auto",
    }
    more.setdefault("thresholds", limits((None, "blue")))
    return panel("stat", title, unit, about, queries, (width, height), options, color={"mode": "thresholds"}, **more)


def bar(title, about, *queries, width=4, **more):
    """A horizontal bar from 0 to 100 %."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
    }
    more.setdefault("thresholds", limits((None, "blue")))
    return panel("bargauge", title, "percentunit", about, queries, (width, 4), options,
                 color={"mode": "thresholds"}, min=0, max=1, **more)


def by_rank(title, unit, about, query, column, width=24, **more):
    """One stacked bar for each rank, with the values at the end of the time range."""
    options = {
        "xField": f"rank\\{column}",
        "orientation": "auto",
        "stacking": "normal",
        "showValue": "never",
        "barWidth": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    }
    matrix = {"rowField": "rank", "columnField": column, "valueField": "Value"}
    order = {"fields": {}, "sort": [{"field": f"rank\\{column}"}]}
    transformations = [
        {"id": "groupingToMatrix", "options": matrix},
        {"id": "sortBy", "options": order},
    ]
    custom = {"fillOpacity": 80, "lineWidth": 0}
    return panel("barchart", title, unit, about, [query], (width, 8), options, custom,
                 transformations=transformations, **more)


def table(title, about, queries, columns, width=24, height=8, sort=None, **more):
    """A row for each set of labels, with a column for each of `columns`: from a label, or from
    `Value #A` for the value of the first query (`Value` if it is the only one), to the title of
    the column. `sort` is the title that rows are sorted by, highest first."""
    options = {"showHeader": True, "cellHeight": "sm"}
    if sort:
        then = [{"displayName": "Rank", "desc": False}] if "rank" in columns else []
        options["sortBy"] = [{"displayName": sort, "desc": True}, *then]
    keep = {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}}
    rename = {"id": "organize", "options": {
        "excludeByName": {},
        "indexByName": {name: at for at, name in enumerate(columns)},
        "renameByName": columns,
    }}
    merge = [{"id": "merge", "options": {}}] if len(queries) > 1 else []
    return panel("table", title, "none", about, queries, (width, height), options,
                 {"align": "left", "filterable": False}, transformations=[*merge, keep, rename], **more)


def row(title, *panels, collapsed=False):
    return {"type": "row", "title": title, "collapsed": collapsed, "panels": list(panels)}


def named(name, **properties):
    """An override for the series, or the column, with this name."""
    values = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": values}


def fixed(color):
    return {"mode": "fixed", "fixedColor": color}


def limits(*steps):
    """Colours from a value on; the first is for all values below."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


DASHED = {"fill": "dash", "dash": [6, 6]}
COUNT = limits((None, "green"), (1, "orange"))
