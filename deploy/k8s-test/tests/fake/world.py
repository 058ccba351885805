"""The cluster behind the fake kubectl: StatefulSets make pods, pods become ready, and workers train.
`faults` are the names of what goes wrong."""

import json

NODE = {"unschedulable": False}
STEPS = 10
CLAIM = "runs-coordinator-0"


def new(nodes=2, faults=(), contexts=("fake",)):
    """The state of a cluster where nothing was applied."""
    return {
        "clock": 0, "uids": 0, "contexts": list(contexts), "faults": list(faults),
        "nodes": {f"node-{index}": dict(NODE) for index in range(nodes)},
        "namespaces": {}, "sets": {}, "pods": {}, "claims": {},
    }


class World:
    def __init__(self, state):
        self.state = state
        self.sets, self.pods, self.claims = state["sets"], state["pods"], state["claims"]

    def has(self, fault):
        return fault in self.state["faults"]

    def uid(self):
        self.state["uids"] += 1
        return f"uid-{self.state['uids']}"

    # What happens by itself.

    def moment(self):
        self.state["clock"] += 1
        for name, made in self.sets.items():
            wanted = [f"{name}-{index}" for index in range(made["replicas"])]
            for pod in wanted:
                if pod not in self.pods:
                    self.start(pod, name)
            for pod in [pod for pod, one in self.pods.items() if one["set"] == name]:
                if pod not in wanted:
                    del self.pods[pod]
        for pod in [pod for pod, one in self.pods.items() if one["set"] not in self.sets]:
            del self.pods[pod]
        for one in self.pods.values():
            if one["node"] is None:
                one["node"] = self.free_node()
            one["age"] += one["node"] is not None
        self.train()

    def start(self, pod, name):
        self.pods[pod] = {"set": name, "uid": self.uid(), "age": 0, "node": self.free_node()}
        if name == "coordinator":
            claim = self.claims.setdefault(CLAIM, {"uid": self.uid(), "run": None})
            self.open_run(claim)

    def open_run(self, claim):
        run = claim["run"]
        if run and run["ended"] and not self.has("forgets-the-end"):
            return
        if run is None or self.has("does-not-resume"):
            claim["run"] = {"rows": [], "epoch": 1, "step": 0, "ended": False, "events": []}
            self.event(claim["run"], "started")
            return
        if self.has("loses-epochs"):
            run["rows"] = run["rows"][:-1]
        # The first time is when the pod is deleted, the second when the epochs are lowered.
        if self.has("rewrites-epochs") and any(one["event"] == "resumed" for one in run["events"]):
            run["rows"][0]["train_loss"] = 9.0
        if self.has("goes-back"):
            run["step"], run["epoch"] = 0, run["epoch"] - 1
        run["ended"] = False
        self.event(run, "resumed", epoch=run["epoch"], completed=run["step"])

    def event(self, run, event, **fields):
        run["events"].append({"time": f"t{self.state['clock']}", "event": event, **fields})

    def free_node(self):
        """The schedulable node with the fewest pods."""
        nodes = [name for name, node in self.state["nodes"].items() if not node["unschedulable"]]
        at = [one["node"] for one in self.pods.values()]
        return min(nodes, key=at.count) if nodes else None

    def running(self, pod):
        return pod in self.pods and self.pods[pod]["age"] > 1

    def ranks(self):
        return sum(self.running(pod) for pod, one in self.pods.items() if one["set"] == "worker")

    def run_of(self, pod):
        return self.claims[CLAIM]["run"] if self.running(pod) and CLAIM in self.claims else None

    def train(self):
        run = self.run_of("coordinator-0")
        if run is None or run["ended"] or not self.ranks() or self.has("no-steps"):
            return
        if self.has("stops-when-scaled") and self.sets["worker"]["replicas"] != 2:
            return
        run["step"] += 3
        if run["step"] < STEPS:
            return
        run["rows"].append({"epoch": run["epoch"], "train_loss": 1 / run["epoch"]})
        run["epoch"], run["step"] = run["epoch"] + 1, 0
        if len(run["rows"]) >= self.sets["coordinator"]["epochs"] and not self.has("never-ends"):
            run["ended"] = True
            self.event(run, "ended", reason="max_epochs", ok=not self.has("ends-badly"))

    def status(self):
        run = self.run_of("coordinator-0")
        ranks = self.ranks()
        return run and {
            "state": "training" if ranks else "waiting", "world_size": ranks,
            "epoch": run["epoch"], "step": run["step"], "history": run["rows"],
            "events": run["events"][-100:],
        }

    # What kubectl asks for. A text is an error.

    def objects(self, kind, namespace):
        if kind == "pods":
            return [self.pod(name, one) for name, one in self.pods.items()]
        if kind == "nodes":
            return [
                {"metadata": {"name": name}, "spec": {**node, "taints": []},
                 "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
                for name, node in self.state["nodes"].items()
            ]
        kept = self.state["namespaces"] if kind == "namespace" else self.claims
        return [{"metadata": {"name": name, **one}} for name, one in kept.items()]

    def pod(self, name, one):
        ended = (run := self.run_of("coordinator-0")) and run["ended"]
        ready = one["age"] > 2 and not (ended and one["set"] == "worker")
        state = {"running": {}}
        if name == "worker-1" and (self.has("never-ready") or self.has("no-image")):
            ready = False
            reason = "ImagePullBackOff" if self.has("no-image") else "ContainerCreating"
            state = {"waiting": {"reason": reason}}
        if name == "coordinator-0" and ended and self.has("not-ready-at-the-end"):
            ready = False
        return {
            "metadata": {"name": name, "uid": one["uid"]}, "spec": {"nodeName": one["node"]},
            "status": {"phase": "Running", "containerStatuses": [{"state": state}],
                       "conditions": [{"type": "Ready", "status": str(ready)}]},
        }

    def create_folder(self, kustomization):
        name = kustomization["namespace"]
        if self.has("namespace-exists"):
            self.state["namespaces"][name] = {"labels": {"owner": "somebody"}}
        if name in self.state["namespaces"]:
            return f'Error from server (AlreadyExists): namespaces "{name}" already exists'
        self.state["namespaces"][name] = {"labels": kustomization["labels"][0]["pairs"]}

    def apply_folder(self, kustomization):
        if kustomization["namespace"] not in self.state["namespaces"]:
            return f'Error from server (NotFound): namespaces "{kustomization["namespace"]}" not found'
        patches = {one["target"]["name"]: json.loads(one["patch"]) for one in kustomization["patches"]}
        flags = dict(one["value"][2:].split("=") for one in patches["coordinator"])
        label = kustomization["labels"][0]["pairs"]
        former = self.sets.get("coordinator")
        self.sets["coordinator"] = {"replicas": 1, "epochs": int(flags["epochs"]), "labels": label}
        self.sets["worker"] = {"replicas": 2, "labels": label}
        if former and former["epochs"] != int(flags["epochs"]):
            del self.pods["coordinator-0"]

    def delete_folder(self, kustomization):
        self.sets.clear()
        if self.has("claim-deleted"):
            self.claims.clear()
        if self.has("claim-replaced"):
            self.claims[CLAIM]["uid"] = self.uid()

    def scale(self, name, replicas):
        self.sets[name]["replicas"] = replicas

    def delete(self, kind, name):
        if kind == "pod":
            self.pods.pop(name, None)
        elif self.has("namespace-stays"):
            return "error: timed out waiting for the condition on namespaces/" + name
        else:
            self.state["namespaces"].pop(name)
            for kept in (self.sets, self.pods, self.claims):
                kept.clear()

    def drain(self, node, selector):
        self.state["nodes"][node]["unschedulable"] = True
        wanted = dict(one.split("=") for one in selector.split(","))
        only = wanted.pop("statefulset.kubernetes.io/pod-name", None)
        here = [
            pod for pod, one in self.pods.items()
            if one["node"] == node and only in (None, pod)
            and self.sets[one["set"]]["labels"] == wanted
        ]
        if self.has("no-eviction"):
            return f"error when evicting pods/\"{here[0]}\": global timeout reached: 4m0s"
        for pod in here:
            del self.pods[pod]

    def uncordon(self, node):
        if self.has("no-uncordon"):
            return f'Error from server (Forbidden): nodes "{node}" is forbidden'
        self.state["nodes"][node]["unschedulable"] = False
