"""Suites of attacks as data, and their evaluation on the float and the deployed network side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nmtool.attacks import sanity
from nmtool.attacks.base import Attack, AttackResult, evaluate, merged
from nmtool.attacks.fgsm import FGSM, RFGSM
from nmtool.attacks.models import Batched
from nmtool.attacks.momentum import MIFGSM
from nmtool.attacks.pgd import PGD
from nmtool.attacks.search import Model, linf, seeds
from nmtool.errors import ConfigError, did_you_mean
from nmtool.metrics import robustness

STATE_SCHEMA = "nmtool.robustness-state/1"
FLOAT, DEPLOYED = "float", "sim"
AGAIN = "Start again without the saved state"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Suite:
    """Which attacks, and how thorough the checks are.

    Attributes:
        name: as it is asked for.
        attacks: in the order in which they run.
        random_draws: of check G12.

    Raises:
        ConfigError: NM004 without attacks, or with two of one name.
    """

    name: str
    attacks: tuple[Attack, ...]
    random_draws: int

    def __post_init__(self) -> None:
        names = [a.name for a in self.attacks]
        if not names or len(set(names)) < len(names):
            found = f"has attacks {names}, need at least one, and different names"
            raise ConfigError("NM004", f"suite '{self.name}'", found)


QUICK = (FGSM(draws=5), PGD(draws=5, steps=10))
STANDARD = (
    FGSM(draws=20),
    PGD(draws=20, steps=40),
    PGD(draws=20, steps=40, loss="margin"),
    RFGSM(draws=20),
    MIFGSM(draws=20),
)
SUITES = {s.name: s for s in (Suite("quick", QUICK, 20), Suite("standard", STANDARD, 100))}


def suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        ConfigError: NM005 if there is none.
    """
    if name not in SUITES:
        raise ConfigError("NM005", f"suite '{name}'", "does not exist", did_you_mean(name, SUITES))
    return SUITES[name]


@dataclass(frozen=True)
class Plan:
    """One evaluation.

    Attributes:
        suite: which attacks.
        eps: budgets in L-infinity, in units of the bounds, each above 0.
        seed: of everything random.
        batch_size: samples attacked together; random starts depend on it, so it is recorded.

    Raises:
        ConfigError: NM004 without a budget, or with one that is not above 0.
    """

    suite: Suite
    eps: tuple[float, ...]
    seed: int = 0
    batch_size: int = 500

    def __post_init__(self) -> None:
        if not self.eps or not all(e > 0 for e in self.eps) or self.batch_size < 1:
            found = f"eps = {list(self.eps)}, batch_size = {self.batch_size}"
            raise ConfigError(
                "NM004", "robustness", f"{found}, need budgets above 0 and at least one sample per batch"
            )

    def describe(self) -> dict[str, Any]:
        """Every parameter, JSON types."""
        attacks = [a.describe() for a in self.suite.attacks]
        return {
            "suite": self.suite.name, "attacks": attacks, "random_draws": self.suite.random_draws, "norm": "linf",
            "eps": list(self.eps), "seed": self.seed, "batch_size": self.batch_size,
        }  # fmt: skip


def run(
    models: Mapping[str, Model],
    data: tuple[Tensor, Tensor],
    plan: Plan,
    progress: Progress | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Attack every model, replay the float model's examples on the deployed one, and doubt the result.

    Args:
        models: ``float``, ``sim`` (the deployed network, differentiable), or both.
        data: inputs ``[B, *shape]`` and labels int64 ``[B]``.
        plan: what to do.
        progress: told after every attack how many of how many are done.
        state: an empty dict to be filled while the work goes on, or a filled one (JSON types) to go on from; the caller
            may save it whenever ``progress`` is called.

    Returns:
        a record of schema :data:`nmtool.metrics.robustness.SCHEMA`.

    Raises:
        ConfigError: NM004 for a state of other parameters, or for models that are not those above.
        EvaluationError: NM502, NM503 from the attacks.
    """
    if not models or not set(models) <= {FLOAT, DEPLOYED}:
        raise ConfigError("NM004", "models", f"are {sorted(models)}, allowed are '{FLOAT}' and '{DEPLOYED}'")
    whole = {n: Batched(m, plan.batch_size) for n, m in models.items()}
    clean = {n: _outcomes(evaluate(m, *data, plan.seed)) for n, m in whole.items()}
    work = state if state is not None else {}
    about = {**plan.describe(), "n_samples": len(data[0]), "models": _described(models)}
    _resume(
        work, {**about, "data": _digest(*(d.cpu().numpy() for d in data)), "clean": _digest(*clean.values())}
    )
    todo = [(a, eps) for eps in plan.eps for a in plan.suite.attacks]
    for done, (attack, eps) in enumerate(todo, 1):
        key = f"{attack.name}@{eps!r}"
        if key not in work["units"]:
            work["units"][key] = _unit(models, data, plan, (attack, eps))
        if progress is not None:
            progress(done, len(todo))
    units = [work["units"][f"{a.name}@{eps!r}"] for a, eps in todo]
    return robustness.record(about, clean, units, doubts(models, data, plan, units))


def _unit(
    models: Mapping[str, Model], data: tuple[Tensor, Tensor], plan: Plan, what: tuple[Attack, float]
) -> dict[str, Any]:
    """One attack at one budget on every model, and the replay."""
    attack, eps = what
    results = {n: _attacked(m, data, plan, what) for n, m in models.items()}
    replay = None
    if set(models) == {FLOAT, DEPLOYED}:
        deployed = Batched(models[DEPLOYED], plan.batch_size)
        right = evaluate(deployed, results[FLOAT].adversarial, data[1], plan.seed, attack.final_draws)
        replay = {"label": "replay", "of": FLOAT, "on": DEPLOYED, "right": _outcomes(right)}
    entries = {n: _entry(r, data[0]) for n, r in results.items()}
    return {"attack": attack.name, "eps": eps, "models": entries, "replay": replay}


def _attacked(
    model: Model, data: tuple[Tensor, Tensor], plan: Plan, what: tuple[Attack, float]
) -> AttackResult:
    (x, y), (attack, eps) = data, what
    starts = range(0, len(x), plan.batch_size)
    parts = [
        attack(model, x[i : i + plan.batch_size], y[i : i + plan.batch_size], eps, s)
        for i, s in zip(starts, seeds(plan.seed, 0, len(starts)), strict=True)
    ]
    return merged(parts)


def _entry(result: AttackResult, x: Tensor) -> dict[str, Any]:
    return {
        "right": _outcomes(result.robust),
        "loss_increased": float((result.loss_end >= result.loss_start).double().mean()),
        "zero_gradient": result.zero_gradient,
        "largest_change": float(linf(result.adversarial, x).max()),
        "n_forward": result.n_forward,
        "n_backward": result.n_backward,
    }


def doubts(
    models: Mapping[str, Model], data: tuple[Tensor, Tensor], plan: Plan, units: list[dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Findings per model: at the largest budget where one is needed, on the first batch where a gradient is needed."""
    eps = max(plan.eps)
    here = [u for u in units if u["eps"] == eps]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, model in models.items():
        checks = list(_checks(model, data, (plan, eps), {u["attack"]: u["models"][name] for u in here}))
        replays = [u["replay"]["right"] for u in here if u["replay"] and u["replay"]["on"] == name]
        if replays:
            direct = robustness.worst([u["models"][name]["right"] for u in here]).mean()
            checks.append(sanity.replay_gap(float(robustness.worst(replays).mean()), float(direct)))
        found[name] = [c.to_json() for c in checks]
    return found


def _checks(
    model: Model,
    data: tuple[Tensor, Tensor],
    budget: tuple[Plan, float],
    entries: Mapping[str, Mapping[str, Any]],
) -> Iterator[sanity.Finding]:
    plan, eps = budget
    x, y = (part[: plan.batch_size] for part in data)
    yield sanity.zero_gradient(model, x, y, plan.seed)
    accuracy = {name: float(np.mean(e["right"])) for name, e in entries.items()}
    one_step = [accuracy[a.name] for a in plan.suite.attacks if isinstance(a, FGSM)]
    iterated = {a.name: accuracy[a.name] for a in plan.suite.attacks if isinstance(a, PGD | MIFGSM)}
    if one_step and iterated:
        yield sanity.one_step_gap(min(one_step), min(iterated.values()))
    yield sanity.determinism(model, x, plan.seed)
    yield sanity.random_noise(
        Batched(model, plan.batch_size), data, eps, plan.seed, plan.suite.random_draws, accuracy
    )
    if iterated:
        best = min(iterated, key=lambda n: iterated[n])
        yield sanity.loss_increased(entries[best]["loss_increased"], model.stochastic)


def _resume(state: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Start a state, or check that it belongs to these parameters.

    Raises:
        ConfigError: NM004 naming the first parameter that differs, NM006 for what is no state.
    """
    if not state:
        state.update(schema=STATE_SCHEMA, parameters=parameters, units={})
        return
    before, units = state.get("parameters"), state.get("units")
    if state.get("schema") != STATE_SCHEMA or not isinstance(before, dict) or not isinstance(units, dict):
        found = f"has schema {state.get('schema')!r}, expected {STATE_SCHEMA!r} with parameters and units"
        raise ConfigError("NM006", "saved state", found, AGAIN)
    for key, now in json.loads(json.dumps(parameters)).items():
        if before.get(key) != now:
            found = f"was made with {key} = {str(before.get(key))[:60]}, not {str(now)[:60]}"
            raise ConfigError("NM004", "saved state", found, AGAIN)
    for key, unit in units.items():
        if not _sound(unit, parameters):
            raise ConfigError("NM006", "saved state", f"entry '{key}' is damaged", AGAIN)


def _sound(unit: Any, parameters: Mapping[str, Any]) -> bool:
    """Whether a saved unit has, for every model, its numbers and an outcome in 0..1 for every sample."""
    if not isinstance(unit, dict) or set(unit) != {"attack", "eps", "models", "replay"}:
        return False
    models, replay = unit["models"], unit["replay"]
    if not isinstance(models, dict) or set(models) != set(parameters["models"]):
        return False
    if not all(isinstance(e, dict) and isinstance(e.get("loss_increased"), float) for e in models.values()):
        return False
    rights = [e.get("right") for e in models.values()]
    if replay is not None:
        if not isinstance(replay, dict) or replay.get("on") not in models:
            return False
        rights.append(replay.get("right"))
    return all(
        isinstance(r, list)
        and len(r) == parameters["n_samples"]
        and all(type(v) is float and 0 <= v <= 1 for v in r)
        for r in rights
    )


def _described(models: Mapping[str, Model]) -> dict[str, Any]:
    return {
        n: {
            "name": m.name,
            "stochastic": m.stochastic,
            "differentiable": m.differentiable,
            "bounds": list(m.bounds),
        }
        for n, m in models.items()
    }


def _digest(*arrays: Any) -> str:
    """SHA-256 of arrays, for telling whether a state belongs to them."""
    digest = hashlib.sha256()
    for part in arrays:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _outcomes(right: Tensor) -> list[float]:
    return [float(r) for r in right]
