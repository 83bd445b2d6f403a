"""Energy of a run: exact counts times cited prices, always as low, nominal and high. A model, not a measurement.

What the three mean. A neuron update is active if it has input, state or bias (``nominal``), only if it spikes
(``low``), always (``high``); ``high`` also pays for the steps that fill and drain the pipeline. Messages carry the
bounds of :mod:`nmtool.metrics.traffic`. The headline takes its low end from non-zero weights alone, and its high end
from the second profile if that one is higher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from nmtool.backends.base import RunResult
from nmtool.compiler.program import Program
from nmtool.metrics.counting import EnergyOptions, counted
from nmtool.metrics.pricing import bounds, price, ratio, static
from nmtool.target import EnergyProfile, TargetSpec, library

STATEMENT = "A model, not a measurement: counted events times published prices."
SEEI_PROFILE, SEEI_BESIDE = "horowitz45-fp32", "horowitz45-int8a32"
SEEI_DEFINITION = (
    "nmtool-1: SEEI = accuracy x E_ref / E_snn, E_ref = MACs of one dense pass of the ANN twin, "
    "E_snn = one inference, both in the same profile of scope 'ops'"
)


def seei(record: Mapping[str, Any], profile: EnergyProfile) -> dict[str, Any]:
    """Gain over the dense twin and the index under an ``ops`` profile, :data:`SEEI_DEFINITION`; null with a reason."""
    run, macs = record["run"], record["reference"]["macs_exact"]
    accuracy, snn = run["accuracy_pct"], price(record["events"], profile)["pj"]["nominal"]
    gain = value = reason = None
    if macs is None:
        reason = record["reference"]["null_reason"] or "the dense twin's MACs are unknown"
    elif not snn:
        reason = "the network's energy is 0: nothing spiked"
    else:
        gain = ratio((profile.scope, macs * (profile.get("mac_pj") or 0)), (profile.scope, snn))
        if accuracy is None:
            reason = run["accuracy_null_reason"] or "the accuracy is unknown"
        elif run["accuracy_at_chance"]:
            reason = "the accuracy is at chance"
        else:
            value = accuracy / 100 * gain
    return {"profile": profile.name, "value": value, "energy_gain": gain, "null_reason": reason}


def priced(
    record: Mapping[str, Any], profiles: Sequence[EnergyProfile], estimate: Mapping[str, str]
) -> dict[str, Any]:
    """The record with every price applied anew; its counts stay.

    Args:
        record: a counted or an already priced energy record.
        profiles: in the order in which they are reported.
        estimate: ``{"nominal": name, "second": name}``, the target's headline; empty if it has none.
    """
    shelf = library()
    indices = {name: seei(record, shelf[name]) for name in (SEEI_PROFILE, SEEI_BESIDE) if name in shelf}
    macs = record["reference"]["macs_exact"]
    twin = {n: None if macs is None else macs * (shelf[n].get("mac_pj") or 0) for n in indices}
    return {
        **record,
        "layers": [_layer(layer, profiles) for layer in record["layers"]],
        "energy": {p.name: _energy(record, p) for p in profiles},
        "estimate": _estimate(record, {p.name: p for p in profiles}, estimate),
        "reference": {**record["reference"], "scope": "ops", "energy_pj": twin},
        "energy_gain": {n: i["energy_gain"] for n, i in indices.items()},
        "seei": _index(indices),
        "statement": STATEMENT,
        "not_included": [*record["always_not_included"], *_not_priced(record, profiles)],
    }


def _layer(layer: Mapping[str, Any], profiles: Sequence[EnergyProfile]) -> dict[str, Any]:
    found = {p.name: price(layer["events"], p) for p in profiles}
    split = {n: {k: v["nominal"] for k, v in f["breakdown_pj"].items()} for n, f in found.items()}
    return {**layer, "energy_pj": {n: f["pj"] for n, f in found.items()}, "breakdown_pj": split}


def _index(indices: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The record's SEEI: the first profile's value, the fair integer pair beside it."""
    first = indices.get(SEEI_PROFILE, {"value": None, "null_reason": f"profile {SEEI_PROFILE} is missing"})
    return {
        "definition": "nmtool-1",
        "formula": SEEI_DEFINITION,
        "profile": SEEI_PROFILE,
        "value": first["value"],
        "null_reason": first["null_reason"],
        "beside": {n: i["value"] for n, i in indices.items() if n != SEEI_PROFILE},
    }


def _not_priced(record: Mapping[str, Any], profiles: Sequence[EnergyProfile]) -> list[str]:
    """Events that happened and for which a profile has no price."""
    found: dict[str, list[str]] = {}
    for p in profiles:
        for event in price(record["events"], p)["not_priced"]:
            found.setdefault(event, []).append(p.name)
    return [f"{event} (no price in {', '.join(names)})" for event, names in found.items()]


def _energy(record: Mapping[str, Any], profile: EnergyProfile) -> dict[str, Any]:
    stored, nonzero = (price(record["events"], profile, w) for w in ("stored", "nonzero"))
    nominal, accuracy = stored["pj"]["nominal"], record["run"]["accuracy_pct"]
    return {
        "scope": profile.scope,
        "evidence": profile.evidence,
        "citation": profile.citation,
        "file": profile.file,
        "description": profile.description,
        "prices": {k: {"value": i.value, "source": i.source} for k, i in profile.items.items()},
        "per_inference_pj": stored["pj"],
        "per_timestep_pj": {
            b: None if v is None else v / record["run"]["timesteps"] for b, v in stored["pj"].items()
        },
        "per_inference_pj_nonzero": nonzero["pj"],
        "breakdown_pj": stored["breakdown_pj"],
        "null_reason": stored["null_reason"],
        "static": static(record, profile, nominal)
        if profile.scope != "ops"
        else {"pj": None, "null_reason": "arithmetic has no static power"},
        "accuracy_pct_per_uj": None if accuracy is None or not nominal else accuracy / (nominal * 1e-6),
    }


def _estimate(
    record: Mapping[str, Any], profiles: Mapping[str, EnergyProfile], names: Mapping[str, str]
) -> dict[str, Any]:
    """The headline: nominal from the first profile, low from its non-zero weights, high from whichever is higher."""
    first = profiles.get(names.get("nominal", ""))
    if first is None:
        target = record["model"]["target"]
        reason = (
            f"no price per event is published for {target}"
            if not names
            else f"profile {names['nominal']} was not asked for"
        )
        return {
            "scope": None,
            "per_inference_pj": bounds(None, None, None),
            "profiles": [],
            "null_reason": reason,
        }
    stored = price(record["events"], first)
    second = profiles.get(names.get("second", ""))
    highs = [
        stored["pj"]["high"],
        *([price(record["events"], second)["pj"]["high"]] if second and second.scope == first.scope else []),
    ]
    total = bounds(
        price(record["events"], first, "nonzero")["pj"]["low"],
        stored["pj"]["nominal"],
        None if None in highs else max(h for h in highs if h is not None),
    )
    used = [first.name, *([second.name] if second else [])]
    return {
        "scope": first.scope,
        "per_inference_pj": total,
        "profiles": used,
        "null_reason": "; ".join(stored["null_reason"].values()) or None,
    }


def energy_report(
    program: Program,
    result: RunResult,
    spec: TargetSpec,
    labels: ArrayLike | None = None,
    profiles: Sequence[str | EnergyProfile] | None = None,
    options: EnergyOptions | None = None,
) -> dict[str, Any]:
    """The energy record of a run, schema ``nmtool.energy-report/1``.

    Args:
        program: what ran.
        result: of any backend, with spike counts under the program's names.
        spec: the target whose prices and grid are used.
        labels: ``[B]``, for accuracy, SEEI and accuracy per energy.
        profiles: names or profiles; None takes the target's own and the library.
        options: what the run does not know.

    Raises:
        EvaluationError: NM501 if a count is missing.
        ConfigError: NM005 if a profile does not exist.
    """
    record = counted(program, result, spec, labels, options or EnergyOptions())
    return reprice(record, spec, profiles)


def reprice(
    record: Mapping[str, Any], spec: TargetSpec, profiles: Sequence[str | EnergyProfile] | None = None
) -> dict[str, Any]:
    """A saved energy record under other prices, without running anything; errors as :func:`energy_report`."""
    chosen = [*spec.profiles, *library()] if profiles is None else profiles
    return priced(
        record, [p if isinstance(p, EnergyProfile) else spec.profile(p) for p in chosen], spec.estimate
    )
