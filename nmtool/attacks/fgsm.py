"""One-step attacks: FGSM (Goodfellow et al. 2015) and its random-start variant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nmtool.attacks.base import Attack
from nmtool.attacks.search import Search


@dataclass(frozen=True)
class FGSM(Attack):
    """``P(x + eps sign g)``."""

    @property
    def name(self) -> str:
        """``fgsm``."""
        return f"fgsm{self.suffix}"

    def perturb(self, search: Search) -> Tensor:
        """One step of length eps."""
        return search.project(search.x + search.eps * search.gradient(search.x).sign())


@dataclass(frozen=True)
class RFGSM(Attack):
    """``x1 = P(x + alpha sign N(0, 1))``, then ``P(x1 + (eps - alpha) sign g)`` (Tramer et al. 2018, variant i).

    Attributes:
        start: alpha in units of eps. The step that uses the gradient is only ``1 - start`` long, which is why this
            attack is weaker than FGSM.
    """

    start: float = 0.5

    @property
    def name(self) -> str:
        """``rfgsm``."""
        return f"rfgsm{self.suffix}"

    def perturb(self, search: Search) -> Tensor:
        """A random sign step, then a gradient step."""
        normal = torch.empty_like(search.x).normal_(generator=search.generator)
        first = search.project(search.x + self.start * search.eps * normal.sign())
        return search.project(first + (1 - self.start) * search.eps * search.gradient(first).sign())
