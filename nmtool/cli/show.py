"""Records as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from nmtool.cli.ui import table
from nmtool.report.units import percent


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


def quantisation(record: Mapping[str, Any]) -> list[RenderableType]:
    """What rounding did to every layer."""
    rows = []
    for layer in record["info"].get("quantisation", []):
        for c in layer["connections"]:
            rows.append(
                (
                    layer["name"],
                    c["connection"],
                    c["on"],
                    round(c["bits_used"], 1),
                    percent(c["relative_rms_error"]),
                    layer["v_th_man"],
                    layer["limited_by"],
                )
            )
    columns = ("population", "connection", "on", "bits used", "rms error", "threshold", "limited by")
    return [table("", columns, rows), ""] if rows else []


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
