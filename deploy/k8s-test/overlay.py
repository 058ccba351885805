"""The manifests of the test: the shipped overlay `cpu` in a namespace of the test's own."""

import base64
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).resolve().parent.parent / "k8s"
# Everything that the test makes has this label, with the name of the test as its value.
LABEL = "finetune/k8s-test"
IMAGES = ("finetune/coordinator", "finetune/worker-cpu")
# More than any cluster trains during the test, which ends the run by lowering it.
ENDLESS = 1000
# The demo set needs little, and three workers are to fit on a small cluster.
REQUESTS = {"cpu": "250m", "memory": "1Gi", "ephemeral-storage": "1Gi"}


def new_name() -> str:
    return f"finetune-test-{secrets.token_hex(4)}"


def kustomization(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields}


def patch(name: str, *operations: dict[str, Any]) -> dict[str, Any]:
    return {"target": {"kind": "StatefulSet", "name": name}, "patch": json.dumps(operations)}


@dataclass(frozen=True)
class Overlay:
    """Two folders for `kubectl … -k`, beside a copy of the shipped manifests: the copy has a join
    token, which the checkout must not get."""

    folder: Path
    name: str
    registry: str | None

    @property
    def namespace(self) -> Path:
        return self.folder / "namespace"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def write(self) -> None:
        copy = self.folder / "k8s"
        shutil.copytree(SHIPPED, copy, ignore=shutil.ignore_patterns("join-token"))
        token = os.open(copy / "base" / "join-token", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(token, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
        self.namespace.mkdir()
        # kustomize reads files only below the folder of the kustomization.
        shutil.copy(SHIPPED / "namespace.yaml", self.namespace)
        self.save(self.namespace, kustomization(
            namespace=self.name,
            resources=["namespace.yaml"],
            labels=[{"pairs": {LABEL: self.name}}],
        ))
        self.run.mkdir()
        self.train(ENDLESS)

    def train(self, epochs: int) -> None:
        """Sets the number of epochs."""
        added = ("--data=demo", f"--epochs={epochs}", f"--patience={ENDLESS}")
        container = "/spec/template/spec/containers/0"
        self.save(self.run, kustomization(
            namespace=self.name,
            resources=["../k8s/overlays/cpu"],
            labels=[{"pairs": {LABEL: self.name}, "includeTemplates": True}],
            images=[{"name": name, "newName": f"{self.registry}/{name}"} for name in IMAGES]
            if self.registry else [],
            patches=[
                patch("coordinator", *(
                    {"op": "add", "path": f"{container}/args/-", "value": flag} for flag in added
                )),
                patch("worker", {
                    "op": "replace", "path": f"{container}/resources/requests", "value": REQUESTS,
                }),
            ],
        ))

    def save(self, folder: Path, content: dict[str, Any]) -> None:
        # JSON is YAML.
        (folder / "kustomization.yaml").write_text(json.dumps(content, indent=2) + "\n")
