"""Adapters that make a differentiable network, or a black box, into a :class:`~nmtool.attacks.search.Model`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmtool.attacks.search import Model
from nmtool.errors import EvaluationError


@dataclass(frozen=True)
class Differentiable:
    """A network that gradients pass through, such as a twin.

    Attributes:
        name, bounds, n_classes, stochastic: see :class:`~nmtool.attacks.search.Model`.
        forward: ``(x [B, *shape], seed) -> logits [B, K]``; resets its state at every call.
    """

    name: str
    forward: Callable[[Tensor, int], Tensor]
    bounds: tuple[float, float]
    n_classes: int
    stochastic: bool
    differentiable: bool = True

    def logits(self, x: Tensor, seed: int) -> Tensor:
        """See :class:`~nmtool.attacks.search.Model`."""
        return self.forward(x, seed)


@dataclass(frozen=True)
class BlackBox:
    """A network that only answers, such as a backend.

    Attributes:
        name, bounds, n_classes, stochastic: see :class:`~nmtool.attacks.search.Model`.
        run: ``(x float32 [B, *shape], seed) -> logits [B, K]``.
    """

    name: str
    run: Callable[[NDArray[np.float32], int], NDArray[Any]]
    bounds: tuple[float, float]
    n_classes: int
    stochastic: bool
    differentiable: bool = False

    def logits(self, x: Tensor, seed: int) -> Tensor:
        """See :class:`~nmtool.attacks.search.Model`; float64, no gradient.

        Raises:
            EvaluationError: NM503 if the answer is not one finite row per sample.
        """
        answer = np.asarray(self.run(x.detach().cpu().numpy().astype(np.float32), seed), np.float64)
        if answer.shape != (len(x), self.n_classes) or not np.isfinite(answer).all():
            found = f"answered {list(answer.shape)}, expected finite [{len(x)}, {self.n_classes}]"
            raise EvaluationError("NM503", self.name, found)
        return torch.from_numpy(answer).to(x.device)


@dataclass(frozen=True)
class FixedSeed:
    """A stochastic model whose noise an attacker can predict: every call uses one seed (derandomised threat)."""

    model: Model
    seed: int

    @property
    def name(self) -> str:
        """Name of the model, marked."""
        return f"{self.model.name}, seed {self.seed}"

    @property
    def bounds(self) -> tuple[float, float]:
        """Range of an input value."""
        return self.model.bounds

    @property
    def n_classes(self) -> int:
        """K."""
        return self.model.n_classes

    @property
    def stochastic(self) -> bool:
        """No: the seed is fixed."""
        return False

    @property
    def differentiable(self) -> bool:
        """As the model."""
        return self.model.differentiable

    def logits(self, x: Tensor, seed: int) -> Tensor:
        """As the model's with the fixed seed; ``seed`` is not used."""
        del seed
        return self.model.logits(x, self.seed)
