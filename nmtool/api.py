"""What the command line calls and a notebook imports: one function per step of the pipeline.

    from nmtool import api
    api.train("digits-tgo", "runs/mine")
    model = api.open_model("runs/mine", target="loihi")
    api.export(model)
    api.run(model, "sim").record["accuracy"]

Importing this module loads neither torch nor Lava; a function loads what it needs. Every record that a function
returns or writes is JSON and carries command, versions, seed and hashes (:func:`nmtool.provenance.record`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool import provenance, runfile
from nmtool.backends.base import Backend, Progress, RunOptions, RunResult
from nmtool.compiler.options import CompileOptions
from nmtool.errors import ConfigError, Diagnostic, FindingsError, ModelError, TargetError, did_you_mean
from nmtool.inputs import Batch, Inputs, load_inputs
from nmtool.sources import MODEL_FILE, PROGRAM_FILE, Model, open_model

__all__ = [
    "CompileOptions",
    "Inputs",
    "Model",
    "RunOptions",
    "check",
    "export",
    "open_model",
    "run",
    "train",
    "verify",
]

BACKENDS = ("float", "sim", "lava")
EXPORT_RECORD = "export.json"
TRAIN_RECORD = "run.json"

AnyModel = Path | str | Model

ALL = Inputs()
PLAIN = RunOptions()
NOISE_OFF = RunOptions(noise=False)

Watch = Callable[[str], Progress]
"""Begins a line of progress with a title; what it returns is called with (done, total)."""


def silent(title: str) -> Progress:
    """A :data:`Watch` that shows nothing."""
    return lambda done, total: None


# --- train ---


@dataclass(frozen=True)
class Trained:
    """A run directory, and what training says about it (``run.json``)."""

    folder: Path
    record: Mapping[str, Any]


def train(
    recipe: str | Path,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    data_root: Path | None = None,
    watch: Watch = silent,
) -> Trained:
    """Train a recipe and export the network to NIR.

    Args:
        recipe: name of a recipe that ships with nmtool, or a TOML file.
        out: run directory; default ``runs/<name of the recipe>``.
        overrides: ``key=value`` each, over the recipe.
        resume: go on from the checkpoint in ``out``.
        data_root: folder of the data sets that do not ship with nmtool.
        watch: progress.

    Raises:
        ConfigError: NM001 to NM009 for recipe, data, output folder or checkpoint.
        SimulationError: NM405 if training left the finite numbers.
        ModelError: NM107 if the network cannot be exported without loss.
    """
    from nmtool.config import load_recipe
    from nmtool.data import datasets
    from nmtool.frontends import snntorch
    from nmtool.train import loop

    wanted = load_recipe(recipe, tuple(overrides))
    data = datasets.load(wanted.data.name, data_root)
    folder = Path(out) if out is not None else Path("runs") / wanted.name
    provenance.claim_folder(folder)
    tick = watch(f"training {wanted.name}")

    def progress(done: int, total: int, row: Mapping[str, Any]) -> None:
        if done == 1:  # a network of an earlier run belongs to weights that are gone now
            (folder / MODEL_FILE).unlink(missing_ok=True)
        tick(done, total)

    result = loop.train(wanted, data, folder, progress, resume=resume)
    snntorch.save(result.net.layers, data.spec.shape, result.net.model, folder / MODEL_FILE)
    return Trained(folder, json.loads((folder / TRAIN_RECORD).read_text(encoding="utf-8")))


# --- export and check ---


def finding_text(finding: Mapping[str, Any]) -> str:
    """A finding of a record in the form of all messages."""
    return str(Diagnostic(**finding))


@dataclass(frozen=True)
class Exported:
    """A target directory, and what compiling says about it (``export.json``)."""

    folder: Path
    record: Mapping[str, Any]


def export(model: AnyModel, out: Path | str | None = None) -> Exported:
    """Compile a model and write its target directory.

    Args:
        model: opened for its target (:func:`open_model`), or a path.
        out: the directory; default ``<target>`` beside the model.

    Raises:
        FindingsError: every violated design rule.
        ConfigError: NM002 if the directory cannot be written; NM004 for an exported directory.
        NmtoolError: NM1xx for the model, NM2xx for what the target cannot do.
    """
    from nmtool.compiler import program as programs

    opened = open_model(model)
    if opened.source.form == "export":
        raise ConfigError(
            "NM004", str(opened.source.path), "is an export already", "Name the model it was made from"
        )
    folder = Path(out) if out is not None else opened.source.folder / opened.spec.name
    program = opened.program
    provenance.claim_folder(folder)
    if opened.source.form != "net":
        from nmtool.compiler.writeback import write_quantised

        write_quantised(opened.graph, opened.compiled, folder / MODEL_FILE)
    programs.save(program, folder / PROGRAM_FILE)
    findings = () if opened.source.form == "net" else opened.compiled.findings
    record = {
        "schema": "nmtool.export/1",
        "target": opened.spec.name,
        "findings": [asdict(d) for d in findings],
        **_placement(opened),
        "info": program.info,
        **provenance.record(model=program.graph_sha256, program=program.sha256, target=opened.spec.sha256),
    }
    provenance.write_json(folder / EXPORT_RECORD, record)
    return Exported(folder, record)


def check(model: AnyModel) -> dict[str, Any]:
    """Hold a model against its target's design rules; writes nothing.

    Returns:
        record ``nmtool.check/1``: ``passed``, ``findings``, and ``utilisation`` where the model could be placed.

    Raises:
        ModelError: NM1xx if the file is no sound network.
        ConfigError: NM0xx for files and names.
    """
    opened = open_model(model)
    findings: Sequence[Diagnostic] = ()
    placement: dict[str, Any] = {"utilisation": None, "chip": None}
    try:
        findings = () if opened.source.form in ("net", "export") else opened.compiled.findings
        placement = _placement(opened)
    except FindingsError as e:
        findings = e.findings
    except TargetError as e:
        findings = (Diagnostic(e.code, e.where, e.message, e.hint),)
    return {
        "schema": "nmtool.check/1",
        "target": opened.spec.name,
        "passed": not any(d.severity == "error" for d in findings),
        "findings": [asdict(d) for d in findings],
        **placement,
        **provenance.record(target=opened.spec.sha256),
    }


def _placement(model: Model) -> dict[str, Any]:
    """What of the chip the program uses: the fullest core per population and budget, and cores in all."""
    from nmtool.compiler.place import place

    placement = place(model.program, model.spec)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for core in placement.cores:
        for use in core.uses:
            row = rows.setdefault(
                (core.population, use.name),
                {
                    "population": core.population,
                    "budget": use.name,
                    "cores": 0,
                    "used": 0,
                    "limit": use.limit,
                },
            )
            row["cores"] += 1
            row["used"] = max(row["used"], use.used)
    chip = {
        "cores": placement.n_cores,
        "cores_per_chip": placement.cores_per_chip or None,
        "chips": placement.n_chips,
    }
    return {"utilisation": list(rows.values()), "chip": chip}


# --- run and verify ---


@dataclass(frozen=True)
class Run:
    """A run: the arrays, the labels where they are known, and its record (``nmtool.run/1``)."""

    result: RunResult
    labels: NDArray[np.int64] | None
    record: Mapping[str, Any]


def backend(model: Model, name: str) -> Backend:
    """A backend with the model loaded.

    Raises:
        ConfigError: NM005 if there is no backend of that name.
        BackendUnavailableError: NM301 if Lava is not installed.
    """
    if name == "float":
        from nmtool.backends.reference import FloatBackend

        return FloatBackend(model.graph)
    if name == "sim":
        from nmtool.backends.sim import SimBackend

        return SimBackend(model.program)
    if name == "lava":
        from nmtool import lava_env
        from nmtool.backends.lava import LavaBackend

        return LavaBackend(model.program, lava_env.require())
    raise ConfigError("NM005", name, "no such backend", did_you_mean(name, BACKENDS))


def run(
    model: AnyModel,
    backend_name: str = "sim",
    inputs: Inputs = ALL,
    options: RunOptions = PLAIN,
    out: Path | str | None = None,
    watch: Watch = silent,
) -> Run:
    """Run a model.

    Args:
        model: a path or an open model.
        backend_name: ``float``, ``sim`` or ``lava``.
        inputs: what to run it on.
        options: how.
        out: an ``.npz`` to write the run to, see :mod:`nmtool.runfile`.
        watch: progress.

    Raises:
        ConfigError: NM0xx for files and names, NM002 if ``out`` cannot be written.
        ModelError: NM109 if the inputs do not fit.
        SimulationError: NM4xx if the run failed.
    """
    opened = open_model(model)
    engine = backend(opened, backend_name)
    batch = load_inputs(inputs, opened.interface)
    result = engine.run(batch.x, _steps(options, batch), watch(f"{backend_name}: {batch.origin}"))
    record = _run_record(opened, result, batch)
    if out is not None:
        runfile.save(result, Path(out), record, batch.labels)
    return Run(result, batch.labels, record)


def _steps(options: RunOptions, batch: Batch) -> RunOptions:
    """A spike file has its own T."""
    if batch.n_steps is None or options.n_steps in (None, batch.n_steps):
        return replace(options, n_steps=options.n_steps or batch.n_steps)
    message = f"is {options.n_steps}, but {batch.origin} holds {batch.n_steps} steps"
    raise ModelError("NM109", "--steps", message, "Leave --steps away")


def _run_record(model: Model, result: RunResult, batch: Batch) -> dict[str, Any]:
    spikes = {n: int(c.sum()) for n, c in result.spike_counts.items()}
    sizes = {n: c[0].size if len(c) else 0 for n, c in result.spike_counts.items()}
    per_step = result.n_samples * result.n_steps
    correct = None if batch.labels is None else int((result.predictions == batch.labels).sum())
    return {
        "schema": runfile.SCHEMA,
        "backend": result.backend,
        "target": None if result.backend == "float" else model.spec.name,
        "inputs": batch.origin,
        "n_samples": result.n_samples,
        "n_steps": result.n_steps,
        "noise": result.noise,
        "accuracy": None if correct is None else correct / result.n_samples,
        "predictions": result.predictions.tolist(),
        "spikes": spikes,
        "spike_density": {
            n: spikes[n] / (sizes[n] * per_step) if sizes[n] * per_step else None for n in spikes
        },
        "latency": dict(result.latency),
        "overflow": {n: dict(o) for n, o in result.overflow.items()},
        "failures": [dict(f) for f in result.failures],
        **provenance.record(result.seed, model=result.model_sha256),
    }


def verify(
    model: AnyModel,
    backends: Sequence[str] = ("float", "sim"),
    inputs: Inputs = ALL,
    options: RunOptions = NOISE_OFF,
    out: Path | str | None = None,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Run a model on several backends and compare each with the one before it, layer by layer.

    Args:
        model: a path or an open model.
        backends: two or more, in the order of the ladder.
        inputs: what to run it on.
        options: how; without noise by default, because only integer backends share one noise stream.
        out: a JSON file for the record.
        watch: progress.

    Returns:
        record ``nmtool.verify/1``: ``pairs`` (:func:`nmtool.metrics.agreement.compare`), ``agreement`` of the
        first pair, and ``integers_equal``: no two integer backends differ.

    Raises:
        ConfigError: NM004 for fewer than two backends; otherwise as :func:`run`.
    """
    from nmtool.metrics.agreement import compare

    if len(backends) < 2 or len(set(backends)) < len(backends):
        found = ", ".join(backends)
        raise ConfigError(
            "NM004", "--backends", f"is '{found}', needs two or more different ones", "Try float,sim"
        )
    opened = open_model(model)
    engines = [backend(opened, name) for name in backends]
    batch = load_inputs(inputs, opened.interface)
    traced = replace(_steps(options, batch), record=("all",))
    runs = [e.run(batch.x, traced, watch(f"{e.name}: {batch.origin}")) for e in engines]
    scales = {p.name: p.scale for p in opened.program.populations}
    pairs = [
        {**compare(a, b, scales if "float" in (a.backend, b.backend) else None),
         "exact": "float" not in (a.backend, b.backend)}
        for a, b in pairwise(runs)
    ]  # fmt: skip
    record = {
        "schema": "nmtool.verify/1",
        "target": opened.spec.name,
        "inputs": batch.origin,
        "agreement": pairs[0]["agreement"],
        "prediction_agreement": pairs[0]["prediction_agreement"],
        "integers_equal": all(p["equal"] for p in pairs if p["exact"]),
        "pairs": pairs,
        **provenance.record(options.seed, program=opened.program.sha256, graph=opened.program.graph_sha256),
    }
    if out is not None:
        provenance.write_json(Path(out), record)
    return record
