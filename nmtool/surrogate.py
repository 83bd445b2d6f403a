"""Spike functions: an exact step forward, a density of unit mass backward, and an override for attacks.

Each family is one density f on the real line, stretched by a width w: ``g(z) = f(z / w) / w``, z = V - V_th.
A larger width is always a wider window. The sharpness in the literature is ``alpha = 1 / w`` (atan, sigmoid).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from nmtool.errors import ConfigError, did_you_mean

ResetGrad = Literal["detach", "through", "ignore"]
RESET_GRADS: tuple[ResetGrad, ...] = ("detach", "through", "ignore")


class Family(NamedTuple):
    """A density f at width 1, its ``mass`` G(x) over [-x, x], and the ``inverse`` of G.

    ``density_`` overwrites its argument: these tensors are large, and most of the cost is in fresh memory.
    """

    density_: Callable[[Tensor], Tensor]
    mass: Callable[[float], float]
    inverse: Callable[[float], float]
    compact: bool


FAMILIES: dict[str, Family] = {
    "triangle": Family(
        lambda x: x.abs_().neg_().add_(1).clamp_min_(0),
        lambda x: 1 - (1 - min(x, 1.0)) ** 2,
        lambda p: 1 - math.sqrt(1 - p),
        True,
    ),
    "rectangle": Family(lambda x: x.abs_().le_(1).mul_(0.5), lambda x: min(x, 1.0), lambda p: p, True),
    "atan": Family(
        lambda x: x.mul_(math.pi / 2).square_().add_(1).mul_(2).reciprocal_(),
        lambda x: 2 / math.pi * math.atan(math.pi / 2 * x),
        lambda p: 2 / math.pi * math.tan(math.pi / 2 * p),
        False,
    ),
    "sigmoid": Family(
        lambda x: x.mul_(0.5).cosh_().square_().mul_(4).reciprocal_(),
        lambda x: math.tanh(x / 2),
        lambda p: 2 * math.atanh(p),
        False,
    ),
    "gaussian": Family(
        lambda x: x.square_().mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi)),
        lambda x: math.erf(x / math.sqrt(2)),
        lambda p: math.sqrt(2) * float(torch.erfinv(torch.tensor(p, dtype=torch.float64))),
        False,
    ),
    "double_exponential": Family(
        lambda x: x.abs_().neg_().exp_().mul_(0.5),
        lambda x: 1 - math.exp(-x),
        lambda p: -math.log1p(-p),
        False,
    ),
}


@dataclass(frozen=True)
class Surrogate:
    """A density that stands for the derivative of the spike.

    Attributes:
        family: one of :data:`FAMILIES`.
        width: in units of the potential; a float, or a tensor that broadcasts with z.

    Raises:
        ConfigError: NM004 if the family is unknown or the width is not positive.
    """

    family: str = "triangle"
    width: float | Tensor = 1.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(
                "NM004", f"surrogate {self.family!r}", "no such family", did_you_mean(self.family, FAMILIES)
            )
        if not bool(torch.as_tensor(self.width > 0).all()):
            raise ConfigError(
                "NM004", f"surrogate {self.family!r}", f"width is {self.width}, but must be above 0"
            )

    @torch.no_grad()
    def density(self, z: Tensor) -> Tensor:
        """g(z), a fresh tensor of the shape of ``z``, without a graph; its integral over all z is 1."""
        return FAMILIES[self.family].density_(z / self.width).div_(self.width)

    def mass(self, x: float) -> float:
        """G(x): share of the density within distance ``x`` of the threshold (scalar width)."""
        return FAMILIES[self.family].mass(abs(x) / float(self.width))

    def half_width(self, p: float) -> float:
        """G^-1(p): distance from the threshold that holds the share ``p`` of the density (scalar width)."""
        return FAMILIES[self.family].inverse(p) * float(self.width)

    @property
    def window(self) -> float:
        """Half-width that counts as the window: the support if it is bounded, else 90 % of the mass."""
        return self.half_width(1.0 if FAMILIES[self.family].compact else 0.9)


class BackwardRule(NamedTuple):
    """How one forward pass will be differentiated.

    ``reset_grad``: ``detach`` treats the spike inside the reset as a constant (snnTorch), ``through``
    differentiates it, ``ignore`` differentiates as if there were no reset (SLAYER).
    """

    surrogate: Surrogate
    reset_grad: ResetGrad = "detach"


_override: ContextVar[BackwardRule | None] = ContextVar("nmtool_surrogate_override", default=None)


def rule(own: Surrogate) -> BackwardRule:
    """The rule in force: the innermost :func:`override`, else a neuron's own surrogate with ``detach``."""
    return _override.get() or BackwardRule(own)


@contextlib.contextmanager
def override(family: str, width: float | Tensor, reset_grad: ResetGrad = "detach") -> Iterator[BackwardRule]:
    """Differentiate forward passes that *start* inside the block by another rule; spikes stay the same bits.

    The rule is read in the forward pass, so the backward pass may run later and on another thread.

    Raises:
        ConfigError: NM004 for an unknown family or mode, or a width that is not positive.
    """
    if reset_grad not in RESET_GRADS:
        raise ConfigError(
            "NM004", f"reset_grad {reset_grad!r}", "no such mode", did_you_mean(reset_grad, RESET_GRADS)
        )
    chosen = BackwardRule(Surrogate(family, width), reset_grad)
    token = _override.set(chosen)
    try:
        yield chosen
    finally:
        _override.reset(token)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(z)
        ctx.surrogate = surrogate
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return grad * ctx.surrogate.density(z), None


def spike(z: Tensor, surrogate: Surrogate) -> Tensor:
    """1 where ``z > 0`` (strict, as on the chip), else 0; differentiated by the :func:`rule` in force.

    Args:
        z: distance to the threshold, V - V_th, any shape.
        surrogate: the neuron's own.
    """
    result: Tensor = _Spike.apply(z, rule(surrogate).surrogate)
    return result
