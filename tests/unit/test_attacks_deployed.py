"""From graph to deployed network: the twins agree in gradient, and what fools the twin fools the simulator."""

import nir
import numpy as np
import pytest
import torch
from torch import Tensor

from nmtool.attacks import suite as suites
from nmtool.attacks.base import evaluate
from nmtool.attacks.models import BlackBox, Differentiable, FixedSeed
from nmtool.attacks.pgd import PGD
from nmtool.attacks.search import Search
from nmtool.backends.base import RunOptions
from nmtool.backends.sim import SimBackend
from nmtool.compiler.compile import compile_graph
from nmtool.compiler.program import Program
from nmtool.ir.graph import Graph, from_nir, read, write
from nmtool.ir.semantics import ModelSemantics
from nmtool.target import load_target
from nmtool.twin.floating import FloatTwin
from nmtool.twin.integer import IntegerTwin

DT = 1e-3
BOUNDS = (0.0, 1.0)


def lif(n: int) -> nir.LIF:
    one = np.ones(n)
    return nir.LIF(2 * DT * one, 2 * one, 0 * one, one, 0 * one)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A random two-layer network on 12 inputs whose classes are about evenly used."""
    rng = np.random.default_rng(4)
    nodes = {
        "input": nir.Input(np.array([12])),
        "fc1": nir.Affine(rng.normal(0, 0.9, (30, 12)), rng.normal(0.2, 0.2, 30)),
        "lif1": lif(30),
        "fc2": nir.Affine(rng.normal(0.05, 0.5, (4, 30)), np.full(4, 0.1)),
        "lif2": lif(4),
        "output": nir.Output(np.array([4])),
    }
    names = list(nodes)
    raw = nir.NIRGraph(nodes, list(zip(names[:-1], names[1:], strict=True)), type_check=False)
    path = tmp_path_factory.mktemp("g") / "g.nir"
    plain = from_nir(raw, DT)
    neurons = {n: v.neuron for n, v in plain.nodes.items() if v.neuron}
    write(raw, ModelSemantics(DT, "direct", 12), neurons, path)
    return read(path)


@pytest.fixture(scope="module")
def program(graph: Graph) -> Program:
    return compile_graph(graph, load_target("loihi1")).program


def inputs() -> Tensor:
    return torch.rand(150, 12, generator=torch.Generator().manual_seed(0))


def adapter(name: str, twin: FloatTwin | IntegerTwin) -> Differentiable:
    return Differentiable(name, twin, BOUNDS, twin.n_classes, twin.stochastic)


def test_float_and_deployed_gradients_agree(graph: Graph, program: Program) -> None:
    x = inputs()
    models = [adapter("float", FloatTwin(graph)), adapter("sim", IntegerTwin(program))]
    y = models[0].logits(x, 0).argmax(1)
    a, b = (Search(m, (x, y), 0.0, 0).gradient(x).flatten(1) for m in models)
    assert float((a != 0).any(1).double().mean()) > 0.8
    assert float(torch.cosine_similarity(a, b, dim=1).median()) > 0.95


def test_examples_of_the_twin_fool_the_simulator_alike(program: Program) -> None:
    backend, twin = SimBackend(program), adapter("sim", IntegerTwin(program))
    chip = BlackBox("chip", lambda x, s: backend.run(x, RunOptions(seed=s)).logits, BOUNDS, 4, False)
    x = inputs()
    y = twin.logits(x, 0).argmax(1)
    out = PGD(steps=10)(twin, x, y, 0.1, 0)
    assert float(out.robust.mean()) < 0.7
    assert torch.equal(chip.logits(out.adversarial, 0), twin.logits(out.adversarial, 0))
    assert torch.equal(evaluate(chip, out.adversarial, y, 0), out.robust)


def test_noisy_network_with_a_known_seed_is_attacked_like_a_deterministic_one(program: Program) -> None:
    """The simulator with the same seed gives the same noise, so the examples fool it in exactly that run."""
    from dataclasses import replace

    from nmtool.fixedpoint.noise import NoiseSpec

    loud = NoiseSpec(int(np.log2(program.populations[0].v_th_man.max() * 64)) - 1)
    noisy = replace(program, populations=tuple(replace(p, noise=loud) for p in program.populations))
    twin = adapter("sim", IntegerTwin(noisy))
    assert twin.stochastic
    known = FixedSeed(twin, 11)
    x = inputs()
    y = known.logits(x, 0).argmax(1)
    out = PGD(steps=5)(known, x, y, 0.1, 0)
    run = SimBackend(noisy).run(out.adversarial.numpy(), RunOptions(seed=11))
    np.testing.assert_array_equal(run.logits, known.logits(out.adversarial, 0).numpy())
    np.testing.assert_array_equal(run.predictions == y.numpy(), out.robust.numpy() == 1)
    assert float(evaluate(twin, out.adversarial, y, 0).mean()) > float(out.robust.mean())


def test_the_whole_suite_on_both(graph: Graph, program: Program) -> None:
    models = {"float": adapter("float", FloatTwin(graph)), "sim": adapter("loihi1", IntegerTwin(program))}
    x = inputs()
    y = models["float"].logits(x, 0).argmax(1)
    record = suites.run(models, (x, y), suites.Plan(suites.suite("quick"), (0.05,)))
    assert record["clean"]["sim"]["value"] > 0.85
    worst = record["worst_case"][0]
    for name in ("float", "sim"):
        assert worst[name]["value"] < record["clean"][name]["value"]
        found = {f["check"]: f["status"] for f in record["sanity"][name]}
        assert found["G11"] == "pass"
        assert found["G12"] != "red"
