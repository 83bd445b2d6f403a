"""Module -> .nir file -> float engine gives the module's spikes, for every combination that is exported."""

import itertools
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import snntorch as snn
import torch
from snn_modules import neuron, on_grid, run_steps
from torch import nn

from nmtool.frontends.snntorch import export, save
from nmtool.ir import graph, hdf5
from nmtool.ir.reference import Engine
from nmtool.ir.semantics import ModelSemantics

MODEL = ModelSemantics(dt_s=1e-3, n_steps=50)
CASES = [
    case
    for case in itertools.product(
        ("Leaky", "Synaptic", "RLeaky", "RSynaptic"),
        ("zero", "subtract", "none"),
        (True, False),
        (True, False),
    )
    if case[0] != "RSynaptic" or case[2]
]


@pytest.fixture(scope="module")
def reader() -> Iterator[hdf5.Reader]:
    with hdf5.Reader() as r:
        yield r


def network(kind: str, reset: str, delay: bool, per_neuron: bool, conv: bool) -> nn.Sequential:
    g = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    if conv:
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            neuron(kind, (3, 4, 5), reset, delay, per_neuron, g),
            nn.Flatten(),
            nn.Linear(60, 7),
            neuron(kind, (7,), reset, delay, per_neuron, g),
        )
    return nn.Sequential(
        nn.Linear(12, 20),
        neuron(kind, (20,), reset, delay, per_neuron, g),
        nn.Linear(20, 7),
        neuron(kind, (7,), reset, delay, per_neuron, g),
    )


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.4).float()


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv"])
@pytest.mark.parametrize(("kind", "reset", "delay", "per_neuron"), CASES)
def test_spikes_are_the_modules(
    kind: str, reset: str, delay: bool, per_neuron: bool, conv: bool, tmp_path: Path, reader: hdf5.Reader
) -> None:
    layers = on_grid(network(kind, reset, delay, per_neuron, conv))
    with torch.no_grad():
        layers[0].weight.add_(0.0625)  # enough drive that every layer fires
    shape = (2, 4, 5) if conv else (12,)
    x = spikes(50, 3, *shape)
    wanted = run_steps(layers, x)
    save(layers, shape, MODEL, tmp_path / "m.nir")
    g = graph.from_tree(reader.load(tmp_path / "m.nir"), "m.nir", "")
    run = Engine(g).run(x.numpy().astype(np.uint8), record=("all",))
    first, last = (n for n, node in g.nodes.items() if node.neuron is not None)
    assert run.counts[first].sum() > 50, "the test would say nothing about a silent layer"
    np.testing.assert_array_equal(run.traces[last].spikes, wanted)
    np.testing.assert_array_equal(run.logits, wanted.sum(0))


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky", "RSynaptic"])
def test_equations_survive_the_file_exactly(kind: str, tmp_path: Path) -> None:
    layers = network(kind, "subtract", True, True, False)
    written, neurons = export(layers, (12,), MODEL)
    graph.write(written, MODEL, neurons, tmp_path / "m.nir")
    g = graph.read(tmp_path / "m.nir")
    assert g.model == MODEL
    for name, neuron_written in neurons.items():
        back = g.nodes[name].neuron
        assert back is not None
        for f in fields(neuron_written):
            a, b = getattr(neuron_written, f.name), getattr(back, f.name)
            assert (a is None and b is None) or np.array_equal(a, b), f.name


def test_double_precision_with_arbitrary_weights(tmp_path: Path) -> None:
    layers = network("RLeaky", "subtract", False, True, True).double()
    x = spikes(50, 4, 2, 4, 5).double()
    wanted = run_steps(layers, x)
    save(layers, (2, 4, 5), MODEL, tmp_path / "m.nir")
    g = graph.read(tmp_path / "m.nir")
    run = Engine(g, np.float64).run(x.numpy().astype(np.uint8), record=("all",))
    assert wanted.sum() > 20
    np.testing.assert_array_equal(run.traces[g.readout_source()].spikes, wanted)


def test_one_to_one_recurrence(tmp_path: Path) -> None:
    v = torch.tensor([0.25, -0.5, 0.75, 0.0])
    layers = on_grid(nn.Sequential(nn.Linear(6, 4), snn.RLeaky(0.9, V=v, all_to_all=False, threshold=0.5)))
    x = spikes(50, 3, 6)
    wanted = run_steps(layers, x)
    save(layers, (6,), MODEL, tmp_path / "m.nir")
    g = graph.read(tmp_path / "m.nir")
    assert type(g.nodes["02_lif.w_rec"].op).__name__ == "Scale"
    run = Engine(g).run(x.numpy().astype(np.uint8), record=("all",))
    assert wanted.sum() > 20
    np.testing.assert_array_equal(run.traces["02_lif"].spikes, wanted)


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(network("RLeaky", "zero", True, True, True), (2, 4, 5), MODEL, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
