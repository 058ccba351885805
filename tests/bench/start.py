"""Writes the initial weights of all programs: torchvision's ResNet18 with a new head for the classes.
With the same head, different losses mean different training.

Arguments: target file, number of classes, seed, and optionally the pretrained weights.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from torchvision import models


def main():
    target, classes, seed, *pretrained = sys.argv[1:]
    torch.manual_seed(int(seed))
    model = models.resnet18(weights=None)
    for path in map(pathlib.Path, pretrained):
        safe = path.suffix == ".safetensors"
        model.load_state_dict(load_file(path) if safe else torch.load(path, weights_only=True))
    model.fc = torch.nn.Linear(model.fc.in_features, int(classes))
    save_file(model.state_dict(), target)


if __name__ == "__main__":
    main()
