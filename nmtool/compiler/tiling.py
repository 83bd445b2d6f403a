"""What a block of a population costs its core: axons and synapse memory, exact, without unrolling a convolution.

A population of shape (C, H, W) is cut along each axis, a flat one along its only axis; a block is one range per axis.
Along an axis a convolution is a list of taps, so everything it needs factorises into rows and columns.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.program import Connection

I64 = NDArray[np.int64]
Range = tuple[int, int]
Block = tuple[Range, ...]


@dataclass(frozen=True)
class Tiling:
    """Equal parts along every axis of a population.

    Attributes:
        shape: of the population.
        parts: number of parts per axis.
    """

    shape: tuple[int, ...]
    parts: tuple[int, ...]

    def ranges(self, axis: int) -> list[Range]:
        """The parts of one axis."""
        edges = np.linspace(0, self.shape[axis], self.parts[axis] + 1).astype(int)
        return [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]

    def blocks(self) -> list[Block]:
        """All blocks, last axis fastest."""
        return list(itertools.product(*(self.ranges(a) for a in range(len(self.shape)))))

    def of(self, flat: NDArray[np.int32]) -> I64:
        """Index of the block that each flat neuron index lies in."""
        index = np.zeros(len(flat), np.int64)
        for axis, at in enumerate(np.unravel_index(flat, self.shape)):
            edges = [stop for _, stop in self.ranges(axis)]
            index = index * self.parts[axis] + np.searchsorted(edges, at, side="right")
        return index


def size(block: Block) -> int:
    """Neurons in a block."""
    return int(np.prod([b - a for a, b in block]))


def pieces(block: Block, shape: tuple[int, ...]) -> list[Range]:
    """A block as ranges of flat neuron indices, joined where they touch."""
    (low, high), *inner = block
    below = int(np.prod(shape[1:]))
    if not inner or all((a, b) == (0, n) for (a, b), n in zip(inner, shape[1:], strict=True)):
        return [(low * below, high * below)]
    return [
        (i * below + a, i * below + b)
        for i in range(low, high)
        for a, b in pieces(tuple(inner), shape[1:])
    ]  # fmt: skip


class Fan(NamedTuple):
    """Synapse lists that a block has to store, as a histogram.

    Attributes:
        synapses: synapses of one list, per kind of list.
        lists: how many lists of each kind there are.
        axons: input axons that read them.
    """

    synapses: I64
    lists: I64
    axons: int


@lru_cache(maxsize=1 << 16)
def _taps(n: int, k: int, stride: int, padding: int, dilation: int, part: Range) -> tuple[I64, I64]:
    """Who reads what along one axis.

    Returns:
        per input position the number of (output, kernel) pairs of the part that read it, ``[n]``;
        the number of pairs of every distinct pattern. Positions whose pairs differ by a shift alone have one pattern:
        a population axon shifts its synapse list, so that it is stored once.
    """
    at = np.arange(*part)[:, None] * stride - padding + np.arange(k)[None] * dilation
    count = np.bincount(at[(at >= 0) & (at < n)], minlength=n)
    readers: dict[int, list[tuple[int, int]]] = {}
    for o, tap in np.argwhere((at >= 0) & (at < n)):
        readers.setdefault(int(at[o, tap]), []).append((int(o), int(tap)))
    patterns = {tuple((o - pairs[0][0], tap) for o, tap in pairs) for pairs in readers.values()}
    return count, np.array(sorted(len(p) for p in patterns), np.int64)


def _along(c: Connection, axis: int, part: Range) -> tuple[I64, I64]:
    if c.in_shape is None:
        raise ValueError(f"{c.name}: convolution without shapes")
    n, k = c.in_shape[1 + axis], c.weights.shape[2 + axis]
    return _taps(n, k, c.stride[axis], c.padding[axis], c.dilation[axis], part)


def fan_in(c: Connection, n_in: int, shape: tuple[int, ...], block: Block, atoms: int) -> Fan:
    """Synapse lists into a block. Without population axons (``atoms`` 1) a convolution still shares its lists.

    Args:
        c: a connection into the population.
        n_in: neurons of the source.
        shape: of the target population.
        block: of the target population.
        atoms: channels that one axon of a convolution carries (population axons); 1 gives one axon per neuron.
    """
    if c.kind == "dense":
        return Fan(np.array([size(block)]), np.array([n_in]), n_in)
    if c.kind == "conv":
        return _conv_fan_in(c, block if len(block) == 3 else ((block[0]), (0, 1), block[1]), atoms)
    if c.indices is None:
        raise ValueError(f"{c.name}: sparse connection without indices")
    inside = np.ones(c.indices.shape[1], bool)
    for (a, b), at in zip(block, np.unravel_index(c.indices[0], shape), strict=True):
        inside &= (at >= a) & (at < b)
    per_source = np.bincount(c.indices[1][inside])
    kinds, sources = np.unique(per_source[per_source > 0], return_counts=True)
    return Fan(kinds.astype(np.int64), sources, int(sources.sum()))


def _conv_fan_in(c: Connection, block: Block, atoms: int) -> Fan:
    if c.in_shape is None or c.out_shape is None:
        raise ValueError(f"{c.name}: convolution without shapes")
    (low, high), rows, columns = block
    per_group, c_in = c.out_shape[0] // c.groups, c.in_shape[0] // c.groups
    (y, y_patterns), (x, x_patterns) = _along(c, 0, rows), _along(c, 1, columns)
    channels = [
        min(high, (g + 1) * per_group) - max(low, g * per_group)
        for g in range(low // per_group, -(-high // per_group))
    ]
    each = (y_patterns[:, None] * x_patterns[None]).ravel()
    synapses = np.concatenate([each * n for n in channels]) if channels else np.zeros(0, np.int64)
    positions = int(np.count_nonzero(y)) * int(np.count_nonzero(x))
    return Fan(synapses, np.full(synapses.shape, c_in), positions * -(-c_in * len(channels) // atoms))


def fan_out_cores(c: Connection, source_shape: tuple[int, ...], target: Tiling) -> I64:
    """How many blocks of the target each source neuron reaches, int64 ``[N]``."""
    n = int(np.prod(source_shape))
    if c.kind == "dense":
        return np.full(n, int(np.prod(target.parts)), np.int64)
    if c.kind == "sparse" and c.indices is not None:
        pairs = np.unique(np.stack([c.indices[1].astype(np.int64), target.of(c.indices[0])]), axis=1)
        return np.bincount(pairs[0], minlength=n)
    if c.in_shape is None or c.out_shape is None:
        raise ValueError(f"{c.name}: convolution without shapes")
    flat = len(target.shape) == 2  # (C, L): a convolution of height 1
    ranges = [target.ranges(0), [(0, 1)] if flat else target.ranges(1), target.ranges(1 if flat else 2)]
    rows, columns = (
        sum((_along(c, axis, r)[0] > 0).astype(np.int64) for r in ranges[1 + axis]) for axis in (0, 1)
    )
    per_group, c_in = c.out_shape[0] // c.groups, c.in_shape[0] // c.groups
    blocks = [
        sum(a < (g + 1) * per_group and b > g * per_group for a, b in ranges[0]) for g in range(c.groups)
    ]
    channel = np.repeat(np.array(blocks, np.int64), c_in)
    return (channel[:, None, None] * np.asarray(rows)[:, None] * np.asarray(columns)[None]).reshape(-1)
