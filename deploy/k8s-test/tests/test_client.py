"""The commands and the manifests of the test, as the real kubectl reads them, without a cluster."""

import json
import shutil
import subprocess
import unittest
from pathlib import Path
from typing import Any

import yaml
from harness import Fake, OverTheFake
from overlay import LABEL, Overlay

# Nothing listens there.
SERVER = "127.0.0.1:1"
KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config",
    "clusters": [{"name": "fake", "cluster": {"server": f"http://{SERVER}"}}],
    "users": [{"name": "fake", "user": {}}],
    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
}


@unittest.skipUnless(shutil.which("kubectl"), "kubectl is not installed")
class Client(OverTheFake):
    def setUp(self) -> None:
        super().setUp()
        self.kubeconfig = self.folder / "config"
        self.kubeconfig.write_text(json.dumps(KUBECONFIG))
        (self.folder / "overlay").mkdir()
        self.overlay = Overlay(self.folder / "overlay", "finetune-test-1", "registry.example/team")
        self.overlay.write()

    def kubectl(self, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def accepts(self, arguments: list[str]) -> bool:
        """Whether the client gets as far as asking the server."""
        code, _, error = self.kubectl(*arguments)
        return code != 0 and SERVER in error and "refused" in error

    def commands(self) -> list[list[str]]:
        """One command of each shape that the test uses."""
        for options in ({"nodes": 1}, {"nodes": 2}, {"faults": ["no-steps"]}):
            self.cluster(**options)
            self.run_test()
        shapes: dict[tuple[str, ...], list[str]] = {}
        for call in Fake.calls:
            if "-k" in call:
                call = [*call]
                call[call.index("-k") + 1] = str(self.overlay.run)
            shape = tuple(word.split("=")[0].rstrip("0123456789") for word in call)
            shapes[shape] = call
        return list(shapes.values())

    def test_it_accepts_all_commands(self) -> None:
        commands = [call for call in self.commands() if call[0] != "config"]
        verbs = {call[2] for call in commands}
        self.assertLessEqual(
            {"apply", "create", "delete", "drain", "exec", "get", "logs", "scale", "uncordon"}, verbs
        )
        for call in commands:
            with self.subTest(" ".join(call)):
                self.assertTrue(self.accepts(call), self.kubectl(*call)[2])

    def test_it_rejects_what_it_does_not_know(self) -> None:
        here = ["--context=fake", "--namespace=n"]
        for wrong in (["scale", "statefulset/worker"], ["drain", "node", "--pods=a"], ["evict", "worker-1"]):
            self.assertFalse(self.accepts([*here, *wrong]), wrong)

    def test_it_lists_the_contexts(self) -> None:
        self.assertEqual(self.kubectl("config", "get-contexts", "--output=name")[1], "fake\n")

    def rendered(self, folder: Path) -> list[dict[str, Any]]:
        code, out, error = self.kubectl("kustomize", str(folder))
        self.assertEqual(code, 0, error)
        return list(yaml.safe_load_all(out))

    def test_the_namespace_is_the_shipped_one_under_its_own_name(self) -> None:
        (made,) = self.rendered(self.overlay.namespace)
        self.assertEqual(made["metadata"]["name"], "finetune-test-1")
        self.assertEqual(made["metadata"]["labels"][LABEL], "finetune-test-1")
        self.assertEqual(made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")

    def test_the_overlay_is_the_shipped_one(self) -> None:
        self.overlay.train(7)
        made = self.rendered(self.overlay.run)
        self.assertEqual({one["metadata"]["namespace"] for one in made}, {"finetune-test-1"})
        sets = {one["metadata"]["name"]: one["spec"]["template"] for one in made if one["kind"] == "StatefulSet"}
        for template in sets.values():
            self.assertEqual(template["metadata"]["labels"][LABEL], "finetune-test-1")
        containers = {name: template["spec"]["containers"][0] for name, template in sets.items()}
        self.assertEqual(containers["coordinator"]["args"][-3:], ["--data=demo", "--epochs=7", "--patience=1000"])
        self.assertIn("--resume-if-exists", containers["coordinator"]["args"])
        self.assertEqual(containers["worker"]["resources"]["requests"]["cpu"], "250m")
        images = {name: one["image"].rsplit(":", 1)[0] for name, one in containers.items()}
        self.assertEqual(images, {
            "coordinator": "registry.example/team/finetune/coordinator",
            "worker": "registry.example/team/finetune/worker-cpu",
        })

    def test_each_test_has_a_token_of_its_own(self) -> None:
        secrets = [one for one in self.rendered(self.overlay.run) if one["kind"] == "Secret"]
        (self.folder / "second").mkdir()
        second = Overlay(self.folder / "second", "finetune-test-2", None)
        second.write()
        secrets += [one for one in self.rendered(second.run) if one["kind"] == "Secret"]
        tokens = {one["data"]["join"] for one in secrets}
        self.assertEqual(len(tokens), 2)
        self.assertTrue(all(len(token) >= 44 for token in tokens))
