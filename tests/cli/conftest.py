"""A small network on digits, in the forms in which users name one."""

from pathlib import Path

import nir
import numpy as np
import pytest

from nmtool import api
from nmtool.ir.graph import write
from nmtool.ir.semantics import ModelSemantics, NeuronSemantics

SMALL = ["network.hidden=[16]", "network.n_steps=4", "train.epochs=2"]


def neuron(n: int) -> NeuronSemantics:
    def full(value: float) -> np.ndarray:
        return np.full(n, value)

    return NeuronSemantics(
        full(0.5), full(1.0), None, full(1.0), full(0.0), full(1.0), full(0.0), noise_std=0.1
    )


def network(path: Path, encoder: str = "direct", hidden: int = 12) -> Path:
    """64 inputs, ``hidden`` neurons, 10 classes, T = 4, random weights."""
    rng = np.random.default_rng(3)
    ones = np.ones
    nodes = {
        "input": nir.Input(np.array([64])),
        "fc1": nir.Affine(rng.normal(0, 0.3, (hidden, 64)), rng.normal(0, 0.1, hidden)),
        "lif1": nir.LIF(2e-3 * ones(hidden), ones(hidden), 0 * ones(hidden), ones(hidden)),
        "fc2": nir.Affine(rng.normal(0, 0.5, (10, hidden)), np.zeros(10)),
        "lif2": nir.LIF(2e-3 * ones(10), ones(10), 0 * ones(10), ones(10)),
        "output": nir.Output(np.array([10])),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(zip(names, names[1:], strict=False)))
    data = "" if encoder == "spikes" else "digits"
    model = ModelSemantics(1e-3, encoder, 4, "spike_count", (0.0, 1.0), tuple("0123456789"), data)
    write(graph, model, {"lif1": neuron(hidden), "lif2": neuron(10)}, path)
    return path


@pytest.fixture(scope="session")
def nir_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("nir") / "net.nir")


@pytest.fixture(scope="session")
def spiking_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("nir") / "spiking.nir", "spikes")


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, trained for two epochs."""
    return api.train("digits-tgo", tmp_path_factory.mktemp("runs") / "small", SMALL).folder


@pytest.fixture(scope="session")
def exported(nir_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target directory for loihi1."""
    return api.export(api.open_model(nir_file, "loihi"), tmp_path_factory.mktemp("out") / "loihi1").folder
