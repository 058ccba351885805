"""The dashboard Fleet: which worker is lost, slow or silent."""

from source.panels import COUNT, DASHED, by_rank, fixed, graph, limits, named, number, row, table
from source.queries import RANK, Q, counted, most

RECOVERIES = "finetune_recovery_duration_seconds_count"
RECOVERING = "finetune_recovery_duration_seconds_sum"
AGE = f"time() - finetune_worker_last_heartbeat_timestamp_seconds{{{RANK}}}"
STEP_TIME = ("rate(finetune_step_duration_seconds_sum{%s}[1m]) "
             "/ (rate(finetune_step_duration_seconds_count{%s}[1m]) > 0)" % (RANK, RANK))
PHASE = f'{RANK}, phase="$phase"'
PHASE_TIME = ("rate(finetune_phase_duration_seconds_sum{%s}[1m]) "
              "/ (rate(finetune_phase_duration_seconds_count{%s}[1m]) > 0)" % (PHASE, PHASE))
HELD = ("rank", "host", "device", "gpu_uuid")


def with_holder(expr):
    """A value of each rank, with the labels of its holder."""
    on = "on (job, instance, rank)"
    return f"({expr}) * {on} group_left (host, device, gpu_uuid) finetune_worker_info"


NOW = row(
    None,
    number("Workers missing", "none",
           "Workers that were lost and not replaced. The run goes on with fewer, or waits for --min-workers. A new "
           "worker that is started with the same command joins by itself.",
           Q('finetune_workers{state="lost"}', "missing"), thresholds=limits((None, "green"), (1, "red"))),
    number("Workers lost", "none",
           "Losses within the time range, also those before a restart of the coordinator. The run recovers from each "
           "by itself; events.jsonl in the run directory has the causes.",
           Q(counted("finetune_workers_lost_total"), "lost", last=True, whole=True), thresholds=COUNT),
    number("Recoveries", "none",
           "Within the time range. A recovery leads from the loss of a worker, or a break of the group, to a group that "
           "trains again.",
           Q(counted(RECOVERIES), "recoveries", last=True, whole=True), thresholds=COUNT),
    number("Mean recovery time", "s",
           "Of the recoveries within the time range.",
           Q(f'{counted(RECOVERING)} / ({counted(RECOVERIES)} > 0)', "mean", last=True, whole=True),
           decimals=1, noValue="no recovery", thresholds=limits((None, "green"), (60, "orange"))),
    number("Slowest rank", "none",
           "Its working time of a step, divided by the median of all ranks. Above 1.2 the others wait noticeably in each "
           "step: look at its machine, or kill the worker so that another takes its place.",
           Q("topk by (job, instance) (1, finetune_straggler_ratio)", "rank {{rank}}", now=True), decimals=2,
           noValue="no ranks now", text="value_and_name", thresholds=limits((None, "green"), (1.2, "orange"), (2, "red"))),
    number("Oldest heartbeat", "s",
           "A worker sends one each second, in every phase. A worker that stays silent is replaced.",
           Q("topk by (job, instance) (1, time() - finetune_worker_last_heartbeat_timestamp_seconds >= 0)",
             "rank {{rank}}", now=True), decimals=1,
           noValue="no ranks now", text="value_and_name", thresholds=limits((None, "green"), (4, "orange"), (8, "red"))),
)

WORKERS = row(
    "Workers",
    table("Ranks now",
          "Who holds each rank, the slowest first: which machine to look at. Relative time: working time of a step, "
          "divided by the median of all ranks; above 1.2 the others wait. Step: mean of the last minute, with waiting.",
          [Q(with_holder(f"finetune_straggler_ratio{{{RANK}}}"), now=True, table=True),
           Q(with_holder(STEP_TIME), now=True, table=True),
           Q(with_holder(AGE), now=True, table=True)],
          {"rank": "Rank", "host": "Host", "device": "Device", "gpu_uuid": "GPU", "Value #A": "Relative time",
           "Value #B": "Step", "Value #C": "Last heartbeat"},
          width=14, height=10, sort="Relative time", noValue="-",
          overrides=[named("Relative time", unit="suffix: ×", decimals=2,
                           thresholds=limits((None, "transparent"), (1.2, "orange")),
                           custom__cellOptions={"type": "color-background", "mode": "basic"}),
                     named("Step", unit="s", decimals=3), named("Last heartbeat", unit="s", decimals=1)]),
    graph("Workers by state", "none",
          "Expected: how many the run is meant to have. Joined: connected. Healthy: part of the group that trains. "
          "Lost: not replaced.",
          *(Q(f'finetune_workers{{state="{state}"}}', state) for state in ("healthy", "joined", "expected", "lost")), width=10, height=10, steps=True, min=0, decimals=0,
          overrides=[named("expected", custom__lineStyle=DASHED, color=fixed("orange")),
                     # Usually these are equal: a thin line is visible on a thick one.
                     named("joined", custom__lineWidth=3, color=fixed("blue")),
                     named("healthy", custom__lineWidth=7, color=fixed("green")), named("lost", color=fixed("red"))]),
    table("Recoveries by cause",
          "Within the time range, also those before a restart of the coordinator.",
          [Q(f'{counted(RECOVERIES, "cause")} > 0', table=True, whole=True),
           Q(f'{counted(RECOVERING, "cause")} / ({counted(RECOVERIES, "cause")} > 0)',
             table=True, whole=True)],
          {"cause": "Cause", "Value #A": "Recoveries", "Value #B": "Mean time"},
          width=10, height=5, sort="Recoveries", noValue="no recovery",
          overrides=[named("Mean time", unit="s", decimals=1)]),
    table("Earlier holders of ranks",
          "Who held a rank earlier in the time range and does not now; the last first. After the end of a run these are "
          "its last holders.",
          [Q("max by (job, instance, rank, host, device, gpu_uuid) "
             "(max_over_time(timestamp(finetune_worker_info)[$__range:5s])) * 1000 "
             "unless on (job, instance, rank, host, device, gpu_uuid) finetune_worker_info", table=True)],
          {"Value": "Until", "rank": "Rank", "host": "Host", "device": "Device", "gpu_uuid": "GPU"},
          width=14, height=5, sort="Until", noValue="none",
          overrides=[named("Until", unit="dateTimeAsIso")]),
)

TIME = row(
    "Where the time goes",
    graph("Share of a step by phase, all ranks", "percentunit",
          "data_wait: waiting for the next batch (more CPU threads help). forward_backward: the computation. "
          "allreduce_wait: waiting for the other ranks and for the network. optimizer: the update of the weights. The "
          "remainder is work between the phases.",
          Q("instance:finetune_phase:ratio_rate5m", "{{phase}}"), stack=True, min=0, max=1, decimals=0),
    graph("Five slowest ranks", "none",
          "The ranks with the highest mean in the time range. Working time of a step, divided by the median of all ranks: "
          "above 1.2 the others wait noticeably in each step.",
          Q(most(5, f"finetune_straggler_ratio{{{RANK}}}"), "rank {{rank}}"), decimals=2, limit=1.2),
    by_rank("Share of a step by rank and phase", "percentunit",
            "At the end of the time range. A slow rank has the longest forward_backward or data_wait, and the least "
            "allreduce_wait: the others wait for it.",
            Q(f"rank:finetune_phase:ratio_rate5m{{{RANK}}}", table=True), "phase", max=1),
    graph("Time of a step, all ranks", "s",
          "Half of the steps take less than the median; one of a hundred takes more than the 99th percentile.",
          *(Q("histogram_quantile(%s, sum by (job, instance, le) (rate(finetune_step_duration_seconds_bucket[5m])))"
              % q, name) for q, name in ((0.5, "median"), (0.99, "99th percentile"))), min=0),
    graph("Phase $phase: the five slowest ranks", "s",
          "Mean time of the phase that is selected above. Validation is once in an epoch.",
          Q(most(5, PHASE_TIME), "rank {{rank}}"), min=0),
    graph("Age of the last heartbeat", "s",
          "A worker sends a heartbeat each second, in every phase.",
          Q(f"max by (job, instance) ({AGE})", "oldest"), Q(f"quantile by (job, instance) (0.5, {AGE})", "median"), min=0),
    graph("Generation", "none",
          "The number of the agreed group. It rises by one whenever workers leave or join.",
          Q("finetune_generation", "generation"), steps=True, min=0, decimals=0),
)

GPUS = row(
    "GPUs (with the DCGM exporter)",
    *(graph(title, unit, f"{about} One curve for each rank; point at it for the rank.", Q(
        f'finetune_worker_info{{{RANK}, gpu_uuid!=""}} * on (gpu_uuid) group_left () '
        f'max by (gpu_uuid) (label_replace({metric}, "gpu_uuid", "$1", "UUID", "(.+)"))',
        "rank {{rank}}"), legend=False, min=0, **more)
      for title, unit, about, metric, more in (
          ("Utilisation", "percent", "Part of the time in which the GPU computes.", "DCGM_FI_DEV_GPU_UTIL", {"max": 100}),
          ("Memory used", "decmbytes", "Memory in use.", "DCGM_FI_DEV_FB_USED", {}),
          ("Temperature", "celsius", "A GPU that is too hot lowers its clock.", "DCGM_FI_DEV_GPU_TEMP", {}),
          ("Power", "watt", "Power draw.", "DCGM_FI_DEV_POWER_USAGE", {}))),
    graph("Last XID error", "none",
          "The code of the driver's last error; 0: none. 48, 63, 64, 74, 79, 94 and 95 are faults of the hardware. "
          "Point at a curve for the rank.",
          Q(f"rank:dcgm_xid:last{{{RANK}}}", "rank {{rank}}"), width=24, legend=False, steps=True, min=0),
    collapsed=True,
)

ROWS = (NOW, WORKERS, TIME, GPUS)
