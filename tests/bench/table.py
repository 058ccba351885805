"""Medians, spread and ratios of the runs, and the check that their losses agree, as Markdown.
No side effects.
"""

import statistics

from commands import NAMES

GIB = 1 << 30

# Title, whether more is better, and how it follows from the measurements of a run.
ROWS = (
    ("exec to first step, s", False, lambda run, _: run["first_step"]),
    ("first epoch, s", False, lambda run, _: run["epochs"][0]["seconds"]),
    ("later epochs, s", False, lambda run, _: of_later(run, "seconds")),
    ("validation, s", False, lambda run, _: of_later(run, "validation_seconds")),
    ("whole job, s", False, lambda run, _: run["job"]),
    ("training alone, images/s", True, lambda run, images: images / of_later(run, "train_seconds")),
    ("peak memory (PSS), GiB", False, lambda run, _: run["peak_pss"] / GIB),
    ("CPU time, s", False, lambda run, _: run["cpu_seconds"]),
)

# The losses of two programs may differ by this share, even if repeats agree more closely: bf16 is no
# more exact.
TOLERANCE = 0.02


def of_later(run, key):
    """The median over the epochs after the first, or the first if there is only one."""
    return statistics.median(epoch[key] for epoch in run["epochs"][1:] or run["epochs"])


def values(runs, row, images):
    return [row[2](run, images) for run in runs]


def ratio(theirs, ours, more_is_better):
    """The factor by which `ours` is better."""
    theirs, ours = statistics.median(theirs), statistics.median(ours)
    return ours / theirs if more_is_better else theirs / ours


def losses(runs):
    """The losses after the last epoch, of all repeats."""
    return {name: [run["epochs"][-1][f"{name}_loss"] for run in runs] for name in ("train", "validation")}


def differences(measured):
    """One sentence for each loss in which two variants differ by more than noise.

    Noise is the range over repeats with other seeds (of the noisier variant), and at least TOLERANCE
    of the loss. The differences are taken within rounds, where all programs have the same seed and so
    the same split and steps; their means are compared.
    """
    found = []
    ours = losses(measured["ours"]) if "ours" in measured else None
    for variant in measured:
        if variant == "ours" or ours is None:
            continue
        theirs = losses(measured[variant])
        if {len(run["epochs"]) for run in measured[variant]} != {len(run["epochs"]) for run in measured["ours"]}:
            found.append(f"{variant} and ours ran different numbers of epochs")
        for name in ours:
            pairs = list(zip(ours[name], theirs[name]))
            difference = statistics.mean(a - b for a, b in pairs)
            limit = noise(ours[name], theirs[name])
            if not abs(difference) <= limit:
                found.append(f"{name} loss: ours differs from {variant} by {difference:+.4f}, noise is {limit:.4f}")
    return found


def noise(a, b):
    return max(max(a) - min(a), max(b) - min(b), TOLERANCE * statistics.median(b))


def markdown(result):
    """The file of results."""
    lines = [f"# {result['title']}", "", result["machine_sentence"] + ".", "", result["what"], ""]
    for workers, measured in result["runs"].items():
        others = [variant for variant in measured if variant != "ours"]
        lines += [f"## {workers} worker{'s' if workers != '1' else ''}", "",
                  "| median (least–most) | " + " | ".join(NAMES[each] for each in measured) + " | "
                  + " | ".join(f"against {each}" for each in others) + " |",
                  "|---|" + "---|" * (len(measured) + len(others))]
        for row in ROWS:
            numbers = {each: values(runs, row, result["images"]) for each, runs in measured.items()}
            cells = [spread(each) for each in numbers.values()]
            if "ours" in numbers:
                cells += [f"**{ratio(numbers[each], numbers['ours'], row[1]):.2f} ×**" for each in others]
            lines.append(f"| {row[0]} | " + " | ".join(cells) + " |")
        for name in ("train", "validation"):
            cells = [spread(losses(runs)[name]) for runs in measured.values()]
            lines.append(f"| {name} loss at the end | " + " | ".join(cells + [""] * len(others)) + " |")
        lines += ["", verdict(differences(measured)), ""]
    if result["decoding"]:
        pillow, ours = result["decoding"]["pillow"], result["decoding"]["ours"]
        lines += ["## Decode and resize, one thread", "",
                  f"{spread(ours)} images/s against {spread(pillow)} of Pillow with torchvision's Resize: "
                  f"**{ratio(pillow, ours, True):.2f} ×**.", ""]
    return "\n".join(lines)


def verdict(found):
    if found:
        return "**The losses differ by more than noise: " + "; ".join(found) + ".**"
    return ("Losses are equal within noise (the range over repeats with other seeds, "
            f"or {TOLERANCE:.0%}, whichever is more).")


def spread(numbers):
    def text(number):
        return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    return f"{text(statistics.median(numbers))} ({text(min(numbers))}–{text(max(numbers))})"
