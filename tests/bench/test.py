"""Tests without torch and without data: the command lines for both devices, the order of the rounds
and of the samples, the figures of the table, and the comparison of losses.
"""

import types
import unittest

import commands
import machine
import order
import table


def settings(**changes):
    usual = dict(coordinator="c", worker="w", python="p", scripts="s", data="d", size=224, epochs=2, patience=3,
                 global_batch=128, seed=42, rates="stem=1e-5",
                 start="f.safetensors", limit=None, device="cpu", cores=16)
    return types.SimpleNamespace(**usual | changes)


def run(loss=0.5, seconds=10.0):
    epoch = {"seconds": seconds, "validation_seconds": 1.0, "train_seconds": seconds - 1, "train_loss": loss,
             "validation_loss": loss}
    return {"first_step": 2.0, "job": 25.0, "cpu_seconds": 40.0, "peak_pss": 1 << 30, "peak_rss": 2 << 30,
            "epochs": [epoch, epoch]}


class Commands(unittest.TestCase):
    def test_all_get_the_same_settings_on_a_gpu(self):
        given = settings(device="cuda", limit=4)
        for variant in commands.NAMES:
            words = " ".join(commands.command(variant, 2, given, "o"))
            for part in ("--device cuda", "--epochs 2", "--global-batch 128", "--seed 42", "--data d", "--patience 3",
                         "f.safetensors", "stem=1e-5", "224"):
                self.assertIn(part, words, variant)
            self.assertRegex(words, r"--limit(-per-class)? 4")

    def test_only_the_notebook_takes_torchrun_for_one_rank(self):
        launched = {(variant, workers): "torch.distributed.run" in commands.command(variant, workers, settings(), "o")
                    for variant in ("notebook", "tuned", "compiled") for workers in (1, 2)}
        self.assertEqual([key for key, yes in launched.items() if not yes], [("tuned", 1), ("compiled", 1)])

    def test_rounds_turn(self):
        plan = list(commands.rounds(["a", "b", "c"], [1, 2], 3))
        self.assertEqual([variant for _, _, variant in plan], list("abcabcbcabcacabcab"))
        self.assertEqual(commands.environment(2, settings()), {"OMP_NUM_THREADS": "8"})


class Order(unittest.TestCase):
    def test_the_stream_is_that_of_the_coordinator(self):
        generator = order.SplitMix64()
        generator.state = 1_234_567
        self.assertEqual(generator.next(), 6_457_827_717_110_365_317)

    def test_a_step_holds_the_same_samples_for_any_number_of_ranks(self):
        train, validation = order.split(101, 0.2, 42)
        self.assertEqual(sorted(train + validation), list(range(101)))
        alone = order.steps(train, 16, 42, 1, 0, 1)
        ranks = [order.steps(train, 16, 42, 1, rank, 3) for rank in range(3)]
        self.assertEqual([sum(parts, []) for parts in zip(*ranks)], alone)
        self.assertNotEqual(order.steps(train, 16, 42, 2, 0, 1), alone)


class Table(unittest.TestCase):
    def test_equal_losses_pass_and_others_do_not(self):
        quiet = {"tuned": [run(0.50), run(0.51)], "ours": [run(0.51), run(0.50)]}
        self.assertEqual(table.differences(quiet), [])
        worse = {"tuned": [run(0.50), run(0.51)], "ours": [run(0.60), run(0.61)]}
        self.assertEqual(len(table.differences(worse)), 2)
        broken = {"tuned": [run(0.50)], "ours": [run(float("nan"))]}
        self.assertEqual(len(table.differences(broken)), 2)
        shorter = {"tuned": [run()], "ours": [run() | {"epochs": run()["epochs"][:1]}]}
        self.assertIn("different numbers of epochs", table.differences(shorter)[0])

    def test_a_ratio_above_one_is_in_our_favour(self):
        self.assertEqual(table.ratio([10.0], [5.0], more_is_better=False), 2.0)
        self.assertEqual(table.ratio([10.0], [20.0], more_is_better=True), 2.0)

    def test_the_page_shows_medians_and_ratios(self):
        page = table.markdown({
            "title": "T", "machine_sentence": "M", "what": "W", "images": 90,
            "decoding": {"pillow": [100.0], "ours": [250.0]},
            "runs": {"2": {"tuned": [run(seconds=10.0)], "ours": [run(seconds=5.5)]}}})
        self.assertIn("| training alone, images/s | 10.0 (10.0–10.0) | 20.0 (20.0–20.0) | **2.00 ×** |", page)
        self.assertIn("**2.50 ×**", page)


class Machine(unittest.TestCase):
    def test_names_are_file_names(self):
        here = {"gpus": [], "cpu": "Intel(R) Xeon(R) 8480", "cores": 2}
        self.assertEqual(machine.slug(here), "intel-xeon-8480-2-cores")
        self.assertEqual(machine.slug(here | {"gpus": ["NVIDIA H100, 580.1"]}), "nvidia-h100")


if __name__ == "__main__":
    unittest.main()
