"""The command line of each program that is compared. No side effects."""

NAMES = {"notebook": "PyTorch, as users write it", "tuned": "PyTorch, tuned",
         "compiled": "PyTorch, tuned and compiled", "ours": "this project"}


def command(variant, workers, settings, out):
    """The command line of one run of `variant`, which writes its results into the folder `out`."""
    return (coordinator if variant == "ours" else pytorch)(variant, workers, settings, out)


def coordinator(_, workers, s, out):
    words = [s.coordinator, "--workers", workers, "--data", s.data, "--image-size", s.size,
             "--epochs", s.epochs, "--patience", s.patience, "--global-batch", s.global_batch,
             "--seed", s.seed, "--layer-lr", s.rates, "--pretrained", s.start,
             "--validation-fraction", "0.2", "--device", s.device, "--precision", "auto",
             "--worker-binary", s.worker, "--run-dir", f"{out}/run",
             "--metrics-listen", "127.0.0.1:0", "--metrics-linger", 0]
    return [str(word) for word in words + (["--limit-per-class", s.limit] if s.limit else [])]


def pytorch(variant, workers, s, out):
    script = f"{s.scripts}/{'notebook' if variant == 'notebook' else 'tuned'}.py"
    # A notebook user always takes torchrun; the tuned program takes it for more than one rank.
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", workers]
    words = [s.python, *(torchrun if variant == "notebook" or workers > 1 else []), script,
             "--data", s.data, "--size", s.size, "--epochs", s.epochs, "--patience", s.patience,
             "--global-batch", s.global_batch, "--seed", s.seed, "--rates", s.rates,
             "--device", s.device, "--weights", s.start, "--out", out]
    words += ["--limit", s.limit] if s.limit else []
    words += ["--compile"] if variant == "compiled" else []
    return [str(word) for word in words]


def environment(workers, s):
    """Variables in addition to the inherited environment: the cores, divided among the ranks."""
    return {"OMP_NUM_THREADS": str(max(1, s.cores // workers))}


def rounds(variants, workers, count):
    """The order of the runs: each round has every variant once, in rotated order, so that none
    is always first or always after the same other."""
    for number in range(count):
        for each in workers:
            turn = number % len(variants)
            for variant in variants[turn:] + variants[:turn]:
                yield number, each, variant
