"""The tables of an energy record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nmtool.report.tables import Record, Section, facts
from nmtool.report.units import UNKNOWN, digits, energy, energy_range, energy_unit, percent, time, whole

_NOTHING: dict[str, float | None] = {"low": None, "nominal": None, "high": None}
_PARTS = ("synapse", "neuron", "message")


def energy_sections(record: Record) -> list[Section]:
    """Tables of ``nmtool.energy-report/1``."""
    return [
        _head(record),
        _layers(record),
        _profiles(record),
        _counts(record),
        _baseline(record),
        Section("Not included", notes=tuple(record["not_included"])),
        Section("Warnings", notes=tuple(f"{w['code']} {w['message']}" for w in record["warnings"])),
    ]


def headline_profile(record: Record) -> str | None:
    """The profile whose split over layers is shown: the estimate's, else the first that prices a chip, else any."""
    chips = [name for name, e in record["energy"].items() if e["scope"] != "ops"]
    names = [*record["estimate"]["profiles"], *chips, *record["energy"]]
    split = [{*layer["energy_pj"]} & {*layer["breakdown_pj"]} for layer in record["layers"]]
    return next((n for n in names if n in record["energy"] and all(n in known for known in split)), None)


def _head(record: Record) -> Section:
    run, data, use, estimate = (record[k] for k in ("run", "dataset", "placement", "estimate"))
    total, priced = estimate["per_inference_pj"], estimate["scope"] is not None
    prices = ", ".join(_tagged(record, n) for n in estimate["profiles"])
    on = f"{data['n_samples']} sample{'' if data['n_samples'] == 1 else 's'}{' of ' * bool(data['name'])}{data['name']}"
    coding = {"bias": "analog: the first layer runs on the host and enters as bias"}
    headline = f"{energy(total['nominal'])}  (low to high {energy_range(total)})"
    where = f"{use['cores']} cores on {whole(use['chips'])} chip(s)"
    rows = [
        ("energy per inference", headline if priced else UNKNOWN),
        ("scope and prices", f"{estimate['scope']}: {prices}" if priced else str(estimate["null_reason"])),
        ("accuracy", UNKNOWN if run["accuracy_pct"] is None else f"{run['accuracy_pct']:.1f} %"),
        (
            "run",
            f"{on}, T = {run['timesteps']}, {record['model']['backend']} for {record['model']['target']}",
        ),
        ("input", coding.get(run["input_coding"], run["input_coding"])),
        ("placement", where if use["known"] else "none"),
    ]
    reason = (estimate["null_reason"],) if priced and estimate["null_reason"] else ()
    return facts("", rows, (record["statement"], *reason), right=False)


def _tagged(record: Record, name: str) -> str:
    return f"{name} [{record['energy'][name]['evidence']}]" if name in record["energy"] else name


def _layers(record: Record) -> Section:
    profile = headline_profile(record)
    network = record["energy"].get(profile, {"per_inference_pj": _NOTHING, "breakdown_pj": {}})
    size, unit = energy_unit(network["per_inference_pj"]["high"] or 1.0)
    synops = sum(layer["synops_stored"]["mean"] for layer in record["layers"])
    rows = []
    for layer in record["layers"]:
        costs = _costs(
            layer["breakdown_pj"].get(profile, {}), layer["energy_pj"].get(profile, _NOTHING), size
        )
        rows.append((layer["name"], layer["type"], *_work(layer, synops), *costs))
    parts = {k: v["nominal"] for k, v in network["breakdown_pj"].items()}
    neurons = sum(layer["n_neurons"] for layer in record["layers"])
    spikes, density = record["counts"]["per_inference"]["spikes"], record["counts"]["density"]["net"]
    total = ("network", "", whole(neurons), "", percent(density), whole(spikes["mean"]), whole(synops), "")
    activity = (">neurons", ">fan-out", ">density", ">spikes", ">SynOps", ">share")
    return Section(
        f"Per layer and inference; energy in {unit}, prices of {profile}",
        ("layer", "type", *activity, *(f">{p}" for p in _PARTS), ">energy", ">low", ">high"),
        tuple(rows),
        (*total, *_costs(parts, network["per_inference_pj"], size)),
        droppable=("fan-out", "type", *reversed(_PARTS), "spikes", "neurons", "share"),
    )


def _work(layer: Mapping[str, Any], synops: float) -> tuple[str, ...]:
    low, high = whole(layer["fanout"]["min"]), whole(layer["fanout"]["max"])
    here = layer["synops_stored"]["mean"]
    return (
        whole(layer["n_neurons"]),
        low if low == high else f"{low}–{high}",
        percent(layer["density"]),
        whole(layer["spikes"]),
        whole(here),
        percent(here / synops) if synops else UNKNOWN,
    )


def _costs(
    parts: Mapping[str, float | None], cost: Mapping[str, float | None], size: float
) -> tuple[str, ...]:
    values = [*(parts.get(p) for p in _PARTS), *(cost[b] for b in ("nominal", "low", "high"))]
    return tuple(UNKNOWN if v is None else digits(v / size) for v in values)


def _profiles(record: Record) -> Section:
    rows: list[tuple[str, ...]] = []
    cited: dict[str, list[str]] = {}
    for name, e in record["energy"].items():
        fixed, per_uj = e["static"], digits(e["accuracy_pct_per_uj"])
        share = percent(fixed.get("share_of_total"))
        static = UNKNOWN if fixed["pj"] is None else f"{energy(fixed['pj'])} ({share})"
        bounds = (energy(e["per_inference_pj"][b]) for b in ("low", "nominal", "high"))
        step = time(fixed.get("step_time_ns"))
        rows.append((name, e["scope"], e["evidence"], *bounds, static, step, per_uj))
        cited.setdefault(e["citation"], []).append(name)
    return Section(
        "Per inference by profile; different scopes cannot be compared; static power stands apart",
        (
            "profile",
            "scope",
            "evidence",
            ">low",
            ">nominal",
            ">high",
            ">static (share)",
            ">step",
            ">% per µJ",
        ),
        tuple(rows),
        notes=tuple(f"{', '.join(names)}: {text}" for text, names in cited.items()),
        droppable=("% per µJ", "step", "evidence", "static (share)"),
    )


def _counts(record: Record) -> Section:
    per, density = record["counts"]["per_inference"], record["counts"]["density"]
    late = per["synops_undelivered"]
    rows = [
        ("SynOps, stored weights", _spread(per["synops_stored"])),
        ("SynOps, non-zero weights", _spread(per["synops_nonzero"])),
        ("SynOps too late to arrive", whole(late["mean"]) if late else UNKNOWN),
        ("multiplications on the host", whole(per["host_macs"])),
        ("spikes", _spread(per["spikes"])),
        ("neuron updates", whole(per["neuron_updates"])),
        ("messages between cores", _range(per["messages"])),
        ("spike density of the network", percent(density["net"])),
        ("density, mean of layers", percent(density["mean_of_layers"])),
        ("density, weighted by synapses", percent(density["syn"])),
        ("density of the input", percent(density["input"])),
    ]
    return facts("Counts per inference: mean over samples, 95 % interval", rows)


def _spread(value: Mapping[str, Any]) -> str:
    interval = value["ci95"]
    return whole(value["mean"]) + (f"  [{whole(interval[0])}, {whole(interval[1])}]" if interval else "")


def _range(value: Mapping[str, float | None]) -> str:
    if value["low"] == value["high"]:
        return whole(value["nominal"])
    return f"{whole(value['nominal'])}  ({whole(value['low'])} to {whole(value['high'])})"


def _baseline(record: Record) -> Section:
    ref, index, gains = record["reference"], record["seei"], record["energy_gain"]
    indices = {index["profile"]: index["value"], **index["beside"]}
    rows = [
        ("MACs of the dense ANN twin", whole(ref["macs_exact"])),
        ("the same with padding counted", whole(ref["macs_naive"])),
        *((f"its energy, {name}", energy(pj)) for name, pj in ref["energy_pj"].items()),
        *((f"energy gain, {name}", digits(gain)) for name, gain in gains.items()),
        *((f"SEEI, {name}", digits(value)) for name, value in indices.items()),
        ("bits of a quantised twin of equal capacity", whole(ref["activation_bits"])),
    ]
    notes = dict.fromkeys(str(n) for n in (index["formula"], ref["null_reason"], index["null_reason"]) if n)
    return facts("Against one dense pass (scope ops)", rows, tuple(notes))
