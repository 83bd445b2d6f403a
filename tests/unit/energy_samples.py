"""Small programs, runs and records that several tests share."""

from __future__ import annotations

from typing import Any

import numpy as np

from nmtool.backends.base import RunResult
from nmtool.compiler.program import Connection, InputSpec, Population, Program
from nmtool.metrics import energy, robustness
from nmtool.target import load_target

ALL_ON_ONE = {"hid": [[0, 0, 4]], "out": [[0, 0, 2]]}


def population(name: str, shape: tuple[int, ...], latency: int = 0) -> Population:
    zero = np.zeros((), np.int32)
    return Population(name, shape, zero + 4096, zero, zero + 10, zero, zero, 1.0, latency)


def dense(name: str, source: str, target: str, w: Any, delay: int = 0) -> Connection:
    return Connection(
        name, source, target, "dense", np.asarray(w, np.int32), delay_steps=np.asarray(delay, np.int32)
    )


def program(pops: list[Population], conns: list[Connection], shape: tuple[int, ...], **info: Any) -> Program:
    spec = InputSpec("input", shape, "spikes", 3)
    return Program(
        "loihi1", spec, tuple(pops), tuple(conns), None, pops[-1].name, "spike_count", 1e-3, info=info
    )


def toy(placement: dict[str, Any] | None = None) -> Program:
    w1, w2 = np.full((4, 4), 2), np.full((2, 4), 2)
    w1[2, 0] = w2[1, 2] = 0
    conns = [dense("fc1", "input", "hid", w1), dense("fc2", "hid", "out", w2, delay=1)]
    info = {"placement": placement} if placement else {}
    return program([population("hid", (4,)), population("out", (2,))], conns, (4,), **info)


def toy_run(active: bool = True) -> RunResult:
    hid = np.array([[1, 0, 1, 0], [0, 1, 0, 0]])
    return RunResult(
        "sim", "", 3, 1e-3, 0, True,
        logits=np.array([[1, 0]]),
        spike_counts={
            "input": np.array([[2, 1, 2, 0]]), "hid": hid.sum(axis=0, keepdims=True), "out": np.array([[1, 0]]),
        },
        last_spikes={"hid": hid[1:].astype(np.uint8), "input": np.array([[1, 0, 0, 0]], np.uint8)},
        active_updates={"hid": np.array([10]), "out": np.array([4])} if active else None,
    )  # fmt: skip


def energy_record(placement: dict[str, Any] | None = ALL_ON_ONE, **kw: Any) -> dict[str, Any]:
    return energy.energy_report(toy(placement), toy_run(), load_target("loihi1"), **kw)


def robustness_record(n: int = 40) -> dict[str, Any]:
    """Two attacks at two budgets on two models, with replay."""
    rng = np.random.default_rng(0)

    def right(share: float) -> list[float]:
        return [float(x) for x in rng.random(n) < share]

    units = [
        {"attack": name, "eps": eps, "models": {m: {"right": right(0.9 - 2 * eps)} for m in ("float", "sim")},
         "replay": {"right": right(0.95 - eps), "on": "sim"} if name == "pgd40" else None}
        for name in ("fgsm", "pgd40")
        for eps in (0.1, 0.2)
    ]  # fmt: skip
    checks = [
        {
            "check": "G1",
            "title": "inputs without gradient",
            "status": "pass",
            "measured": {},
            "rule": "red above 5 %",
        },
        {
            "check": "G16",
            "title": "replay against direct attack",
            "status": "red",
            "measured": {},
            "rule": "a rule",
        },
    ]
    header = {"suite": "standard", "command": "nmtool robustness-report <x>", "seed": 1}
    return robustness.record(
        header, {"float": right(0.97), "sim": right(0.96)}, units, {"float": checks[:1], "sim": checks}
    )


VERIFY: dict[str, Any] = {
    "schema": "nmtool.verify/1", "reference": "float", "other": "sim", "prediction_agreement": 0.75,
    "n_samples": 8, "overflow": {"fc2": {"v_clipped": 3}},
    "layers": [
        {"name": "fc1", "agreement": 1.0, "spike_ratio": 1.0, "cosine": 1.0, "max_abs_dv": 0.0,
         "first_divergence": None},
        {"name": "fc2", "agreement": 0.96, "spike_ratio": None, "cosine": None, "max_abs_dv": 3.5,
         "first_divergence": {"step": 2, "sample": 1, "neuron": [4], "reference": {"spike": 1, "v": 0},
                              "other": {"spike": 0, "v": 639}}},
    ],
}  # fmt: skip

SUMMARY: dict[str, Any] = {
    "schema": "nmtool.summary/1", "accuracy": {"float": 0.975, "sim": 0.97}, "verify": {"agreement": 0.993},
    "robust": {"float": {"fgsm": 0.71, "pgd40": 0.52}, "sim": {"fgsm": 0.7, "pgd40": None},
               "eps": 0.1, "claim": "withheld", "replay": {"fgsm": 0.8, "pgd40": 0.6}},
    "synops_per_inference": 51234.5,
    "spike_density": 0.123, "energy_pj": {"low": 2e6, "nominal": 2.5e6, "high": 3e6},
    "seei": 4.2, "environment": {"nmtool": "0"},
    "command": "nmtool demo",
    "seed": 0,
}  # fmt: skip
