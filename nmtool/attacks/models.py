"""Adapters that make a differentiable network, or a black box, into a :class:`~nmtool.attacks.search.Model`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmtool.attacks.search import Model, seeds
from nmtool.surrogate import ResetGrad, override


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
        """See :class:`~nmtool.attacks.search.Model`; float64, no gradient."""
        answer = self.run(x.detach().cpu().numpy().astype(np.float32), seed)
        return torch.from_numpy(np.array(answer, np.float64)).to(x.device)


@dataclass(frozen=True)
class Wrapped:
    """Another model's facts.

    Attributes:
        model: the model.
    """

    model: Model

    @property
    def name(self) -> str:
        """As the model's."""
        return self.model.name

    @property
    def bounds(self) -> tuple[float, float]:
        """As the model's."""
        return self.model.bounds

    @property
    def n_classes(self) -> int:
        """As the model's."""
        return self.model.n_classes

    @property
    def stochastic(self) -> bool:
        """As the model."""
        return self.model.stochastic

    @property
    def differentiable(self) -> bool:
        """As the model."""
        return self.model.differentiable


@dataclass(frozen=True)
class Batched(Wrapped):
    """The same network, asked about ``size`` samples at a time; for answers without gradients, to bound memory."""

    size: int = 500

    def logits(self, x: Tensor, seed: int) -> Tensor:
        """The model's; each batch has its own noise."""
        parts = x.split(self.size)
        drawn = seeds(seed, 0, len(parts))
        return torch.cat([self.model.logits(p, s) for p, s in zip(parts, drawn, strict=True)])


@dataclass(frozen=True)
class FixedSeed(Wrapped):
    """A stochastic model whose noise an attacker can predict: every call uses one seed (derandomised threat)."""

    seed: int = 0

    @property
    def stochastic(self) -> bool:
        """No: the seed is fixed."""
        return False

    def logits(self, x: Tensor, seed: int) -> Tensor:
        """The model's with the fixed seed; ``seed`` is not used."""
        del seed
        return self.model.logits(x, self.seed)


@dataclass(frozen=True)
class ThroughSurrogate(Wrapped):
    """The same network, differentiated by another surrogate; its answers stay the same bits.

    Attributes:
        family, width, reset_grad: see :func:`nmtool.surrogate.override`.
    """

    family: str = "triangle"
    width: float = 1.0
    reset_grad: ResetGrad = "detach"

    def logits(self, x: Tensor, seed: int) -> Tensor:
        """The model's, run under the other rule."""
        with override(self.family, self.width, self.reset_grad):
            return self.model.logits(x, seed)
