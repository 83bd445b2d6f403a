"""Records as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from nmtool.cli.ui import table


def percent(share: float | None) -> str:
    """A share of 1 in per cent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.2f} %"


def utilisation(record: Mapping[str, Any]) -> list[RenderableType]:
    """The fullest core of every population, and cores in all; nothing where it was not placed."""
    if record["utilisation"] is None:
        return []
    rows = [
        (r["population"], r["cores"], r["budget"], r["used"], r["limit"], percent(r["used"] / r["limit"]))
        for r in record["utilisation"]
    ]
    chip = record["chip"]
    of = f" of {chip['cores_per_chip'] * chip['chips']}" if chip["cores_per_chip"] else ""
    total = f"{chip['cores']}{of} cores on {chip['chips']} chip{'s' if chip['chips'] != 1 else ''}"
    columns = ("population", "cores", "budget of a core", "used", "limit", "share")
    return [table("", columns, rows), total]


def run_summary(record: Mapping[str, Any]) -> list[RenderableType]:
    """What a run says in a few lines."""
    head = f"{record['inputs']}: {record['n_samples']} samples, {record['n_steps']} steps, backend {record['backend']}"
    if record["target"]:
        head += f", target {record['target']}"
    head += f", noise {'on' if record['noise'] else 'off'}, seed {record['seed']}"
    lines: list[RenderableType] = [head]
    if record["accuracy"] is not None:
        lines.append(f"accuracy {percent(record['accuracy'])}")
    rows = [(n, record["spikes"][n], percent(record["spike_density"][n])) for n in record["spikes"]]
    lines.append(table("", ("population", "spikes", "density"), rows))
    return lines


def verify_summary(record: Mapping[str, Any]) -> list[RenderableType]:
    """Agreement per pair of backends and layer, and the first place where they differ."""
    parts: list[RenderableType] = []
    for pair in record["pairs"]:
        title = f"{pair['other']} against {pair['reference']}: {pair['n_samples']} samples, {pair['n_steps']} steps"
        rows = [
            (
                r["name"],
                percent(r["agreement"]),
                r["spike_ratio"],
                r["cosine"],
                r["max_abs_dv"],
                r["lag"],
                _first(r),
            )
            for r in pair["layers"]
        ]
        columns = ("layer", "same spikes", "spike ratio", "cosine", "max |dv|", "lag", "first difference")
        parts.append(table(title, columns, rows))
        if pair["exact"]:
            parts.append(
                "equal to the bit\n" if pair["equal"] else "NOT equal: these integers must not differ\n"
            )
        else:
            parts.append(f"same class: {percent(pair['prediction_agreement'])} of the samples\n")
    return parts


def _first(row: Mapping[str, Any]) -> str:
    at = row["first_divergence"]
    if at is None:
        return "none"
    where = f"step {at['step']}, sample {at['sample']}, neuron {tuple(at['neuron'])}"
    values = [f"{k} {at['reference'][k]:.6g} / {at['other'][k]:.6g}" for k in at["reference"]]
    return f"{where}: {', '.join(values)}"
