"""Run a model on a backend, and compare backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool import provenance
from nmtool.api import runfile
from nmtool.api.inputs import Batch, Inputs, load_inputs
from nmtool.api.models import AnyModel, Model, open_model
from nmtool.api.progress import Watch, silent
from nmtool.backends.base import Backend, RunOptions, RunResult
from nmtool.errors import ConfigError, ModelError, did_you_mean

BACKENDS = ("float", "sim", "lava")
ALL = Inputs()
PLAIN = RunOptions()
NOISE_OFF = RunOptions(noise=False)


@dataclass(frozen=True)
class Run:
    """A run: the arrays, the labels where they are known, and its record (``nmtool.run-result/1``)."""

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
    _claim(out)
    result = engine.run(batch.x, _steps(options, batch), watch(f"{backend_name}: {batch.origin}"))
    record = _run_record(opened, result, batch)
    if out is not None:
        runfile.save(result, Path(out), record, batch.labels)
    return Run(result, batch.labels, record)


def _claim(out: Path | str | None) -> None:
    """Find out that a file cannot be written before the work, not after it."""
    if out is not None:
        provenance.claim_folder(Path(out).parent)


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
        record ``nmtool.verify/1`` of the first pair (:func:`nmtool.metrics.agreement.compare`), those of the others
        as ``further``, and ``integers_equal``: no two integer backends differ.

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
    _claim(out)
    traced = replace(_steps(options, batch), record=("all",))
    runs = [e.run(batch.x, traced, watch(f"{e.name}: {batch.origin}")) for e in engines]
    scales = {p.name: p.scale for p in opened.program.populations}
    pairs = [compare(a, b, scales if "float" in (a.backend, b.backend) else None) for a, b in pairwise(runs)]
    record = {
        **pairs[0],
        "further": pairs[1:],
        "integers_equal": all(p["equal"] for p in pairs if "float" not in (p["reference"], p["other"])),
        "target": opened.spec.name,
        "inputs": batch.origin,
        **provenance.record(options.seed, program=opened.program.sha256, graph=opened.program.graph_sha256),
    }
    if out is not None:
        provenance.write_json(Path(out), record)
    return record


def load_run(path: Path | str) -> Run:
    """A run that :func:`run` wrote to a file.

    Raises:
        ConfigError: NM001 if there is no such file, NM006 if it is damaged or no run.
    """
    result, record, labels = runfile.load(Path(path))
    return Run(result, labels, record)
