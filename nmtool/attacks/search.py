"""What an attack may ask for: gradients, losses, projections, random starts; every question checked and counted."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nmtool.errors import EvaluationError

Loss = Literal["ce", "margin"]

TOLERANCE = 1e-6
"""Rounding of float32 inputs in [0, 1] that is not held against an attack."""


class Model(Protocol):
    """What can be attacked: a network with its encoder, normalisation and noise inside."""

    @property
    def name(self) -> str:
        """For messages and records."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """Range of an input value."""
        ...

    @property
    def n_classes(self) -> int:
        """K."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether two seeds can give two results."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether gradients pass through :meth:`logits`."""
        ...

    def logits(self, x: Tensor, seed: int) -> Tensor:
        """``[B, K]`` for inputs ``[B, *shape]``; the seed fixes every random draw inside."""
        ...


def seeds(seed: int, stream: int, n: int) -> list[int]:
    """``n`` independent 63-bit seeds of one stream of a run."""
    state = np.random.SeedSequence([seed & (2**64 - 1), stream]).generate_state(n, np.uint64)
    return [int(s >> np.uint64(1)) for s in state]


def linf(a: Tensor, b: Tensor) -> Tensor:
    """Largest absolute difference per sample, ``[B]``."""
    return (a - b).abs().flatten(1).amax(1)


def losses(logits: Tensor, y: Tensor, loss: Loss = "ce") -> Tensor:
    """Loss per sample ``[B]``, larger is more wrong: cross-entropy, or strongest rival minus true class."""
    if loss == "ce":
        return F.cross_entropy(logits, y, reduction="none")
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own


def answer(model: Model, x: Tensor, seed: int) -> Tensor:
    """The model's logits, ``[B, K]``.

    Raises:
        EvaluationError: NM503 if they are not one finite row per sample.
    """
    logits = model.logits(x, seed)
    if logits.shape != (len(x), model.n_classes) or not bool(torch.isfinite(logits).all()):
        found = f"answered {list(logits.shape)}, expected finite [{len(x)}, {model.n_classes}]"
        raise EvaluationError("NM503", model.name, found)
    return logits


class Search:
    """One attack on one batch.

    Args:
        model: what is attacked.
        data: clean inputs ``[B, *shape]`` and labels int64 ``[B]``.
        eps: budget in L-infinity.
        seed: of starts and of noise draws.
        loss: what is maximised.
        draws: noise draws that one question averages over (EoT); 1 where the model is deterministic.

    Attributes:
        generator: for random starts.
        fooled, fooling: for deterministic models, which samples some asked point has fooled, and that point.
        n_forward, n_backward: passes per sample so far.
        zero_gradients: per gradient, the share of samples whose every component was exactly zero.
    """

    def __init__(
        self,
        model: Model,
        data: tuple[Tensor, Tensor],
        eps: float,
        seed: int,
        loss: Loss = "ce",
        draws: int = 1,
    ) -> None:
        self.model, self.eps, self.seed, self.loss = model, eps, seed, loss
        self.x, self.y = data
        self.draws = draws if model.stochastic else 1
        self.generator = torch.Generator(self.x.device).manual_seed(seeds(seed, 0, 1)[0])
        self.fooling = self.x.clone()
        self.fooled = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        self.n_forward = self.n_backward = self._questions = 0
        self.zero_gradients: list[float] = []

    @property
    def done(self) -> bool:
        """Whether nothing is left to find."""
        return bool(self.fooled.all())

    def project(self, z: Tensor) -> Tensor:
        """The nearest point inside the ball and the bounds."""
        return torch.minimum(torch.maximum(z, self.x - self.eps), self.x + self.eps).clamp(*self.model.bounds)

    def uniform(self) -> Tensor:
        """A point drawn evenly from the ball, inside the bounds."""
        shift = torch.rand(self.x.shape, generator=self.generator, device=self.x.device, dtype=self.x.dtype)
        return self.project(self.x + self.eps * (2 * shift - 1))

    def signs(self) -> Tensor:
        """Random +1 and -1 of the inputs' shape."""
        coin = torch.randint(0, 2, self.x.shape, generator=self.generator, device=self.x.device)
        return (2 * coin - 1).to(self.x.dtype)

    def gradient(self, z: Tensor) -> Tensor:
        """Gradient of the loss at ``z``, mean over draws.

        Raises:
            EvaluationError: NM502 if ``z`` is outside the budget, NM503 if logits or gradient are not finite.
        """
        self.check(z)
        total = torch.zeros_like(z)
        for s in self._fresh_seeds():
            point = z.detach().requires_grad_()
            logits = answer(self.model, point, s)
            total += torch.autograd.grad(losses(logits, self.y, self.loss).sum(), point)[0]
            self._note(z, logits)
            self.n_backward += 1
        flat = total.flatten(1)
        if not bool(torch.isfinite(flat).all()):
            bad = int((~torch.isfinite(flat)).any(1).sum())
            raise EvaluationError("NM503", self.model.name, f"the gradient of {bad} samples is not finite")
        self.zero_gradients.append(float((flat == 0).all(1).double().mean()))
        return total / self.draws

    def losses_at(self, z: Tensor) -> Tensor:
        """Loss per sample at ``z``, float64 ``[B]``, mean over draws.

        Raises:
            EvaluationError: NM502 if ``z`` is outside the budget.
        """
        self.check(z)
        total = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        with torch.no_grad():
            for s in self._fresh_seeds():
                logits = answer(self.model, z, s)
                total += losses(logits, self.y, self.loss)
                self._note(z, logits)
        return total / self.draws

    def check(self, z: Tensor) -> None:
        """Refuse a point outside ball or bounds.

        Raises:
            EvaluationError: NM502.
        """
        if z.shape != self.x.shape:
            found = f"a point has shape {list(z.shape)}, the inputs {list(self.x.shape)}"
            raise EvaluationError("NM502", self.model.name, found)
        low, high = self.model.bounds
        far, least, most = (float(v) for v in (linf(z, self.x).max(), z.min(), z.max()))
        if not far <= self.eps + TOLERANCE:
            raise EvaluationError(
                "NM502", self.model.name, f"a point is {far:.6g} from its input, eps is {self.eps:.6g}"
            )
        if not (low - TOLERANCE <= least and most <= high + TOLERANCE):
            found = f"a point spans {least:.6g} to {most:.6g}, the bounds are {low:g} to {high:g}"
            raise EvaluationError("NM502", self.model.name, found)

    def _fresh_seeds(self) -> list[int]:
        """Seeds of the next question; no two questions share one."""
        self._questions += 1
        return seeds(self.seed, self._questions, self.draws)

    def _note(self, z: Tensor, logits: Tensor) -> None:
        self.n_forward += 1
        if not self.model.stochastic:
            new = (logits.detach().argmax(1) != self.y) & ~self.fooled
            self.fooling[new] = z.detach()[new]
            self.fooled |= new
