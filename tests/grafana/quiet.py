"""Queries that may have no data, and why: `panel` for all queries of a panel or an annotation,
`panel: legend` for one of them."""

GPU = {title: "needs a GPU and the DCGM exporter" for title in (
    "Utilisation", "Memory used", "Temperature", "Power", "Last XID error")}
LOSS = {
    "Recoveries by cause": "no worker was lost",
    "Mean recovery time": "no worker was lost",
    "Recoveries: recovered: {{cause}}": "no worker was lost",
}
NOW = {
    "Ranks now": "the run is over",
    "Slowest rank": "the run is over",
    "Oldest heartbeat": "the run is over",
    "Since the last step": "the state is not training",
}
EVENTS = {
    "State: coordinator down": "the coordinator answers, or its run is over",
    "State: {{state}}": "the coordinator is down",
    "Alerts": "no alert is firing",
    "Stop reason": "the run has not stopped",
    "Learning rate: all groups": "the groups differ",
    "Learning rate: {{group}}": "all groups have the same rate",
    "Earlier holders of ranks": "no rank has changed hands",
    "Failed calls": "no call has failed",
    "Calls per second": "there was no call in the last minute",
    "Mean time of a call": "there was no call in the last 5 minutes",
    "Restarts: coordinator restarted": "the coordinator was not restarted",
    "Best epoch: new best epoch": "no epoch has ended",
}
# A simulated worker uploads no weights.
SIMULATED = {
    "Checkpoint size": "there is no checkpoint yet",
    "Age of the last step and of the last checkpoint: checkpoint": "there is no checkpoint yet",
}


def allowed(title, legend, *reasons):
    """Why this query may have no data; nothing if it must have some."""
    for reason in reasons:
        if why := reason.get(title) or reason.get(f"{title}: {legend}"):
            return why
    return None
