"""Surrogates: unit mass, exact forward, and an override that touches the backward pass alone."""

import threading
from collections.abc import Callable

import pytest
import torch

from nmtool.errors import ConfigError
from nmtool.surrogate import FAMILIES, BackwardRule, Surrogate, override, rule, spike

FAMILY_WIDTHS = [(f, w) for f in FAMILIES for w in (0.25, 1.0, 3.0)]


def integral(surrogate: Surrogate, half: float) -> float:
    z = torch.linspace(-half, half, 2_000_001, dtype=torch.float64)
    return torch.trapezoid(surrogate.density(z), z).item()


@pytest.mark.parametrize(("family", "width"), FAMILY_WIDTHS)
def test_mass_and_its_inverse_agree_with_the_integral_of_the_density(family: str, width: float) -> None:
    g = Surrogate(family, width)
    for p in (0.1, 0.5, 0.9):
        half = g.half_width(p)
        assert g.mass(half) == pytest.approx(p, abs=1e-12)
        assert integral(g, half) == pytest.approx(p, abs=1e-5)
    assert g.mass(1e9 * width) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(("family", "width"), FAMILY_WIDTHS)
def test_density_is_symmetric_largest_at_the_threshold_and_leaves_its_argument_alone(
    family: str, width: float
) -> None:
    z = torch.linspace(-4, 4, 81)
    before = z.clone()
    g = Surrogate(family, width).density(z)
    assert torch.equal(z, before)
    torch.testing.assert_close(g, g.flip(0))
    assert (g >= 0).all()
    assert g.max() == g[40]


def test_density_of_extreme_potentials_is_a_number() -> None:
    z = torch.tensor([-torch.inf, -1e30, 1e30, torch.inf])
    for family in FAMILIES:
        assert (Surrogate(family).density(z).abs() < 1e-6).all()


def test_window() -> None:
    assert Surrogate("triangle", 2.0).window == 2.0
    assert Surrogate("rectangle", 0.5).window == 0.5
    g = Surrogate("gaussian", 1.0)
    assert g.window == pytest.approx(1.6448536, abs=1e-6)


def test_spike_is_strict_and_differentiated_by_its_density() -> None:
    z = torch.tensor([-0.5, 0.0, 1e-7, 0.5], requires_grad=True)
    s = spike(z, Surrogate("triangle", 1.0))
    assert s.tolist() == [0, 0, 1, 1]
    s.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(z.grad, torch.tensor([0.5, 2.0, 3.0, 2.0]))


def test_override_changes_the_gradient_and_no_bit_of_the_spikes() -> None:
    own = Surrogate("triangle", 1.0)
    z = torch.randn(1000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plain = spike(z, own)
    with override("atan", 0.5):
        attacked = spike(z, own)
    assert torch.equal(plain, attacked)
    (grad,) = torch.autograd.grad(attacked.sum(), z)
    torch.testing.assert_close(grad, Surrogate("atan", 0.5).density(z.detach()))


def test_override_nests_and_ends_with_its_block() -> None:
    own = Surrogate("gaussian", 0.3)
    assert rule(own) == BackwardRule(own, "detach")
    with override("triangle", 1.0, "ignore"):
        with override("sigmoid", 2.0, "through") as inner:
            assert rule(own) == inner == BackwardRule(Surrogate("sigmoid", 2.0), "through")
        assert rule(own).reset_grad == "ignore"
    with pytest.raises(KeyError, match="stop"), override("triangle", 1.0):
        raise KeyError("stop")
    assert rule(own) == BackwardRule(own, "detach")


def test_rule_of_the_forward_pass_counts_wherever_the_backward_pass_runs() -> None:
    z = torch.tensor([0.5], requires_grad=True)
    with override("rectangle", 2.0):
        s = spike(z, Surrogate("triangle", 1.0))
    thread = threading.Thread(target=s.sum().backward)
    thread.start()
    thread.join()
    assert z.grad.item() == 0.25


def test_override_does_not_reach_other_threads() -> None:
    seen: list[BackwardRule] = []
    own = Surrogate()
    with override("atan", 0.5):
        thread = threading.Thread(target=lambda: seen.append(rule(own)))
        thread.start()
        thread.join()
    assert seen == [BackwardRule(own)]


def test_width_may_differ_per_element() -> None:
    width = torch.tensor([0.5, 1.0, 2.0])
    z = torch.full((4, 3), 0.25)
    expected = torch.stack([Surrogate("triangle", w.item()).density(z[:, 0]) for w in width], dim=1)
    torch.testing.assert_close(Surrogate("triangle", width).density(z), expected)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Surrogate("triangel"), "NM004.*'triangel'.*Did you mean 'triangle'"),
        (lambda: Surrogate("atan", 0.0), "NM004.*width is 0.0"),
        (lambda: Surrogate("atan", torch.tensor([1.0, -1.0])), "NM004.*must be above 0"),
        (lambda: override("atan", 1.0, "detatch").__enter__(), "NM004.*Did you mean 'detach'"),
    ],
)
def test_bad_rules_are_coded_errors(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        call()
