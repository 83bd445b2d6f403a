"""Attack the float network and the deployed one, and doubt the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmtool import provenance
from nmtool.api.inputs import Batch, Inputs, load_inputs
from nmtool.api.models import AnyModel, Model, open_model
from nmtool.api.pages import write_report
from nmtool.api.progress import Watch, silent
from nmtool.api.running import ALL
from nmtool.api.threads import threads_for
from nmtool.errors import ConfigError, ModelError, did_you_mean

if TYPE_CHECKING:
    from nmtool.attacks.search import Model as Attacked

STEM, STATE = "robustness", "robustness.state.json"

NETWORKS = {"float": ("float",), "sim": ("float", "sim")}
"""What ``--backend`` attacks: the deployed network always beside the float one, whose examples are replayed on it."""


@dataclass(frozen=True)
class AttackOptions:
    """How to attack.

    Attributes:
        suite: name of the suite.
        eps: budgets in L-infinity, in units of the input; None takes 5, 10 and 20 % of the input's range.
        seed: of starts and noise draws.
        batch_size: samples attacked together; random starts depend on it.
        resume: go on from the state that an interrupted evaluation left in ``out``.
    """

    suite: str = "quick"
    eps: tuple[float, ...] | None = None
    seed: int = 0
    batch_size: int = 500
    resume: bool = False


DEFAULTS = AttackOptions()


def robustness_report(
    model: AnyModel,
    backend: str = "sim",
    inputs: Inputs = ALL,
    options: AttackOptions = DEFAULTS,
    out: Path | str | None = None,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Attack a model with gradients.

    The deployed network is attacked through a differentiable copy whose forward equals the integer simulator's.

    Args:
        model: a path or an open model.
        backend: ``float`` attacks the float network alone, ``sim`` also the deployed one.
        inputs: labelled samples.
        options: how.
        out: a directory for ``robustness.json``, a page and figures; the state of unfinished work is kept there.
        watch: progress.

    Returns:
        record ``nmtool.robustness/1``.

    Raises:
        ConfigError: NM004, NM005 for options; NM002 for ``out``.
        ModelError: NM109 for inputs that do not fit or have no labels.
        EvaluationError: NM502, NM503 if an attack or the model cannot be believed.
    """
    from nmtool.attacks import suite as suites
    from nmtool.attacks.arrays import as_tensors

    opened = open_model(model)
    batch, labels = _victims(inputs, opened)
    budgets = _budgets(options, opened)
    plan = suites.Plan(suites.suite(options.suite), budgets, options.seed, options.batch_size)
    models = attacked(opened, backend)
    folder = Path(out) if out is not None else None
    state = _begin(folder, options.resume)
    tick = watch(f"attacking {', '.join(models)}: {batch.origin}")

    def progress(done: int, total: int) -> None:
        if folder is not None:
            provenance.write_json(folder / STATE, state)
        tick(done, total)

    data = as_tensors(batch.x, labels)
    with threads_for(sum(c.weights.size for c in opened.program.connections)):
        found = suites.run(models, data, plan, progress, state)
    hashes = {"graph": opened.program.graph_sha256, "program": opened.program.sha256}
    record = {
        **found,
        "inputs": batch.origin,
        "target": opened.spec.name,
        **provenance.record(options.seed, **hashes),
    }
    if folder is not None:
        write_report(record, folder, STEM)
        (folder / STATE).unlink(missing_ok=True)
    return record


def attacked(model: Model, backend: str) -> Mapping[str, Attacked]:
    """The networks that ``backend`` names, differentiable.

    Raises:
        ConfigError: NM005 if there is no such choice.
    """
    from nmtool.attacks.models import Differentiable
    from nmtool.twin.floating import FloatTwin
    from nmtool.twin.integer import IntegerTwin

    if backend not in NETWORKS:
        raise ConfigError("NM005", backend, "cannot be attacked", did_you_mean(backend, NETWORKS))
    bounds = model.interface.bounds
    models: dict[str, Attacked] = {}
    if "float" in NETWORKS[backend] and model.source.has_graph:
        net = FloatTwin(model.graph)
        models["float"] = Differentiable("float", net, bounds, net.n_classes, net.stochastic)
    if "sim" in NETWORKS[backend]:
        twin = IntegerTwin(model.program)
        n_classes = model.program.size(model.program.output)
        models["sim"] = Differentiable(model.spec.name, twin, bounds, n_classes, twin.stochastic)
    return models


def _victims(inputs: Inputs, model: Model) -> tuple[Batch, NDArray[np.int64]]:
    """Labelled analog inputs, and their labels."""
    batch = load_inputs(inputs, model.interface)
    if batch.n_steps is not None:
        message = "holds spikes; these attacks change analog values"
        raise ModelError("NM109", batch.origin, message, "Attack a model with an analog input")
    if batch.labels is None:
        message = "has no labels, an attack needs them"
        raise ModelError("NM109", batch.origin, message, "Name a data set with labels")
    return batch, batch.labels


def _budgets(options: AttackOptions, model: Model) -> tuple[float, ...]:
    low, high = model.interface.bounds
    return options.eps or tuple(share * (high - low) for share in (0.05, 0.1, 0.2))


def _begin(folder: Path | None, resume: bool) -> dict[str, Any]:
    """The state to go on from, or an empty one."""
    if folder is None:
        return {}
    provenance.claim_folder(folder)
    if not resume:
        return {}
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise ConfigError(
            "NM008", str(folder), f"holds no {STATE} to go on from", "Leave --resume away"
        ) from e
    except (OSError, ValueError) as e:
        raise ConfigError(
            "NM006", str(folder / STATE), f"is not valid JSON ({e})", "Leave --resume away"
        ) from e
    return state
