"""Iterated sign steps: BIM (Kurakin et al. 2017) and PGD (Madry et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nmtool.attacks.base import Attack
from nmtool.attacks.search import Search

REACH = 2.5
"""Length of the whole path in units of eps where no step is given (Madry et al. 2018, their evaluation)."""


@dataclass(frozen=True)
class PGD(Attack):
    """``x <- P(x + step sign g)`` from a point drawn evenly from the ball.

    Attributes:
        steps: iterations.
        step: length of one in units of eps; None for ``2.5 / steps``.
        restarts: how often all of it is repeated; of a stochastic model the end with the larger loss is kept.
        random_start: False starts at x, which makes this BIM.
    """

    steps: int = 10
    step: float | None = None
    restarts: int = 1
    random_start: bool = True

    @property
    def name(self) -> str:
        """``pgd-10``, ``bim-10``, ``pgd-40x5``, ``pgd-40-margin``."""
        kind = "pgd" if self.random_start else "bim"
        return f"{kind}-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "") + self.suffix

    def perturb(self, search: Search) -> Tensor:
        """Every restart, and the best end of each sample."""
        best = self.ascend(search, search.uniform() if self.random_start else search.x)
        for _ in range(self.restarts - 1):
            if search.done:
                break
            other = self.ascend(search, search.uniform())
            better = search.losses_at(other) > search.losses_at(best)
            best = torch.where(better.reshape(-1, *[1] * (best.ndim - 1)), other, best)
        return best

    def ascend(self, search: Search, z: Tensor) -> Tensor:
        """All iterations from one start."""
        length = search.eps * (REACH / self.steps if self.step is None else self.step)
        for _ in range(self.steps):
            if search.done:
                break
            z = search.project(z + length * search.gradient(z).sign())
        return z
