"""The dashboard Coordinator: does one process keep up with all workers."""

from source.panels import COUNT, DASHED, fixed, graph, limits, named, number, row
from source.queries import Q, counted

OWN = '{job="finetune"}'
FAILED = 'grpc_server_handled_total{grpc_code!="OK"}'
BUSY = "rate(finetune_driver_busy_seconds_total[1m])"

NOW = row(
    None,
    number("Busy", "percentunit",
           "Part of the last minute in which the driver worked: the one task that takes the messages of all workers. "
           "Near 100 % it is the bottleneck of the run.",
           Q(BUSY, "busy"), width=6, decimals=1, curve=True,
           thresholds=limits((None, "green"), (0.5, "orange"), (0.9, "red"))),
    number("Messages waiting", "none",
           "Messages of workers that the driver has not taken. It is 0 nearly always; 100 for minutes means that the "
           "coordinator is too slow.",
           Q("finetune_driver_queue_length", "messages"), width=6, curve=True,
           thresholds=limits((None, "green"), (20, "orange"), (100, "red"))),
    number("Records waiting", "none",
           "Records that are not on the disk yet. More than 50 for minutes means that the disk is too slow; at 16384 the "
           "run ends.",
           Q("finetune_recorder_queue_length", "records"), width=6, curve=True,
           thresholds=limits((None, "green"), (20, "orange"), (50, "red"))),
    number("Failed calls", "none",
           "gRPC calls within the time range that were answered with an error.",
           Q(counted(FAILED), "calls", last=True, whole=True), width=6, noValue="0",
           thresholds=COUNT),
)

DRIVER = row(
    "Messages of workers",
    graph("Messages per second", "none",
          "Messages that the driver took: a heartbeat of each worker a second, and a report of each step.",
          Q("rate(finetune_driver_events_total[1m])", "messages"), min=0, decimals=1),
    graph("Queues", "none",
          "Messages that wait for the driver, and records that wait for the disk.",
          Q("finetune_driver_queue_length", "messages"), Q("finetune_recorder_queue_length", "records"), min=0),
)

CALLS = row(
    "gRPC",
    graph("Calls per second", "none",
          "By method and status code. A worker has one Session for all of its messages; it uploads and downloads "
          "weights, and images if it has none itself.",
          Q("rate(grpc_server_handled_total[1m]) > 0", "{{grpc_method}} {{grpc_code}}"), min=0, points=True),
    graph("Mean time of a call", "s",
          "Until the response begins. Of an Upload it is all of the upload, of a Session only the registration.",
          Q("rate(grpc_server_handling_seconds_sum[5m]) / (rate(grpc_server_handling_seconds_count[5m]) > 0)",
            "{{grpc_method}}"), points=True, min=0),
    graph("Images sent", "Bps",
          "To workers with --data coordinator; the dashed line is --data-bandwidth.",
          Q("rate(finetune_data_sent_bytes_total[1m])", "sent"),
          Q("finetune_data_bandwidth_limit_bytes_per_second", "limit"), min=0, width=24, height=6,
          overrides=[named("limit", custom__lineStyle=DASHED, color=fixed("green"))]),
)

PROCESS = row(
    "Process",
    graph("Memory", "bytes", "Resident memory of the coordinator.",
          Q(f"process_resident_memory_bytes{OWN}", "resident"), min=0, width=8),
    graph("CPU cores", "none", "Processor time per second, of all threads.",
          Q(f"rate(process_cpu_seconds_total{OWN}[1m])", "in use"), min=0, decimals=2, width=8),
    graph("Open files", "none", "Files and connections; each worker has one connection.",
          Q(f"process_open_fds{OWN}", "open"), min=0, width=8),
    graph("Time of a scrape", "s", "How long Prometheus waits for /metrics.",
          Q(f"scrape_duration_seconds{OWN}", "scrape"), min=0),
    graph("Series in a scrape", "none", "Grows with the number of ranks.",
          Q(f"scrape_samples_scraped{OWN}", "series"), min=0),
)

ROWS = (NOW, DRIVER, CALLS, PROCESS)
