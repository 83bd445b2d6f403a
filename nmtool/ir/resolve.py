"""From NIR's differential equations to the difference equation of one step, and back.

Euler (the default; what snnTorch, Norse and Spyx do), with a = dt / tau:

    tau v' = (v_leak - v) + R I     V = (1 - a) U + a R i + a v_leak
    tau_syn I' = -I + w_in S        i = (1 - a_syn) i + a_syn w_in x
    v' = R I                        V = U + R dt i

``exponential`` uses a = 1 - exp(-dt / tau) in the same places: a decay is never paired with another's gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import nir
import numpy as np
from numpy.typing import NDArray

from nmtool.errors import ConfigError, Diagnostic
from nmtool.ir.parse import NEURON_TYPES
from nmtool.ir.semantics import F64, NeuronSemantics

Scheme = Literal["euler", "exponential"]

DEFAULT_DT_S = 1e-4
"""What the tools that store no step use (reference nir.md, 1.5)."""

SMALLEST_LOSS = 1e-9
"""A neuron that loses nothing (beta = 1) is written with this loss per step, since tau has to be finite."""

LONGEST_DELAY = 1 << 31
"""In steps; longer ones never arrive."""

_SNAP = 1e-6


def resolve_dt(
    nodes: Mapping[str, Any], recorded: Any, asked: float | None
) -> tuple[float, list[Diagnostic], bool]:
    """Seconds per step: asked for > recorded > inferred from r = tau / dt at every node > 1e-4.

    Returns:
        dt, findings, and whether recorded exact values hold at this dt.

    Raises:
        ConfigError: NM004 if the step that was asked for is not positive.
    """
    if asked is not None and not 0 < asked < np.inf:
        raise ConfigError("NM004", "dt_s", f"is {asked}, must be a positive number of seconds")
    found: list[Diagnostic] = []
    if recorded is not None:
        known = isinstance(recorded, float | int) and not isinstance(recorded, bool) and 0 < recorded < np.inf
        if not known:
            message = f"nmtool.dt_s is {str(recorded)[:40]!r}, must be a positive number of seconds"
            return DEFAULT_DT_S, [Diagnostic("NM103", "metadata of the graph", message)], False
        if asked is None or np.isclose(asked, recorded, rtol=1e-9, atol=0):
            return float(recorded), found, True
        message = (
            f"the file records dt = {recorded:g} s; {asked:g} s was asked for, so decays are worked out anew"
        )
        return asked, [Diagnostic("NM151", "dt_s", message, severity="warning")], False
    if asked is not None:
        return asked, found, True
    steps = {name: dt for name, op in nodes.items() if (dt := _implied_dt(op)) is not None}
    if steps and all(np.isfinite(dt) for dt in steps.values()):
        values = np.array(list(steps.values()))
        if np.ptp(values) <= 1e-3 * values.min():
            dt = float(f"{np.median(values):.4g}")
            message = f"the file does not say dt; every node has r = tau / dt with dt = {dt:g} s"
            return (
                dt,
                [Diagnostic("NM106", "dt", message, f"Confirm it with --read dt_s={dt:g}", "warning")],
                True,
            )
        listed = ", ".join(f"{name}: {dt:g}" for name, dt in sorted(steps.items()))
        message = f"the file does not say dt, and its nodes suggest different ones in seconds ({listed})"
        return DEFAULT_DT_S, [Diagnostic("NM106", "dt", message, "Give it with --read dt_s=SECONDS")], True
    if not any(type(op).__name__ in NEURON_TYPES for op in nodes.values()):
        return DEFAULT_DT_S, found, True
    message = f"the file does not say dt; {DEFAULT_DT_S:g} s is assumed, and decays depend on it"
    found.append(Diagnostic("NM106", "dt", message, "Give it with --read dt_s=SECONDS", "warning"))
    return DEFAULT_DT_S, found, True


def _implied_dt(op: Any) -> float | None:
    """dt where a node follows r = tau / dt (snnTorch); None where it says nothing (r = 1); nan where it varies."""
    tau = getattr(op, "tau", getattr(op, "tau_mem", None))
    if tau is None or not np.size(tau) or (np.asarray(op.r) <= 0).any() or (np.asarray(op.r) == 1).all():
        return None
    dt = np.asarray(tau, np.float64) / op.r
    return float(np.median(dt)) if np.ptp(dt) <= 1e-3 * abs(dt.min()) else float("nan")


def resolve(
    where: str, op: Any, shape: tuple[int, ...], dt_s: float, scheme: Scheme
) -> tuple[NeuronSemantics, list[Diagnostic]]:
    """The difference equation of a neuron node, as NIR's own fields give it.

    Args:
        where: the node, for findings.
        op: one of :data:`nmtool.ir.parse.NEURON_TYPES`.
        shape: of the neurons; parameters of one value are spread over it.
        dt_s: seconds per step.
        scheme: see the module.

    Returns:
        the neuron, and findings: NM108 for what has no physical meaning, NM151 for a
        convention that had to be guessed.
    """
    kind = type(op).__name__
    found: list[Diagnostic] = []

    def full(value: Any) -> F64:
        a = np.asarray(value, np.float64)
        return np.broadcast_to(a.reshape(()) if a.size == 1 else a, shape).copy()

    def loss(name: str) -> F64:
        tau = np.asarray(getattr(op, name), np.float64)
        if (tau <= 0).any():
            message = f"{name} is {tau.min():g} s, must be positive"
            found.append(Diagnostic("NM108", where, message))
            return full(np.ones(()))
        a = dt_s / tau if scheme == "euler" else -np.expm1(-dt_s / tau)
        if (a > 1 + _SNAP).any():
            message = (
                f"{name} is {tau.min():g} s, shorter than the step of {dt_s:g} s: the decay would change sign"
            )
            hint = "Use a smaller --read dt_s, or --read scheme=exponential"
            found.append(Diagnostic("NM108", where, message, hint))
        return full(np.minimum(a, 1.0))

    zero, one = full(np.zeros(())), full(np.ones(()))
    v_th = full(getattr(op, "v_threshold", getattr(op, "threshold", np.inf)))
    v_reset = full(getattr(op, "v_reset", 0.0))
    if kind == "Threshold":
        return NeuronSemantics(zero, one, None, one, zero, v_th, v_reset, reset="none"), found
    if kind in ("I", "IF"):
        gain, notes = _integrator_gain(where, op, dt_s)
        return NeuronSemantics(one, full(gain), None, one, zero, v_th, v_reset), found + notes
    a = loss("tau_mem" if kind.startswith("Cuba") else "tau")
    gain = _snapped(a * full(op.r))
    leak = a * full(op.v_leak)
    if not kind.startswith("Cuba"):
        return NeuronSemantics(1 - a, gain, None, one, leak, v_th, v_reset), found
    b = loss("tau_syn")
    return NeuronSemantics(1 - a, gain, 1 - b, _snapped(b * full(op.w_in)), leak, v_th, v_reset), found


def _snapped(gain: F64) -> F64:
    """Exactly 1 where float32 rounding of r = tau / dt left it beside 1."""
    return np.where(np.abs(gain - 1) < _SNAP, 1.0, gain)


def _integrator_gain(where: str, op: Any, dt_s: float) -> tuple[F64, list[Diagnostic]]:
    """Input per step of an integrator: R dt, except for R = 1, by which some tools mean 1 per step."""
    r = np.asarray(op.r, np.float64)
    if (r == 1).all():
        message = (
            f"r is 1, which is read as 1 per step (sinabs, snnTorch), not as 1 per second ({dt_s:g} per step)"
        )
        return r, [Diagnostic("NM151", where, message, f"Write r = 1 / dt = {1 / dt_s:g}", "warning")]
    gain = _snapped(r * dt_s)
    if (gain == 1).all():
        return gain, []
    message = f"r dt is {gain.min():g} to {gain.max():g} per step, neither r = 1 / dt nor r = 1"
    return gain, [Diagnostic("NM151", where, message, "Check dt", "warning")]


def delay_steps(op: Any, dt_s: float) -> NDArray[np.int64]:
    """Steps of a Delay node, to the nearest whole one."""
    return np.rint(np.minimum(np.asarray(op.delay, np.float64) / dt_s, LONGEST_DELAY)).astype(np.int64)


def to_nir(neuron: NeuronSemantics, dt_s: float) -> Any:
    """The NIR node with float32 parameters whose Euler step is this neuron, as near as NIR can say it.

    Raises:
        ValueError: a decay outside 0..1.
    """
    shape = np.shape(neuron.v_th)

    def f32(value: Any) -> Any:
        limit = float(np.finfo(np.float32).max)
        return np.clip(np.broadcast_to(value, shape), -limit, limit).astype(np.float32)

    def loss(beta: F64) -> F64:
        if not ((beta >= 0) & (beta <= 1)).all():
            raise ValueError(f"a decay of {beta.min():g} to {beta.max():g} is outside 0 to 1")
        return np.maximum(1 - beta, SMALLEST_LOSS)

    a = loss(neuron.beta_mem)
    fields = {"r": f32(neuron.gain_mem / a), "v_leak": f32(neuron.leak / a)}
    if neuron.spiking:
        reset = neuron.v_reset if neuron.reset == "zero" else 0.0
        fields |= {"v_threshold": f32(neuron.v_th), "v_reset": f32(reset)}
    if neuron.beta_syn is None:
        return (nir.LIF if neuron.spiking else nir.LI)(tau=f32(dt_s / a), **fields)
    b = loss(neuron.beta_syn)
    fields |= {"tau_mem": f32(dt_s / a), "tau_syn": f32(dt_s / b), "w_in": f32(neuron.gain_syn / b)}
    return (nir.CubaLIF if neuron.spiking else nir.CubaLI)(**fields)


SCHEMES = get_args(Scheme)
