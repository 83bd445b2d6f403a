"""Input of a simulation: checked once, then given out block by block and chunk by chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunOptions
from nmtool.backends.sim_plan import Plan
from nmtool.compiler.program import Program
from nmtool.errors import ModelError
from nmtool.fixedpoint import drive, encode, streams
from nmtool.fixedpoint.events import Span
from nmtool.fixedpoint.ops import shift_left_or_floor
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
    flat = x.reshape(len(x), -1)
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
    flat = np.ascontiguousarray(x).reshape(x.shape[0], x.shape[1], -1)
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
    """The input of one block of samples while time goes on."""

    def __init__(self, plan: Plan, source: Feed, options: RunOptions, samples: range, steps: int) -> None:
        self._feed, self._options, self._samples = source, options, samples
        self._name = plan.program.input.name
        self._layout, self._history = plan.layouts[self._name], plan.history[self._name]
        n = self._layout.size
        self._graded = source.units is not None or (
            source.spikes is not None and source.spikes.dtype != np.uint8
        )
        self._silent = plan.host is not None
        in_place = source.spikes is not None and not (
            self._graded or self._history or self._layout.channels > 1
        )
        self._buffer: NDArray[Any] | None = None
        if not in_place and not self._silent:
            kind = np.int32 if self._graded else np.uint8
            self._buffer = np.zeros((self._history + steps, len(samples), n), kind)
        self.counts = np.zeros((len(samples), n), np.int32)
        self.per_step = np.zeros(source.n_steps, np.int64)
        self._windows: dict[bool, Window] = {}
        self._last = 0

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
        before = int(self.counts.sum())
        if drive.tally_input(nonzero.array, window.span, self.counts) > 1:
            raise ModelError("NM109", self._name, "binary spikes have values above 1, allowed are 0 and 1",
                             "Give the spikes as 0 and 1")  # fmt: skip
        nonzero.density = (int(self.counts.sum()) - before) / max(math.prod(window.shape), 1)
        self._windows = {False: nonzero, True: window}
        return self._windows

    def finish(self, step: int, n_steps: int) -> None:
        """Note the spikes per step of the last :meth:`advance`."""
        if self._windows:
            self.per_step[step : step + n_steps] = self._windows[False].per_step()

    def _window(self, step: int, n_steps: int) -> Window:
        if self._buffer is None:
            span = Span(step, n_steps, self._samples.start, len(self._samples))
            return Window(self._feed.spikes, span)  # type: ignore[arg-type]
        self._buffer[: self._history] = self._buffer[self._last : self._last + self._history]
        self._last = n_steps
        self._buffer[self._history : self._history + n_steps] = self._layout.inward(self._flat(step, n_steps))
        return Window(self._buffer, Span(self._history, n_steps, 0, len(self._samples)), self._history)

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
    acc = host.synapses.exact(units) + host.bias
    mantissa = np.clip((acc + (1 << layer.shift >> 1)) >> layer.shift, layer.man_min, layer.man_max)
    target = plan.program.population(host.target)
    exponent = target.params.bias_exp
    exponent = plan.layouts[host.target].inward(exponent) if exponent.size > 1 else exponent
    return shift_left_or_floor(mantissa, exponent).astype(np.int32).reshape(-1)
