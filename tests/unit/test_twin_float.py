"""The float twin: gradients in either order of computation, noise, rate code, readouts, refusals."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch
from torch import Tensor

from nmtool import surrogate
from nmtool.errors import ModelError
from nmtool.fixedpoint.encode import rate_spikes, rate_thresholds
from nmtool.ir.graph import Graph, from_nir
from nmtool.ir.reference import Engine
from nmtool.twin.floating import FloatTwin
from nmtool.twin.options import TwinOptions

DT = 1e-3


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def weights(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return rng.normal(0.3, 0.8, shape)


def lif(n: int, v_th: float = 1.0) -> nir.LIF:
    one = np.ones(n)
    return nir.LIF(2 * DT * one, 2 * one, 0 * one, v_th * one, 0 * one)


def graph(
    loop: bool = False, encoder: str = "direct", noise: float = 0.0, readout: str = "spike_count"
) -> Graph:
    nodes = {
        "input": nir.Input(np.array([4])),
        "fc1": nir.Affine(weights(6, 4), weights(6)),
        "a": lif(6),
        "late": nir.Delay(DT * np.array([0, 1, 2, 0, 1, 3])),
        "fc2": nir.Linear(weights(3, 6)),
        "b": lif(3),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "fc1"), ("fc1", "a"), ("a", "late"), ("late", "fc2"), ("fc2", "b"), ("b", "output")]
    if loop:
        nodes["back"] = nir.Linear(weights(6, 3))
        edges += [("b", "back"), ("back", "a")]
    g = from_nir(nir.NIRGraph(nodes, edges, type_check=False), DT)
    g = replace(g, model=replace(g.model, encoder=encoder, n_steps=8, readout=readout))
    return changed(g, noise_std=noise)


def changed(g: Graph, **fields: object) -> Graph:
    """The graph with other fields in every neuron."""
    neurons = {n: replace(v, neuron=replace(v.neuron, **fields)) for n, v in g.nodes.items() if v.neuron}
    return replace(g, nodes={**g.nodes, **neurons})


def gradient(twin: FloatTwin, x: Tensor, seed: int = 3) -> tuple[Tensor, Tensor]:
    point = x.clone().requires_grad_()
    logits = twin(point, seed=seed)
    scale = torch.arange(1.0, logits.numel() + 1).reshape(logits.shape)
    return logits.detach(), torch.autograd.grad((scale * logits).sum(), point)[0]


@pytest.mark.parametrize("kind", ["zero", "subtract", "none"])
@pytest.mark.parametrize("delay", [False, True])
def test_step_by_step_equals_all_at_once(kind: str, delay: bool) -> None:
    g = graph()
    nodes = {
        n: replace(v, neuron=replace(v.neuron, reset=kind, reset_delay=delay)) if v.neuron else v
        for n, v in g.nodes.items()
    }
    g = replace(g, nodes=nodes)
    fast, slow = FloatTwin(g, dtype=torch.float64), FloatTwin(g, dtype=torch.float64)
    slow.groups = [("input",), tuple(n for n in g.order() if n != "input")]
    for reset_grad in ("detach", "ignore"):
        with surrogate.override("atan", 0.8, reset_grad):
            (a, ga), (b, gb) = gradient(fast, uniform(5, 4).double()), gradient(slow, uniform(5, 4).double())
        assert torch.equal(a, b)
        assert float(ga.abs().max()) > 0
        torch.testing.assert_close(ga, gb, rtol=1e-9, atol=1e-12)


def test_gradient_is_that_of_the_smooth_network_where_nothing_spikes() -> None:
    """A readout that never spikes is linear: the gradient equals finite differences."""
    g = graph(readout="membrane")
    nodes = {
        n: replace(v, neuron=replace(v.neuron, v_th=np.full(v.out_shape, np.inf))) if v.neuron else v
        for n, v in g.nodes.items()
    }
    twin = FloatTwin(replace(g, nodes=nodes), dtype=torch.float64)
    x = uniform(2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: twin(z), (x,))


def test_spiking_readout_of_the_membrane_has_a_gradient() -> None:
    twin = FloatTwin(graph(readout="membrane"))
    logits, g = gradient(twin, uniform(5, 4))
    want = Engine(twin.graph).run(uniform(5, 4).numpy()).logits
    np.testing.assert_allclose(logits.numpy(), want, rtol=1e-6)
    assert float(g.abs().max()) > 0


def test_a_loop_passes_gradient_and_equals_the_engine() -> None:
    g = graph(loop=True)
    assert g.feedback_edges
    twin = FloatTwin(g, dtype=torch.float64)
    x = uniform(5, 4).double()
    logits, grad = gradient(twin, x)
    np.testing.assert_array_equal(logits.numpy(), Engine(g, np.float64).run(x.numpy()).logits)
    assert (grad.abs().sum(0) > 0).all()


def test_noise_has_its_strength_and_follows_the_seed() -> None:
    """Far below the threshold and without input, V after t steps has variance std**2 (1 - beta**2t) / (1 - beta**2)."""
    g = graph(noise=0.4)
    quiet = replace(g.nodes["a"], neuron=replace(g.nodes["a"].neuron, v_th=np.full(6, 1e6)))
    twin = FloatTwin(replace(g, nodes={**g.nodes, "a": quiet}))
    assert twin.stochastic
    x = torch.zeros(20000, 4)
    runs = [twin.run(x, TwinOptions(seed=s)).potential["a"] for s in (1, 1, 2)]
    still = twin.run(x, TwinOptions(noise=False)).potential["a"]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    spread = (runs[0] - still).var(dim=(1, 2))
    t = torch.arange(1, 9)
    torch.testing.assert_close(spread, 0.16 * (1 - 0.25**t) / 0.75, rtol=0.02, atol=0)


def test_rate_code_is_the_encoders() -> None:
    g = graph(encoder="rate")
    twin = FloatTwin(g)
    assert twin.stochastic
    x = uniform(5, 4)
    run = twin.run(x, TwinOptions(seed=9, sample_offset=20))
    spikes = rate_spikes(rate_thresholds(x.numpy(), 1.0, 1), 9, np.arange(20, 25), np.arange(8))
    want = Engine(g).run(spikes, record=("all",))
    np.testing.assert_array_equal(run.spikes["a"].detach().numpy(), want.traces["a"].spikes)
    _, grad = gradient(twin, x)
    assert float(grad.abs().max()) > 0


def test_output_without_a_neuron_is_summed_over_the_steps() -> None:
    nodes = {
        "input": nir.Input(np.array([4])),
        "fc": nir.Linear(weights(3, 4)),
        "output": nir.Output(np.array([3])),
    }
    g = from_nir(nir.NIRGraph(nodes, [("input", "fc"), ("fc", "output")], type_check=False), DT)
    g = replace(g, model=replace(g.model, encoder="direct", n_steps=5))
    x = uniform(2, 4)
    np.testing.assert_allclose(FloatTwin(g)(x).numpy(), Engine(g).run(x.numpy()).logits, rtol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "shape"), [("direct", (4,)), ("direct", (2, 5)), ("spikes", (2, 4)), ("rate", (0, 4))]
)
def test_input_of_the_wrong_shape_is_refused(encoder: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"NM109\] input input: x has shape \[[0-9, ]+\], must be \["):
        FloatTwin(graph(encoder=encoder))(torch.zeros(shape))


def test_float32_agrees_with_the_engine_in_nearly_every_spike() -> None:
    g = graph(loop=True)
    x = uniform(500, 4)
    mine = FloatTwin(g).run(x).spikes["a"].numpy()
    want = Engine(g).run(x.numpy(), record=("a",)).traces["a"].spikes
    assert (mine != want).mean() < 1e-3
