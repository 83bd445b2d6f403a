"""Attacks against published vectors and closed forms on linear models."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from nmtool.attacks.base import Attack
from nmtool.attacks.fgsm import FGSM, RFGSM
from nmtool.attacks.momentum import MIFGSM, normalised
from nmtool.attacks.pgd import PGD
from nmtool.attacks.search import Search, losses

EPS = 8 / 255


@dataclass
class Linear:
    """Two or more classes, ``logits = x W^T + b``; every point that was asked about is kept."""

    weight: Tensor
    bias: Tensor
    seen: list[Tensor] = field(default_factory=list)

    name, bounds, stochastic, differentiable = "linear", (0.0, 1.0), False, True

    @property
    def n_classes(self) -> int:
        return len(self.weight)

    def logits(self, x: Tensor, seed: int) -> Tensor:
        self.seen.append(x.detach())
        return x.flatten(1) @ self.weight.T + self.bias


def unbeaten(gradient: list[float]) -> Linear:
    """The gradient of its loss at label 0 points along ``gradient``, and it is never fooled."""
    g = torch.tensor(gradient, dtype=torch.float64)
    return Linear(torch.stack([0 * g, g]), torch.tensor([1e3, 0.0], dtype=torch.float64))


class Started(PGD):
    """PGD from one given point."""

    def perturb(self, search: Search) -> Tensor:
        return self.ascend(search, torch.tensor([[0.52]], dtype=torch.float64))


def points(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


ZERO = torch.zeros(1, dtype=torch.long)


def test_fgsm_vector() -> None:
    model = unbeaten([0.3, -2.0, 1.0])
    out = FGSM(loss="margin")(model, points(0.5, 0.02, 0.99), ZERO, EPS, 0)
    torch.testing.assert_close(out.adversarial, points(0.5313725490, 0, 1), rtol=0, atol=1e-9)


def test_pgd_vector() -> None:
    iterates = []
    for k in (1, 2, 3):
        attack = Started(loss="margin", steps=k, step=0.01 / EPS)
        iterates.append(float(attack(unbeaten([1.0]), points(0.5), ZERO, EPS, 0).adversarial))
    assert iterates == pytest.approx([0.53, 0.5313725490, 0.5313725490], abs=1e-9)


def test_rfgsm_steps_half_at_random_and_half_along_the_gradient() -> None:
    out = RFGSM(loss="margin")(unbeaten([1.0] * 1000), torch.full((1, 1000), 0.5).double(), ZERO, 0.1, 0)
    moved = (out.adversarial - 0.5).flatten()
    up = torch.isclose(moved, torch.tensor(0.1, dtype=torch.float64))
    assert bool((up | (moved.abs() < 1e-12)).all())
    assert 0.45 < float(up.double().mean()) < 0.55


def test_mifgsm_accumulates_the_normalised_gradient() -> None:
    """The gradient turns after the first step: momentum 1, 0, -1."""

    class Turning(Linear):
        def logits(self, x: Tensor, seed: int) -> Tensor:
            z = super().logits(x, seed)
            return torch.cat([0 * z[:, :1] + 1e3, -((x - 0.505) ** 2)], 1)

    ends = {
        attack.name: float(
            attack(Turning(points(0, 0).T, torch.zeros(2)), points(0.5), ZERO, 0.1, 0).adversarial
        )
        for attack in (
            MIFGSM(loss="margin", steps=2, step=0.1),
            MIFGSM(loss="margin", steps=3, step=0.1),
            PGD(loss="margin", steps=2, step=0.1, random_start=False),
        )
    }
    assert ends == pytest.approx({"mi-fgsm-2-margin": 0.51, "mi-fgsm-3-margin": 0.50, "bim-2-margin": 0.50})


def test_normalised_gradient() -> None:
    g = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    assert torch.equal(normalised(g), torch.tensor([[0.5, -1.5], [0.0, 0.0]]))


@pytest.mark.parametrize(
    "attack",
    [FGSM(), PGD(steps=7), PGD(steps=7, random_start=False), MIFGSM(steps=20), PGD(steps=7, restarts=3)],
)
def test_a_linear_model_is_pushed_to_the_closed_form_optimum(attack: Attack) -> None:
    gen = torch.Generator().manual_seed(0)
    w = torch.randn(12, generator=gen, dtype=torch.float64)
    x = 0.3 + 0.4 * torch.rand(20, 3, 4, generator=gen, dtype=torch.float64)
    model = Linear(torch.stack([0 * w, w]), torch.tensor([50.0, 0], dtype=torch.float64))
    out = attack(model, x, torch.zeros(20, dtype=torch.long), 0.05, 1)
    gain = losses(model.logits(out.adversarial, 0), torch.zeros(20, dtype=torch.long), "margin") - losses(
        model.logits(x, 0), torch.zeros(20, dtype=torch.long), "margin"
    )
    torch.testing.assert_close(gain, torch.full((20,), 0.05 * float(w.abs().sum()), dtype=torch.float64))


@pytest.mark.parametrize(
    "attack",
    [FGSM(), RFGSM(), PGD(steps=5), PGD(steps=5, step=3.0), MIFGSM(steps=5), PGD(steps=3, restarts=3)],
)
@pytest.mark.parametrize("eps", [0.0, 0.03, 5.0])
def test_every_point_stays_in_ball_and_bounds(attack: Attack, eps: float) -> None:
    gen = torch.Generator().manual_seed(2)
    x = torch.rand(30, 2, 5, generator=gen)
    model = Linear(torch.randn(4, 10, generator=gen), torch.zeros(4))
    out = attack(model, x, torch.randint(0, 4, (30,), generator=gen), eps, 3)
    for z in (*model.seen, out.adversarial):
        assert float((z - x).abs().max()) <= eps + 1e-6
        assert 0 <= float(z.min()) <= float(z.max()) <= 1


@pytest.mark.parametrize(("attack", "name"), [
    (FGSM(), "fgsm"), (FGSM(loss="margin"), "fgsm-margin"), (RFGSM(), "rfgsm"), (PGD(steps=40), "pgd-40"),
    (PGD(steps=7, restarts=5, loss="margin"), "pgd-7x5-margin"), (PGD(random_start=False), "bim-10"),
    (MIFGSM(), "mi-fgsm-10"),
])  # fmt: skip
def test_names_tell_variants_apart(attack: Attack, name: str) -> None:
    assert attack.name == name == attack.describe()["name"]


def test_pgd_starts_at_random_and_bim_at_the_input() -> None:
    x = torch.full((1, 100), 0.5)
    model = unbeaten([1.0] * 100)
    for attack, at_x in ((PGD(steps=1), False), (PGD(steps=1, random_start=False), True)):
        model.seen.clear()
        attack(model, x.double(), ZERO, 0.1, 0)
        assert torch.equal(model.seen[1], x.double()) is at_x


def test_margin_loss() -> None:
    logits = torch.tensor([[2.0, 1.5, 0.3, -1.0]]).repeat(2, 1)
    torch.testing.assert_close(losses(logits, torch.tensor([0, 1]), "margin"), torch.tensor([-0.5, 0.5]))
    torch.testing.assert_close(losses(logits, torch.tensor([0, 1])), -torch.log_softmax(logits, 1)[0, :2])
