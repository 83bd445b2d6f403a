"""The harness around every attack: budget, bounds, success and counting are its business, not the attack's.

A deterministic model is fooled if any point that was tried fools it. A stochastic one is scored on fresh draws at the
final point alone, never on a draw that was looked at while searching (Athalye et al. 2018, section 4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nmtool.attacks.search import Loss, Model, Search, answer, losses, seeds
from nmtool.errors import ConfigError, ModelError

FINAL_STREAM = 2**32
"""Stream of the final draws; the questions of a search count from 1."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack achieved on ``B`` samples, as the harness measured it.

    Attributes:
        attack: name.
        eps: budget in L-infinity, in units of the bounds.
        adversarial: ``[B, *shape]``, inside ball and bounds.
        robust: float64 ``[B]``, share of final evaluations in which the sample stays right; 0 or 1 if deterministic.
        loss_start, loss_end: float64 ``[B]`` at the clean and at the final point.
        zero_gradient: share of gradients with every component exactly zero, over all that were asked for.
        n_forward, n_backward: passes per sample, the harness's own included.
    """

    attack: str
    eps: float
    adversarial: Tensor
    robust: Tensor
    loss_start: Tensor
    loss_end: Tensor
    zero_gradient: float
    n_forward: int
    n_backward: int


@dataclass(frozen=True)
class Attack(ABC):
    """A white-box attack in L-infinity.

    Attributes:
        loss: what is maximised.
        draws: noise draws per question (expectation over transformation); deterministic models need one.
        final_draws: fresh draws that score a stochastic model.
    """

    loss: Loss = "ce"
    draws: int = 1
    final_draws: int = 10

    needs_gradient: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name with what tells variants apart, such as ``pgd-10``."""

    @property
    def suffix(self) -> str:
        """What a name ends in if the loss is not cross-entropy."""
        return "" if self.loss == "ce" else f"-{self.loss}"

    @abstractmethod
    def perturb(self, search: Search) -> Tensor:
        """The final point ``[B, *shape]``, inside the budget."""

    def describe(self) -> dict[str, Any]:
        """Name and every parameter, JSON types."""
        return {"name": self.name, **asdict(self)}

    def __call__(self, model: Model, x: Tensor, y: Tensor, eps: float, seed: int) -> AttackResult:
        """Attack a batch.

        Args:
            model: what is attacked.
            x: clean inputs ``[B, *shape]`` in the model's bounds.
            y: labels int64 ``[B]``.
            eps: budget in L-infinity, in units of the bounds.
            seed: of starts and noise draws.

        Raises:
            ConfigError: NM004 for a budget below zero, or a gradient attack on a model without gradients.
            ModelError: NM109 if inputs and labels do not fit the model.
            EvaluationError: NM502 if the attack leaves its budget, NM503 if a gradient is not finite.
        """
        self._check(model, x, y, eps)
        search = Search(model, (x, y), eps, seed, self.loss, self.draws)
        start = search.losses_at(x)
        point = self.perturb(search).detach()
        search.check(point)
        found = search.fooled.reshape(-1, *[1] * (x.ndim - 1))
        point = torch.where(found, search.fooling, search.project(point))
        robust, end = _score(model, (point, y), seeds(seed, FINAL_STREAM, self.final_draws), self.loss)
        zero = search.zero_gradients
        return AttackResult(
            attack=self.name,
            eps=eps,
            adversarial=point,
            robust=robust,
            loss_start=start,
            loss_end=end,
            zero_gradient=sum(zero) / len(zero) if zero else 0.0,
            n_forward=search.n_forward + (self.final_draws if model.stochastic else 1),
            n_backward=search.n_backward,
        )

    def _check(self, model: Model, x: Tensor, y: Tensor, eps: float) -> None:
        if self.needs_gradient and not model.differentiable:
            hint = "Attack its differentiable twin, or choose a black-box attack"
            raise ConfigError(
                "NM004", self.name, f"needs gradients, and model '{model.name}' gives none", hint
            )
        if not eps >= 0:
            raise ConfigError("NM004", f"eps = {eps}", "a budget must be 0 or more")
        low, high = model.bounds
        if not len(x) or y.shape != x.shape[:1] or not 0 <= int(y.min()) <= int(y.max()) < model.n_classes:
            found = f"labels {list(y.shape)} for inputs {list(x.shape)}"
            raise ModelError(
                "NM109", model.name, f"{found}, need one label in 0..{model.n_classes - 1} per input"
            )
        if not low <= float(x.min()) <= float(x.max()) <= high:
            found = f"inputs span {float(x.min()):.6g} to {float(x.max()):.6g}"
            raise ModelError("NM109", model.name, f"{found}, the bounds are {low:g} to {high:g}")


def eot(attack: Attack, draws: int, final_draws: int = 10) -> Attack:
    """The attack with gradients averaged over ``draws`` noise draws; nothing changes for deterministic models."""
    return replace(attack, draws=draws, final_draws=final_draws)


def evaluate(model: Model, x: Tensor, y: Tensor, seed: int, draws: int = 10) -> Tensor:
    """Share of draws in which each sample is right, float64 ``[B]``; one draw if the model is deterministic.

    Raises:
        EvaluationError: NM503 if the model's answer is not one finite row per sample.
    """
    return _score(model, (x, y), seeds(seed, FINAL_STREAM, draws), "ce")[0]


def _score(model: Model, data: tuple[Tensor, Tensor], draws: list[int], loss: Loss) -> tuple[Tensor, Tensor]:
    """Share of right answers and mean loss per sample, float64 ``[B]`` each."""
    x, y = data
    used = draws if model.stochastic else draws[:1]
    right, total = (torch.zeros(len(x), dtype=torch.float64, device=x.device) for _ in range(2))
    with torch.no_grad():
        for s in used:
            logits = answer(model, x, s)
            right += logits.argmax(1) == y
            total += losses(logits, y, loss)
    return right / len(used), total / len(used)


def merged(parts: Sequence[AttackResult]) -> AttackResult:
    """Batches of one attack as one result; shares are weighted by the number of samples."""
    sizes = torch.tensor([len(p.robust) for p in parts], dtype=torch.float64)
    zero = torch.tensor([p.zero_gradient for p in parts], dtype=torch.float64)
    return replace(
        parts[0],
        adversarial=torch.cat([p.adversarial for p in parts]),
        robust=torch.cat([p.robust for p in parts]),
        loss_start=torch.cat([p.loss_start for p in parts]),
        loss_end=torch.cat([p.loss_end for p in parts]),
        zero_gradient=float((zero * sizes).sum() / sizes.sum()),
        n_forward=max(p.n_forward for p in parts),
        n_backward=max(p.n_backward for p in parts),
    )
