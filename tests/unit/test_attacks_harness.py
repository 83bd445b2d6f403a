"""The harness owns the rules: budget, bounds, success, counting, noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from nmtool import surrogate
from nmtool.attacks.base import Attack, eot, evaluate, merged
from nmtool.attacks.fgsm import FGSM
from nmtool.attacks.models import BlackBox, Differentiable, FixedSeed, ThroughSurrogate
from nmtool.attacks.pgd import PGD
from nmtool.attacks.search import Search, seeds
from nmtool.errors import ConfigError, EvaluationError, ModelError

X = torch.full((4, 3), 0.5)
Y = torch.tensor([0, 0, 1, 1])


def model(forward: Callable[[Tensor, int], Tensor], stochastic: bool = False) -> Differentiable:
    return Differentiable("m", forward, (0.0, 1.0), 2, stochastic)


def slope(x: Tensor, seed: int = 0) -> Tensor:
    """Class 1 where the sum of the inputs is above 1.5."""
    z = x.sum(1) - 1.5
    return torch.stack([-z, z], 1)


@dataclass(frozen=True)
class Scripted(Attack):
    """Does what the test says."""

    script: Callable[[Search], Tensor] = lambda search: search.x

    @property
    def name(self) -> str:
        return "scripted"

    def perturb(self, search: Search) -> Tensor:
        return self.script(search)


@pytest.mark.parametrize(("point", "message"), [
    (lambda s: s.x + 0.2, r"NM502\] m: a point is 0\.2 from its input, eps is 0\.1"),
    (lambda s: s.x * torch.nan, r"NM502\] m: a point is nan from its input"),
    (lambda s: s.x[:2], r"NM502\] m: a point has shape \[2, 3\], the inputs \[4, 3\]"),
    (lambda s: s.gradient(s.x + 0.2), r"NM502\] m: a point is 0\.2 from"),
    (lambda s: s.losses_at(s.x - 0.2), r"NM502\] m: a point is 0\.2 from"),
])  # fmt: skip
def test_a_point_outside_the_ball_is_refused(point: Callable[[Search], Tensor], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Scripted(script=point)(model(slope), X, Y, 0.1, 0)


def test_a_point_outside_the_bounds_is_refused() -> None:
    with pytest.raises(
        EvaluationError, match=r"NM502\] m: a point spans -0\.05 to 0\.9, the bounds are 0 to 1"
    ):
        Scripted(script=lambda s: s.x - 0.1)(model(slope), torch.tensor([[0.05, 1.0]]), Y[:1], 0.1, 0)


def test_rounding_dust_is_clipped_and_not_returned() -> None:
    out = Scripted(script=lambda s: s.x + 0.1 + 5e-7)(model(slope), X, Y, 0.1, 0)
    assert float((out.adversarial - X).max()) <= np.float32(0.6) - np.float32(0.5)


def test_a_deterministic_model_is_fooled_by_any_point_that_was_tried() -> None:
    """The script asks about a fooling point and then returns to the input."""

    def script(search: Search) -> Tensor:
        search.losses_at(search.x + 0.05)
        search.gradient(search.x - 0.05)
        return search.x

    m = model(lambda x, s: slope(x) + torch.tensor([0.01, 0]))
    out = Scripted(script=script)(m, X, Y, 0.1, 0)
    assert out.robust.tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(
        out.adversarial - X, torch.tensor([0.05, 0.05, 0.0, 0.0])[:, None].expand(4, 3)
    )
    assert torch.equal(evaluate(m, out.adversarial, Y, 0), out.robust)


def test_a_stochastic_model_is_not_fooled_by_a_lucky_draw() -> None:
    """It is wrong for every second seed, whatever the input: no attack may report more than that half."""

    def coin(x: Tensor, seed: int) -> Tensor:
        return slope(x) * 0 + torch.tensor([0.0, 1.0 if seed % 2 else -1.0])

    def script(search: Search) -> Tensor:
        for _ in range(30):
            search.losses_at(search.x)
        return search.x

    out = Scripted(script=script, final_draws=1000)(model(coin, stochastic=True), X, Y, 0.1, 0)
    assert out.robust[0] + out.robust[2] == 1
    assert 0.45 < float(out.robust[0]) < 0.55


def test_a_sample_that_is_wrong_without_attack_is_not_robust() -> None:
    out = Scripted()(model(slope), X + 0.01, Y, 0.0, 0)
    assert out.robust.tolist() == [0, 0, 1, 1]


def test_passes_are_counted() -> None:
    calls = []

    def counting(x: Tensor, seed: int) -> Tensor:
        calls.append(seed)
        return slope(x) + torch.tensor([[9.0, 0], [9.0, 0], [0, 9.0], [0, 9.0]])

    out = PGD(steps=6)(model(counting), X, Y, 0.1, 0)
    assert (out.n_forward, out.n_backward) == (len(calls), 6) == (8, 6)
    calls.clear()
    out = PGD(steps=6, draws=3, final_draws=4)(model(counting, stochastic=True), X, Y, 0.1, 0)
    assert (out.n_forward, out.n_backward) == (len(calls), 18) == (3 + 18 + 4, 18)
    assert len(set(calls)) == len(calls)


def test_an_attack_stops_when_nothing_is_left_to_find() -> None:
    out = PGD(steps=50)(model(slope), X, Y, 0.1, 0)
    assert out.robust.sum() == 0
    assert out.n_backward < 5


def test_gradients_average_over_draws() -> None:
    """The gradient is +2 or -1 by the seed: its mean over many draws is +0.5, and single draws disagree."""

    def noisy(x: Tensor, seed: int) -> Tensor:
        z = x.sum(1) * (2.0 if seed % 2 else -1.0)
        return torch.stack([0 * z, z], 1)

    search = Search(model(noisy, stochastic=True), (X, 0 * Y), 0.1, 0, "margin", 4000)
    assert float(search.gradient(X).mean()) == pytest.approx(0.5, abs=0.1)
    singles = {
        float(Search(model(noisy, True), (X, 0 * Y), 0.1, s, "margin").gradient(X)[0, 0]) for s in range(20)
    }
    assert singles == {2.0, -1.0}


def test_without_noise_expectation_changes_nothing() -> None:
    a, b = PGD(steps=5), eot(PGD(steps=5), 20)
    first, second = (attack(model(slope), X + 0.09, Y, 0.1, 7) for attack in (a, b))
    assert torch.equal(first.adversarial, second.adversarial)
    assert first.n_forward == second.n_forward
    assert b.draws == 20


def test_share_of_zero_gradients() -> None:
    out = FGSM()(
        model(lambda x, s: slope(x) * torch.tensor([1.0, 0, 0, 0])[:, None] + torch.tensor([9.0, 0])),
        X,
        0 * Y,
        0.1,
        0,
    )
    assert out.zero_gradient == 0.75


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    def broken(x: Tensor, seed: int) -> Tensor:
        steep = torch.sqrt((x[2] - x[2].detach()).sum())
        extra = torch.stack([steep if i == 2 else 0 * steep.detach() for i in range(4)])
        return slope(x) + extra[:, None] * torch.tensor([1.0, 0.0])

    with pytest.raises(EvaluationError, match=r"NM503\] m: the gradient of 1 samples is not finite"):
        FGSM()(model(broken), X + 0.01, Y, 0.1, 0)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"NM503\] m: answered \[4, 2\], expected finite \[4, 2\]"):
        FGSM()(model(lambda x, s: slope(x) * torch.inf), X + 0.01, Y, 0.1, 0)


def test_a_black_box_has_no_gradient() -> None:
    box = BlackBox("lava", lambda x, s: x[:, :2], (0.0, 1.0), 2, False)
    with pytest.raises(ConfigError, match=r"NM004\] fgsm: needs gradients, and model 'lava' gives none"):
        FGSM()(box, X, Y, 0.1, 0)
    assert evaluate(box, X * torch.tensor([1, 0.5, 1]), Y, 0).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("answer", [np.zeros((4, 3)), np.full((4, 2), np.nan), np.zeros(4)])
def test_a_black_box_that_answers_nonsense_is_refused(answer: np.ndarray) -> None:
    box = BlackBox("lava", lambda x, s: answer, (0.0, 1.0), 2, False)
    with pytest.raises(EvaluationError, match=r"NM503\] lava: answered \[4"):
        evaluate(box, X, Y, 0)


@pytest.mark.parametrize(("x", "y", "message"), [
    (X, Y[:3], r"labels \[3\] for inputs \[4, 3\], need one label in 0\.\.1 per input"),
    (X, Y + 1, r"need one label in 0\.\.1"),
    (X, Y - 1, r"need one label in 0\.\.1"),
    (X[:0], Y[:0], r"labels \[0\] for inputs \[0, 3\]"),
    (X * 3, Y, r"inputs span 1\.5 to 1\.5, the bounds are 0 to 1"),
    (X * torch.nan, Y, r"inputs span nan to nan"),
])  # fmt: skip
def test_data_that_do_not_fit_are_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=r"NM109\] m: .*" + message):
        FGSM()(model(slope), x, y, 0.1, 0)


@pytest.mark.parametrize("eps", [-0.1, float("nan")])
def test_a_budget_below_zero_is_refused(eps: float) -> None:
    with pytest.raises(ConfigError, match=r"NM004\] eps = (-0\.1|nan): a budget must be 0 or more"):
        FGSM()(model(slope), X, Y, eps, 0)


def test_the_same_seed_gives_the_same_attack() -> None:
    hard = model(lambda x, s: slope(x) + torch.tensor([9.0, 0]))
    runs = [PGD(steps=1, step=0.1)(hard, X, 0 * Y, 0.1, s).adversarial for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_seeds_of_streams_differ() -> None:
    drawn = [s for stream in range(50) for s in seeds(3, stream, 20)]
    assert len(set(drawn)) == 1000
    assert all(0 <= s < 2**63 for s in drawn)
    assert seeds(3, 7, 5) == seeds(3, 7, 20)[:5]
    assert seeds(-1, 0, 1) != seeds(0, 0, 1)


def test_a_fixed_seed_makes_a_model_deterministic() -> None:
    noisy = model(lambda x, s: slope(x) + s, stochastic=True)
    fixed = FixedSeed(noisy, 7)
    assert fixed.name == "m"
    assert fixed.differentiable
    assert not fixed.stochastic
    assert (fixed.bounds, fixed.n_classes) == (noisy.bounds, noisy.n_classes)
    assert torch.equal(fixed.logits(X, 1), noisy.logits(X, 7))


def test_another_surrogate_changes_the_gradient_alone() -> None:
    """The wrapped network asks for the rule in force, as the twins do."""

    def spiking(x: Tensor, seed: int) -> Tensor:
        return surrogate.spike(slope(x), surrogate.Surrogate("triangle", 1.0)) + torch.tensor([9.0, 0])

    own = model(spiking)
    wide = ThroughSurrogate(own, "rectangle", 4.0)
    assert (wide.name, wide.bounds, wide.n_classes, wide.stochastic) == ("m", (0.0, 1.0), 2, False)
    assert torch.equal(own.logits(X, 0), wide.logits(X, 0))
    grads = [Search(m, (X + 0.1, 0 * Y), 0.1, 0, "margin").gradient(X + 0.1) for m in (own, wide)]
    assert [float(g[0, 0]) for g in grads] == pytest.approx([2 * 0.7, 2 * 0.125])


def test_batches_merge_into_one_result() -> None:
    hard = model(lambda x, s: slope(x) * torch.tensor([1.0, 0])[: len(x), None] + torch.tensor([9.0, 0]))
    a, b = (FGSM()(hard, X[:n], 0 * Y[:n], 0.1, 0) for n in (1, 2))
    both = merged([a, b])
    assert both.zero_gradient == pytest.approx((0 * 1 + 0.5 * 2) / 3)
    assert both.adversarial.shape == (3, 3)
    assert both.robust.tolist() == [1, 1, 1]
    assert (both.n_forward, both.eps) == (3, 0.1)
