"""The wheels that shared libraries come from."""

from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

# Expressions for the licence fields of the wheels. The texts are packaged too.
LICENCES = {
    "torch": "BSD-3-Clause",
    "nvidia-cuda-runtime": "LicenseRef-NVIDIA-Proprietary",
    "nvidia-cuda-cupti": "LicenseRef-NVIDIA-Proprietary",
}


@dataclass(frozen=True, order=True)
class Wheel:
    """One installed wheel."""

    name: str
    version: str
    licence: str
    texts: tuple[Path, ...]

    @property
    def reference(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def wheel(found: Distribution) -> Wheel:
    name = found.metadata["Name"].lower().replace("_", "-")
    if name not in LICENCES:
        raise ValueError(f"the licence of {name} is not in {Path(__file__).name}")
    texts = [
        Path(str(found.locate_file(file))) for file in found.files or [] if "licenses" in file.parts
    ]
    if not texts:
        raise ValueError(f"{name} {found.version} has no licence file")
    return Wheel(name, found.version, LICENCES[name], tuple(sorted(texts)))


def of_libraries(site_packages: Path, names: list[str]) -> list[Wheel]:
    """The wheels with libraries of these names."""
    providers: dict[str, Distribution] = {}
    for each in distributions(path=[str(site_packages)]):
        for file in each.files or []:
            providers.setdefault(file.name, each)
    if missing := [name for name in names if name not in providers]:
        raise ValueError(f"no wheel in {site_packages} has {', '.join(missing)}")
    return sorted({wheel(providers[name]) for name in names})


def torch_version(site_packages: Path) -> str:
    """The version of torch, as a wheel is named: without its build for CUDA."""
    for each in distributions(path=[str(site_packages)], name="torch"):
        return each.version.split("+")[0]
    raise ValueError(f"{site_packages} has no torch; run `make setup`")
