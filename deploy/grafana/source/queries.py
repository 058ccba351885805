"""The queries of panels and annotations.

Runs may follow each other at the same address, so every query is limited to the run that is
selected above the dashboard.
"""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF = "and on (job, instance)"
INFO = 'finetune_run_info{run="$run"}'
RANK = 'rank=~"$rank"'


class Q:
    """A query for the selected run, and the legend of its series.

    At each time of the range, or once at its end: `now` only if the coordinator still answers
    then, `last` also for a run that has ended within the range; `table` is `last` with all labels.
    `whole`: the expression selects the run itself.
    """

    def __init__(self, expr, legend="", now=False, last=False, table=False, whole=False):
        run = f"last_over_time({INFO}[$__range])" if last or table else INFO
        self.expr = expr if whole else f"({expr}) {OF} {run}"
        self.legend, self.table, self.instant = legend, table, now or last or table

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


def counted(counter, *by):
    """How far a counter rose within the time range, over all coordinators of the run.

    `increase` is wrong where a series begins at 1, as that of a coordinator does that loses a
    worker before its first scrape: it takes the 1 as given. After a restart it takes a 1 that
    follows a 1 for the same process. Here each process has its own series, by its start time. It
    counts from its value at the beginning of the range, or from 0 if there was none.
    """

    def by_process(at=""):
        start = f'count_values by (job, instance) ("start", process_start_time_seconds{at})'
        return f"{counter}{at} * on (job, instance) group_left (start) {start} {OF} {INFO}{at}"

    highest = f"max_over_time(({by_process()})[$__range:5s])"
    return f"sum by ({', '.join(by)}) ({highest} - ({by_process(' offset $__range')}) or {highest})"


def most(count, expr):
    """The `count` series of an expression that are highest on average over the time range."""
    mean = f"avg_over_time((({expr}) >= 0)[$__range:15s] @ end())"
    return f"({expr}) and topk({count}, {mean} {OF} last_over_time({INFO}[$__range] @ end()))"
