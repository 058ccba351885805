"""README.md of an archive."""

TITLES = {
    "coordinator": "the coordinator",
    "worker-cpu": "the worker, with libtorch for CPUs",
    "worker-cuda": "the worker, for the torch that is installed",
}

COORDINATOR = """\
`bin/coordinator` needs no other file. It starts the `worker` beside it; `coordinator --help` lists
its flags and exit codes.
"""

WORKER = """\
`bin/worker` finds libtorch and starts `libexec/worker` in its own process. It takes libtorch {torch}
from the first of these places:

1. `LIBTORCH`: the folder `torch` of an installed PyTorch, or its folder `lib`;
2. `lib/` of this installation;
3. the torch of the active Python.

Another version is refused with exit code 8. `worker --help` lists flags and exit codes.
"""

CUDA = """
This archive has no libraries of CUDA. `pip install torch=={torch}` installs them with PyTorch, into
a virtual environment for instance, which has to be active when the worker or its coordinator starts.
"""


def text(component: str, version: str, torch: str, needs: dict[str, str]) -> str:
    """The text, with what the programs need from the system."""
    system = f"glibc {needs['GLIBC']} or newer"
    if "GLIBCXX" in needs:
        system += f", and a libstdc++ with GLIBCXX_{needs['GLIBCXX']}"
    body = COORDINATOR if component == "coordinator" else WORKER
    if component == "worker-cuda":
        body += CUDA
    return (
        f"# finetune {version}: {TITLES[component]}\n\n{body.format(torch=torch)}\n"
        f"It needs Linux on x86-64 with {system}.\n\n"
        "`install.sh` of the release installs it. By hand: unpack the archives of the coordinator\n"
        "and of a worker into the same folder.\n\n"
        "LICENSE is the licence of finetune, LICENSES-third-party.txt has those of its components,\n"
        "and COPYRIGHT-library.html those of Rust's standard library.\n"
    )
