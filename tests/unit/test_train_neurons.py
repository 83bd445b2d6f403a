"""The scan over all steps against snnTorch's own step, in both directions, and the noise on the potential."""

import math

import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.surrogate import Surrogate, override, spike
from nmtool.train.neurons import NoisyLeaky


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def snntorch_loop(neuron: NoisyLeaky, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """snnTorch's Leaky, step by step: V and S, ``[T, ...]``."""
    leaky = snntorch.Leaky(
        neuron.beta,
        threshold=neuron.threshold,
        spike_grad=neuron.spike_grad,
        reset_mechanism=neuron.reset_mechanism,
    )
    mem, v, s = leaky.init_leaky(), [], []
    for step in current:
        fired, mem = leaky(step, mem)
        v.append(mem)
        s.append(fired)
    return torch.stack(v), torch.stack(s)


def autograd_loop(neuron: NoisyLeaky, current: torch.Tensor, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The equation written out, so that autograd differentiates the reset as ``mode`` says."""
    carried = torch.zeros_like(current[0])
    v, s = [], []
    for step in current:
        v.append(carried + step)
        s.append(spike(v[-1] - neuron.threshold, neuron.surrogate))
        fired = s[-1] if mode == "through" else s[-1].detach()
        if neuron.reset_kind == "subtract":
            carried = neuron.beta * v[-1] - neuron.threshold * fired
        elif mode == "ignore":
            carried = neuron.beta * (v[-1] - (v[-1] * fired).detach())
        else:
            carried = neuron.beta * v[-1] * (1 - fired)
    return torch.stack(v), torch.stack(s)


@settings(max_examples=60, deadline=None)
@given(
    reset=st.sampled_from(["zero", "subtract"]),
    beta=st.floats(0, 1),
    threshold=st.floats(0.1, 3),
    n_steps=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_scan_has_the_bits_of_snntorch(
    reset: str, beta: float, threshold: float, n_steps: int, seed: int
) -> None:
    neuron = NoisyLeaky(beta, threshold, reset=reset)
    current = draw(n_steps, 3, 4, seed=seed) + 0.3
    v, s = snntorch_loop(neuron, current)
    result = neuron.scan(current)
    assert torch.equal(result.v_pre, v)
    assert torch.equal(result.spikes, s)


def gradients(outputs: tuple[torch.Tensor, torch.Tensor], current: torch.Tensor) -> torch.Tensor:
    v, s = outputs
    loss = (v * draw(*v.shape, seed=1)).sum() + (s * draw(*s.shape, seed=2)).sum()
    return torch.autograd.grad(loss, current)[0]


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_gradient_is_that_of_snntorch(reset: str) -> None:
    neuron = NoisyLeaky(0.8, 1.0, surrogate=Surrogate("atan", 0.5), reset=reset)
    current = (draw(12, 4, 5).double() + 0.3).requires_grad_()
    result = neuron.scan(current)
    assert 0.1 < result.spikes.mean() < 0.9
    torch.testing.assert_close(
        gradients((result.v_pre, result.spikes), current), gradients(snntorch_loop(neuron, current), current)
    )


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("mode", ["detach", "through", "ignore"])
def test_gradient_through_the_reset_is_what_the_override_says(reset: str, mode: str) -> None:
    neuron = NoisyLeaky(0.8, 1.0, reset=reset)
    current = (draw(12, 4, 5).double() + 0.3).requires_grad_()
    own = neuron.scan(current)
    with override("gaussian", 0.7, mode):
        result = neuron.scan(current)
        written_out = gradients(autograd_loop(neuron, current, mode), current)
    assert torch.equal(result.spikes, own.spikes)
    assert torch.equal(result.v_pre, own.v_pre)
    torch.testing.assert_close(gradients((result.v_pre, result.spikes), current), written_out)


@pytest.mark.parametrize("output", ["v_pre", "spikes"])
def test_gradient_where_only_one_output_is_used(output: str) -> None:
    neuron = NoisyLeaky(0.8, 1.0)
    current = (draw(6, 2, 3).double() + 0.3).requires_grad_()
    (got,) = torch.autograd.grad(getattr(neuron.scan(current), output).square().sum(), current)
    v, s = autograd_loop(neuron, current, "detach")
    (expected,) = torch.autograd.grad({"v_pre": v, "spikes": s}[output].square().sum(), current)
    torch.testing.assert_close(got, expected)


def test_a_constant_current_may_be_a_view() -> None:
    neuron = NoisyLeaky(0.9, 1.0)
    once = (draw(4, 5) + 0.3).requires_grad_()
    copied = once.detach().repeat(8, 1, 1).requires_grad_()
    as_view, as_copy = neuron.scan(once.expand(8, 4, 5)), neuron.scan(copied)
    assert torch.equal(as_view.v_pre, as_copy.v_pre)
    (g_view,) = torch.autograd.grad(as_view.spikes.sum(), once)
    (g_copy,) = torch.autograd.grad(as_copy.spikes.sum(), copied)
    torch.testing.assert_close(g_view, g_copy.sum(0))


def test_noise_comes_from_the_generator_alone() -> None:
    neuron = NoisyLeaky(0.5, 1.0, noise_std=0.3)
    current = draw(8, 4, 5)
    first, again = (neuron.scan(current, torch.Generator().manual_seed(7)) for _ in range(2))
    other = neuron.scan(current, torch.Generator().manual_seed(8))
    assert torch.equal(first.v_pre, again.v_pre)
    assert not torch.equal(first.v_pre, other.v_pre)
    silent = neuron.scan(current)
    assert silent.noise is None
    assert torch.equal(silent.v_pre, NoisyLeaky(0.5, 1.0).scan(current).v_pre)


def test_reported_noise_is_what_was_added() -> None:
    neuron = NoisyLeaky(0.5, 1.0, noise_std=0.3)
    current = draw(8, 400, 50)
    result = neuron.scan(current, torch.Generator().manual_seed(7))
    assert result.noise.std().item() == pytest.approx(0.3, rel=0.01)
    assert torch.equal(result.v_pre, NoisyLeaky(0.5, 1.0).scan(current + result.noise).v_pre)


def test_infinite_threshold_integrates() -> None:
    neuron = NoisyLeaky(0.5, math.inf, reset="subtract")
    result = neuron.scan(torch.full((3, 1, 1), 4.0))
    assert not neuron.spiking
    assert result.v_pre.flatten().tolist() == [4.0, 6.0, 7.0]
    assert not result.spikes.any()


def test_it_is_a_snntorch_neuron_that_can_be_forgotten() -> None:
    before = len(snntorch.SpikingNeuron.instances)
    neuron = NoisyLeaky(0.5, 1.0, noise_std=0.3, reset="zero")
    assert isinstance(neuron, snntorch.Leaky)
    assert len(snntorch.SpikingNeuron.instances) == before
    current = draw(1, 2, 3)
    s, v = neuron(current[0], neuron.init_leaky())
    assert torch.equal(v, neuron.scan(current).v_pre[0])
    assert torch.equal(s, neuron.scan(current).spikes[0])
