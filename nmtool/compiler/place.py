"""Populations to cores: contiguous equal chunks, one population per core, cores filled in program order.

Budgets and the cost of one axon's synapse list are those of the target file; the splitting rule is nengo-loihi's:
the number of chunks is the largest ratio of use to limit, rounded up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.program import Connection, Population, Program
from nmtool.target import TargetSpec

Chunk = tuple[int, int]


@dataclass(frozen=True)
class Use:
    """How much of one budget a core uses; ``key`` is where the limit stands in the target file."""

    name: str
    key: str
    used: int
    limit: int


@dataclass(frozen=True)
class Core:
    """One core: neurons ``[start, stop)`` of a population."""

    core: int
    population: str
    start: int
    stop: int
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Placement:
    """All cores in use."""

    cores: tuple[Core, ...]
    cores_per_chip: int

    @property
    def n_cores(self) -> int:
        """Cores in use."""
        return len(self.cores)

    @property
    def n_chips(self) -> int:
        """Chips in use."""
        return -(-self.n_cores // self.cores_per_chip) if self.cores_per_chip else 1

    def as_dict(self) -> dict[str, list[list[int]]]:
        """Per population the list of ``[core, start, stop]``."""
        table: dict[str, list[list[int]]] = {}
        for c in self.cores:
            table.setdefault(c.population, []).append([c.core, c.start, c.stop])
        return table


def synapses_into(c: Connection, n_in: int, chunk: Chunk) -> NDArray[np.int64]:
    """Stored synapses from each source neuron into target neurons ``[start, stop)``, int64 ``[n_in]``."""
    start, stop = chunk
    if c.kind == "dense":
        return np.full(n_in, stop - start, np.int64)
    if c.kind == "sparse" and c.indices is not None:
        inside = (c.indices[0] >= start) & (c.indices[0] < stop)
        return np.bincount(c.indices[1][inside], minlength=n_in).astype(np.int64)
    return _conv_synapses(c, chunk)


def _conv_synapses(c: Connection, chunk: Chunk) -> NDArray[np.int64]:
    if c.in_shape is None or c.out_shape is None:
        raise ValueError(f"{c.name}: convolution without shapes")
    (c_in, h, w), (c_out, oh, ow) = c.in_shape, c.out_shape
    plane, per_group = oh * ow, c_out // c.groups
    total = np.zeros((c.groups, h, w), np.int64)
    whole = _reach(c, np.ones((oh, ow), np.int64))
    for channel in range(chunk[0] // plane, -(-chunk[1] // plane)):
        low, high = max(chunk[0] - channel * plane, 0), min(chunk[1] - channel * plane, plane)
        if (low, high) == (0, plane):
            total[channel // per_group] += whole
        else:
            mask = np.zeros(plane, np.int64)
            mask[low:high] = 1
            total[channel // per_group] += _reach(c, mask.reshape(oh, ow))
    return np.repeat(total, c_in // c.groups, axis=0).reshape(-1)


def _reach(c: Connection, mask: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many marked output positions of one channel each input position reaches, ``[H, W]``."""
    (_, h, w), (oh, ow) = c.in_shape or (0, 0, 0), mask.shape
    full = np.zeros((h, w), np.int64)
    for ky in range(c.weights.shape[2]):
        y = np.arange(oh) * c.stride[0] - c.padding[0] + ky * c.dilation[0]
        for kx in range(c.weights.shape[3]):
            x = np.arange(ow) * c.stride[1] - c.padding[1] + kx * c.dilation[1]
            oy, ox = np.flatnonzero((y >= 0) & (y < h)), np.flatnonzero((x >= 0) & (x < w))
            full[np.ix_(y[oy], x[ox])] += mask[np.ix_(oy, ox)]
    return full


def synapse_bits(c: Connection, counts: NDArray[np.int64], delay_bits: int, spec: TargetSpec) -> int:
    """Memory of the synapse lists of all axons, in bits.

    An axon's list is cut into blocks; each costs its synapses plus an overhead, rounded up to memory words.
    """
    index = 0 if c.kind == "dense" else _index_bits(spec)
    width = c.weight_bits + delay_bits + index
    block, overhead, word = (
        int(spec.number(f"synapse.{k}")) for k in ("block_synapses", "block_overhead_bits", "word_bits")
    )
    full, rest = counts // block, counts % block
    words = full * -(-(block * width + overhead) // word) + np.where(
        rest > 0, -(-(rest * width + overhead) // word), 0
    )
    return int(words.sum()) * word


def _index_bits(spec: TargetSpec) -> int:
    """Smallest index field that addresses every compartment of a core."""
    needed = (int(spec.number("core.max_compartments")) - 1).bit_length()
    return min(bits for bits in map(int, spec.choice("synapse.index_bits_allowed")) if bits >= needed)


def place(program: Program, spec: TargetSpec, progress: Callable[[str], None] | None = None) -> Placement:
    """Split every population until its budgets hold, or it cannot be split any further.

    Args:
        program: latencies set.
        spec: budgets; one that the target does not publish is not checked.
        progress: told the name of the population in work.
    """
    chunks: dict[str, list[Chunk]] = {}
    for p in program.populations:
        if progress:
            progress(p.name)
        chunks[p.name] = _split(p.n_neurons, partial(_input_uses, program, p, spec))
    while True:
        axons = {p.name: _output_axons(program, p, chunks) for p in program.populations}
        split = {
            p.name: _split(p.n_neurons, partial(_output_uses, axons[p.name], spec), len(chunks[p.name]))
            for p in program.populations
        }
        if split == chunks:
            break
        chunks = split
    cores: list[Core] = []
    for p in program.populations:
        for chunk in chunks[p.name]:
            uses = _input_uses(program, p, spec, chunk) + _output_uses(axons[p.name], spec, chunk)
            cores.append(Core(len(cores), p.name, *chunk, uses))
    return Placement(tuple(cores), int(spec.number("chip.cores")) if spec.has("chip.cores") else 0)


def _split(n: int, uses: Callable[[Chunk], tuple[Use, ...]], at_least: int = 1) -> list[Chunk]:
    """Smallest number of equal chunks whose first chunk, and then every chunk, is within all limits."""
    parts = at_least
    while True:
        edges = np.linspace(0, n, parts + 1).astype(int)
        chunks = [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        worst = max((u.used / u.limit for chunk in chunks for u in uses(chunk)), default=0.0)
        if worst <= 1 or parts >= n:
            return chunks
        parts = min(n, max(parts + 1, int(np.ceil(parts * min(worst, 2.0)))))


def _limited(spec: TargetSpec, uses: list[tuple[str, str, int]]) -> tuple[Use, ...]:
    return tuple(Use(name, key, used, int(spec.number(key))) for name, key, used in uses if spec.has(key))


def _input_uses(program: Program, p: Population, spec: TargetSpec, chunk: Chunk) -> tuple[Use, ...]:
    axons = bits = 0
    for c in program.incoming(p.name):
        counts = synapses_into(c, program.size(c.source), chunk)
        delays = int(program.chip_delay(c).max(initial=0))
        axons += int((counts > 0).sum())
        bits += synapse_bits(c, counts, delays.bit_length(), spec) if spec.has("core.max_synapse_bits") else 0
    return _limited(
        spec,
        [
            ("compartments", "core.max_compartments", chunk[1] - chunk[0]),
            ("input axons", "core.max_in_axons", axons),
            ("synapse memory bits", "core.max_synapse_bits", bits),
        ],
    )


def _output_axons(program: Program, p: Population, chunks: dict[str, list[Chunk]]) -> NDArray[np.int64]:
    """Axons per neuron: one for every core and connection that it reaches, int64 ``[N]``."""
    total = np.zeros(p.n_neurons, np.int64)
    for c in program.connections:
        if c.source == p.name:
            for target in chunks[c.target]:
                total += synapses_into(c, p.n_neurons, target) > 0
    return total


def _output_uses(axons: NDArray[np.int64], spec: TargetSpec, chunk: Chunk) -> tuple[Use, ...]:
    return _limited(spec, [("output axons", "core.max_out_axons", int(axons[chunk[0] : chunk[1]].sum()))])
