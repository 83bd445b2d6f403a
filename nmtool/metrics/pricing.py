"""Counts times prices: low, nominal and high of one list of events under one profile, linear in the counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nmtool.errors import EvaluationError
from nmtool.target import EnergyProfile

BOUNDS = ("low", "nominal", "high")

Bounds = dict[str, float | None]


def bounds(low: float | None, nominal: float | None, high: float | None) -> Bounds:
    """The three as a mapping."""
    return dict(zip(BOUNDS, (low, nominal, high), strict=True))


def _sum(parts: Sequence[Bounds]) -> Bounds:
    """Sum by bound; unknown plus anything is unknown."""
    columns = {b: [p[b] for p in parts] for b in BOUNDS}
    return {b: None if None in v else float(sum(x for x in v if x is not None)) for b, v in columns.items()}


def _times(count: Mapping[str, float | None], pj: float) -> Bounds:
    return {b: None if count[b] is None else float(count[b] or 0) * pj for b in BOUNDS}


def price(counts: Mapping[str, Any], profile: EnergyProfile, weights: str = "stored") -> dict[str, Any]:
    """Energy of counted events under one profile, linear in the counts.

    Args:
        counts: ``events`` of an energy record, of the whole inference or of one layer: ``synops`` by format
            ``{"stored", "nonzero"}``, ``graded_synops``, ``host_macs``, ``spikes``, ``updates`` ``{"total", "fill",
            "active": {"low", "nominal", "high"}}``, ``messages``, ``hops_ew``, ``hops_ns``.
        profile: the prices.
        weights: ``stored`` or ``nonzero`` SynOps.

    Returns:
        ``pj`` (low, nominal, high), ``breakdown_pj`` by term, ``null_reason`` per term that is unknown, and
        ``not_priced``: events that happened and for which the profile has no price.
    """
    terms, reasons, unpriced = (
        _ops_terms(counts, weights, profile)
        if profile.scope == "ops"
        else _chip_terms(counts, weights, profile)
    )
    return {
        "pj": _sum(list(terms.values())),
        "breakdown_pj": terms,
        "null_reason": reasons,
        "not_priced": unpriced,
    }


Terms = tuple[dict[str, Bounds], dict[str, str], list[str]]


def _ops_terms(counts: Mapping[str, Any], weights: str, profile: EnergyProfile) -> Terms:
    ac = sum(v[weights] for v in counts["synops"].values()) * (profile.get("ac_pj") or 0)
    mac = (counts["graded_synops"][weights] + counts["host_macs"]) * (profile.get("mac_pj") or 0)
    return {"synapse": bounds(ac, ac, ac), "mac": bounds(mac, mac, mac)}, {}, ["neuron updates", "messages"]


def _chip_terms(counts: Mapping[str, Any], weights: str, profile: EnergyProfile) -> Terms:
    terms: dict[str, Bounds] = {}
    reasons: dict[str, str] = {}
    unpriced = ["multiplications on the host"] if counts["host_macs"] else []
    synapse = sum(
        v[weights] * (profile.per_format("synop_pj", kind) or 0) for kind, v in counts["synops"].items()
    )
    terms["synapse"] = bounds(synapse, synapse, synapse)
    if graded := counts["graded_synops"][weights]:
        pj = profile.get("graded_synop_pj")
        value = None if pj is None else graded * pj
        terms["graded"] = bounds(value, value, value)
        if value is None:
            reasons["graded"] = f"{profile.name} has no price for graded spikes (graded_synop_pj)"
    if profile.all_in:
        return terms, reasons, unpriced
    terms["neuron"] = _neuron(counts["updates"], profile, reasons, unpriced)
    spike = counts["spikes"] * (profile.get("spike_pj") or 0)
    terms["spike"] = bounds(spike, spike, spike)
    terms["message"] = _message(counts, profile, reasons, unpriced)
    return terms, reasons, unpriced


def _neuron(
    updates: Mapping[str, Any], profile: EnergyProfile, reasons: dict[str, str], unpriced: list[str]
) -> Bounds:
    active_pj, idle_pj = profile.get("neuron_active_pj"), profile.get("neuron_idle_pj")
    if active_pj is None or idle_pj is None:
        unpriced.append("neuron updates")
        return bounds(0.0, 0.0, 0.0)
    total, active = updates["total"], updates["active"]
    cost = {
        b: None if active[b] is None else active[b] * active_pj + (total - active[b]) * idle_pj
        for b in BOUNDS
    }
    if cost["nominal"] is None:
        reasons["neuron"] = (
            "the backend does not tell which neuron updates were active; low and high bound it"
        )
    if cost["high"] is not None:
        cost["high"] += updates["fill"] * idle_pj
    return cost


def _message(
    counts: Mapping[str, Any], profile: EnergyProfile, reasons: dict[str, str], unpriced: list[str]
) -> Bounds:
    parts = []
    for count, key in (("messages", "message_pj"), ("hops_ew", "hop_ew_pj"), ("hops_ns", "hop_ns_pj")):
        pj = profile.get(key)
        if pj is None:
            unpriced.append(count)
            continue
        parts.append(_times(counts[count], pj))
        if counts[count]["nominal"] is None:
            reasons["message"] = f"{count} is unknown: the target does not publish its grid"
    return _sum(parts) if parts else bounds(0.0, 0.0, 0.0)


def step_time_ns(
    loads: Sequence[Mapping[str, float]], tiles: int | None, n_steps: int, profile: EnergyProfile
) -> float | None:
    """Mean duration of a step: the busiest core's work plus the barrier; a lower bound.

    ``t = max_core(N_act t_act + N_idle t_idle + S t_syn + spikes t_spike) / T + barrier(tiles)``. None if the
    profile has no times.
    """
    active_ns, idle_ns = profile.get("neuron_active_ns"), profile.get("neuron_idle_ns")
    points = profile.barrier_ns
    if active_ns is None or idle_ns is None or not points or tiles is None:
        return None
    busiest = 0.0
    for load in loads:
        busy = load["active"] * active_ns + (load["updates"] - load["active"]) * idle_ns
        busy += load["spikes"] * (profile.get("spike_ns") or 0)
        busy += sum(
            v * (profile.per_format("synop_ns", k.removeprefix("synops_")) or 0)
            for k, v in load.items()
            if k.startswith("synops_")
        )
        busiest = max(busiest, busy)
    return busiest / n_steps + float(np.interp(tiles, [n for n, _ in points], [t for _, t in points]))


def static(record: Mapping[str, Any], profile: EnergyProfile, nominal_pj: float | None) -> dict[str, Any]:
    """Static power times time, a line of its own: 1 mW x 1 ns = 1 pJ."""
    steps, given = record["run"]["timesteps"], record["run"]["step_time_s"]
    power, use = profile.get("static_power_mw"), record["placement"]
    model = step_time_ns(record["loads"], use["tiles"], steps, profile)
    if profile.all_in:
        return {"pj": None, "null_reason": "the price per synaptic event already holds it"}
    if power is None or use["chips"] is None:
        what = (
            "the profile has no static power"
            if power is None
            else "without a placement the chips are not known"
        )
        return {"pj": None, "null_reason": what}
    if model is None and given is None:
        return {"pj": None, "null_reason": "the profile has no times, and no step time was given"}
    step_ns = max(model or 0.0, (given or 0.0) * 1e9)
    pj = power * use["chips"] * step_ns * steps
    with_fill = power * use["chips"] * step_ns * (steps + record["run"]["fill_steps"])
    return {
        "pj": pj,
        "pj_with_fill_steps": with_fill,
        "power_mw_per_chip": power,
        "chips": use["chips"],
        "step_time_ns": step_ns,
        "step_time_from": "given" if given and step_ns > (model or 0.0) else "model (a lower bound)",
        "share_of_total": None if nominal_pj is None or pj + nominal_pj == 0 else pj / (pj + nominal_pj),
        "null_reason": None,
    }


def ratio(reference: tuple[str, float], snn: tuple[str, float]) -> float:
    """``E_ref / E_snn`` of two ``(scope, pJ)``.

    Raises:
        EvaluationError: NM504 if the scopes differ, NM501 if the network's energy is 0.
    """
    if reference[0] != snn[0]:
        raise EvaluationError(
            "NM504",
            "energy gain",
            f"a reference of scope '{reference[0]}' cannot be compared with '{snn[0]}'",
            "Bring both energies in one scope",
        )
    if snn[1] <= 0:
        raise EvaluationError(
            "NM501",
            "energy gain",
            "the network's energy is 0: nothing spiked",
            "Check the model and its input",
        )
    return reference[1] / snn[1]
