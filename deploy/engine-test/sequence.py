"""The phases of the test, in their order."""

import argparse

import bases
import faults
import hardening
import host
import monitoring
import speed
from deployment import PAGE, Deployment, get
from engine import Engine
from table import Table
from tools import Failed, uninterrupted, until

# A network that learned the demo set; a guess is right for one image of four or less.
ACCURACY = 0.9


def run(engine: Engine, options: argparse.Namespace, rows: Table) -> None:
    with rows.phase("base images", 900, needed=True) as seen:
        grafana = bases.provide(engine, options.state, seen)
    demo = Deployment(engine, "demo", 2, grafana)
    with rows.phase("images built", 2400, needed=True) as seen:
        used = host.processor_seconds()
        demo.build()
        seen(sizes(engine))
        if used is not None:
            seen(f"{(host.processor_seconds() or 0) - used:.0f} s of processor time")
    if options.only_build:
        return
    try:
        trained(demo, rows)
        if not grafana:
            rows.not_run("Grafana", "no registry has its image")
    finally:
        remove(demo, rows)
    disturbed = Deployment(engine, "disturbed", 2, grafana, long=True)
    try:
        survives(disturbed, rows)
    finally:
        remove(disturbed, rows)
    for workers in options.speed:
        with rows.phase(f"speed of {workers} workers", 1200) as seen:
            seen(speed.compare(engine, options.programs, workers, grafana))


def remove(deployment: Deployment, rows: Table) -> None:
    with uninterrupted(), rows.phase(f"run {deployment.name} removed", 150):
        deployment.down()


def sizes(engine: Engine) -> str:
    listed = engine.docker("images", "--format", "{{.Repository}} {{.Size}}", "--filter", "reference=finetune/*")
    if len(listed.splitlines()) < 2:
        raise Failed(f"images after the build: {listed.split()}")
    return ", ".join(sorted(listed.splitlines()))


def trained(demo: Deployment, rows: Table) -> None:
    """A run to its end, and what is to be seen of it meanwhile and afterwards."""
    with rows.phase("demo starts", 180, needed=True):
        demo.up()
        demo.trains()
    with rows.phase("health checks", 90) as seen:
        until("healthy containers", 80, demo.healthy)
        seen(f"{len(demo.all())} containers healthy")
    with rows.phase("Prometheus", 120) as seen:
        seen(monitoring.steps_arrive())
        seen(monitoring.rules())
    if "grafana" in demo.services:
        with rows.phase("Grafana", 60) as seen:
            seen(until("Grafana", 50, lambda: monitoring.dashboards(demo)))
    with rows.phase("demo trained to its end", 600) as seen:
        demo.ends(580)
        epochs = demo.epochs()
        best = max(epoch["validation_accuracy"] for epoch in epochs)
        seen(f"{len(epochs)} epochs, {best:.2%}")
        if best < ACCURACY:
            raise Failed(f"an accuracy below {ACCURACY:.0%}")
    with rows.phase("finished run stays visible", 90) as seen:
        seen(monitoring.finished_is_seen())
        if get(f"{PAGE}/readyz").strip() != "ready" or demo.moment().state != "finished":
            raise Failed("the page does not show a finished run")
        if not demo.healthy():
            raise Failed("a container is not healthy after the run")
        restarted = [name for name in demo.all() if engine_restarted(demo, name)]
        if restarted:
            raise Failed(f"Docker restarted {', '.join(restarted)}")
        seen("page and health checks ok, nothing restarted")
    with rows.phase("containers are locked", 60) as seen:
        seen(hardening.check(demo))
    if demo.engine.outside:
        with rows.phase("workers are confined", 60) as seen:
            seen(hardening.workers_are_confined(demo))
    else:
        rows.not_run("workers are confined", "only with an engine that this test starts")


def engine_restarted(deployment: Deployment, container: str) -> bool:
    return bool(deployment.engine.inspect(container)["RestartCount"])


def survives(disturbed: Deployment, rows: Table) -> None:
    with rows.phase("long run starts", 180, needed=True):
        disturbed.up()
        disturbed.trains()
    for what, limit, fault in (
        ("worker killed", 150, faults.killed),
        ("worker crashed", 150, faults.crashed),
        ("worker drained on SIGTERM", 150, faults.drained),
        ("coordinator restarted", 240, faults.coordinator_restarted),
        ("all stopped", 120, faults.stopped),
    ):
        with rows.phase(what, limit) as seen:
            # Whatever the check before has left, should it have failed.
            disturbed.complete()
            seen(fault(disturbed))
