"""Runs small networks of bare Lava Processes: JSON in on stdin, JSON out on stdout. For the Lava environment's Python.

A network is ``{"processes": {name: [kind, arguments]}, "links": [["a.s_out", "b.s_in"]], "steps": n, "read": [...]}``.
After every step each ``name.variable`` of ``read`` is taken; a ``Sink`` is read once, at the end.
"""

import json
import os
import sys

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF, LIFReset, TernaryLIF
from lava.utils.weightutils import SignMode, optimize_weight_bits


def optimized_dense(weights):
    """A Dense as lava-dl's netx makes it."""
    best = optimize_weight_bits(weights, SignMode.MIXED)
    return Dense(weights=best.weights, num_weight_bits=best.num_weight_bits, weight_exp=best.weight_exp)


KINDS = {
    f.__name__: f for f in (LIF, LIFReset, TernaryLIF, Dense, DelayDense, Conv)
} | {"Source": Source, "Sink": Sink, "OptimizedDense": optimized_dense}  # fmt: skip


def made(kind, arguments):
    """One Process; lists become arrays, shapes tuples."""

    def value(name, v):
        if name in ("shape", "input_shape"):
            return tuple(v)
        return np.asarray(v) if isinstance(v, list) else v

    return KINDS[kind](**{k: value(k, v) for k, v in arguments.items()})


def run(network):
    """Readings by name: ``[step][neuron ...]``; a sink's data ``[neuron][step]``."""
    processes = {name: made(*spec) for name, spec in network["processes"].items()}
    for a, b in network["links"]:
        (source, out), (target, into) = a.split("."), b.split(".")
        getattr(processes[source], out).connect(getattr(processes[target], into))
    head = next(iter(processes.values()))
    read = {name: [] for name in network.get("read", ())}
    for _ in range(network["steps"]):
        head.run(RunSteps(num_steps=1), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
        for name, values in read.items():
            process, variable = name.split(".")
            values.append(getattr(processes[process], variable).get().astype(np.int64).tolist())
    for name, spec in network["processes"].items():
        if spec[0] == "Sink":
            read[name] = processes[name].data.get().astype(np.int64).tolist()
    head.stop()
    return read


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump([run(network) for network in json.load(sys.stdin)], answers)
