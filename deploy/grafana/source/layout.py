"""A dashboard of rows of panels, with its variables."""

from source.queries import SOURCE


def variable(name, label, query, several=False):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 3 if several else 2,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if several else {}),
    }


SOURCE_VARIABLE = {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 2,
                   "current": {"text": "Prometheus", "value": "prometheus"}}
RUN_VARIABLE = variable("run", "Run", "label_values(finetune_run_info, run)")
RANK_VARIABLE = variable("rank", "Rank", "label_values(finetune_straggler_ratio, rank)", several=True)
PHASE_VARIABLE = variable("phase", "Phase", "label_values(finetune_phase_duration_seconds_count, phase)")


def lay_out(rows):
    """Places panels from left to right, then down. A row without a title has no heading; a
    collapsed one contains its panels."""
    y, number, out = 0, 0, []
    for line in rows:
        panels, line = line["panels"], {**line, "panels": []}
        if line["title"]:
            number += 1
            line.update(id=number, gridPos={"x": 0, "y": y, "w": 24, "h": 1})
            y += 1
            out.append(line)
        x, tallest = 0, 0
        for each in panels:
            size = each["gridPos"]
            if x + size["w"] > 24:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            placed = {**each, "id": number, "gridPos": {**size, "x": x, "y": y}}
            (line["panels"] if line["collapsed"] else out).append(placed)
            x, tallest = x + size["w"], max(tallest, size["h"])
        y += tallest
    return out


def dashboard(uid, title, rows, variables, annotations=()):
    link = {"type": "dashboards", "title": "finetune", "tags": ["finetune"], "asDropdown": False,
            "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "", "tooltip": "", "url": ""}
    return {
        "uid": uid,
        "title": title,
        "tags": ["finetune"],
        "timezone": "browser",
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [SOURCE_VARIABLE, *variables]},
        "annotations": {"list": list(annotations)},
        "links": [link],
        "panels": lay_out(rows),
    }
