"""The coordinator's list, split and order of samples, so that all programs make the same steps.

The algorithms are those of coordinator/core/src; the benchmark compares the result with the
split.json of a real run.
"""

import os

MASK = (1 << 64) - 1
SPLIT_STREAM = 0x0073_706C_6974
EPOCH_STREAM = 0x6570_6F63_6873


def listed(data, limit):
    """Paths, labels and class names, sorted bytewise."""
    inner = data / "101_ObjectCategories"
    root = inner if inner.is_dir() else data
    classes = sorted((each.name for each in root.iterdir() if each.is_dir()), key=os.fsencode)
    paths, labels = [], []
    for label, name in enumerate(classes):
        files = sorted((file for file in os.listdir(root / name) if file.lower().endswith((".jpg", ".jpeg"))),
                       key=os.fsencode)
        paths += [root / name / file for file in files[:limit]]
        labels += [label] * len(files[:limit])
    return paths, labels, classes


class SplitMix64:
    """The random number generator of the coordinator."""

    def __init__(self, *keys):
        self.state = 0
        for key in keys:
            self.state = self.next() ^ key

    def next(self):
        self.state = (self.state + 0x9E37_79B9_7F4A_7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & MASK
        return z ^ (z >> 31)

    def below(self, bound):
        tail = MASK - MASK % bound
        while (candidate := self.next()) >= tail:
            pass
        return candidate % bound

    def shuffled(self, items):
        items = list(items)
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items


def split(count, fraction, seed):
    """Indices of the training and of the validation set."""
    order = SplitMix64(seed, SPLIT_STREAM).shuffled(range(count))
    # Rounded half away from zero, as in Rust.
    wanted = min(max(int(count * fraction + 0.5), 1), count - 1)
    return sorted(order[wanted:]), sorted(order[:wanted])


def steps(train, global_batch, seed, epoch, rank, world):
    """The samples of one rank, for each step of an epoch."""
    order = SplitMix64(seed, EPOCH_STREAM, epoch).shuffled(train)
    batches = [order[at:at + global_batch] for at in range(0, len(order), global_batch)]
    return [share(batch, rank, world) for batch in batches]


def share(items, rank, world):
    """Contiguous slices that differ by at most one in length."""
    return items[len(items) * rank // world:len(items) * (rank + 1) // world]
