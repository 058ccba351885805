"""Events that all curves show as vertical lines."""

from source.queries import events

RECOVERED = events(
    "Recoveries",
    "sum by (job, instance, cause) (increase(finetune_recovery_duration_seconds_count[30s])) > 0",
    "orange",
    "recovered: {{cause}}",
)
RESTARTED = events("Restarts", "changes(process_start_time_seconds[30s]) > 0", "red", "coordinator restarted")
BEST = events("Best epoch", "changes(finetune_best_epoch[30s]) > 0", "green", "new best epoch")
