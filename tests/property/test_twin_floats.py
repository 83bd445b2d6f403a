"""The float twin equals the float engine on random graphs: spikes, currents, potentials and logits."""

from dataclasses import replace

import nir
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.ir import graph as ir
from nmtool.ir.reference import Engine
from nmtool.ir.semantics import ModelSemantics, NeuronSemantics
from nmtool.twin.floating import FloatTwin
from nmtool.twin.options import TwinOptions

Rng = np.random.Generator
DT = 1e-3
N_STEPS = 6


def neuron(rng: Rng, shape: tuple[int, ...], spiking: bool) -> NeuronSemantics:
    def some(low: float, high: float) -> np.ndarray:
        return np.broadcast_to(rng.uniform(low, high, shape if rng.random() < 0.5 else ()), shape).copy()

    synaptic = rng.random() < 0.5
    threshold = some(0.3, 1.2) if spiking else np.full(shape, np.inf)
    reset = str(rng.choice(["zero", "subtract", "none"])) if spiking else "zero"
    return NeuronSemantics(
        some(0.1, 1.0), some(0.5, 1.5), some(0.1, 0.9) if synaptic else None,
        some(0.5, 1.5) if synaptic else np.ones(shape), some(-0.1, 0.2), threshold,
        some(-0.2, 0.1) if spiking and reset == "zero" else np.zeros(shape), reset,
        bool(rng.random() < 0.5) if spiking and reset != "none" else False,
    )  # fmt: skip


def placeholder(shape: tuple[int, ...], spiking: bool, synaptic: bool) -> nir.NIRNode:
    one = np.ones(shape, np.float32)
    fields = {"r": one, "v_leak": 0 * one} | ({"v_threshold": one} if spiking else {})
    if synaptic:
        kind = nir.CubaLIF if spiking else nir.CubaLI
        return kind(tau_syn=one, tau_mem=one, w_in=one, **fields)
    return (nir.LIF if spiking else nir.LI)(tau=one, **fields)


def random_graph(rng: Rng, path_model: tuple[str, str]) -> tuple[nir.NIRGraph, dict[str, NeuronSemantics]]:
    """A chain with a branch, sometimes convolutional, sometimes with a delay, sometimes recurrent."""
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    neurons: dict[str, NeuronSemantics] = {}

    def add(name: str, op: nir.NIRNode, *sources: str) -> None:
        nodes[name] = op
        edges.extend((s, name) for s in sources)

    def fire(name: str, shape: tuple[int, ...], *sources: str, spiking: bool = True) -> None:
        neurons[name] = neuron(rng, shape, spiking)
        add(name, placeholder(shape, spiking, neurons[name].beta_syn is not None), *sources)

    def weights(*shape: int) -> np.ndarray:
        return (rng.normal(0.25, 1.0, shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)

    image = rng.random() < 0.5
    shape = (2, 5, 4) if image else (4,)
    add("input", nir.Input(np.array(shape)))
    if image:
        conv = nir.Conv2d((5, 4), weights(4, 1, 3, 2), (2, 1), (1, 1), (1, 2), 2, weights(4))
        add("conv", conv, "input")
        fire("n0", (4, 3, 4), "conv")
        pool = rng.choice([nir.SumPool2d, nir.AvgPool2d])
        add("pool", pool(np.array([2, 2]), np.array([1, 2]), np.array([0, 1])), "n0")
        add("flat", nir.Flatten({"input": np.array([4, 2, 3])}, 0, -1), "pool")
        width, last = 24, "flat"
    else:
        add("fc0", nir.Affine(weights(6, 4), weights(6)), "input")
        fire("n0", (6,), "fc0")
        width, last = 6, "n0"
    if rng.random() < 0.5:
        add("late", nir.Delay(DT * rng.integers(0, 4, width)), last)
        last = "late"
    add("fc1", nir.Linear(weights(5, width)), last)
    fire("n1", (5,), "fc1")
    if rng.random() < 0.6:
        add("back", nir.Affine(weights(5, 5), weights(5)), "n1")
        edges.append(("back", "n1"))
    add("fc2", nir.Linear(weights(3, 5)), "n1")
    fire("n2", (3,), "fc2", spiking=path_model[1] == "spike_count")
    add("output", nir.Output(np.array([3])), "n2")
    return nir.NIRGraph(nodes, edges, type_check=False), neurons


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["direct", "spikes"]),
    st.sampled_from(["spike_count", "membrane"]),
)
def test_equals_the_float_engine(seed: int, encoder: str, readout: str) -> None:
    rng = np.random.default_rng(seed)
    raw, neurons = random_graph(rng, (encoder, readout))
    plain = ir.from_nir(raw, DT)
    nodes = {n: replace(v, neuron=neurons.get(n)) for n, v in plain.nodes.items()}
    graph = replace(plain, nodes=nodes, model=ModelSemantics(DT, encoder, N_STEPS, readout))
    shape = (3, *graph.nodes["input"].out_shape)
    x = rng.random(shape) * 2 if encoder == "direct" else (rng.random((N_STEPS, *shape)) < 0.5)
    want = Engine(graph, np.float64).run(x.astype(np.float64), record=("all",))
    run = FloatTwin(graph, dtype=torch.float64).run(
        torch.from_numpy(x).double(), TwinOptions(record=("all",))
    )
    for name, semantics in neurons.items():
        trace = want.traces[name]
        np.testing.assert_array_equal(run.spikes[name].numpy(), trace.spikes, err_msg=name)
        np.testing.assert_allclose(run.v[name].numpy(), trace.v_post, rtol=1e-9, atol=1e-9, err_msg=name)
        if semantics.beta_syn is not None:
            np.testing.assert_allclose(run.u[name].numpy(), trace.i_syn, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(run.logits.detach().numpy(), want.logits, rtol=1e-9, atol=1e-9)
