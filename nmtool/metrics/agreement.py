"""Where two runs of the same network differ: per layer the first step, sample, neuron and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunResult, Trace
from nmtool.errors import EvaluationError

SCHEMA = "nmtool.verify/1"
MAX_LAG = 3


def compare(
    reference: RunResult, other: RunResult, scales: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Layer by layer agreement of two traced runs.

    Args:
        reference: what should come out.
        other: what came out.
        scales: real value of one membrane unit per population, to compare a float run (already in volts) with an
            integer one; None if both are integers, which are then compared exactly.

    Returns:
        a record of schema ``nmtool.verify/1`` without provenance. ``equal`` says whether every compared number is
        the same; ``agreement`` is the share of (step, sample, neuron) with the same spike; ``overflow`` counts what the
        other run's registers wrapped or clipped, which alone can explain a difference.

    Raises:
        EvaluationError: NM501 if the runs have no traced layer in common or differ in shape.
    """
    names = [n for n in reference.traces if n in other.traces]
    if not names:
        raise EvaluationError(
            "NM501", "verify", "the two runs have no recorded layer in common", "Run both with --record all"
        )
    layers = [_layer(n, reference.traces[n], other.traces[n], scales) for n in names]
    compared = sum(row["compared"] for row in layers)
    return {
        "schema": SCHEMA,
        "reference": reference.backend,
        "other": other.backend,
        "n_samples": reference.n_samples,
        "n_steps": reference.n_steps,
        "noise": reference.noise,
        "overflow": {n: dict(o) for n, o in other.overflow.items()},
        "layers": layers,
        "agreement": 1.0 - sum(row["differing_spikes"] for row in layers) / max(compared, 1),
        "prediction_agreement": float((reference.predictions == other.predictions).mean())
        if reference.n_samples
        else None,
        "equal": all(row["equal"] for row in layers)
        and (scales is not None or np.array_equal(reference.logits, other.logits)),
    }


def _layer(name: str, a: Trace, b: Trace, scales: Mapping[str, float] | None) -> dict[str, Any]:
    if a.spikes.shape != b.spikes.shape:
        raise EvaluationError(
            "NM501",
            name,
            f"recorded shapes differ, {a.spikes.shape} and {b.spikes.shape}",
            "Run both with the same samples and steps",
        )
    differing = a.spikes != b.spikes
    exact = scales is None
    u_equal = a.u is None or b.u is None or not exact or np.array_equal(a.u, b.u)
    dv = (
        None
        if a.v is None or b.v is None
        else _difference(a.v, b.v, 1.0 if exact else (scales or {}).get(name, 1.0), exact)
    )
    row = {
        "name": name,
        "compared": int(differing.size),
        "differing_spikes": int(differing.sum()),
        "agreement": 1.0 - float(differing.mean()) if differing.size else 1.0,
        "spike_ratio": _ratio(int(b.spikes.sum()), int(a.spikes.sum())),
        "cosine": _cosine(a.spikes, b.spikes),
        "max_abs_dv": None if dv is None else float(np.abs(dv).max(initial=0)),
        "lag": best_lag(a.spikes, b.spikes),
        "equal": not differing.any() and bool(u_equal) and (dv is None or not exact or not np.any(dv)),
        "first_divergence": None,
    }
    marks = differing if differing.any() or not exact or dv is None else dv != 0
    if not marks.any() and not u_equal and a.u is not None and b.u is not None:
        marks = a.u != b.u
    row["first_divergence"] = _first(marks, a, b, None if exact else (scales or {}).get(name, 1.0))
    return row


def _difference(a: NDArray[Any], b: NDArray[Any], scale: float, exact: bool) -> NDArray[Any]:
    return (
        b.astype(np.int64) - a.astype(np.int64)
        if exact
        else b.astype(np.float64) * scale - a.astype(np.float64)
    )


def _ratio(number: int, of: int) -> float | None:
    """None where the reference is silent: no ratio exists."""
    return number / of if of else None


def _cosine(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float | None:
    """Cosine of the mean activity per neuron, None if one of them is silent."""
    x, y = (s.reshape(s.shape[0] * s.shape[1], -1).mean(axis=0) for s in (a, b))
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return min(1.0, float(x @ y) / norm) if norm else None


def best_lag(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    """Shift of ``b`` in steps (positive: later) at which most spikes coincide; 0 wins a tie."""

    def hits(lag: int) -> int:
        x, y = (a[: len(a) - lag], b[lag:]) if lag >= 0 else (a[-lag:], b[: len(b) + lag])
        return int(np.count_nonzero(x & y))

    lags = [k for k in sorted(range(-MAX_LAG, MAX_LAG + 1), key=abs) if abs(k) < len(a)]
    return max(lags, key=hits) if lags else 0


def _first(marks: NDArray[np.bool_], a: Trace, b: Trace, scale: float | None) -> dict[str, Any] | None:
    """The first marked entry; with a scale the other run's registers are given in the reference's volts."""
    if not marks.any():
        return None
    at = np.unravel_index(int(np.argmax(marks)), marks.shape)
    found: dict[str, Any] = {
        "step": int(at[0]),
        "sample": int(at[1]),
        "neuron": [int(i) for i in at[2:]],
        "reference": {"spike": int(a.spikes[at])},
        "other": {"spike": int(b.spikes[at])},
    }
    for key in ("u", "v"):
        x, y = getattr(a, key), getattr(b, key)
        if x is not None and y is not None:
            found["reference"][key], found["other"][key] = (
                x[at].item(),
                y[at].item() * (1 if scale is None else scale),
            )
    return found
