"""Robust accuracy from per-sample outcomes: intervals, worst cases, and the record that reports are drawn from.

An outcome is the share of final evaluations in which a sample stays right: 0 or 1 for a deterministic model, a mean
over fresh noise draws for a stochastic one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import EvaluationError

SCHEMA = "nmtool.robustness/1"
CONFIDENCE = 0.95

Outcomes = NDArray[np.float64]


def wilson(right: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927, eq. 4).

    Args:
        right: number of successes; may be fractional where outcomes are means over draws, the interval then speaks of
            samples and not of draws.
        n: number of samples, at least 1.
        confidence: two-sided.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = right / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def rate(outcomes: Sequence[float] | Outcomes) -> dict[str, Any]:
    """Accuracy with its interval: ``value``, ``low``, ``high`` (95 %), ``n``.

    Raises:
        EvaluationError: NM501 if there is no sample, or an outcome is not a share.
    """
    a = np.asarray(outcomes, np.float64)
    if a.ndim != 1 or not a.size or not ((a >= 0) & (a <= 1)).all():
        found = f"outcomes of shape {list(a.shape)}, need at least one, each in 0..1"
        raise EvaluationError("NM501", "robust accuracy", found)
    low, high = wilson(float(a.sum()), a.size)
    return {"value": float(a.mean()), "low": low, "high": high, "n": int(a.size)}


def worst(outcomes: Sequence[Sequence[float] | Outcomes]) -> Outcomes:
    """Per-sample minimum over attacks, ``[B]``: what an attacker reaches who picks the best one for each sample."""
    result: Outcomes = np.min(np.asarray(outcomes, np.float64), axis=0)
    return result


def record(header: Mapping[str, Any], clean: Mapping[str, Sequence[float]], units: Sequence[Mapping[str, Any]],
           sanity: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:  # fmt: skip
    """The document of one evaluation, JSON types only.

    Args:
        header: suite, seed, budgets, models: whatever says what was done.
        clean: per model the outcomes without attack.
        units: per attack and budget: ``attack``, ``eps``, ``models`` (per model ``right`` per sample and the attack's
            own numbers), and ``replay`` (the same for examples of the float model on the deployed one), or None.
        sanity: findings per model.
    """
    red = [(name, f) for name, found in sanity.items() for f in found if f["status"] == "red"]
    red = [(name, f) for name, found in sanity.items() for f in found if f["status"] == "red"]
    reasons = [f"{name}: {f['check']} {f['title']}" for name, f in red]
    return {
        "schema": SCHEMA,
        **header,
        "clean": {name: rate(right) for name, right in clean.items()},
        "attacks": [_attack(unit) for unit in units],
        "worst_case": [worst_case(eps, clean, units) for eps in sorted({float(u["eps"]) for u in units})],
        "sanity": {name: list(found) for name, found in sanity.items()},
        "claim": {"status": "withheld" if reasons else "reported", "reasons": reasons},
    }


def worst_case(
    eps: float, clean: Mapping[str, Sequence[float]], units: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Per-sample minimum at one budget, per model. Replayed examples count: they are examples like any other."""
    here = [u for u in units if float(u["eps"]) == eps]
    result: dict[str, Any] = {"eps": eps}
    for name, unharmed in clean.items():
        found = [unharmed, *(u["models"][name]["right"] for u in here if name in u["models"])]
        found += [u["replay"]["right"] for u in here if u["replay"] and u["replay"]["on"] == name]
        result[name] = rate(worst(found))
    return result


def _attack(unit: Mapping[str, Any]) -> dict[str, Any]:
    """One row: outcomes per sample become rates."""

    def short(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {"robust": rate(entry["right"]), **{k: v for k, v in entry.items() if k != "right"}}

    row = {k: v for k, v in unit.items() if k not in ("models", "replay")}
    row["models"] = {name: short(entry) for name, entry in unit["models"].items()}
    row["replay"] = short(unit["replay"]) if unit["replay"] else None
    return row
