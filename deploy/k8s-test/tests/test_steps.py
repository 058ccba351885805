"""Every step holds on a cluster without faults, and each fault makes its step fail."""

import unittest

from harness import Fake, OverTheFake

# The fault, the step that has to find it, and words of the line that names it.
FAULTS = [
    ("unreachable", "the cluster answers", "was refused"),
    ("namespace-exists", "apply", "already exists"),
    ("never-ready", "all pods are ready", "worker-1 is not ready: ContainerCreating"),
    ("no-image", "all pods are ready", "worker-1 has no image: ImagePullBackOff; set REGISTRY"),
    ("no-steps", "it trains", "makes no step"),
    ("stops-when-scaled", "3 workers", "makes no step"),
    ("no-eviction", "a node is drained", "error when evicting pods"),
    ("no-uncordon", "a node is drained", "is forbidden"),
    ("does-not-resume", "the coordinator is deleted", "began a new run"),
    ("goes-back", "the coordinator is deleted", "went back from"),
    ("loses-epochs", "the coordinator is deleted", "not all of them are there"),
    ("never-ends", "the run ends", "has not ended"),
    ("rewrites-epochs", "the run ends", "does not have the epochs of the former coordinator"),
    ("ends-badly", "the run ends", "the last event of the run"),
    ("no-weights", "the run ends", "no best.safetensors"),
    ("not-ready-at-the-end", "the run ends", "coordinator-0 is not ready"),
    ("claim-deleted", "delete keeps the volume", "runs-coordinator-0, with the runs, was deleted"),
    ("claim-replaced", "delete keeps the volume", "is another one than before"),
    ("forgets-the-end", "applied again: the old run", "of the old run has changed"),
    ("namespace-stays", "all is removed", "timed out waiting"),
]
# What these leave behind is theirs.
STAYS = ("namespace-exists", "no-uncordon", "namespace-stays")


class Steps(OverTheFake):
    def test_all_hold_on_two_nodes(self) -> None:
        code, table, wrong = self.run_test()
        self.assertEqual((code, wrong), (0, []), table)
        self.assertRegex(table, r"a node is drained .* drained node-\d: worker-\d moved to node-\d")
        self.assertNotIn("not run", table)
        self.assert_put_back()

    def test_all_hold_on_one_node(self) -> None:
        self.cluster(nodes=1)
        code, table, wrong = self.run_test()
        self.assertEqual((code, wrong), (0, []), table)
        self.assertIn("cordoned node-0 and evicted worker-0", table)
        self.assert_put_back()

    def test_each_fault_fails_its_step(self) -> None:
        for fault, step, words in FAULTS:
            with self.subTest(fault):
                self.cluster(faults=[fault])
                code, table, wrong = self.run_test()
                self.assertEqual(code, 1, table)
                self.assertRegex(wrong[0], f"^failed at `{step}`: .*{words}")
                self.assertRegex(table, f"(?m)^{step} .* FAILED$")
                if fault not in STAYS:
                    self.assert_put_back()

    def test_a_failure_is_recorded(self) -> None:
        self.cluster(faults=["no-steps"])
        _, _, wrong = self.run_test()
        (folder,) = (self.folder / "results").iterdir()
        self.assertEqual(wrong[1], f"events and logs: {folder}")
        found = {file.name for file in folder.iterdir() if file.stat().st_size}
        self.assertLessEqual(
            {"events.txt", "pods.txt", "objects.yaml", "coordinator-0.log", "worker-1.log"}, found
        )

    def test_what_cannot_be_put_back_is_named(self) -> None:
        self.cluster(faults=["no-uncordon"])
        _, _, wrong = self.run_test()
        self.assertRegex(wrong[-1], r"^not put back: the node (node-\d), which is cordoned: kubectl uncordon \1: ")
        self.assertEqual(self.state["namespaces"], {})

    def test_a_foreign_namespace_is_left_alone(self) -> None:
        self.cluster(faults=["namespace-exists"])
        self.run_test()
        self.assertEqual(list(self.state["namespaces"].values()), [{"labels": {"owner": "somebody"}}])

    def test_other_pods_of_a_node_are_not_evicted(self) -> None:
        for nodes in (1, 2):
            self.cluster(nodes=nodes)
            self.run_test()
        drains = [call for call in Fake.calls if "drain" in call]
        self.assertEqual(len(drains), 2)
        for call in drains:
            self.assertTrue(any(one.startswith("--pod-selector=finetune/k8s-test=") for one in call))


if __name__ == "__main__":
    unittest.main()
