"""Every check of the masking protocol passes a sound model and catches the fault that it is for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nmtool.attacks import sanity
from nmtool.attacks.models import Differentiable

GEN = torch.Generator().manual_seed(0)
X = 0.2 + 0.6 * torch.rand(200, 6, generator=GEN)
W = torch.randn(3, 6, generator=GEN)


def linear(x: Tensor, seed: int = 0) -> Tensor:
    return x @ W.T


Y = linear(X).argmax(1)


def model(forward: Callable[[Tensor, int], Tensor], stochastic: bool = False) -> Differentiable:
    return Differentiable("m", forward, (0.0, 1.0), 3, stochastic)


@pytest.mark.parametrize(
    ("dead", "status"), [(0, "pass"), (2, "pass"), (3, "amber"), (10, "amber"), (11, "red")]
)
def test_g1_counts_inputs_without_a_gradient(dead: int, status: str) -> None:
    alive = (torch.arange(200) >= dead).float()[:, None]
    found = sanity.zero_gradient(model(lambda x, s: linear(x) * alive), X, Y, 0)
    assert (found.check, found.status, found.measured) == ("G1", status, {"share": dead / 200})


@pytest.mark.parametrize(("one_step", "iterated", "status"), [
    (0.5, 0.45, "pass"), (0.5, 0.54, "pass"), (0.78, 0.55, "amber"), (0.5, 0.56, "red"),
])  # fmt: skip
def test_g9_compares_one_step_with_many(one_step: float, iterated: float, status: str) -> None:
    assert sanity.one_step_gap(one_step, iterated).status == status


class Leaky:
    """Keeps its state from call to call."""

    def __init__(self) -> None:
        self.state = 0.0

    def __call__(self, x: Tensor, seed: int) -> Tensor:
        self.state += 0.01
        return linear(x) + self.state * torch.tensor([1.0, 0, 0])


@pytest.mark.parametrize(("forward", "moved"), [
    (linear, None),
    (lambda x, s: linear(x).double() + 1e-7 * len(x), None),
    (Leaky(), "repeated"),
    (lambda x, s: linear(x - x.mean(0)), "alone"),
    (lambda x, s: linear(x) + torch.arange(len(x))[:, None] * torch.tensor([0.01, 0, 0]), "permuted"),
])  # fmt: skip
def test_g11_finds_what_depends_on_call_or_batch(
    forward: Callable[[Tensor, int], Tensor], moved: str | None
) -> None:
    found = sanity.determinism(model(forward), X, 0)
    assert found.status == ("pass" if moved is None else "red")
    if moved:
        assert found.measured[moved] > 1e-3


def test_g11_asks_a_stochastic_model_only_for_the_same_seed_twice() -> None:
    def noisy(x: Tensor, seed: int) -> Tensor:
        return linear(x) + torch.randn(len(x), 3, generator=torch.Generator().manual_seed(seed))

    found = sanity.determinism(model(noisy, stochastic=True), X, 0)
    assert (found.status, set(found.measured)) == ("pass", {"repeated"})


@pytest.mark.parametrize(("attacked", "status"), [
    ({"fgsm": 0.3, "pgd": 0.2}, "pass"), ({"fgsm": 1.0, "pgd": 0.2}, "amber"), ({"fgsm": 1.0, "pgd": 1.0}, "red"),
])  # fmt: skip
def test_g12_random_signs_must_not_beat_the_attacks(attacked: dict[str, float], status: str) -> None:
    found = sanity.random_noise(model(linear), (X, Y), 0.02, 0, 30, attacked)
    assert found.status == status
    assert 0.5 < found.measured["random"] < 0.95


def test_g12_scores_a_stochastic_model_by_its_mean() -> None:
    """Wrong in every fifth draw at random: the worst of 50 draws would call every sample broken."""

    def flaky(x: Tensor, seed: int) -> Tensor:
        wrong = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < 0.2
        return linear(x) * torch.where(wrong, -1.0, 1.0)[:, None]

    found = sanity.random_noise(model(flaky, stochastic=True), (X, Y), 0.0, 0, 50, {"pgd": 0.8})
    assert found.measured["random"] == pytest.approx(0.8, abs=0.02)
    assert found.status == "pass"


def test_g13_wants_the_loss_to_rise() -> None:
    assert [sanity.loss_increased(s, n).status for s, n in ((0.95, False), (0.94, False), (0.94, True))] == [
        "pass",
        "red",
        "amber",
    ]


@pytest.mark.parametrize(("replay", "direct", "status"), [
    (0.833, 0.605, "amber"), (0.62, 0.60, "pass"), (0.60, 0.60, "pass"), (0.58, 0.60, "red"),
])  # fmt: skip
def test_g16_compares_replay_and_direct_attack(replay: float, direct: float, status: str) -> None:
    found = sanity.replay_gap(replay, direct)
    assert (found.check, found.status) == ("G16", status)
    assert found.to_json() == {
        "check": "G16", "title": found.title, "status": status, "rule": found.rule,
        "measured": {"replay": replay, "direct": direct},
    }  # fmt: skip
