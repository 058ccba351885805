"""Whether files agree about values that several of them contain."""

import os
import re
import tomllib
from functools import cache

import compose
import yaml
from tools import DEPLOY, OVERLAYS, ROOT, Skipped, objects, pods, run

DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()
FLAG = re.compile(r"^--([a-z0-9-]+)")


@cache
def known_flags(program):
    """The long flags of a program, from its --help."""
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    for build in ("debug", "release"):
        binary = target / build / program
        if binary.exists():
            text = run(str(binary), "--help").stdout
            return set(re.findall(r"^ +(?:-\w, )?--([a-z][a-z0-9-]+)", text, re.M))
    raise Skipped(f"{program} is not built: cargo build -p {program}")


def uses():
    """Each (place, program, arguments, environment) with which a file starts one of the programs."""
    image = dict(re.findall(r"(FINETUNE_[A-Z_]+)=(\S+)", DOCKERFILE))
    yield "Dockerfile", "worker", [], image
    for profile in ("cpu", "gpu"):
        for name, service in compose.services(profile).items():
            program = name.split("-")[0]
            if program in ("coordinator", "worker"):
                yield f"compose {name}", program, service["command"], service.get("environment") or {}
    for overlay in OVERLAYS:
        for name, template in pods(f"overlays/{overlay}"):
            (container,) = template["spec"]["containers"]
            variables = {one["name"]: one.get("value") for one in container.get("env") or []}
            yield f"{overlay} {name}", name, container["args"], variables


def flags_exist():
    """Flags: the programs know all flags in the Dockerfile, the compose file and the manifests."""
    for place, program, arguments, variables in uses():
        flags = {found.group(1) for found in map(FLAG.match, arguments) if found}
        flags |= {
            name.removeprefix("FINETUNE_").lower().replace("_", "-")
            for name in variables
            if name.startswith("FINETUNE_")
        }
        for flag in sorted(flags - known_flags(program)):
            yield f"{place}: {program} has no --{flag}"


def probed():
    """The flags with which probes run `coordinator health`."""
    for overlay in OVERLAYS:
        for _, template in pods(f"overlays/{overlay}"):
            for container in template["spec"]["containers"]:
                for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                    command = container[kind].get("exec", {}).get("command", [""])[-1]
                    yield from re.findall(r"coordinator health(?: (--\S+))?", command)


def subcommands_exist():
    """Flags: `coordinator health` exists, with the flags that the probes give."""
    known_flags("coordinator")
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    binary = next(target / build / "coordinator" for build in ("debug", "release")
                  if (target / build / "coordinator").exists())
    done = run(str(binary), "health", "--help")
    if done.returncode:
        yield "coordinator has no subcommand `health`"
    for flag in {flag for flag in probed() if flag}:
        if f" {flag}" not in done.stdout:
            yield f"coordinator health has no {flag}"


def value(arguments, flag):
    return next(one.split("=", 1)[1] for one in arguments if one.startswith(f"--{flag}="))


def ports_agree():
    """Ports: listeners, EXPOSE, services, policies, annotations and scrape targets agree."""
    exposed = set(re.search(r"^EXPOSE (.+)$", DOCKERFILE, re.M).group(1).split())
    grpc, metrics = "7000", "9095"
    if exposed != {grpc, metrics}:
        yield f"the Dockerfile exposes {sorted(exposed)}"
    for place, program, arguments, _ in uses():
        if program == "coordinator":
            found = [value(arguments, flag).rsplit(":", 1)[1] for flag in ("listen", "metrics-listen")]
            if found != [grpc, metrics]:
                yield f"{place} listens on {found}"
        elif arguments and value(arguments, "coordinator") != f"http://coordinator:{grpc}":
            yield f"{place} connects to {value(arguments, 'coordinator')}"
    shown = {port["target"] for port in compose.services("cpu")["coordinator"]["ports"]}
    if shown != {int(metrics)}:
        yield f"compose publishes the ports {shown} of the coordinator"
    for overlay in OVERLAYS:
        for name, template in pods(f"overlays/{overlay}"):
            ports = {port["name"]: port["containerPort"]
                     for port in template["spec"]["containers"][0].get("ports") or []}
            if name == "coordinator" and ports != {"grpc": int(grpc), "metrics": int(metrics)}:
                yield f"{overlay}: {name} has the ports {ports}"
            scraped = template["metadata"].get("annotations", {}).get("prometheus.io/port", metrics)
            if scraped != metrics:
                yield f"{overlay}: {name} is scraped at {scraped}"
        for one in objects(f"overlays/{overlay}"):
            name = f"{overlay}: {one['kind']} {one['metadata']['name']}"
            if one["kind"] == "Service":
                found = {port["name"]: port["port"] for port in one["spec"].get("ports") or []}
                if found not in ({}, {"grpc": int(grpc), "metrics": int(metrics)}):
                    yield f"{name} has the ports {found}"
            if one["kind"] == "NetworkPolicy":
                rules = (one["spec"].get("ingress") or []) + (one["spec"].get("egress") or [])
                allowed = {port["port"] for rule in rules for port in rule.get("ports") or []}
                # Other ports: DNS, and OTLP over gRPC.
                if not allowed <= {int(grpc), int(metrics), 53, 4317}:
                    yield f"{name} allows the ports {sorted(allowed)}"


def images_agree():
    """Images: compose file and manifests use the Dockerfile's targets, at the crates' version."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    if f"ARG VERSION={version}\n" not in DOCKERFILE:
        yield f"the Dockerfile's VERSION is not {version}"
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M))
    built, deployed = set(), set()
    for profile in ("cpu", "gpu"):
        for name, service in compose.services(profile).items():
            if build := service.get("build"):
                built.add(service["image"])
                if build["target"] not in targets:
                    yield f"compose {name} builds {build['target']}, which is not a target"
                if service["image"] != f"finetune/{build['target']}:{version}":
                    yield f"compose {name} names the image of {build['target']} {service['image']}"
            elif service["image"].endswith(":latest") or ":" not in service["image"]:
                yield f"compose {name} does not pin a version of {service['image']}"
    for overlay in OVERLAYS:
        for _, template in pods(f"overlays/{overlay}"):
            deployed |= {one["image"] for one in template["spec"]["containers"]}
    if built != deployed:
        yield f"compose builds {sorted(built)}, the manifests run {sorted(deployed)}"


def graces_agree():
    """Times: compose and Kubernetes have the same grace periods."""
    services = {name.split("-")[0]: one for name, one in compose.services("cpu").items()}
    for overlay in OVERLAYS:
        for name, template in pods(f"overlays/{overlay}"):
            minutes, seconds = re.fullmatch(
                r"(?:(\d+)m)?(\d+)s", services[name]["stop_grace_period"]
            ).groups(default="0")
            here, there = int(minutes) * 60 + int(seconds), template["spec"]["terminationGracePeriodSeconds"]
            if here != there:
                yield f"{name} has {here} s in compose and {there} s in {overlay}"


def workers_stay():
    """Workers: they wait for the next run in their process, since a restarted one starts late."""
    for place, program, arguments, _ in uses():
        if program == "worker" and arguments and "--stay" not in arguments:
            yield f"{place} exits at the end of a run, and is restarted: it lacks --stay"


def mounts_exist():
    """Files: the files that compose mounts exist, and Grafana and Prometheus use them."""
    services = compose.services("cpu")
    mounted = {}
    for name in ("prometheus", "grafana"):
        for volume in services[name]["volumes"]:
            if volume["type"] == "bind":
                mounted[volume["source"]] = volume["target"]
                if not (DEPLOY / volume["source"]).exists():
                    yield f"compose mounts {volume['source']}, which does not exist"
    for provider in sorted((DEPLOY / "grafana" / "provisioning" / "dashboards").glob("*.y*ml")):
        for one in yaml.safe_load(provider.read_text())["providers"]:
            if one["options"]["path"] != mounted["./grafana/dashboards"]:
                yield f"{provider.name} has the dashboards in {one['options']['path']}, which is not mounted"
    variables = set(services["grafana"]["environment"])
    for source in sorted((DEPLOY / "grafana" / "provisioning" / "datasources").glob("*.y*ml")):
        for name in set(re.findall(r"\$\{(\w+)\}", source.read_text())) - variables:
            yield f"{source.name} needs {name}, which compose does not set for grafana"
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    looked_up = [
        (name, lookup["port"])
        for job in configuration["scrape_configs"]
        for lookup in job.get("dns_sd_configs", [])
        for name in lookup["names"]
    ]
    if ("coordinator", 9095) not in looked_up:
        yield "prometheus.yml does not scrape coordinator:9095"


def alerts_are_explained():
    """Alerts: the README says for each what to do."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    explained = set(re.findall(r"^\| `(Finetune\w+)` \|", (DEPLOY / "README.md").read_text(), re.M))
    for name in sorted(alerts - explained):
        yield f"README.md does not explain {name}"
    for name in sorted(explained - alerts):
        yield f"README.md explains {name}, which no rule has"


CHECKS = [
    alerts_are_explained,
    flags_exist,
    subcommands_exist,
    ports_agree,
    images_agree,
    graces_agree,
    workers_stay,
    mounts_exist,
]
