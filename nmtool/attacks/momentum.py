"""Momentum iterative FGSM (Dong et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nmtool.attacks.base import Attack
from nmtool.attacks.search import Search


@dataclass(frozen=True)
class MIFGSM(Attack):
    """``m <- decay m + g / mean|g|``, ``x <- P(x + step sign m)``, from x.

    Attributes:
        steps: iterations.
        step: length of one in units of eps.
        decay: of the momentum.
    """

    steps: int = 10
    step: float = 0.25
    decay: float = 1.0

    @property
    def name(self) -> str:
        """``mi-fgsm-10``."""
        return f"mi-fgsm-{self.steps}{self.suffix}"

    def perturb(self, search: Search) -> Tensor:
        """All iterations."""
        z, momentum = search.x, torch.zeros_like(search.x)
        for _ in range(self.steps):
            if search.done:
                break
            momentum = self.decay * momentum + normalised(search.gradient(z))
            z = search.project(z + self.step * search.eps * momentum.sign())
        return z


def normalised(gradient: Tensor) -> Tensor:
    """``g / mean|g|`` per sample; an all-zero gradient stays zero."""
    size = gradient.abs().flatten(1).mean(1).reshape(-1, *[1] * (gradient.ndim - 1))
    return torch.where(size > 0, gradient / size.where(size > 0, torch.ones_like(size)), 0)
