"""Populations to cores: equal blocks, one population per core, cores filled in program order.

Budgets and the cost of an axon's synapse list are those of the target file. A convolution's lists are shared by the
positions of a block that differ by a shift alone, and its axons carry all channels of a position (population axons).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from nmtool.compiler.program import Connection, Population, Program
from nmtool.compiler.tiling import I64, Block, Fan, Range, Tiling, fan_in, fan_out_cores, pieces, size
from nmtool.target import TargetSpec


@dataclass(frozen=True)
class Use:
    """How much of one budget a core uses; ``key`` is where the limit stands in the target file."""

    name: str
    key: str
    used: int
    limit: int


@dataclass(frozen=True)
class Core:
    """One core: a block of a population, and its neurons as ranges of flat indices."""

    core: int
    population: str
    neurons: tuple[Range, ...]
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
        """Per population the list of ``[core, start, stop]``; a core may hold several ranges."""
        table: dict[str, list[list[int]]] = {}
        for c in self.cores:
            table.setdefault(c.population, []).extend([c.core, a, b] for a, b in c.neurons)
        return table


@dataclass(frozen=True)
class Budgets:
    """The target's limits and what synapses cost, read once.

    Attributes:
        limits: name of a budget to (key in the target file, limit); only what is published.
        memory: whether synapse memory is published; the next five are 0 if not.
        block, overhead_bits, word_bits: of a synapse list.
        index_bits: smallest index field that addresses every compartment of a core.
        atoms: channels that one axon of a convolution carries.
    """

    limits: dict[str, tuple[str, int]]
    memory: bool
    block: int
    overhead_bits: int
    word_bits: int
    index_bits: int
    atoms: int

    @staticmethod
    def of(spec: TargetSpec) -> Budgets:
        """From a target; what it does not publish is not checked."""
        limits = {n: (k, int(spec.number(k))) for n, k in _KEYS.items() if spec.has(k)}
        memory = spec.has("core.max_synapse_bits")
        atoms = int(spec.number("core.axon_atoms")) if spec.has("core.axon_atoms") else 1
        if not memory:
            return Budgets(limits, False, 0, 0, 0, 0, atoms)
        needed = (int(spec.number("core.max_compartments")) - 1).bit_length()
        index = min(b for b in map(int, spec.choice("synapse.index_bits_allowed")) if b >= needed)
        block, overhead, word = (
            int(spec.number(f"synapse.{k}")) for k in ("block_synapses", "block_overhead_bits", "word_bits")
        )
        return Budgets(limits, True, block, overhead, word, index, atoms)

    def uses(self, **used: int) -> tuple[Use, ...]:
        """The published budgets among these."""
        named = {n.replace("_", " "): v for n, v in used.items()}
        return tuple(
            Use(n, self.limits[n][0], v, self.limits[n][1]) for n, v in named.items() if n in self.limits
        )


_KEYS = {
    "compartments": "core.max_compartments",
    "input axons": "core.max_in_axons",
    "synapse memory bits": "core.max_synapse_bits",
    "output axons": "core.max_out_axons",
}


def place(program: Program, spec: TargetSpec, progress: Callable[[str], None] | None = None) -> Placement:
    """Split every population until its budgets hold, or it cannot be split any further.

    Args:
        program: latencies set.
        spec: budgets; one that the target does not publish is not checked.
        progress: told the name of the population in work.
    """
    budgets = Budgets.of(spec)
    tilings: dict[str, Tiling] = {}
    for p in program.populations:
        if progress:
            progress(p.name)
        whole = Tiling(p.shape, (1,) * len(p.shape))
        tilings[p.name] = _split(whole, partial(_input_uses, program, p, budgets))
    while True:
        axons = {p.name: _output_axons(program, p, tilings) for p in program.populations}
        split = {
            p.name: _split(tilings[p.name], partial(_output_uses, axons[p.name], p.shape, budgets))
            for p in program.populations
        }
        if split == tilings:
            break
        tilings = split
    cores: list[Core] = []
    for p in program.populations:
        for block in tilings[p.name].blocks():
            uses = _input_uses(program, p, budgets, block) + _output_uses(
                axons[p.name], p.shape, budgets, block
            )
            cores.append(Core(len(cores), p.name, tuple(pieces(block, p.shape)), uses))
    return Placement(tuple(cores), int(spec.number("chip.cores")) if spec.has("chip.cores") else 0)


def _split(tiling: Tiling, uses: Callable[[Block], tuple[Use, ...]]) -> Tiling:
    """Cut along the axis that helps most, until every block is within all limits or consists of one neuron."""
    worst = _worst(tiling, uses)
    while worst > 1:
        finer = [
            Tiling(tiling.shape, tuple(min(n, max(p + 1, int(p * 1.25))) if a == axis else p
                                       for a, (p, n) in enumerate(zip(tiling.parts, tiling.shape, strict=True))))
            for axis in range(len(tiling.shape)) if tiling.parts[axis] < tiling.shape[axis]
        ]  # fmt: skip
        if not finer:
            return tiling
        ratios = [_worst(t, uses) for t in finer]
        best = min(range(len(finer)), key=lambda i: ratios[i] * np.prod(finer[i].parts))
        tiling, worst = finer[best], ratios[best]
    return tiling


def _worst(tiling: Tiling, uses: Callable[[Block], tuple[Use, ...]]) -> float:
    """Largest use over limit of any block. Blocks that differ only in place cost the same, so a few are looked at."""
    per_axis = [_distinct(tiling.ranges(a)) for a in range(len(tiling.shape))]
    grids = np.meshgrid(*(np.arange(len(r)) for r in per_axis), indexing="ij")
    blocks = [
        tuple(per_axis[a][i] for a, i in enumerate(at))
        for at in zip(*(g.ravel() for g in grids), strict=True)
    ]
    return max((u.used / u.limit for block in blocks for u in uses(block)), default=0.0)


def _distinct(ranges: list[Range]) -> list[Range]:
    """The outermost parts, and up to six from between: there are at most two sizes, and borders cost less."""
    if len(ranges) <= 8:
        return ranges
    middle = ranges[1:-1]
    return [ranges[0], *middle[:: max(len(middle) // 6, 1)], ranges[-1]]


def synapse_bits(c: Connection, fan: Fan, delay_bits: int, budgets: Budgets) -> int:
    """Memory of the synapse lists of all axons, in bits.

    An axon's list is cut into blocks; each costs its synapses plus an overhead, rounded up to memory words.
    """
    width = c.weight_bits + delay_bits + (0 if c.kind == "dense" else budgets.index_bits)
    full, rest = fan.synapses // budgets.block, fan.synapses % budgets.block
    per_full = -(-(budgets.block * width + budgets.overhead_bits) // budgets.word_bits)
    per_rest = -(-(rest * width + budgets.overhead_bits) // budgets.word_bits)
    words = full * per_full + np.where(rest > 0, per_rest, 0)
    return int((words * fan.lists).sum()) * budgets.word_bits


def _input_uses(program: Program, p: Population, budgets: Budgets, block: Block) -> tuple[Use, ...]:
    axons = bits = 0
    for c in program.incoming(p.name):
        fan = fan_in(c, program.size(c.source), p.shape, block, budgets.atoms)
        delays = int(program.chip_delay(c).max(initial=0))
        axons += fan.axons
        bits += synapse_bits(c, fan, delays.bit_length(), budgets) if budgets.memory else 0
    return budgets.uses(compartments=size(block), input_axons=axons, synapse_memory_bits=bits)


def _output_axons(program: Program, p: Population, tilings: dict[str, Tiling]) -> I64:
    """Axons per neuron: one for every core and connection that it reaches, int64 ``[N]``."""
    total = np.zeros(p.n_neurons, np.int64)
    for c in program.connections:
        if c.source == p.name:
            total += fan_out_cores(c, p.shape, tilings[c.target])
    return total


def _output_uses(axons: I64, shape: tuple[int, ...], budgets: Budgets, block: Block) -> tuple[Use, ...]:
    inside = axons.reshape(shape)[tuple(slice(a, b) for a, b in block)]
    return budgets.uses(output_axons=int(inside.sum()))
