"""What the command line calls and a notebook imports: one function per step of the pipeline.

    from nmtool import api
    api.train("digits-tgo", "runs/mine")
    model = api.open_model("runs/mine", target="loihi")
    api.export(model)
    api.run(model, "sim").record["accuracy"]

Importing this package loads neither torch nor Lava; a function loads what it needs. Every record that a function
returns or writes is JSON and carries command, versions, seed and hashes (:func:`nmtool.provenance.record`).
"""

from nmtool.api.chain import Demo, demo
from nmtool.api.compiling import Exported, check, export, finding_text
from nmtool.api.energy import energy_report
from nmtool.api.inputs import Inputs
from nmtool.api.models import DEFAULT_TARGET, Model, ReadOptions, open_model
from nmtool.api.robustness import AttackOptions, robustness_report
from nmtool.api.running import Run, load_run, run, verify
from nmtool.api.training import Trained, train
from nmtool.backends.base import RunOptions
from nmtool.compiler.options import CompileOptions

__all__ = [
    "DEFAULT_TARGET",
    "AttackOptions",
    "CompileOptions",
    "Demo",
    "Exported",
    "Inputs",
    "Model",
    "ReadOptions",
    "Run",
    "RunOptions",
    "Trained",
    "check",
    "demo",
    "energy_report",
    "export",
    "finding_text",
    "load_run",
    "open_model",
    "robustness_report",
    "run",
    "train",
    "verify",
]
