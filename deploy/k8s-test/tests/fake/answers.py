"""The answers of the fake kubectl: as much as the test uses."""

import json
from pathlib import Path


class Refused(Exception):
    """The client or the API server answers with an error."""


def split(arguments):
    """Flags, and the words that are not flags; what follows `--` stays together."""
    command = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1:]
    flags, words, rest = {}, [], iter(arguments)
    for one in rest:
        if one == "-k":
            flags["k"] = next(rest)
        elif one.startswith("--"):
            name, _, value = one[2:].partition("=")
            flags[name] = value or "true"
        else:
            words.append(one)
    return flags, words, command


def show(world, words, flags):
    kind = words[1]
    if kind in ("events", "statefulsets,pods,persistentvolumeclaims"):
        return f"the {kind} of {flags['namespace']}"
    names = words[2:]
    found = world.objects(kind, flags["namespace"])
    if names:
        found = [one for one in found if one["metadata"]["name"] in names]
        return json.dumps(found[0]) if found else ""
    return json.dumps({"kind": "List", "items": found})


def execute(world, pod, command):
    run = world.run_of(pod)
    if command[0] == "cat" and run:
        lines = run["rows"] if command[1].endswith("metrics.jsonl") else run["events"]
        return "".join(json.dumps(line) + "\n" for line in lines)
    holds = {
        ("-e", "/tmp/ended"): run and run["ended"],
        ("-s", "/runs/main/best.safetensors"): run and run["rows"] and not world.has("no-weights"),
    }
    if command[0] == "test" and holds[tuple(command[1:])]:
        return ""
    raise Refused("command terminated with exit code 1")


def answer(world, arguments):
    """What kubectl prints."""
    flags, words, command = split(arguments)
    verb = words[0]
    if verb == "config":
        return "\n".join(world.state["contexts"])
    if flags["context"] not in world.state["contexts"]:
        raise Refused(f"error: context \"{flags['context']}\" does not exist")
    if world.has("unreachable"):
        raise Refused("The connection to the server 127.0.0.1:6443 was refused")
    if verb in ("create", "apply", "delete") and "k" in flags:
        kustomization = json.loads((Path(flags["k"]) / "kustomization.yaml").read_text())
        error = getattr(world, f"{verb}_folder")(kustomization)
    elif verb == "get":
        return show(world, words, flags)
    elif verb == "exec":
        return execute(world, words[1], command)
    elif verb == "port-forward":
        if not world.run_of(words[1].removeprefix("pod/")):
            raise Refused("error: unable to forward port because pod is not running")
        return ""
    elif verb in ("describe", "logs"):
        return f"{verb} {' '.join(words[1:])}"
    elif verb == "scale":
        error = world.scale(words[1].removeprefix("statefulset/"), int(flags["replicas"]))
    elif verb == "delete":
        error = world.delete(words[1], words[2])
    elif verb == "drain":
        error = world.drain(words[1], flags["pod-selector"])
    elif verb == "uncordon":
        error = world.uncordon(words[1])
    else:
        raise Refused(f"error: unknown command {verb}")
    if error:
        raise Refused(error)
    return ""
