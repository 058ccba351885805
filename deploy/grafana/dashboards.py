#!/usr/bin/env python3
"""Generates dashboards/*.json; with --check it compares them. It needs only Python.

Every query is limited to the run that is selected above the dashboard (`Q`), because runs may follow
each other at the same address. A panel is a call with title, unit and queries; the functions before
the dashboards have the options that panels of a kind share.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF_RUN = 'and on (job, instance) finetune_run_info{run="$run"}'
# The same for a run that has ended within the time range.
OF_RUN_EVER = 'and on (job, instance) last_over_time(finetune_run_info{run="$run"}[$__range])'


class Q:
    """A query for the selected run, and the legend of its series."""

    def __init__(self, expr, legend="", table=False, last=False):
        """`last`: an instant query at the end of the time range; so is `table`, with all labels."""
        bound = OF_RUN_EVER if table or last else OF_RUN
        self.expr = f"({expr}) {bound}"
        self.legend, self.table, self.instant = legend, table, table or last

    def target(self, ref):
        return {
            "refId": ref,
            "datasource": SOURCE,
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "range": not self.instant,
            "instant": self.instant,
            "format": "table" if self.table else "time_series",
            "editorMode": "code",
        }


def panel(kind, title, unit, queries, width, height, options, custom=None, **more):
    defaults = {"unit": unit, "custom": custom or {}}
    for key in ("min", "max", "decimals", "noValue", "thresholds", "color", "mappings"):
        if key in more:
            defaults[key] = more.pop(key)
    return {
        "type": kind,
        "title": title,
        "description": more.pop("about", ""),
        "datasource": SOURCE,
        "gridPos": {"x": 0, "y": 0, "w": width, "h": height},
        "targets": [q.target(chr(ord("A") + at)) for at, q in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        "options": options,
        **more,
    }


def graph(title, unit, *queries, width=12, height=8, stack=False, steps=False, points=False, fill=0, **more):
    """Curves over time. The legend is a table that scrolls, with the largest last value on top, so that
    64 ranks leave room for the curves."""
    custom = {
        "drawStyle": "points" if points else "line",
        "lineInterpolation": "stepAfter" if steps else "linear",
        "lineWidth": 1,
        "fillOpacity": 60 if stack else fill,
        "showPoints": "always" if points else "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    options = {
        "legend": {
            "displayMode": "table",
            "placement": "right",
            "showLegend": True,
            "calcs": ["lastNotNull"],
            "sortBy": "Last *",
            "sortDesc": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, unit, queries, width, height, options, custom, **more)


def number(title, unit, *queries, width=4, words=False, **more):
    """The last value, or with `words` the legend of the last series."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "name" if words else "auto",
        "graphMode": "none",
        "colorMode": "value",
        "justifyMode": "center",
        "orientation": "auto",
    }
    more.setdefault("color", {"mode": "fixed", "fixedColor": "text"})
    return panel("stat", title, unit, queries, width, 4, options, **more)


def bar(title, *queries, width=4, **more):
    """A horizontal bar from 0 to 100 %."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
    }
    more.setdefault("color", {"mode": "fixed", "fixedColor": "blue"})
    return panel("bargauge", title, "percentunit", queries, width, 4, options, min=0, max=1, **more)


def by_rank(title, unit, query, column, width=24, **more):
    """One stacked bar for each rank, with the current values."""
    options = {
        "xField": f"rank\\{column}",
        "orientation": "auto",
        "stacking": "normal",
        "showValue": "never",
        "barWidth": 0.9,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "none"},
    }
    matrix = {"rowField": "rank", "columnField": column, "valueField": "Value"}
    order = {"fields": {}, "sort": [{"field": f"rank\\{column}"}]}
    transformations = [
        {"id": "groupingToMatrix", "options": matrix},
        {"id": "sortBy", "options": order},
    ]
    custom = {"fillOpacity": 80, "lineWidth": 0}
    return panel(
        "barchart", title, unit, [query], width, 8, options, custom, transformations=transformations, **more
    )


def table(title, query, columns, width=24, **more):
    """The labels of each series as a row."""
    order = {name: at for at, name in enumerate(columns)}
    options = {"showHeader": True, "cellHeight": "sm"}
    keep = {"id": "filterFieldsByName", "options": {"include": {"names": columns}}}
    sort = {"id": "organize", "options": {"indexByName": order}}
    return panel(
        "table", title, "none", [query], width, 8, options, transformations=[keep, sort], **more
    )


def row(title, *panels, collapsed=False):
    return {"type": "row", "title": title, "collapsed": collapsed, "panels": list(panels)}


def named(name, **properties):
    """An override for the series with this name."""
    values = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": values}


def fixed(color):
    return {"mode": "fixed", "fixedColor": color}


def limits(*steps):
    """Colours from a value on; the first is for all values below."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


DASHED = {"fill": "dash", "dash": [6, 6]}
RANK = 'rank=~"$rank"'


def events(name, expr, color, text):
    """An annotation wherever the query is above zero."""
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": color,
        "expr": Q(expr).expr,
        "step": "10s",
        "titleFormat": text,
    }


RECOVERED = events(
    "Recoveries",
    "sum by (job, instance, cause) (increase(finetune_recovery_duration_seconds_count[30s])) > 0",
    "orange",
    "recovered: {{cause}}",
)
BEST = events("Best epoch", "changes(finetune_best_epoch[30s]) > 0", "green", "new best epoch")

RUN = (
    row(
        "Progress",
        number("State", "none", Q("last_over_time(finetune_run_state[$__range]) == 1", "{{state}}", last=True), words=True),
        number("Stop reason", "none", Q("last_over_time(finetune_stop_reason_info[$__range]) == 1", "{{reason}}", last=True),
               words=True, noValue="not stopped"),
        number("Epoch", "none", Q("finetune_epoch", "current"), Q("finetune_epochs_target", "maximum")),
        bar("Steps of this epoch", Q("finetune_epoch_steps / (finetune_epoch_steps_target > 0)", "done"), noValue="no epoch yet"),
        bar(
            "Patience used",
            Q("finetune_early_stop_wait_epochs / finetune_early_stop_patience_epochs", "epochs without improvement"),
            about="The run stops at 100 %.",
            color={"mode": "thresholds"},
            thresholds=limits((None, "blue"), (0.99, "orange")),
        ),
        number("Best epoch", "none", Q("finetune_best_epoch", "epoch"), Q("finetune_best_validation_loss", "loss")),
    ),
    row(
        "Quality",
        graph(
            "Loss",
            "none",
            Q("finetune_loss", "{{split}}"),
            Q("finetune_best_validation_loss", "best validation"),
            about="Cross entropy: the mean of the current epoch in training, the last epoch in validation.",
            decimals=3,
            overrides=[
                named("validation", custom__lineInterpolation="stepAfter"),
                named("best validation", custom__lineStyle=DASHED, color=fixed("green")),
            ],
        ),
        graph("Accuracy", "percentunit", Q("finetune_accuracy_ratio", "{{split}}"), steps=True, max=1, decimals=2),
        graph("Epochs", "none", Q("finetune_epoch", "current"), Q("finetune_best_epoch", "best"),
              Q("finetune_early_stop_wait_epochs", "since the best"), Q("finetune_early_stop_patience_epochs", "patience"), steps=True, min=0),
        graph("Learning rate of each parameter group", "sci", Q("finetune_learning_rate", "{{group}}"), steps=True),
    ),
    row(
        "Throughput and checkpoints",
        graph("Images per second", "suffix: images/s", Q("finetune_images_per_second", "this epoch"),
              Q("rate(finetune_samples_total[1m])", "last minute, {{split}}"), min=0),
        graph("Steps per second", "suffix: steps/s", Q("rate(finetune_steps_total[1m])", "all ranks together"), min=0),
        graph("Age of the last step and of the last checkpoint", "s",
              Q("time() - (finetune_last_step_timestamp_seconds > 0)", "step"),
              Q("time() - (finetune_checkpoint_last_success_timestamp_seconds > 0)", "checkpoint"), min=0),
        graph("Steps since the last checkpoint", "suffix: steps", Q("finetune_checkpoint_lag_steps", "steps to repeat"),
              Q("finetune_epoch_steps_target", "one epoch"), min=0,
              overrides=[named("one epoch", custom__lineStyle=DASHED)]),
        number("Checkpoint size", "bytes", Q("finetune_checkpoint_bytes", "bytes"), width=6),
        number("Images skipped", "none", Q("finetune_decode_errors_total", "unreadable"), width=6,
               color={"mode": "thresholds"}, thresholds=limits((None, "text"), (1, "orange"))),
        number("Run", "none", Q("finetune_run_info", "{{model}} on {{dataset}}"), width=6, words=True),
        number("Coordinator", "none", Q("finetune_build_info", "{{version}}"), width=6, words=True),
    ),
)

FLEET = (
    row(
        "Workers",
        graph("Workers by state", "none", Q("finetune_workers", "{{state}}"), steps=True, min=0, decimals=0,
              overrides=[named("expected", custom__lineStyle=DASHED, color=fixed("text")),
                         named("lost", color=fixed("red")), named("healthy", color=fixed("green")),
                         named("joined", color=fixed("blue"))]),
        graph("Age of the last heartbeat by rank", "s",
              Q(f"time() - finetune_worker_last_heartbeat_timestamp_seconds{{{RANK}}}", "rank {{rank}}"), min=0,
              about="A worker sends a heartbeat every second, in every phase."),
        number("Generation", "none", Q("finetune_generation", "generation"), width=6),
        number("Workers lost", "none", Q("finetune_workers_lost_total", "since the start"), width=6,
               color={"mode": "thresholds"}, thresholds=limits((None, "text"), (1, "orange"))),
        number("Recoveries", "none",
               Q("sum by (job, instance) (finetune_recovery_duration_seconds_count)", "since the start"), width=6),
        number("Mean recovery time", "s", Q(
            "sum by (job, instance) (finetune_recovery_duration_seconds_sum) "
            "/ (sum by (job, instance) (finetune_recovery_duration_seconds_count) > 0)", "mean"),
            width=6, noValue="none yet"),
        table("Ranks", Q("last_over_time(finetune_worker_info[$__range])", table=True),
              ["rank", "host", "device", "gpu_uuid"]),
    ),
    row(
        "Time by phase",
        graph("Share of a step by phase, all ranks", "percentunit",
              Q("instance:finetune_phase:ratio_rate5m", "{{phase}}"), stack=True, min=0, max=1,
              about="The remainder is work between the phases."),
        graph("Straggler ratio by rank", "none",
              Q(f"finetune_straggler_ratio{{{RANK}}}", "rank {{rank}}"), decimals=2,
              about="The busy time of a step, divided by the median over all ranks. Above 1.2 the other ranks wait noticeably."),
        by_rank("Share of a step by rank and phase, current", "percentunit",
                Q(f"rank:finetune_phase:ratio_rate5m{{{RANK}}}", table=True), "phase"),
        graph("Mean time of a step by rank", "s",
              Q(f"rate(finetune_step_duration_seconds_sum{{{RANK}}}[1m]) / rate(finetune_step_duration_seconds_count{{{RANK}}}[1m])",
                "rank {{rank}}"), min=0),
        graph("Time of a step, all ranks", "s",
              *(Q("histogram_quantile(%s, sum by (job, instance, le) (rate(finetune_step_duration_seconds_bucket[5m])))"
                  % q, f"{name}") for q, name in ((0.5, "median"), (0.99, "99th percentile"))), min=0),
        graph("Mean time of a phase by rank", "s",
              Q(f'rate(finetune_phase_duration_seconds_sum{{{RANK}, phase="$phase"}}[1m]) '
                f'/ rate(finetune_phase_duration_seconds_count{{{RANK}, phase="$phase"}}[1m])', "rank {{rank}}"),
              width=24, min=0, about="Select the phase above. Validation is once in an epoch."),
    ),
    row(
        "GPUs (with the DCGM exporter)",
        *(graph(title, unit, Q(
            f'finetune_worker_info{{{RANK}, gpu_uuid!=""}} * on (gpu_uuid) group_left () '
            f'max by (gpu_uuid) (label_replace({metric}, "gpu_uuid", "$1", "UUID", "(.+)"))',
            "rank {{rank}}"), min=0, **more)
          for title, unit, metric, more in (
              ("Utilisation", "percent", "DCGM_FI_DEV_GPU_UTIL", {"max": 100}),
              ("Memory used", "decmbytes", "DCGM_FI_DEV_FB_USED", {}),
              ("Temperature", "celsius", "DCGM_FI_DEV_GPU_TEMP", {}),
              ("Power", "watt", "DCGM_FI_DEV_POWER_USAGE", {}))),
        graph("Last XID error", "none", Q(f"rank:dcgm_xid:last{{{RANK}}}", "rank {{rank}}"), width=24, steps=True, min=0),
        collapsed=True,
    ),
)

COORDINATOR = (
    row(
        "gRPC calls",
        graph("Calls by method and code", "reqps",
              Q("rate(grpc_server_handled_total[1m])", "{{grpc_method}} {{grpc_code}}"), min=0,
              about="A worker has one session; its messages are counted below."),
        graph("Mean duration of a call", "s", Q(
            "rate(grpc_server_handling_seconds_sum[5m]) / "
            "(rate(grpc_server_handling_seconds_count[5m]) > 0)", "{{grpc_method}}"), points=True, min=0),
    ),
    row(
        "Driver",
        graph("Queue lengths", "none", Q("finetune_driver_queue_length", "messages"),
              Q("finetune_recorder_queue_length", "records to write"), min=0, width=8),
        graph("Messages processed", "suffix: /s", Q("rate(finetune_driver_events_total[1m])", "messages"), min=0, width=8),
        graph("Utilisation of the driver", "percentunit", Q("rate(finetune_driver_busy_seconds_total[1m])", "busy"),
              min=0, width=8, about="The driver is one task. At 100 % it is the bottleneck of the run."),
    ),
    row(
        "Data for workers",
        graph("Images sent", "Bps",
              Q("rate(finetune_data_sent_bytes_total[1m])", "sent"),
              Q("finetune_data_bandwidth_limit_bytes_per_second", "limit"), min=0, width=24,
              about="To workers with --data coordinator. The limit is --data-bandwidth."),
    ),
    row(
        "Process",
        graph("Memory", "bytes", Q('process_resident_memory_bytes{job="finetune"}', "resident"), min=0, width=8),
        graph("CPU cores", "none", Q('rate(process_cpu_seconds_total{job="finetune"}[1m])', "in use"), min=0, decimals=2, width=8),
        graph("Open files", "none", Q('process_open_fds{job="finetune"}', "open"), min=0, width=8),
        graph("Duration of a scrape", "s", Q('scrape_duration_seconds{job="finetune"}', "scrape"), min=0),
        graph("Series in a scrape", "none", Q('scrape_samples_scraped{job="finetune"}', "series"), min=0),
    ),
)


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
    """Places panels from left to right, then down. A collapsed row contains its panels."""
    y, number, out = 0, 0, []
    for line in rows:
        panels, line = line["panels"], {**line, "panels": []}
        number += 1
        line.update(id=number, gridPos={"x": 0, "y": y, "w": 24, "h": 1})
        y, x, tallest = y + 1, 0, 0
        out.append(line)
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


DASHBOARDS = {
    "run": dashboard("finetune-run", "Run", RUN, [RUN_VARIABLE], [BEST, RECOVERED]),
    "fleet": dashboard("finetune-fleet", "Fleet", FLEET, [RUN_VARIABLE, RANK_VARIABLE, PHASE_VARIABLE], [RECOVERED]),
    "coordinator": dashboard("finetune-coordinator", "Coordinator", COORDINATOR, [RUN_VARIABLE], [RECOVERED]),
}


def main():
    check, stale = sys.argv[1:] == ["--check"], []
    for name, content in DASHBOARDS.items():
        path, text = FOLDER / f"{name}.json", json.dumps(content, indent=2) + "\n"
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run dashboards.py and commit the files")


if __name__ == "__main__":
    main()
