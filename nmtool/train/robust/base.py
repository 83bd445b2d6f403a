"""What a robust-training method sees and gives back: layer traces in, a penalty out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nmtool.surrogate import Surrogate

Reset = Literal["zero", "subtract"]


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """One layer of neurons over all steps of one forward pass. Tensors keep their graph.

    Attributes:
        name: of the layer.
        current: I, weighted input after bias and normalisation, without noise, ``[T, B, ...]``; may be a view that
            repeats one step.
        v_pre: V, the potential that is compared with the threshold (before the reset, noise included),
            ``[T, B, ...]``.
        spikes: S = [V > theta] as 0 and 1, ``[T, B, ...]``.
        theta: threshold, broadcasts with ``v_pre``.
        beta: fraction of the potential kept per step, broadcasts likewise.
        reset: what a spike does to the potential.
        surrogate: the layer's own backward density.
        noise: what was added to V at each step, ``[T, B, ...]``, or None without noise.
        is_output: whether this layer is read out.
        spiking: False for a readout that only integrates.
    """

    name: str
    current: Tensor
    v_pre: Tensor
    spikes: Tensor
    theta: Tensor
    beta: Tensor
    reset: Reset
    surrogate: Surrogate
    noise: Tensor | None = None
    is_output: bool = False
    spiking: bool = True

    @property
    def z(self) -> Tensor:
        """V - theta, distance to the threshold, ``[T, B, ...]``."""
        return self.v_pre - self.theta


Penalty = tuple[Tensor, Mapping[str, Tensor]]
"""A scalar that enters the loss, and scalars worth watching."""


@dataclass(frozen=True)
class Regulariser:
    """A method that adds ``weight(epoch, n_epochs) * penalty(traces)`` to the loss.

    Attributes:
        name: of its table in the recipe.
        penalty: pure function of the traces of one forward pass, in network order.
        weight: schedule; epochs count from 0.
    """

    name: str
    penalty: Callable[[Sequence[LayerTrace]], Penalty]
    weight: Callable[[int, int], float]
