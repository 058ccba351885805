"""Code of both PyTorch programs: arguments, the list of images, the network, and the report.

Nothing here makes one of them faster; each has its own training loop.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import torch
from safetensors.torch import load_file
from torchvision import models

import order

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GROUPS = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")


def arguments():
    parser = argparse.ArgumentParser()
    for name, kind in (("data", pathlib.Path), ("size", int), ("epochs", int), ("patience", int),
                       ("global-batch", int), ("seed", int), ("rates", str), ("device", str),
                       ("weights", pathlib.Path), ("out", pathlib.Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


class Images:
    """The list of images in the coordinator's order, and the samples of each step."""

    def __init__(self, args, rank, world):
        self.args, self.rank, self.world = args, rank, world
        self.paths, self.labels, self.classes = order.listed(args.data, args.limit)
        self.train, self.validation = order.split(len(self.paths), 0.2, args.seed)
        if 0 < len(self.train) % args.global_batch < world:
            raise SystemExit("the last step of an epoch has fewer samples than there are ranks")

    def steps(self, epoch):
        return order.steps(self.train, self.args.global_batch, self.args.seed, epoch, self.rank, self.world)

    def validation_batches(self, size):
        mine = order.share(self.validation, self.rank, self.world)
        return [mine[at:at + size] for at in range(0, len(mine), size)]


def network(args, classes):
    """torchvision's ResNet18 with the initial weights of all programs."""
    model = models.resnet18(num_classes=classes)
    model.load_state_dict(load_file(args.weights))
    return model


def groups(model, rates):
    """Adam's parameter groups of `stem=1e-5,layer1=…`."""
    rates = {name: float(rate) for name, rate in (each.split("=") for each in rates.split(","))}
    found = {name: [] for name in GROUPS}
    for name, parameter in model.named_parameters():
        first = name.split(".")[0]
        found[first if first in found else "stem"].append(parameter)
    return [{"params": found[name], "lr": rates[name]} for name in GROUPS]


class Report:
    """The events of rank 0, one line of JSON each, which measure.py reads."""

    def __init__(self, args, rank):
        self.path = args.out / "events.jsonl" if rank == 0 else None
        self.stepped = False

    def write(self, **event):
        if self.path:
            with open(self.path, "a") as file:
                print(json.dumps(event), file=file)

    def step(self, device):
        """Called after each optimizer step; reports the time of the first one."""
        if not self.stepped:
            self.stepped = True
            synchronize(device)
            self.write(first_step=time.time())


class EarlyStopping:
    """The notebook's rule: stop after `patience` epochs without a lower loss."""

    def __init__(self, patience):
        self.patience, self.best, self.waited = patience, float("inf"), 0

    def better(self, loss):
        if loss < self.best:
            self.best, self.waited = loss, 0
            return True
        self.waited += 1
        return False

    def stop(self):
        return self.waited >= self.patience


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def leave():
    """Exits without shutting the interpreter down.

    PyTorch 2.11 can deadlock there: the Reducer's destructor holds the GIL while it joins Gloo's
    thread, which waits for the GIL to drop a tensor. That would count against PyTorch; exiting
    early never does.
    """
    sys.stdout.flush()
    os._exit(0)
