"""Synaptic operations of a run, exact integers: spikes times the fan-out that each spike really has.

Notation: source i of a connection sends n_i spikes in one inference and reaches F_i synapses; then
``SynOps = sum_i n_i F_i`` and one dense pass costs ``MAC = sum_i F_i``. Padding has no synapse, so F is border-exact.
A spike counts where it is sent; what a delay pushes behind the last step is reported as undelivered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunResult
from nmtool.compiler.program import Connection, Program
from nmtool.errors import EvaluationError

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class FanOut:
    """Synapses that a spike of each source reaches, int64 ``[n_source]``.

    Attributes:
        stored: all of the connection's format, weights of value 0 too where they take memory.
        nonzero: only weights that are not 0.
    """

    stored: I64
    nonzero: I64


@dataclass(frozen=True)
class Macs:
    """Multiplications of one dense pass through the layer that the connection stands for.

    Attributes:
        exact: padding has no synapse.
        naive: padding taps counted, as many papers do.
    """

    exact: int
    naive: int


def taps(size: int, n_out: int, kernel: int, stride: int, padding: int, dilation: int) -> NDArray[np.bool_]:
    """Incidence of one axis, ``[kernel, n_out, size]``: whether tap k of output o reads position y."""
    k, o = np.arange(kernel)[:, None], np.arange(n_out)[None]
    return (o * stride - padding + k * dilation)[..., None] == np.arange(size)


def axis_fan_out(size: int, n_out: int, kernel: int, stride: int, padding: int, dilation: int) -> I64:
    """``phi(y) = #{(o, k): o s - p + k d = y}``, int64 ``[size]``: how many windows read each position."""
    y = np.add.outer(np.arange(n_out) * stride - padding, np.arange(kernel) * dilation).ravel()
    return np.bincount(y[(y >= 0) & (y < size)], minlength=size).astype(np.int64)


def _axes(c: Connection) -> tuple[tuple[int, int, int, int, int, int], ...]:
    """Arguments of :func:`axis_fan_out` for height and width."""
    if c.in_shape is None or c.out_shape is None:
        raise EvaluationError(
            "NM501", c.name, "a convolution without shapes cannot be counted", "Export the model again"
        )
    return tuple(
        (
            c.in_shape[a + 1],
            c.out_shape[a + 1],
            c.weights.shape[a + 2],
            c.stride[a],
            c.padding[a],
            c.dilation[a],
        )
        for a in (0, 1)
    )


def fan_out(connection: Connection, n_source: int) -> FanOut:
    """Fan-out maps of a connection.

    A convolution uses the separable form ``F[c, y, x] = (C_out / g) phi_H(y) phi_W(x)``; without zero weights
    ``F[c, y, x] = sum_{k, l} m[c, k, l] R[k, y] C[l, x]`` with m the number of non-zero kernels at a tap.
    """
    w = connection.weights
    if connection.kind == "dense":
        return FanOut(np.full(n_source, w.shape[0], np.int64), np.count_nonzero(w, axis=0).astype(np.int64))
    if connection.kind == "sparse":
        source = connection.indices[1] if connection.indices is not None else np.zeros(0, np.int32)
        return FanOut(
            *(np.bincount(s, minlength=n_source).astype(np.int64) for s in (source, source[w != 0]))
        )
    high, wide = _axes(connection)
    per_group = w.shape[1]
    phi = np.multiply.outer(axis_fan_out(*high), axis_fan_out(*wide)) * (w.shape[0] // connection.groups)
    stored = np.broadcast_to(phi, (per_group * connection.groups, *phi.shape))
    nonzero = (w != 0).reshape(connection.groups, -1, *w.shape[1:]).sum(axis=1).reshape(-1, *w.shape[2:])
    rows, columns = taps(*high).sum(axis=1), taps(*wide).sum(axis=1)
    exact = np.einsum("ckl,ky,lx->cyx", nonzero, rows, columns, optimize=True)
    return FanOut(stored.reshape(-1).astype(np.int64), exact.reshape(-1).astype(np.int64))


def pooling_tile(connection: Connection, source_shape: tuple[int, ...]) -> tuple[int, int]:
    """Largest tile of the source within which all weights are equal: pooling that was folded into the weights.

    The dense twin pools first and multiplies once per tile: its MACs are the connection's divided by the tile's area.
    """
    w = connection.weights
    if connection.kind == "conv":
        sides = [math.gcd(w.shape[a + 2], connection.stride[a], connection.padding[a]) for a in (0, 1)]
        maps = w if connection.dilation == (1, 1) else w[..., :1, :1]
    elif connection.kind == "dense" and len(source_shape) == 3:
        sides, maps = [source_shape[1], source_shape[2]], w.reshape(-1, *source_shape)
    else:
        return (1, 1)
    return _equal_tile(maps, sides)


def _equal_tile(maps: NDArray[np.int32], sides: list[int]) -> tuple[int, int]:
    """Largest (height, width) whose blocks are constant in every map ``[..., H, W]``; each divides its side."""
    tall = _equal_run(np.swapaxes(maps, -1, -2), sides[0])
    return tall, _equal_run(maps[..., ::tall, :], sides[1])


def _equal_run(maps: NDArray[np.int32], side: int) -> int:
    """Largest divisor of ``side`` and of the last axis whose runs are constant."""
    limit = math.gcd(side, maps.shape[-1])
    for run in range(limit, 1, -1):
        few = maps[:1]
        if limit % run == 0 and all(
            np.array_equal(m[..., ::run], m[..., k::run]) for m in (few, maps) for k in range(1, run)
        ):
            return run
    return 1


def macs(connection: Connection, source_shape: tuple[int, ...], stored: I64) -> Macs:
    """MACs of one dense pass, pooling undone (:func:`pooling_tile`).

    Args:
        connection: any.
        source_shape: of the source population or input.
        stored: :func:`fan_out`'s.
    """
    tile = pooling_tile(connection, source_shape)
    area = tile[0] * tile[1]
    exact = int(stored.sum())
    naive = exact
    if connection.kind == "conv" and connection.out_shape is not None:
        naive = int(np.prod(connection.weights.shape)) * connection.out_shape[1] * connection.out_shape[2]
    return Macs(exact // area, naive // area)


@dataclass(frozen=True)
class LayerCounts:
    """What happened on the way into one population and inside it; arrays are int64 ``[B]``, one entry per sample.

    Attributes:
        name, n_neurons: of the population.
        kinds: formats of its incoming connections; ``host`` if its drive comes from the host.
        fan_out: fan-out of every source line into this layer, concatenated.
        macs: of one dense pass into this layer, the host's part included.
        chip_macs: of the chip's connections alone.
        spiking: False for a readout that is read as a membrane.
        recurrent: whether a connection closes a loop.
        spikes: sent by the population.
        stored, nonzero: SynOps by format, binary spikes.
        graded: SynOps of graded spikes, ``{"stored", "nonzero"}``; each is a multiplication.
        undelivered: stored SynOps that a delay pushed behind the last step, or None where the run cannot tell.
        host_macs: of one inference.
        active: neuron updates with input, state or bias, or None where the backend cannot tell.
    """

    name: str
    n_neurons: int
    kinds: tuple[str, ...]
    fan_out: I64
    macs: Macs
    chip_macs: int
    spiking: bool
    recurrent: bool
    spikes: I64
    stored: Mapping[str, I64]
    nonzero: Mapping[str, I64]
    graded: Mapping[str, I64]
    undelivered: I64 | None
    host_macs: int
    active: I64 | None


@dataclass(frozen=True)
class RunCounts:
    """Counts of a run; samples that the backend could not finish are left out.

    Attributes:
        n_samples, n_steps: B and T.
        layers: in the program's order.
        events: spikes per source line, int64 ``[B, n]``: the input (if it carries spikes) and every population.
        fan_outs: per connection name.
    """

    n_samples: int
    n_steps: int
    layers: tuple[LayerCounts, ...]
    events: Mapping[str, I64]
    fan_outs: Mapping[str, FanOut] = field(repr=False)


def finished(result: RunResult) -> NDArray[np.bool_]:
    """Which samples the backend finished, ``[B]``."""
    keep = np.ones(result.n_samples, bool)
    keep[[int(f["sample"]) for f in result.failures]] = False
    return keep


def count(program: Program, result: RunResult) -> RunCounts:
    """Count everything that a run did.

    Raises:
        EvaluationError: NM501 if the run has no finished sample, or lacks the spikes of a population or of the input.
    """
    keep = finished(result)
    if not keep.any():
        raise EvaluationError(
            "NM501", program.output, "the run has no finished sample", "Run the model on at least one sample"
        )
    names = [p.name for p in program.populations]
    if any(c.source == program.input.name for c in program.connections):
        names.insert(0, program.input.name)
    events = {name: _events(program, result, name)[keep] for name in names}
    fan_outs = {c.name: fan_out(c, program.size(c.source)) for c in program.connections}
    layers = tuple(_layer(program, result, p.name, events, fan_outs, keep) for p in program.populations)
    return RunCounts(int(keep.sum()), result.n_steps, layers, events, fan_outs)


def _events(program: Program, result: RunResult, name: str) -> I64:
    if name not in result.spike_counts:
        raise EvaluationError(
            "NM501",
            name,
            f"the run of backend '{result.backend}' has no spike counts for it",
            "Run the model again with a backend that counts its spikes",
        )
    n = np.asarray(result.spike_counts[name])
    if n.shape[:1] != (result.n_samples,) or n.size != result.n_samples * program.size(name):
        raise EvaluationError(
            "NM501",
            name,
            f"spike counts of shape {n.shape} do not fit {result.n_samples} samples of "
            f"{program.size(name)} lines",
            "Use the run and the program of the same model",
        )
    return n.reshape(result.n_samples, -1).astype(np.int64, casting="safe", copy=False)


def operations(events: I64, per_line: I64) -> I64:
    """``sum_i n_i F_i`` per sample, int64 ``[B]``, exact."""
    if per_line.size and (per_line == per_line[0]).all():
        return events.sum(axis=1) * per_line[0]
    return events @ per_line


def _layer(
    program: Program,
    result: RunResult,
    name: str,
    events: Mapping[str, I64],
    fan_outs: Mapping[str, FanOut],
    keep: NDArray[np.bool_],
) -> LayerCounts:
    incoming = program.incoming(name)
    totals: dict[str, dict[str, I64]] = {"stored": {}, "nonzero": {}, "graded": {}}
    n_samples = int(keep.sum())
    for c in incoming:
        f = fan_outs[c.name]
        stored = operations(events[c.source], f.stored)
        nonzero = stored if np.array_equal(f.stored, f.nonzero) else operations(events[c.source], f.nonzero)
        for which, done in (("stored", stored), ("nonzero", nonzero)):
            group, key = ("graded", which) if c.message_bits else (which, c.kind)
            totals[group][key] = totals[group].get(key, np.zeros(n_samples, np.int64)) + done
    host = (
        program.host.connection
        if program.host is not None and program.host.connection.target == name
        else None
    )
    on_host = (
        Macs(0, 0)
        if host is None
        else _connection_macs(program, host, fan_out(host, program.size(host.source)))
    )
    on_chip = [_connection_macs(program, c, fan_outs[c.name]) for c in incoming]
    active = None if result.active_updates is None else result.active_updates.get(name)
    return LayerCounts(
        name=name,
        n_neurons=program.size(name),
        kinds=tuple(dict.fromkeys([*(["host"] if host else []), *(c.kind for c in incoming)])),
        fan_out=np.concatenate([fan_outs[c.name].stored for c in incoming] or [np.zeros(0, np.int64)]),
        macs=Macs(
            on_host.exact + sum(m.exact for m in on_chip), on_host.naive + sum(m.naive for m in on_chip)
        ),
        chip_macs=sum(int(fan_outs[c.name].stored.sum()) for c in incoming),
        spiking=not (program.readout == "membrane" and name == program.output),
        recurrent=any(_is_recurrent(program, c) for c in incoming),
        spikes=events[name].sum(axis=1),
        stored=totals["stored"],
        nonzero=totals["nonzero"],
        graded=totals["graded"],
        undelivered=_undelivered(incoming, result, fan_outs, keep),
        host_macs=on_host.exact
        if host is None
        else int(fan_out(host, program.size(host.source)).stored.sum()),
        active=None if active is None else np.asarray(active, np.int64)[keep],
    )


def _connection_macs(program: Program, connection: Connection, f: FanOut) -> Macs:
    shape = (
        program.input.shape
        if connection.source == program.input.name
        else program.population(connection.source).shape
    )
    return macs(connection, shape, f.stored)


def _is_recurrent(program: Program, connection: Connection) -> bool:
    return connection.source != program.input.name and program.index(connection.source) >= program.index(
        connection.target
    )


def _undelivered(
    incoming: tuple[Connection, ...],
    result: RunResult,
    fan_outs: Mapping[str, FanOut],
    keep: NDArray[np.bool_],
) -> I64 | None:
    """Stored SynOps of the last step through delays of 1; None if a delay is longer or the last step is not known."""
    total = np.zeros(int(keep.sum()), np.int64)
    for c in incoming:
        if c.max_delay == 0:
            continue
        if c.max_delay > 1 or c.source not in result.last_spikes:
            return None
        last: Any = (
            np.asarray(result.last_spikes[c.source]).reshape(result.n_samples, -1)[keep].astype(np.int64)
        )
        total += operations(last, _delayed(c, fan_outs[c.name].stored))
    return total


def _delayed(c: Connection, stored: I64) -> I64:
    """How many synapses of each source have a delay, int64 ``[n_source]``."""
    if c.delay_steps.ndim == 0:
        return stored
    if c.kind == "dense":
        return np.count_nonzero(c.delay_steps, axis=0).astype(np.int64)
    source = c.indices[1] if c.indices is not None else np.zeros(0, np.int32)
    return np.bincount(source[c.delay_steps != 0], minlength=stored.size).astype(np.int64)
