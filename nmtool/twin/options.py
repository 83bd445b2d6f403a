"""How a twin is run, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nmtool.twin.neuron import Course


@dataclass(frozen=True)
class TwinOptions:
    """How to run a twin.

    Attributes:
        seed: of the noise stream and of a stochastic encoder.
        sample_offset: index of the first sample, or int64 ``[B]`` with the index of each; enters the noise stream.
        noise: as programmed, or off.
        n_steps: T of an analog input; None takes the model's own.
        record: populations whose u and v are traced, ``("all",)`` for every one.
    """

    seed: int = 0
    sample_offset: int | Tensor = 0
    noise: bool = True
    n_steps: int | None = None
    record: tuple[str, ...] = ()

    def records(self, name: str) -> bool:
        """Whether this population is traced."""
        return name in self.record or "all" in self.record

    def samples(self, n: int, device: torch.device) -> Tensor:
        """Index of each sample, int64 ``[B]``."""
        if isinstance(self.sample_offset, Tensor):
            return self.sample_offset.to(device, torch.int64)
        return torch.arange(self.sample_offset, self.sample_offset + n, device=device)


@dataclass(frozen=True)
class TwinRun:
    """What a twin computed; tensors of the graph, so they can be differentiated.

    Attributes:
        logits: float64 ``[B, K]``: spike counts, or the membrane in real units.
        spikes: per population ``[T, B, *shape]``.
        potential: per population V before the threshold test, in membrane units and before saturation.
        u, v: per recorded population int32 registers; v after the reset.
    """

    logits: Tensor
    spikes: Mapping[str, Tensor]
    potential: Mapping[str, Tensor]
    u: Mapping[str, Tensor] = field(default_factory=dict)
    v: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        logits: Tensor,
        courses: Mapping[str, Course],
        shapes: Mapping[str, tuple[int, ...]],
        options: TwinOptions,
    ) -> TwinRun:
        """Courses with the neurons' shapes; u and v where they were asked for."""

        def shaped(key: str, names: Iterable[str]) -> dict[str, Tensor]:
            return {n: getattr(courses[n], key).unflatten(-1, shapes[n]) for n in names}

        asked = [n for n in courses if options.records(n)]
        return cls(
            logits,
            shaped("spikes", courses),
            shaped("potential", courses),
            shaped("u", asked),
            shaped("v", asked),
        )
