"""Records as titled tables of text: the one source of what the terminal and the HTML page show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nmtool.errors import ConfigError
from nmtool.report.units import UNKNOWN, digits, energy, energy_range, percent, whole

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A titled table with notes under it.

    Attributes:
        title: may be empty.
        columns: headings; one that starts with ``>`` stands to the right.
        rows: cells, one per column.
        total: a last row that is set apart, or empty.
        notes: lines below.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    total: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def sections(record: Record) -> list[Section]:
    """Everything a record has to say.

    Raises:
        ConfigError: NM004 if its schema is unknown.
    """
    build = _BUILDERS.get(str(record.get("schema")))
    if build is None:
        raise ConfigError("NM004", "schema", f"is {record.get('schema')!r}", f"Known: {', '.join(_BUILDERS)}")
    return build(record)


def title(record: Record) -> str:
    """The heading of a record."""
    return _TITLES.get(str(record.get("schema")), "Record")


def headline_profile(record: Record) -> str | None:
    """The profile whose split over layers is shown: the estimate's, else the first that prices a chip, else any."""
    names = [
        *record["estimate"]["profiles"],
        *(n for n, e in record["energy"].items() if e["scope"] != "ops"),
        *record["energy"],
    ]
    return next((n for n in names if n in record["energy"]), None)


def energy_sections(record: Record) -> list[Section]:
    """Tables of ``nmtool.energy-report/1``."""
    return [
        _energy_head(record),
        _energy_layers(record),
        _energy_profiles(record),
        _energy_counts(record),
        _energy_baseline(record),
        Section("Not included", notes=tuple(record["not_included"])),
        Section("Warnings", notes=tuple(f"{w['code']} {w['message']}" for w in record["warnings"])),
    ]


def _energy_head(record: Record) -> Section:
    run, data, use, estimate = (record[k] for k in ("run", "dataset", "placement", "estimate"))
    total = estimate["per_inference_pj"]
    where = f"{use['cores']} cores, {use['tiles']} tiles, {use['chips']} chips" if use["cores"] else UNKNOWN
    rows = [
        ("energy per inference", f"{energy(total['nominal'])}  ({energy_range(total)}, low to high)" if estimate["scope"] else UNKNOWN),
        ("scope and prices", f"{estimate['scope']}: {', '.join(_tagged(record, n) for n in estimate['profiles'])}" if estimate["scope"]
         else estimate["null_reason"]),
        ("accuracy", UNKNOWN if run["accuracy_pct"] is None else f"{run['accuracy_pct']:.1f} %"),
        ("run", f"{data['n_samples']} samples{' of ' + data['name'] if data['name'] else ''}, T = {run['timesteps']} steps, "
                f"backend {record['model']['backend']}, target {record['model']['target']}"),
        ("input", {"bias": "analog; first layer on the host, enters as bias"}.get(run["input_coding"], run["input_coding"])),
        ("placement", where if use["known"] else f"none; {where} assumed" if use["cores"] else "none"),
    ]  # fmt: skip
    note = (estimate["null_reason"],) if estimate["scope"] and estimate["null_reason"] else ()
    return Section("", ("", ""), tuple(rows), notes=(record["statement"], *note))


def _tagged(record: Record, name: str) -> str:
    return f"{name} [{record['energy'][name]['evidence']}]" if name in record["energy"] else name


def _energy_layers(record: Record) -> Section:
    profile = headline_profile(record)
    synops = sum(layer["synops_stored"]["mean"] for layer in record["layers"])
    rows = []
    for layer in record["layers"]:
        parts = layer["breakdown_pj"].get(profile, {}) if profile else {}
        cost = layer["energy_pj"].get(profile, {"low": None, "nominal": None, "high": None})
        s = layer["synops_stored"]["mean"]
        rows.append((
            layer["name"], layer["type"], whole(layer["n_neurons"]), _fan_out(layer["fanout"]), percent(layer["density"]),
            whole(layer["spikes"]), whole(s), percent(s / synops) if synops else UNKNOWN,
            energy(parts.get("synapse")), energy(parts.get("neuron")), energy(parts.get("message")),
            energy(cost["nominal"]), energy_range(cost),
        ))  # fmt: skip
    columns = ("layer", "type", ">neurons", ">fan-out", ">density", ">spikes", ">SynOps", ">share", ">synapse", ">neuron",
               ">message", ">energy", ">low – high")  # fmt: skip
    return Section(
        f"Per layer and inference, prices of {profile}",
        columns,
        tuple(rows),
        _layer_total(record, profile, synops),
    )


def _layer_total(record: Record, profile: str | None, synops: float) -> tuple[str, ...]:
    cost = (
        record["energy"][profile]
        if profile
        else {"per_inference_pj": {"low": None, "nominal": None, "high": None}, "breakdown_pj": {}}
    )
    parts = {k: v["nominal"] for k, v in cost["breakdown_pj"].items()}
    neurons = sum(layer["n_neurons"] for layer in record["layers"])
    spikes = record["counts"]["per_inference"]["spikes"]["mean"]
    return (
        "total", "", whole(neurons), "", percent(record["counts"]["density"]["net"]), whole(spikes), whole(synops), "",
        energy(parts.get("synapse")), energy(parts.get("neuron")), energy(parts.get("message")),
        energy(cost["per_inference_pj"]["nominal"]), energy_range(cost["per_inference_pj"]),
    )  # fmt: skip


def _fan_out(span: Mapping[str, float | None]) -> str:
    if span["mean"] is None:
        return UNKNOWN
    return whole(span["min"]) if span["min"] == span["max"] else f"{whole(span['min'])}–{whole(span['max'])}"


def _energy_profiles(record: Record) -> Section:
    rows = []
    for name, e in record["energy"].items():
        b, fixed = e["per_inference_pj"], e["static"]
        share = fixed.get("share_of_total")
        rows.append((
            name, e["scope"], e["evidence"], energy(b["low"]), energy(b["nominal"]), energy(b["high"]),
            UNKNOWN if fixed["pj"] is None else f"{energy(fixed['pj'])} ({percent(share)})",
            UNKNOWN if fixed.get("step_time_ns") is None else f"{digits(fixed['step_time_ns'])} ns",
            digits(e["accuracy_pct_per_uj"]),
        ))  # fmt: skip
    columns = (
        "profile",
        "scope",
        "evidence",
        ">low",
        ">nominal",
        ">high",
        ">static (share)",
        ">step",
        ">% per µJ",
    )
    notes = tuple(f"{name}: {e['citation']}" for name, e in record["energy"].items())
    return Section(
        "Energy per inference by profile; different scopes are not comparable",
        columns,
        tuple(rows),
        notes=notes,
    )


def _energy_counts(record: Record) -> Section:
    per, density = record["counts"]["per_inference"], record["counts"]["density"]
    late = per.get("synops_undelivered")
    rows = [
        ("SynOps, stored weights", _spread(per["synops_stored"])),
        ("SynOps, non-zero weights", _spread(per["synops_nonzero"])),
        (
            "SynOps sent too late to arrive",
            UNKNOWN if not isinstance(late, dict) else whole(late.get("mean")),
        ),
        ("multiplications on the host", whole(per["host_macs"])),
        ("spikes", _spread(per["spikes"])),
        ("neuron updates", whole(per["neuron_updates"])),
        ("messages between cores", _bounds(per["messages"])),
        ("spike density (network)", percent(density["net"])),
        ("density, mean of layers", percent(density["mean_of_layers"])),
        ("density, weighted by synapses", percent(density["syn"])),
        ("density of the input", percent(density["input"])),
    ]
    return Section("Counts per inference (mean, 95 % interval over samples)", ("", ">"), tuple(rows))


def _spread(value: Mapping[str, Any]) -> str:
    interval = value["ci95"]
    return whole(value["mean"]) + (f"  [{whole(interval[0])}, {whole(interval[1])}]" if interval else "")


def _bounds(value: Mapping[str, float | None]) -> str:
    if value["low"] == value["high"]:
        return whole(value["nominal"])
    return f"{whole(value['nominal'])}  ({whole(value['low'])} to {whole(value['high'])})"


def _energy_baseline(record: Record) -> Section:
    ref, index = record["reference"], record["seei"]
    rows = [
        ("MACs of the dense ANN twin", f"{whole(ref['macs_exact'])} exact, {whole(ref['macs_naive'])} with padding counted"),
        *((f"its energy, {name}", f"{energy(pj)}  (gain {digits(record['energy_gain'].get(name))}x)") for name, pj in ref["energy_pj"].items()),
        (f"SEEI ({index['definition']}, {index['profile']})", digits(index["value"])),
        *((f"SEEI beside it ({name})", digits(value)) for name, value in index["beside"].items()),
        ("bits of a quantised twin of equal capacity", whole(ref["activation_bits"])),
    ]  # fmt: skip
    reasons = tuple(r for r in (ref["null_reason"], index["null_reason"]) if r)
    return Section(
        "Against one dense pass (scope ops)",
        ("", ">"),
        tuple(rows),
        notes=(str(index.get("formula", "")), *dict.fromkeys(reasons)),
    )


def verify_sections(record: Record) -> list[Section]:
    """Tables of ``nmtool.verify/1``."""
    rows, notes = [], []
    for layer in record["layers"]:
        rows.append((layer["name"], f"{100 * layer['agreement']:.4g} %", digits(layer["spike_ratio"]), digits(layer["cosine"]),
                     digits(layer["max_abs_dv"]), _place(layer["first_divergence"])))  # fmt: skip
        if layer["first_divergence"]:
            d = layer["first_divergence"]
            notes.append(
                f"{layer['name']}: {record['reference']} has {_state(d['reference'])}, {record['other']} has {_state(d['other'])}"
            )
    columns = ("layer", ">same spikes", ">spikes, ratio", ">cosine", ">max |dv|", "first difference")
    same = record["prediction_agreement"]
    head = f"{record['other']} against {record['reference']}: predictions agree on {percent(same)}"
    return [Section(head, columns, tuple(rows), notes=tuple(notes))]


def _place(d: Mapping[str, Any] | None) -> str:
    if d is None:
        return "none"
    return f"step {d['step']}, sample {d['sample']}, neuron {d['neuron']}"


def _state(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {v}" for k, v in value.items())
    return str(value)


def summary_sections(record: Record) -> list[Section]:
    """Tables of ``nmtool.summary/1``."""
    both = record["robust"]
    names = dict.fromkeys([*both.get("float", {}), *both.get("sim", {})])
    rows = [("accuracy", *(percent(record["accuracy"].get(k)) for k in ("float", "sim")))]
    rows += [
        (f"accuracy under {n}", *(percent(both.get(k, {}).get(n)) for k in ("float", "sim"))) for n in names
    ]
    others = [
        ("spikes that agree, float and deployed", percent(record["verify"]["agreement"])),
        ("SynOps per inference", whole(record["synops_per_inference"])),
        ("spike density", percent(record["spike_density"])),
        ("energy per inference (model)", energy(record["energy_pj"]["nominal"])),
        ("SEEI (nmtool-1)", digits(record["seei"])),
    ]
    return [
        Section("Accuracy", ("", ">float", ">deployed"), tuple(rows)),
        Section("The network as deployed", ("", ">"), tuple(others)),
    ]


_BUILDERS: dict[str, Callable[[Record], list[Section]]] = {
    "nmtool.energy-report/1": energy_sections,
    "nmtool.verify/1": verify_sections,
    "nmtool.summary/1": summary_sections,
}
_TITLES = {
    "nmtool.energy-report/1": "Energy report",
    "nmtool.robustness/1": "Robustness report",
    "nmtool.verify/1": "Agreement of two backends",
    "nmtool.summary/1": "Summary",
}


def register(schema: str, build: Callable[[Record], list[Section]]) -> None:
    """Add the tables of another schema."""
    _BUILDERS[schema] = build


def names() -> Sequence[str]:
    """Schemas that have tables."""
    return tuple(_BUILDERS)
