"""Records as titled tables of text: the one source of what the terminal and the HTML page show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nmtool.errors import ConfigError
from nmtool.report.units import UNKNOWN, digits, energy, energy_range, percent, whole

Record = Mapping[str, Any]
Row = tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A titled table with notes under it.

    Attributes:
        title: may be empty.
        columns: headings; one that starts with ``>`` stands to the right.
        rows: cells, one per column.
        total: a last row that is set apart, or empty.
        notes: lines below.
        droppable: headings to leave out, in this order, where there is no room for all.
    """

    title: str
    columns: Row = ()
    rows: tuple[Row, ...] = ()
    total: Row = ()
    notes: tuple[str, ...] = ()
    droppable: Row = ()


def facts(
    title: str, rows: list[tuple[str, str]], notes: tuple[str, ...] = (), right: bool = True
) -> Section:
    """A section of names and values without headings."""
    return Section(title, ("", ">" if right else ""), tuple(rows), notes=notes)


def sections(record: Record) -> list[Section]:
    """Everything a record has to say.

    Raises:
        ConfigError: NM004 if its schema is unknown.
    """
    return _kind(record)[1](record)


def title(record: Record) -> str:
    """The heading of a record.

    Raises:
        ConfigError: NM004 if its schema is unknown.
    """
    return _kind(record)[0]


def _kind(record: Record) -> tuple[str, Callable[[Record], list[Section]]]:
    schema = str(record.get("schema"))
    if schema not in _KINDS:
        raise ConfigError("NM004", "schema", f"is '{schema}'", f"Known: {', '.join(_KINDS)}")
    return _KINDS[schema]


def _energy(record: Record) -> list[Section]:
    from nmtool.report.energy_tables import energy_sections

    return energy_sections(record)


def _robustness(record: Record) -> list[Section]:
    models = list(record["clean"])
    names = {"sim": "deployed"}
    heads = tuple(f">{names.get(m, m)}" for m in models)
    rows = [("no attack", "", *(_rate(record["clean"][m]) for m in models), "")]
    for row in record["attacks"]:
        cells = (_rate(row["models"][m]["robust"] if m in row["models"] else None) for m in models)
        replay = row["replay"]["robust"] if row["replay"] else None
        rows.append((row["attack"], f"{row['eps']:.4g}", *cells, _rate(replay)))
    for row in record["worst_case"]:
        rows.append(("worst of all", f"{row['eps']:.4g}", *(_rate(row.get(m)) for m in models), ""))
    samples = next((r["n"] for r in record["clean"].values()), 0)
    notes = (
        "replay: examples of the float network, shown to the deployed one; no measure of its robustness",
        "worst of all: per sample the attack that hurts most; in brackets the 95 % interval (Wilson)",
    )
    head = f"Share of {samples} samples that stay right, by attack and largest change per input (eps)"
    columns = ("attack", ">eps", *heads, ">replay")
    return [Section(head, columns, tuple(rows), notes=notes), *_believable(record)]


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return UNKNOWN
    return f"{percent(rate['value'])} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"


def _believable(record: Record) -> list[Section]:
    """Whether the numbers may be quoted, and what each check found."""
    claim = record["claim"]
    rows = [
        (model, f["check"], f["title"], f["status"], f["rule"])
        for model, found in record["sanity"].items()
        for f in sorted(found, key=lambda f: ("red", "amber", "pass").index(f["status"]))
    ]
    head = f"Is this evaluation believable? The robustness claim is {claim['status']}"
    columns = ("model", "check", "what it looks at", "found", "rule")
    return [Section(head, columns, tuple(rows), notes=tuple(claim["reasons"]), droppable=("rule",))]


def _verify(record: Record) -> list[Section]:
    a, b = record["reference"], record["other"]
    rows, notes = [], []
    for layer in record["layers"]:
        first = layer["first_divergence"]
        same = percent(layer["agreement"])
        numbers = (digits(layer[k]) for k in ("spike_ratio", "cosine", "max_abs_dv"))
        rows.append((layer["name"], same, *numbers, _place(first)))
        if first:
            notes.append(
                f"{layer['name']}: {a} has {_state(first['reference'])}, {b} has {_state(first['other'])}"
            )
    for name, counts in (record.get("overflow") or {}).items():
        found = ", ".join(f"{n} times {what.replace('_', ' ')}" for what, n in counts.items())
        notes.append(f"NM401 {name}: {found} in {b}, as the chip does")
    columns = ("layer", ">same spikes", ">spikes, ratio", ">cosine", ">max |dv|", "first difference")
    agreed = percent(record["prediction_agreement"])
    head = f"{b} against {a}: predictions agree on {agreed} of {record['n_samples']} samples"
    return [Section(head, columns, tuple(rows), notes=tuple(notes), droppable=("cosine", "spikes, ratio"))]


def _place(d: Mapping[str, Any] | None) -> str:
    return "none" if d is None else f"step {d['step']}, sample {d['sample']}, neuron {d['neuron']}"


def _state(value: Any) -> str:
    return ", ".join(f"{k} = {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _summary(record: Record) -> list[Section]:
    robust, total = record["robust"], {"low": None, "high": None, **record["energy_pj"]}
    sides = [robust.get(k, {}) for k in ("float", "sim", "replay")]
    eps = "" if robust.get("eps") is None else f" at eps {robust['eps']:.4g}"
    rows = [("accuracy", *(percent(record["accuracy"].get(k)) for k in ("float", "sim")), "")]
    for attack in dict.fromkeys([*sides[0], *sides[1]]):
        rows.append((f"accuracy under {attack}{eps}", *(percent(side.get(attack)) for side in sides)))
    bounds = "" if total["low"] is None else f"  (low to high {energy_range(total)})"
    deployed = [
        ("spikes equal in float and deployed", percent(record["verify"]["agreement"])),
        ("SynOps per inference", whole(record["synops_per_inference"])),
        ("spike density", percent(record["spike_density"])),
        ("energy per inference, a model", f"{energy(total['nominal'])}{bounds}"),
        ("SEEI (nmtool-1)", digits(record["seei"])),
    ]
    claim = robust.get("claim")
    notes = ["replay: examples of the float network, shown to the deployed one; no measure of its robustness"]
    notes += [f"the robustness claim is {claim}; robustness.json says why"] if claim else []
    columns = ("", ">float", ">deployed", ">replay")
    return [
        Section("", columns, tuple(rows), notes=tuple(notes)),
        facts("As deployed", deployed, right=False),
    ]


_KINDS: dict[str, tuple[str, Callable[[Record], list[Section]]]] = {
    "nmtool.energy-report/1": ("Energy report", _energy),
    "nmtool.robustness/1": ("Robustness report", _robustness),
    "nmtool.verify/1": ("Agreement of two backends", _verify),
    "nmtool.summary/1": ("Summary", _summary),
}
