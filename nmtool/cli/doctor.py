"""``nmtool doctor``: what this installation can do, and what to do about the rest."""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

from nmtool import __version__, resources
from nmtool.cli.ui import Ui, table
from nmtool.cli.verbs import verb
from nmtool.errors import EXIT_NO, EXIT_OK, NmtoolError

NEEDED = (
    "numpy",
    "torch",
    "snntorch",
    "nir",
    "numba",
    "h5py",
    "scikit-learn",
    "matplotlib",
    "pydantic",
    "typer",
    "rich",
)


class Check(NamedTuple):
    """One thing that was looked at. ``required``: nmtool does not work without it."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = True


@verb("doctor", "nmtool doctor", "nmtool doctor --json")
def doctor(ui: Ui) -> int:
    """Say what is installed, what is missing and what to do about it. Ends with 1 if something required is."""
    checks = [*_python(), *_packages(), _threads(), _lava(), *_files(), *_data()]
    healthy = all(c.ok for c in checks if c.required)
    rows = [("ok" if c.ok else "missing", c.name, c.found, "" if c.ok else c.remedy) for c in checks]
    document = {"healthy": healthy, "checks": [c._asdict() for c in checks]}
    ui.result(document, table("", ("", "what", "found", "what to do"), rows))
    return EXIT_OK if healthy else EXIT_NO


def _python() -> list[Check]:
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [
        Check("nmtool", True, __version__),
        Check("Python", True, f"{platform.python_version()} on {system}"),
    ]


def _packages() -> list[Check]:
    found = [(name, resources.version(name)) for name in NEEDED]
    return [Check(name, v is not None, v or "", f"Install it: pip install {name}") for name, v in found]


def _threads() -> Check:
    """Imports torch: its number of threads is known to torch alone."""
    try:
        torch = resources.require("torch", "training", "Install it: pip install torch")
    except NmtoolError as e:
        return Check("torch threads", False, "", e.hint)
    device = "with CUDA" if torch.cuda.is_available() else "CPU"
    return Check("torch threads", True, f"{torch.get_num_threads()}, {device}", required=False)


def _lava() -> Check:
    from nmtool import lava_env

    status = lava_env.status()
    found = f"{status['lava']} on Python {status['python']}" if status["installed"] else status["reason"]
    return Check("Lava", bool(status["installed"]), found, "nmtool lava install", required=False)


def _files() -> list[Check]:
    """The data files that nmtool itself reads."""
    checks = []
    for kind in resources.VARIABLES:
        names = [path.stem for path in resources.listing(kind)]
        checks.append(
            Check(kind, bool(names), ", ".join(names), "Reinstall nmtool, or unset its environment variables")
        )
    return checks


def _data() -> list[Check]:
    """Every data set that has a loader, by loading it."""
    from nmtool.data import datasets

    checks = []
    for name in datasets.LOADERS:
        try:
            data = datasets.load(name)
            found = f"{len(data.x_train)} + {len(data.x_test)} samples"
            checks.append(Check(f"data set {name}", True, found, required=False))
        except NmtoolError as e:
            checks.append(Check(f"data set {name}", False, e.message, e.hint, required=False))
    return checks
