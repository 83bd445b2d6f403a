"""Input of a simulation: checked once, then given out block by block and chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunOptions
from nmtool.backends.sim_counts import Counts
from nmtool.backends.sim_plan import Plan
from nmtool.compiler.program import Program
from nmtool.errors import ModelError
from nmtool.fixedpoint import drive, encode, streams
from nmtool.fixedpoint.events import Span
from nmtool.fixedpoint.window import Window


@dataclass(frozen=True)
class Feed:
    """Checked input of ``B`` samples, neurons flattened in C order.

    Attributes:
        n_steps, n_samples: T and B.
        spikes: ``[T, B, N]`` uint8, or int32 if graded; None unless the encoder is ``spikes``.
        units: int64 ``[B, N]`` for ``direct``.
        thresholds: uint64 ``[B, N]`` for ``rate``.
    """

    n_steps: int
    n_samples: int
    spikes: NDArray[Any] | None = None
    units: NDArray[np.int64] | None = None
    thresholds: NDArray[np.uint64] | None = None

    @property
    def carries_spikes(self) -> bool:
        """Whether the input lines spike, so that they are counted and can be traced."""
        return self.units is None


def graded_events(program: Program, source: Feed) -> dict[str, NDArray[np.int64]]:
    """Messages of an analog input that enters the chip as payloads: one per non-zero line and step, ``[B, *shape]``.

    Empty where the input spikes (it is counted as it spikes) or where the host takes it.
    """
    if source.units is None or all(c.source != program.input.name for c in program.connections):
        return {}
    events = (source.units != 0).astype(np.int64) * source.n_steps
    return {program.input.name: events.reshape(-1, *program.input.shape)}


def feed(program: Program, x: NDArray[Any], options: RunOptions) -> Feed:
    """Check ``x`` against the program's input.

    Raises:
        ModelError: NM109 if shape, type or values do not fit.
    """
    x = np.asarray(x)
    if program.input.encoder == "spikes":
        return _spikes(program, x, options)
    spec, n_steps = program.input, options.n_steps or program.input.n_steps
    if x.ndim != 1 + len(spec.shape) or x.shape[1:] != spec.shape:
        raise _misfit(program, f"x is {x.dtype} {x.shape}, allowed is [B, {_dims(spec.shape)}]")
    if x.dtype.kind not in "fiub":
        raise _misfit(program, f"x is {x.dtype}, allowed are real numbers")
    flat = x.reshape(len(x), program.size(spec.name))
    if not np.isfinite(flat).all():
        raise _misfit(program, "x has values that are not finite")
    if spec.encoder == "direct":
        return Feed(n_steps, len(x), units=encode.input_units(flat, spec.x_scale, spec.x_max))
    return Feed(n_steps, len(x), thresholds=encode.rate_thresholds(flat, spec.x_scale, spec.x_max))


def _spikes(program: Program, x: NDArray[Any], options: RunOptions) -> Feed:
    spec = program.input
    if x.ndim != 2 + len(spec.shape) or x.shape[2:] != spec.shape or not x.shape[0]:
        raise _misfit(
            program,
            f"spikes are {x.dtype} {x.shape}, allowed is uint8 [T, B, {_dims(spec.shape)}] with T >= 1",
        )
    if x.dtype.kind not in "bui":
        raise _misfit(program, f"spikes are {x.dtype}, allowed are uint8 or another integer type")
    if options.n_steps is not None and options.n_steps != x.shape[0]:
        raise _misfit(program, f"spikes have {x.shape[0]} steps, {options.n_steps} were asked for")
    payload = max((c.message_bits for c in program.connections if c.source == spec.name), default=0)
    flat = np.ascontiguousarray(x).reshape(*x.shape[:2], program.size(spec.name))
    if flat.dtype == np.bool_:
        flat = flat.view(np.uint8)
    if payload > 0 and flat.size and (flat.min() < 0 or flat.max() > 1):
        limit = 1 << min(payload, 31)
        if flat.min() <= -limit or flat.max() >= limit:
            raise _misfit(
                program, f"payloads span {flat.min()} to {flat.max()}, {payload} bits allow less than {limit}"
            )
        flat = flat.astype(np.int32)
    elif flat.dtype != np.uint8:
        if flat.size and (flat.min() < 0 or flat.max() > 1):
            raise _misfit(program, f"binary spikes span {flat.min()} to {flat.max()}, allowed are 0 and 1")
        flat = flat.astype(np.uint8)
    return Feed(x.shape[0], x.shape[1], spikes=flat)


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _misfit(program: Program, message: str) -> ModelError:
    spec = program.input
    return ModelError(
        "NM109", spec.name, message, f"The model's input is '{spec.encoder}' of shape {spec.shape}"
    )


class InputBlock:
    """The input of a block of samples while time goes on, used again for every block.

    Attributes:
        per_step: int64 ``[T]``, spikes of the block.
    """

    def __init__(self, plan: Plan, source: Feed, options: RunOptions, n_samples: int, steps: int) -> None:
        self._feed, self._options = source, options
        self._name = plan.program.input.name
        self._layout, self._history = plan.layouts[self._name], plan.history[self._name]
        self._silent = plan.host is not None
        spikes = source.spikes
        self._graded = source.units is not None or (spikes is not None and spikes.dtype != np.uint8)
        plain = self._layout.channels == 1 and not self._history and not self._graded
        self._in_place = spikes if spikes is not None and plain else None
        shape = (self._history + steps, n_samples, self._layout.size)
        unused = self._silent or self._in_place is not None
        self._buffer = np.zeros((0, 0, 0) if unused else shape, np.int32 if self._graded else np.uint8)
        self.per_step = np.zeros(source.n_steps, np.int64)
        self._counts = Counts(np.zeros((0, 0), np.uint8))
        self._samples, self._n_last = range(n_samples), 0
        self._windows: dict[bool, Window] = {}

    def begin(self, samples: range, counts: NDArray[Any]) -> None:
        """Before the first step of these samples, whose spikes are added to ``counts`` ``[B, N]`` (or it is empty)."""
        self._samples, self._n_last, self._counts = samples, 0, Counts(counts)
        self._buffer[: self._history] = 0
        self.per_step.fill(0)

    def advance(self, step: int, n_steps: int) -> dict[bool, Window]:
        """Spikes of the steps ``[step, step + n_steps)``: under False binary, under True with their payload.

        Raises:
            ModelError: NM109 if a binary spike is neither 0 nor 1.
        """
        if self._silent:
            return {}
        window = self._window(step, n_steps)
        nonzero = window
        if self._graded:
            nonzero = Window((window.array != 0).view(np.uint8), window.span, self._history)
        bytes_ = self._counts.bytes.reshape(len(self._samples), -1)
        self.per_step[step : step + n_steps], seen = nonzero.tally(bytes_)
        self._counts.end_chunk()
        if seen > 1:
            raise ModelError(
                "NM109",
                self._name,
                f"binary spikes have values such as {seen}, allowed are 0 and 1",
                "Give 0 and 1",
            )
        self._windows = {False: nonzero, True: window}
        return self._windows

    def chunk_arrays(self) -> tuple[NDArray[Any]]:
        """Spikes of the last :meth:`advance`, ``[T, B, N]`` in memory order."""
        window = self._windows[True]
        return (window.rows(0).reshape(window.shape),)

    def _window(self, step: int, n_steps: int) -> Window:
        n_samples = len(self._samples)
        if self._in_place is not None:
            return Window(self._in_place, Span(step, n_steps, self._samples.start, n_samples))
        if self._n_last:
            self._buffer[: self._history] = self._buffer[self._n_last : self._n_last + self._history]
        self._n_last = n_steps
        self._buffer[self._history : self._history + n_steps] = self._layout.inward(self._flat(step, n_steps))
        return Window(self._buffer, Span(self._history, n_steps, 0, n_samples), self._history)

    def _flat(self, step: int, n_steps: int) -> NDArray[Any]:
        """The chunk in flat order, ``[T, B, N]``."""
        part = slice(self._samples.start, self._samples.stop)
        if self._feed.spikes is not None:
            return self._feed.spikes[step : step + n_steps, part]
        if self._feed.thresholds is not None:
            out = np.empty((n_steps, len(self._samples), self._layout.size), np.uint8)
            first = self._options.sample_offset + self._samples.start
            streams.rate_chunk(
                self._feed.thresholds[part], streams.Stream(self._options.seed, first, step, 0), out
            )
            return out
        units = np.zeros(0) if self._feed.units is None else self._feed.units[part]
        return np.broadcast_to(units.astype(np.int32), (n_steps, *units.shape))


def host_bias(plan: Plan, source: Feed, samples: range) -> NDArray[np.int32]:
    """Effective bias that the host computes for the samples, int32 ``[B * N]`` in memory order of its target."""
    host, layer = plan.host, plan.program.host
    if host is None or layer is None or source.units is None:
        raise ModelError(
            "NM110", plan.program.target, "a host layer needs the encoder 'direct'", "Export the model again"
        )
    units = plan.layouts[plan.program.input.name].inward(source.units[samples.start : samples.stop])
    acc = host.synapses.exact(units)
    out = np.empty(acc.shape, np.int32)
    drive.host_bias(
        acc, host.bias, drive.HostRange(layer.shift, layer.man_min, layer.man_max), host.exponent, out
    )
    return out.reshape(-1)
