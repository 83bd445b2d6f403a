"""Networks from recipes: the wiring against a plain time loop, seeds, and what does not fit."""

import pytest
import snntorch
import torch

from nmtool.config import Recipe, parse_recipe
from nmtool.data.datasets import DataSpec
from nmtool.errors import ConfigError
from nmtool.train.nets import SpikingNet, build_net

FLAT = DataSpec("flat", (12,), (0.0, 1.0), ("a", "b", "c"))
IMAGE = DataSpec("image", (2, 9, 8), (0.0, 1.0), ("a", "b", "c", "d"))

MLP = "[network]\nhidden = [10, 7]\nn_steps = 6\n[neuron]\nbeta = 0.8\n"
CONV = "[network]\nkind = 'conv'\nchannels = [3, 5]\nhidden = [6]\nn_steps = 4\n[neuron]\nbeta = 0.7\n"


def recipe(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, "test.toml", overrides)


def samples(spec: DataSpec, n: int = 5, seed: int = 0) -> torch.Tensor:
    return 4 * torch.rand((n, *spec.shape), generator=torch.Generator().manual_seed(seed))


def plain_loop(net: SpikingNet, x: torch.Tensor, n_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a user of snnTorch would write: every layer at every step. Spikes and V of the output, ``[T, B, K]``."""
    cells = {m: m.init_leaky() for m in net.layers if isinstance(m, snntorch.Leaky)}
    spikes, potentials = [], []
    for _ in range(n_steps):
        h = x
        for module in net.layers:
            if module in cells:
                h, cells[module] = module(h, cells[module])
            else:
                h = module(h)
        spikes.append(h)
        potentials.append(cells[module])
    return torch.stack(spikes), torch.stack(potentials)


@pytest.mark.parametrize(
    ("text", "spec"), [(MLP, FLAT), (CONV, IMAGE), (MLP, IMAGE)], ids=["mlp", "conv", "flatten"]
)
@pytest.mark.parametrize("readout", ["spike_count", "membrane"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_forward_equals_the_plain_time_loop(text: str, spec: DataSpec, readout: str, norm: str) -> None:
    r = recipe(text, f"network.readout={readout}", f"network.norm={norm}")
    net = build_net(r, spec).eval()
    x = samples(spec)
    logits, traces = net(x)
    spikes, potentials = plain_loop(net, x, r.network.n_steps)
    expected = spikes.sum(0) if readout == "spike_count" else potentials[-1]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert logits.shape == (5, len(spec.class_labels))
    assert traces[0].spikes.any()
    assert [t.is_output for t in traces] == [False] * (len(traces) - 1) + [True]
    assert traces[-1].spiking == (readout == "spike_count")


def test_names_shapes_and_model() -> None:
    net = build_net(recipe(CONV, "network.norm=batch"), IMAGE)
    names = [name for name, _ in net.layers.named_children()]
    assert names == [
        "conv1",
        "norm1",
        "lif1",
        "conv2",
        "norm2",
        "lif2",
        "flatten",
        "fc3",
        "norm3",
        "lif3",
        "fc4",
        "norm4",
        "lif4",
    ]
    traces = net.eval()(samples(IMAGE)).traces
    assert [tuple(t.v_pre.shape[2:]) for t in traces] == [(3, 5, 4), (5, 3, 2), (6,), (4,)]
    assert [t.name for t in traces] == ["lif1", "lif2", "lif3", "lif4"]
    assert (net.model.n_steps, net.model.encoder, net.model.data) == (4, "direct", "image")
    assert net.model.class_labels == IMAGE.class_labels


def test_weights_come_from_the_seed_and_the_global_stream_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, same = build_net(recipe(MLP), FLAT), build_net(recipe(MLP), FLAT)
    other = build_net(recipe(MLP, "seed=1"), FLAT)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.layers.fc1.weight, other.layers.fc1.weight)


def test_output_neurons_start_within_reach_of_their_threshold() -> None:
    r = recipe(MLP, "network.n_steps=200", "neuron.threshold=3", "network.hidden=[400]")
    net = build_net(r, FLAT).eval()
    with torch.no_grad():
        net.layers.fc2.weight.zero_()
        net.layers.fc2.bias.sub_(
            build_net(recipe(MLP, "network.readout=membrane", "network.hidden=[400]"), FLAT).layers.fc2.bias
        )
    resting = net(samples(FLAT)).traces[-1].v_pre[-1]
    torch.testing.assert_close(resting, torch.full_like(resting, 1.5))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    net = build_net(recipe(MLP), FLAT).eval()
    x = samples(FLAT, 8)
    logits = net(x).logits
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(net(x[order]).logits, logits[order])
    assert torch.equal(torch.cat([net(x[i : i + 1]).logits for i in range(8)]), logits)
    assert torch.equal(net(x).logits, logits)


def test_noise_needs_a_generator_and_can_be_kept_off() -> None:
    net = build_net(recipe(MLP, "neuron.noise_std=0.5"), FLAT).eval()
    x = samples(FLAT, 64)
    noisy = net(x, torch.Generator().manual_seed(0))
    assert [t.noise is not None for t in noisy.traces] == [True, True, True]
    assert torch.equal(noisy.logits, net(x, torch.Generator().manual_seed(0)).logits)
    assert not torch.equal(noisy.logits, net(x).logits)
    assert torch.equal(net(x, torch.Generator().manual_seed(0), noise=False).logits, net(x).logits)


def test_rate_code_fires_with_the_value_and_passes_the_gradient_straight_through() -> None:
    net = build_net(recipe(MLP, "network.encoder=rate", "network.n_steps=2000"), FLAT).eval()
    x = torch.linspace(0, 1, 12).expand(1, 12).clone().requires_grad_()
    traces = net(x, torch.Generator().manual_seed(0)).traces
    weight, bias = net.layers.fc1.weight.detach(), net.layers.fc1.bias.detach()
    mean_current = traces[0].current.detach().mean(0)[0]
    # 12 lines with weights below 0.29 and variance of at most 1/4 each, over 2000 steps: standard error 0.011.
    torch.testing.assert_close(mean_current, weight @ x.detach()[0] + bias, atol=0.05, rtol=0)
    (grad,) = torch.autograd.grad(traces[0].current.mean(0).sum(), x)
    torch.testing.assert_close(grad[0], weight.sum(0))
    with pytest.raises(ValueError, match="needs a generator"):
        net(x)


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"NM004.*network.kind.*flat.*\(12,\)"):
        build_net(recipe(CONV), FLAT)
    signed = DataSpec("signed", (12,), (-1.0, 1.0), ("a", "b"))
    with pytest.raises(ConfigError, match=r"NM004.*network.encoder.*signed.*direct"):
        build_net(recipe(MLP, "network.encoder=rate"), signed)
