"""What a simulation collects: arrays over all samples that blocks write their part of, joined into one result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunOptions, RunResult, Trace
from nmtool.backends.sim_input import Feed, graded_events
from nmtool.backends.sim_plan import Plan
from nmtool.errors import SimulationError
from nmtool.fixedpoint.scan import COUNTED_STEPS

OVERFLOWS = ("u_wrapped", "v_clipped")


class Lazy(Mapping[str, NDArray[np.int64]]):
    """Arrays that are made when they are first asked for: most runs need few counts of the many there are."""

    def __init__(self, make: Mapping[str, Callable[[], NDArray[np.int64]]]) -> None:
        self._make = make
        self._made: dict[str, NDArray[np.int64]] = {}

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        if name not in self._made:
            self._made[name] = self._make[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


def _wide(counts: NDArray[Any]) -> NDArray[np.int64]:
    return counts.astype(np.int64)


class Collector:
    """Result arrays, neurons in memory order; every block fills its own samples.

    Attributes:
        counts: uint8 or int32 ``[B, N]`` per population, and the input if it spikes;
            without ``count`` of the output only.
        last: uint8 ``[B, N]`` per population.
        active: int64 ``[B]`` per population.
        per_step: int64 ``[T]`` per population and spiking input.
        overflow: int64 ``[2]`` per population.
        membrane: int64 ``[B, N]`` of the output population.
        traces: spikes, and for populations u and v, ``[T, B, N]``, of what is recorded.
    """

    def __init__(self, plan: Plan, feed: Feed, options: RunOptions, count: bool = True) -> None:
        self._plan, self._feed, self._options = plan, feed, options
        program, n_steps, n_samples = plan.program, feed.n_steps, feed.n_samples
        sizes = {p.name: p.n_neurons for p in program.populations}
        self.last = {n: np.empty((n_samples, size), np.uint8) for n, size in sizes.items()}
        self.active = {n: np.empty(n_samples, np.int64) for n in sizes}
        self.overflow = {n: np.zeros(2, np.int64) for n in sizes}
        self.membrane = np.empty((n_samples, sizes[program.output]), np.int64)
        if feed.carries_spikes:
            sizes[program.input.name] = program.size(program.input.name)
        counted = sizes if count else {program.output: sizes[program.output]}
        kind = np.uint8 if n_steps <= COUNTED_STEPS else np.int32
        self.counts: dict[str, NDArray[Any]] = {
            n: np.empty((n_samples, size), kind) for n, size in counted.items()
        }
        self.per_step = {n: np.zeros(n_steps, np.int64) for n in sizes}
        self.traces = {
            n: self._trace(n, (n_steps, n_samples, s)) for n, s in sizes.items() if options.records(n)
        }

    def _trace(self, name: str, shape: tuple[int, int, int]) -> tuple[NDArray[Any], ...]:
        if name == self._plan.program.input.name:
            return (np.empty(shape, np.uint8 if self._feed.spikes is None else self._feed.spikes.dtype),)
        return np.empty(shape, np.uint8), np.empty(shape, np.int32), np.empty(shape, np.int32)

    def refuse_overflow(self) -> None:
        """Strict mode.

        Raises:
            SimulationError: NM401 naming every population whose state overflowed, with counts.
        """
        found = self._overflow()
        if not found:
            return
        text = "; ".join(
            f"{n}: " + ", ".join(f"{k} {c} times" for k, c in e.items()) for n, e in found.items()
        )
        raise SimulationError(
            "NM401",
            next(iter(found)),
            f"a register overflowed ({text}), strict mode allows none",
            "Use smaller weights or inputs, or run without strict to see what hardware would do",
        )

    def _overflow(self) -> dict[str, dict[str, int]]:
        found = {
            n: {k: int(c) for k, c in zip(OVERFLOWS, o, strict=True) if c} for n, o in self.overflow.items()
        }
        return {n: e for n, e in found.items() if e}

    def counts_of(self, name: str) -> NDArray[Any]:
        """Where spikes of a population are counted; of no columns if they are not."""
        found = self.counts.get(name)
        return np.empty((self._feed.n_samples, 0), np.uint8) if found is None else found

    def result(self) -> RunResult:
        """Everything in the populations' own shapes."""
        program, options = self._plan.program, self._options
        shapes = {p.name: p.shape for p in program.populations} | {program.input.name: program.input.shape}

        def shaped(name: str, a: NDArray[Any]) -> NDArray[Any]:
            return self._plan.layouts[name].shaped(a, shapes[name])

        spiking = program.readout == "spike_count"
        output: NDArray[Any] = self.counts[program.output] if spiking else self.membrane
        counts = {n: partial(_wide, shaped(n, a)) for n, a in self.counts.items()}
        messages = {n: partial(_wide, a) for n, a in graded_events(program, self._feed).items()}
        return RunResult(
            backend="sim",
            model_sha256=self._plan.sha256,
            n_steps=self._feed.n_steps,
            dt_s=program.dt_s,
            seed=options.seed,
            noise=options.noise,
            logits=self._plan.layouts[program.output].outward(output).astype(np.int64),
            spike_counts=Lazy(counts | messages),
            last_spikes={n: shaped(n, a) for n, a in self.last.items()},
            active_updates=self.active,
            overflow=self._overflow(),
            latency={p.name: p.latency for p in program.populations},
            traces={n: Trace(*(shaped(n, a) for a in arrays)) for n, arrays in self.traces.items()},
            steps_density=self.per_step,
        )
