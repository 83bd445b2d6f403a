"""What every backend takes and returns. Metrics, attacks and reports know this file and no backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import ConfigError, did_you_mean

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


class Trace(NamedTuple):
    """One population over time, in its own time (latency removed), each ``[T, B, *shape]``.

    ``v`` is the membrane after the reset. ``u`` and ``v`` are int32 registers; the float backend gives float32 in
    the model's own units. ``None`` where a backend was not asked for it.
    """

    spikes: NDArray[np.uint8]
    u: NDArray[Any] | None = None
    v: NDArray[Any] | None = None


@dataclass(frozen=True)
class RunOptions:
    """How to run, the same for every backend.

    Attributes:
        n_steps: T; None takes the model's own.
        seed: of the noise stream and of stochastic encoders.
        noise: ``on`` as programmed, ``off`` for a deterministic run.
        record: names of the populations to trace (``spikes``, ``u``, ``v``), ``("all",)`` for every one.
        batch_size: how many samples are computed together; never changes a result.
        sample_offset: index of the first sample in its data set; it enters the noise stream.
        strict: an overflow that hardware would wrap or clip is an error instead of a warning.
        deadline_s: longest wait for one answer of a worker.
    """

    n_steps: int | None = None
    seed: int = 0
    noise: bool = True
    record: tuple[str, ...] = ()
    batch_size: int = 256
    sample_offset: int = 0
    strict: bool = False
    deadline_s: float = 120.0

    def records(self, name: str) -> bool:
        """Whether this population is traced."""
        return name in self.record or "all" in self.record


def check_options(options: RunOptions, names: Sequence[str]) -> None:
    """Refuse options that mean nothing for a model with these populations and input.

    Raises:
        ConfigError: NM004 naming the option.
    """
    for name in options.record:
        if name not in (*names, "all"):
            hint = did_you_mean(name, [*names, "all"])
            raise ConfigError("NM004", "record", f"'{name}' is no population of this model", hint)
    for key, low in (("batch_size", 1), ("sample_offset", 0), ("n_steps", 1)):
        value = getattr(options, key)
        if value is not None and value < low:
            raise ConfigError("NM004", key, f"is {value}, allowed is {low} or more")


@dataclass(frozen=True)
class RunResult:
    """What a run produced. ``B`` samples, ``T`` steps.

    Attributes:
        backend: its name.
        model_sha256: of the program or graph that ran.
        n_steps, dt_s, seed, noise: as run.
        logits: ``[B, K]``: spike counts (int64) or membrane of the output population, flattened.
        spike_counts: per population, and the input if it carries spikes: int64 ``[B, *shape]``.
        active_updates: per population int64 ``[B]``: neuron-steps with input, state or bias (the rule of
            reference "active" updates); None where the backend cannot tell.
        last_spikes: per population uint8 ``[B, *shape]``: spikes of the last step (undelivered SynOps).
        overflow: per population ``{"u_wrapped": n, "v_clipped": n}``; only non-zero entries.
        latency: per population, steps that were removed from the traces.
        traces: per recorded population, and the input under its own name.
        steps_density: per population int64 ``[T]``: spikes per step summed over samples.
        failures: samples that a backend could not finish, ``{"sample": i, "error": text}``; empty if none.
    """

    backend: str
    model_sha256: str
    n_steps: int
    dt_s: float
    seed: int
    noise: bool
    logits: NDArray[Any]
    spike_counts: Mapping[str, NDArray[np.int64]]
    last_spikes: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    active_updates: Mapping[str, NDArray[np.int64]] | None = None
    overflow: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    latency: Mapping[str, int] = field(default_factory=dict)
    traces: Mapping[str, Trace] = field(default_factory=dict)
    steps_density: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    failures: tuple[Mapping[str, Any], ...] = ()

    @property
    def predictions(self) -> NDArray[np.int64]:
        """``[B]``; the lowest index wins a tie, on every backend."""
        return np.argmax(self.logits, axis=1).astype(np.int64)

    @property
    def n_samples(self) -> int:
        """``B``."""
        return int(self.logits.shape[0])


class Backend(Protocol):
    """Executes a model on inputs."""

    name: str

    def run(self, x: NDArray[Any], options: RunOptions, progress: Progress | None = None) -> RunResult:
        """Run ``B`` samples.

        Args:
            x: analog ``[B, *shape]`` float32 in the model's bounds, or spikes ``[T, B, *shape]`` uint8, as the
                model's input says.
            options: how to run.
            progress: told about finished samples.
        """
        ...
