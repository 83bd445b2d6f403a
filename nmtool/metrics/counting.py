"""The counted half of an energy record: what happened in a run, before any price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nmtool import __version__
from nmtool.backends.base import RunResult
from nmtool.compiler.program import Program
from nmtool.errors import EvaluationError
from nmtool.metrics.synops import I64, LayerCounts, RunCounts, count, finished
from nmtool.metrics.traffic import COUNTS, Traffic, loads, traffic, used
from nmtool.target import TargetSpec

SCHEMA = "nmtool.energy-report/1"
FEW_SAMPLES = 100
Z_95 = 1.959964
FORMATS = ("dense", "sparse", "conv")
NOT_INCLUDED = (
    "the host, its memory and its links",
    "encoding and writing the input, reading the output",
    "resetting the state between samples",
    "embedded processors and the energy of the barrier (none is published)",
)


@dataclass(frozen=True)
class EnergyOptions:
    """What the run does not know about itself.

    Attributes:
        dataset, split: what was run, for the record.
        step_time_s: measured or throttled duration of a step; without it the model's lower bound is used.
    """

    dataset: str = ""
    split: str = ""
    step_time_s: float | None = None


def counted(
    program: Program, result: RunResult, spec: TargetSpec, labels: ArrayLike | None, options: EnergyOptions
) -> dict[str, Any]:
    """The record without prices (schema ``nmtool.energy-report/1``); JSON types only.

    Raises:
        EvaluationError: NM501 if the run lacks a count, or labels do not fit it.
    """
    counts = count(program, result)
    flow = traffic(program, counts, spec)
    run = _run(program, result, labels, options)
    layers = [_layer(layer, counts, flow, program.max_latency) for layer in counts.layers]
    return {
        "schema": SCHEMA,
        "tool_version": __version__,
        "model": {
            "run_sha256": result.model_sha256,
            "graph_sha256": program.graph_sha256,
            "target": spec.name,
            "target_sha256": spec.sha256,
            "backend": result.backend,
            "output": program.output,
            "readout": program.readout,
        },
        "dataset": {
            "name": options.dataset,
            "split": options.split,
            "n_samples": counts.n_samples,
            "seed": result.seed,
        },
        "run": run,
        "placement": {"known": flow.placed, **used(program, spec)},
        "counts": _totals(program, counts, flow),
        "events": _add_events([layer["events"] for layer in layers]),
        "loads": loads(program, counts),
        "layers": layers,
        "reference": _reference(counts, result.n_steps),
        "always_not_included": _not_included(program, flow),
        "warnings": _warnings(program, result, counts, flow, run),
    }


def spread(values: I64) -> dict[str, Any]:
    """Mean over samples with its 95 % interval (normal), and the extremes; null with a reason for one sample."""
    mean = int(values.sum()) / values.size
    out: dict[str, Any] = {"mean": mean, "ci95": None, "min": int(values.min()), "max": int(values.max())}
    if values.size < 2:
        return {**out, "null_reason": "one sample has no interval"}
    half = Z_95 * float(np.std(values, ddof=1)) / values.size**0.5
    return {**out, "ci95": [mean - half, mean + half]}


def _run(
    program: Program, result: RunResult, labels: ArrayLike | None, options: EnergyOptions
) -> dict[str, Any]:
    accuracy, chance, reason = None, False, "no labels were given"
    if labels is not None:
        y = np.asarray(labels)
        if y.shape != (result.n_samples,):
            raise EvaluationError(
                "NM501",
                "labels",
                f"have shape {y.shape}, the run has {result.n_samples} samples",
                "Give one label per sample",
            )
        keep = finished(result)
        accuracy = 100.0 * float((result.predictions == y)[keep].mean())
        chance, reason = accuracy <= 100.0 / result.logits.shape[1], ""
    analog = program.host is not None
    coding = "bias" if analog else "spikes" if program.input.encoder == "spikes" else program.input.encoder
    return {
        "timesteps": result.n_steps,
        "fill_steps": program.max_latency,
        "dt_s": result.dt_s,
        "step_time_s": options.step_time_s,
        "seed": result.seed,
        "noise": result.noise,
        "accuracy_pct": accuracy,
        "accuracy_at_chance": bool(chance),
        "accuracy_null_reason": reason or None,
        "input_coding": coding,
        "spike_convention": "sent",
    }


def _mean(values: I64) -> float:
    return int(values.sum()) / values.size


def _layer(layer: LayerCounts, counts: RunCounts, flow: Traffic, fill_steps: int) -> dict[str, Any]:
    b, t = counts.n_samples, counts.n_steps
    zero = np.zeros(b, np.int64)
    updates = float(layer.n_neurons * t)
    active = None if layer.active is None else _mean(layer.active)
    spikes = _mean(layer.spikes)
    kinds = [k for k in FORMATS if k in layer.stored]
    f = layer.fan_out
    return {
        "name": layer.name,
        "type": "+".join(layer.kinds) or "no input",
        "n_neurons": layer.n_neurons,
        "recurrent": layer.recurrent,
        "fanout": {"min": int(f.min()), "mean": float(f.mean()), "max": int(f.max())}
        if f.size
        else {"min": None, "mean": None, "max": None},
        "density": spikes / updates if layer.spiking else None,
        "spikes": spikes,
        "synops_stored": spread(sum(layer.stored.values(), zero) + layer.graded.get("stored", zero)),
        "synops_nonzero": spread(sum(layer.nonzero.values(), zero) + layer.graded.get("nonzero", zero)),
        "dense_macs_exact": layer.macs.exact,
        "dense_macs_naive": layer.macs.naive,
        "events": {
            "synops": {
                k: {"stored": _mean(layer.stored[k]), "nonzero": _mean(layer.nonzero[k])} for k in kinds
            },
            "graded_synops": {k: _mean(layer.graded.get(k, zero)) for k in ("stored", "nonzero")},
            "host_macs": float(layer.host_macs),
            "spikes": spikes,
            "updates": {
                "total": updates,
                "fill": float(layer.n_neurons * fill_steps),
                "active": {"low": spikes, "nominal": active, "high": updates},
            },
            **{
                k: {bound: None if v is None else v / b for bound, v in flow.per_layer[layer.name][k].items()}
                for k in COUNTS
            },
        },
    }


def _add_events(parts: Sequence[Any]) -> Any:
    """Sum of nested counts; unknown plus anything is unknown."""
    if isinstance(parts[0], dict):
        keys = dict.fromkeys(k for p in parts for k in p)
        return {k: _add_events([p[k] for p in parts if k in p]) for k in keys}
    return None if None in parts else float(sum(parts))


def _totals(program: Program, counts: RunCounts, flow: Traffic) -> dict[str, Any]:
    b, t, layers = counts.n_samples, counts.n_steps, counts.layers
    zero = np.zeros(b, np.int64)
    stored = sum((v for layer in layers for v in layer.stored.values()), zero)
    nonzero = sum((v for layer in layers for v in layer.nonzero.values()), zero)
    graded = {k: sum((layer.graded.get(k, zero) for layer in layers), zero) for k in ("stored", "nonzero")}
    late = [layer.undelivered for layer in layers]
    spiking = [layer for layer in layers if layer.spiking]
    spikes: I64 = sum((layer.spikes for layer in layers), zero)
    undelivered = (
        None if any(x is None for x in late) else spread(sum((x for x in late if x is not None), zero))
    )
    per_inference: dict[str, Any] = {
        "synops_stored": spread(stored),
        "synops_nonzero": spread(nonzero),
        "synops_undelivered": undelivered,
        "mac_ops": spread(graded["stored"]),
        "host_macs": sum(layer.host_macs for layer in layers),
        "spikes": spread(spikes),
        "input_events": spread(counts.events[program.input.name].sum(axis=1))
        if program.input.name in counts.events
        else None,
        "neuron_updates": sum(layer.n_neurons for layer in layers) * t,
        **{
            k: _add_events(
                [
                    {n: None if v is None else v / b for n, v in flow.per_layer[x.name][k].items()}
                    for x in layers
                ]
            )
            for k in COUNTS
        },
    }
    if undelivered is None:
        per_inference["synops_undelivered_null_reason"] = "the run does not record enough of its last steps"
    chip_macs = sum(layer.chip_macs for layer in layers)
    return {
        "per_inference": per_inference,
        "per_timestep": {
            k: _mean(v) / t
            for k, v in (("synops_stored", stored), ("synops_nonzero", nonzero), ("spikes", spikes))
        },
        "density": _density(program, counts, spiking, int((stored + graded["stored"]).sum()), chip_macs),
        "neurobench": {
            "effective_acs": _mean(nonzero),
            "effective_macs": _mean(graded["nonzero"]) + sum(x.host_macs for x in layers),
            "dense": chip_macs * t,
        },
    }


def _density(
    program: Program, counts: RunCounts, spiking: list[LayerCounts], synops: int, chip_macs: int
) -> dict[str, float | None]:
    """The four densities: net (input excluded), mean of layers, by synapses, and the input's."""
    b, t = counts.n_samples, counts.n_steps
    neurons = sum(layer.n_neurons for layer in spiking)
    lines = counts.events.get(program.input.name)
    return {
        "net": sum(int(x.spikes.sum()) for x in spiking) / (neurons * t * b) if neurons else None,
        "mean_of_layers": float(np.mean([int(x.spikes.sum()) / (x.n_neurons * t * b) for x in spiking]))
        if spiking
        else None,
        "syn": synops / (t * b * chip_macs) if chip_macs else None,
        "input": None if lines is None else int(lines.sum()) / (lines.size * t),
    }


def _reference(counts: RunCounts, n_steps: int) -> dict[str, Any]:
    loops = [layer.name for layer in counts.layers if layer.recurrent]
    if loops:
        reason = f"{', '.join(loops)}: a recurrent layer has no counterpart in one dense pass"
        return {"macs_exact": None, "macs_naive": None, "activation_bits": None, "null_reason": reason}
    return {
        "macs_exact": sum(x.macs.exact for x in counts.layers),
        "macs_naive": sum(x.macs.naive for x in counts.layers),
        "activation_bits": int(n_steps).bit_length(),
        "null_reason": None,
    }


def _not_included(program: Program, flow: Traffic) -> list[str]:
    out = list(NOT_INCLUDED)
    if program.max_latency:
        out.append(
            f"filling and draining the pipeline (steps per inference: {program.max_latency}, in 'high' only)"
        )
    if any((rows["interchip_messages"]["nominal"] or 0) > 0 for rows in flow.per_layer.values()):
        out.append("messages between chips (no price is published)")
    return out


def _warnings(
    program: Program, result: RunResult, counts: RunCounts, flow: Traffic, run: dict[str, Any]
) -> list[dict[str, str]]:
    few = counts.n_samples < FEW_SAMPLES
    overflow = {k: dict(v) for k, v in result.overflow.items() if any(v.values())}
    hosted = [layer for layer in counts.layers if layer.host_macs]
    found = [
        ("NM503", few, f"number of samples is {counts.n_samples}; an interval wants at least {FEW_SAMPLES}"),
        (
            "NM503",
            run["accuracy_at_chance"],
            f"an accuracy of {run['accuracy_pct']} % is at chance: its energy says nothing",
        ),
        (
            "NM403",
            bool(result.failures),
            f"{len(result.failures)} samples were not finished and are left out",
        ),
        ("NM401", bool(overflow), f"states overflowed: {overflow}"),
        (
            "NM501",
            result.active_updates is None,
            f"backend '{result.backend}' does not tell active neuron updates: no nominal for them",
        ),
        (
            "NM501",
            not flow.placed,
            "no placement: messages are bounds, from one per spike to one per target and core",
        ),
        (
            "NM205",
            bool(hosted),
            f"the first layer runs on the host: {sum(x.host_macs for x in hosted)} MACs per inference, "
            "priced under scope 'ops' only",
        ),
    ]
    return [{"code": code, "message": message} for code, applies, message in found if applies]
