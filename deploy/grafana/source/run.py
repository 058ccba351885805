"""The dashboard Run: does it train, how fast, and how well."""

from source.panels import COUNT, DASHED, bar, fixed, graph, limits, named, number, row
from source.queries import Q

# The last state that was scraped is not a final one, and the coordinator does not answer.
DOWN = ('sum by (job, instance) (last_over_time(finetune_run_state{state!~"finished|failed"}[$__range])) == 1 '
        "unless on (job, instance) up == 1")
FIRING = 'ALERTS{alertname=~"Finetune.+", alertstate="firing", severity="%s"}'


def of_query(ref, **properties):
    """An override for all series of a query."""
    values = [{"id": key, "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byFrameRefID", "options": ref}, "properties": values}


NOW = row(
    None,
    number(
        "State", "none",
        "What the run does now; for a run that is over, how it ended. Waiting: workers are missing. Preparing: "
        "they decode the images. Training and validating alternate. Coordinator down: it does not answer, and "
        "its run was not over; start it again with --resume.",
        Q(f"last_over_time(finetune_run_state[$__range]) == 1 unless on (job, instance) ({DOWN})", "{{state}}", last=True),
        Q(DOWN, "coordinator down", last=True),
        width=6, height=5, words=True, noValue="no such run in this time range",
        overrides=[named("training", color=fixed("green")), named("validating", color=fixed("green")),
                   named("waiting", color=fixed("orange")), named("failed", color=fixed("red")),
                   named("coordinator down", color=fixed("red"))],
    ),
    number(
        "Alerts", "none",
        "The alerts that are firing. Red: the run needs help to go on. Orange: it goes on, but slowly or at risk. "
        "Blue: for information. Each alert has a runbook line; Prometheus shows it under Alerts.",
        *(Q(FIRING % severity, "{{alertname}}", last=True) for severity in ("critical", "warning", "info")),
        width=6, height=5, words=True, noValue="none", thresholds=limits((None, "green")),
        overrides=[of_query("A", color=fixed("red")), of_query("B", color=fixed("orange")),
                   of_query("C", color=fixed("blue"))],
    ),
    number(
        "Images per second", "none",
        "Training images of all workers together, mean of the last minute. It falls during each validation.",
        Q('rate(finetune_samples_total{split="train"}[1m])', "images per second"),
        width=6, height=5, decimals=1, curve=True,
    ),
    number(
        "Since the last step", "s",
        "While the state is training. All workers wait for each other in each step, so one that hangs stops them all: "
        "the coordinator replaces it after --stall-timeout (60 s).",
        Q('time() - finetune_last_step_timestamp_seconds and on (job, instance) finetune_run_state{state="training"} == 1',
          "step", now=True),
        width=6, height=5, decimals=1, noValue="not training",
        thresholds=limits((None, "green"), (30, "orange"), (90, "red")),
    ),
    number(
        "Epoch", "none",
        "The epoch under way, and the most that the run may take (--epochs).",
        Q("finetune_epoch", "now"), Q("finetune_epochs_target", "at most"),
    ),
    bar(
        "This epoch",
        "The part of the epoch's training steps that is done. A validation follows.",
        Q("finetune_epoch_steps / (finetune_epoch_steps_target > 0)", "done"), noValue="no epoch yet",
    ),
    number(
        "Validation accuracy", "percentunit",
        "The part of the validation images that the model classified correctly after the last epoch.",
        Q('finetune_accuracy_ratio{split="validation"}', "last epoch"), decimals=1,
    ),
    number(
        "Best epoch", "none",
        "The epoch with the lowest validation loss, whose weights the run keeps, and that loss.",
        Q("finetune_best_epoch > 0", "epoch"), Q("finetune_best_validation_loss", "loss"), noValue="none yet",
    ),
    bar(
        "Patience used",
        "Epochs without improvement, of --patience. At 100 % the run stops early, which is not an error.",
        Q("finetune_early_stop_wait_epochs / finetune_early_stop_patience_epochs", "epochs without improvement"),
        thresholds=limits((None, "blue"), (0.99, "orange")),
    ),
    number(
        "Workers missing", "none",
        "Workers that were lost and not replaced. The run goes on with fewer, or waits for --min-workers. A new worker "
        "that is started with the same command joins by itself.",
        Q('finetune_workers{state="lost"}', "missing"), thresholds=limits((None, "green"), (1, "red")),
    ),
)

QUALITY = row(
    "Quality",
    graph(
        "Loss", "none",
        "Cross entropy; lower is better. Training: mean of the current epoch. Validation: of the last epoch. When "
        "validation rises while training falls, the model learns the training images by heart.",
        Q("finetune_loss", "{{split}}"), Q("finetune_best_validation_loss", "best validation"),
        height=9, decimals=3,
        overrides=[named("train", color=fixed("blue")),
                   named("validation", custom__lineInterpolation="stepAfter", color=fixed("orange")),
                   named("best validation", custom__lineStyle=DASHED, color=fixed("green"))],
    ),
    graph(
        "Validation accuracy", "percentunit",
        "The part of the validation images that the model classifies correctly, after each epoch.",
        Q("finetune_accuracy_ratio", "{{split}}"), height=9, steps=True, min=0, max=1, decimals=1,
        overrides=[named("validation", color=fixed("orange"))],
    ),
)

SPEED = row(
    "Speed and checkpoints",
    graph(
        "Images per second", "none",
        "Images of all workers together, mean of the last minute. Training and validation alternate.",
        Q("rate(finetune_samples_total[1m])", "{{split}}"), min=0, decimals=1,
        overrides=[named("train", color=fixed("blue")), named("validation", color=fixed("orange"))],
    ),
    graph(
        "Age of the last step and of the last checkpoint", "s",
        "A step that grows old without a validation means that the run hangs. A crash of everything repeats the work "
        "since the last checkpoint.",
        Q("time() - (finetune_last_step_timestamp_seconds > 0)", "step"),
        Q("time() - (finetune_checkpoint_last_success_timestamp_seconds > 0)", "checkpoint"), min=0,
    ),
    graph(
        "Steps that a crash would repeat", "none",
        "Training steps since the last checkpoint. By default there is one checkpoint an epoch, so the curve stays "
        "below the dashed line.",
        Q("finetune_checkpoint_lag_steps", "since the checkpoint"), Q("finetune_epoch_steps_target", "one epoch"), min=0,
        overrides=[named("one epoch", custom__lineStyle=DASHED, color=fixed("green"))],
    ),
    graph(
        "Learning rate", "sci",
        "One curve while all parameter groups (stem, layer1 to layer4, fc) have the same rate, else one for each "
        "group. --layer-lr, --lr-schedule and --warmup-epochs set them.",
        Q("max by (job, instance) (finetune_learning_rate > 0) == min by (job, instance) (finetune_learning_rate)",
          "all groups"),
        Q("(finetune_learning_rate > 0) unless on (job, instance) max by (job, instance) (finetune_learning_rate) "
          "== min by (job, instance) (finetune_learning_rate)", "{{group}}"), steps=True, min=0,
    ),
)

DETAILS = row(
    "Details",
    number("Stop reason", "none",
           "Why the run stopped. patience: no improvement for --patience epochs. max_epochs: all of --epochs. "
           "non_finite_loss: the loss became infinite or NaN. interrupted: by a signal. worker_lost: too few workers.",
           Q("last_over_time(finetune_stop_reason_info[$__range]) == 1", "{{reason}}", last=True),
           words=True, noValue="not stopped",
           overrides=[named(bad, color=fixed("red")) for bad in ("non_finite_loss", "worker_lost")]),
    number("Steps per second", "none",
           "Steps of all workers together, mean of the last minute: each takes one batch of --global-batch images.",
           Q("rate(finetune_steps_total[1m])", "steps per second"), decimals=2, curve=True),
    number("Images skipped", "none", "Images that could not be decoded. The log of the worker names each file.",
           Q("finetune_decode_errors_total", "unreadable"), thresholds=COUNT),
    number("Checkpoint size", "bytes", "Size of the last checkpoint: weights and optimizer state.",
           Q("finetune_checkpoint_bytes > 0", "bytes"), noValue="none yet"),
    number("Model and data", "none", "What the run trains, and on which images.",
           Q("last_over_time(finetune_run_info[$__range])", "{{model}} on {{dataset}}", last=True), words=True),
    number("Version", "none", "The version of the coordinator.",
           Q("last_over_time(finetune_build_info[$__range])", "{{version}}", last=True), words=True),
)

ROWS = (NOW, QUALITY, SPEED, DETAILS)
