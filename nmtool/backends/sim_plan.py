"""A program prepared for simulation: layout of each population, operators per delay, groups in order of execution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.program import Connection, Population, Program, check_consistent
from nmtool.errors import ModelError
from nmtool.fixedpoint import scan, synapses
from nmtool.fixedpoint.ops import ACTIVATION_SHIFT, DECAY_UNITY

MATRIX_FROM_SHARE = 1 / 8
"""Share of stored synapses from which a sparse connection is cheaper as a matrix."""

MATRIX_ENTRIES = 1 << 24
"""Largest matrix that a sparse connection is turned into."""

Scalar = TypeVar("Scalar", bound=np.generic)


class Layout(NamedTuple):
    """How neurons lie in memory: flat C order, or channels last where convolutions touch them.

    Attributes:
        channels: C of ``(C, H, W)``; 1 keeps the flat order.
        size: number of neurons.
    """

    channels: int
    size: int

    def inward(self, a: NDArray[Scalar]) -> NDArray[Scalar]:
        """From flat order to memory order along the last axis, contiguous."""
        return self._swap(a, (self.channels, self.size // self.channels))

    def outward(self, a: NDArray[Scalar]) -> NDArray[Scalar]:
        """From memory order to flat order along the last axis, contiguous."""
        return self._swap(a, (self.size // self.channels, self.channels))

    def shaped(self, a: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The last axis from memory order to the population's shape, as a view where strides can express it."""
        lead = a.shape[:-1]
        if self.channels == 1 or shape[0] != self.channels:
            return self.outward(a).reshape(*lead, *shape)
        return np.moveaxis(a.reshape(*lead, *shape[1:], self.channels), -1, len(lead))

    def _swap(self, a: NDArray[Scalar], split: tuple[int, int]) -> NDArray[Scalar]:
        if self.channels == 1:
            return np.ascontiguousarray(a)
        return np.ascontiguousarray(a.reshape(*a.shape[:-1], *split).swapaxes(-1, -2)).reshape(a.shape)


class Edge(NamedTuple):
    """One delay slot of a connection.

    Attributes:
        source: population or input.
        lag: delay in steps, own time.
        payload: largest magnitude that the input's message bits allow; 0 for binary spikes.
        synapses: the operator.
    """

    source: str
    lag: int
    payload: int
    synapses: synapses.Synapses

    @property
    def graded(self) -> bool:
        """Whether the payload counts."""
        return self.payload > 0


class Layer(NamedTuple):
    """One population.

    Attributes:
        block: its index in the program, which is its block in the noise stream.
        population, layout: what and how.
        registers: as the scan wants them.
        outside, inside: edges from earlier groups, and from the layer's own group.
    """

    block: int
    population: Population
    layout: Layout
    registers: scan.Registers
    outside: tuple[Edge, ...]
    inside: tuple[Edge, ...]


class Host(NamedTuple):
    """The host's layer: operator without shift; int64 ``[N]`` in memory order; name of the population it drives."""

    synapses: synapses.Synapses
    bias: NDArray[np.int64]
    exponent: NDArray[np.int64]
    target: str


@dataclass(frozen=True)
class Plan:
    """What a run needs to know.

    Attributes:
        program: what was prepared.
        groups: layers that run together; a group of more than one, or with inner edges, runs step by step.
        layouts: per population and input.
        history: longest lag on which each source is read.
        host: or None.
        needs_torch: whether any operator is a convolution.
        sha256: of the program.
    """

    program: Program
    groups: tuple[tuple[Layer, ...], ...]
    layouts: dict[str, Layout]
    history: dict[str, int]
    host: Host | None
    needs_torch: bool
    sha256: str

    @property
    def stepwise(self) -> bool:
        """Whether anything has to run step by step."""
        return any(layer.inside for group in self.groups for layer in group)


def prepare(program: Program) -> Plan:
    """Choose layouts, operators and order.

    Raises:
        ModelError: NM110 if the program's parts do not fit, or a register is outside what the integer step defines.
    """
    try:
        check_consistent(program)
        for p in program.populations:
            _check_registers(p)
        for c in program.connections:
            _check_connection(program, c)
        layouts = _layouts(program)
    except ValueError as e:
        raise ModelError("NM110", program.target, str(e), "Export the model again") from e
    edges = {p.name: _edges(program, p.name, layouts) for p in program.populations}
    groups = []
    for first, last in _spans(program):
        names = {p.name for p in program.populations[first:last]}
        groups.append(tuple(_layer(program, i, layouts, edges, names) for i in range(first, last)))
    every = [e for parts in edges.values() for e in parts]
    history = {n: max((e.lag for e in every if e.source == n), default=0) for n in layouts}
    host = _host(program, layouts)
    operators = [e.synapses for e in every] + ([host.synapses] if host else [])
    torch = any(isinstance(o, synapses.Conv) for o in operators)
    return Plan(program, tuple(groups), layouts, history, host, torch, program.sha256)


def _check_registers(p: Population) -> None:
    for key in ("decay_syn_q12", "decay_mem_q12"):
        a = getattr(p, key)
        if a.min() < 0 or a.max() > DECAY_UNITY:
            raise ValueError(f"{p.name}.{key} spans {a.min()} to {a.max()}, allowed is 0 to {DECAY_UNITY}")
    if np.abs(p.bias_exp).max() > 31:
        raise ValueError(f"{p.name}.bias_exp has magnitude {np.abs(p.bias_exp).max()}, allowed is at most 31")
    if p.refractory_steps < 1:
        raise ValueError(f"{p.name}.refractory_steps is {p.refractory_steps}, allowed is 1 or more")


def _check_connection(program: Program, c: Connection) -> None:
    order = {p.name: i for i, p in enumerate(program.populations)}
    if c.delay_steps.size and c.delay_steps.min() < 0:
        raise ValueError(f"{c.name}: delay {c.delay_steps.min()} is negative")
    if c.delay_steps.shape not in ((), c.weights.shape if c.kind != "conv" else ()):
        raise ValueError(f"{c.name}: delays {c.delay_steps.shape} do not fit weights {c.weights.shape}")
    if c.kind == "conv" and c.weight_exp != 0:
        raise ValueError(f"{c.name}: a convolution has no weight exponent, found {c.weight_exp}")
    backward = order.get(c.source, -1) >= order[c.target]
    if backward and (not c.delay_steps.size or c.delay_steps.min() < 1):
        raise ValueError(
            f"{c.name}: a connection from '{c.source}' back to '{c.target}' needs a delay of 1 or more"
        )


def _layouts(program: Program) -> dict[str, Layout]:
    """Channels last where a convolution reads or writes, else flat."""
    names = [program.input.name, *(p.name for p in program.populations)]
    wanted: dict[str, int] = {}
    for c in (*program.connections, *((program.host.connection,) if program.host else ())):
        for name, shape in ((c.source, c.in_shape), (c.target, c.out_shape)):
            if c.kind != "conv" or shape is None:
                continue
            channels = shape[0] if 1 < shape[0] < program.size(name) else 1
            if wanted.setdefault(name, channels) != channels:
                raise ValueError(
                    f"{c.name}: '{name}' has {channels} channels here and {wanted[name]} elsewhere"
                )
    return {n: Layout(wanted.get(n, 1), program.size(n)) for n in names}


def _spans(program: Program) -> list[tuple[int, int]]:
    """Positions ``[first, last)`` that must run step by step together: merged spans of all backward connections.

    Populations stand in an order in which zero-delay connections go forward, so that a strongly connected component
    lies within the span of its backward connections.
    """
    spans = [(i, i + 1) for i in range(len(program.populations))]
    for c in program.connections:
        if c.source == program.input.name:
            continue
        low, high = program.index(c.target), program.index(c.source) + 1
        if low < high:
            met = [s for s in spans if s[0] < high and s[1] > low]
            merged = (min(s[0] for s in met), max(s[1] for s in met))
            spans = sorted([s for s in spans if s not in met] + [merged])
    return spans


def _layer(
    program: Program, block: int, layouts: dict[str, Layout], edges: dict[str, list[Edge]], group: set[str]
) -> Layer:
    p = program.populations[block]
    layout = layouts[p.name]
    params = p.params
    arrays: dict[str, Any] = {k: layout.inward(a) for k, a in vars(params).items() if np.size(a) > 1}
    inner = replace(params, **arrays)
    largest = sum(e.synapses.largest(max(e.payload, 1)) for e in edges[p.name])
    return Layer(
        block,
        p,
        layout,
        scan.registers(inner, layout.size, largest * 2.0**ACTIVATION_SHIFT),
        tuple(e for e in edges[p.name] if e.source not in group),
        tuple(e for e in edges[p.name] if e.source in group),
    )


def _edges(program: Program, name: str, layouts: dict[str, Layout]) -> list[Edge]:
    """One edge per connection and distinct delay. Slots are shifted by the weight exponent one by one, as Lava does."""
    found = []
    for c in program.incoming(name):
        payload = (1 << c.message_bits) - 1 if c.source == program.input.name else 0
        for lag in np.unique(c.delay_steps):
            everywhere = c.delay_steps.ndim == 0
            weights = (
                c.weights if everywhere else np.where(c.delay_steps == lag, c.weights, 0).astype(np.int32)
            )
            if weights.any():
                found.append(Edge(c.source, int(lag), payload, operator(c, weights, layouts)))
    return found


def operator(c: Connection, weights: NDArray[np.int32], layouts: dict[str, Layout]) -> synapses.Synapses:
    """The operator for ``weights`` in the place of the connection's own, in memory order of both ends."""
    source, target = layouts[c.source], layouts[c.target]
    if c.kind == "conv" and c.in_shape is not None and c.out_shape is not None:
        return synapses.Conv(
            weights, synapses.Geometry(c.in_shape, c.out_shape, c.stride, c.padding, c.dilation, c.groups)
        )
    if c.kind == "sparse" and c.indices is not None:
        keep = weights != 0
        share = keep.sum() / max(source.size * target.size, 1)
        if share < MATRIX_FROM_SHARE or source.size * target.size > MATRIX_ENTRIES:
            row = np.argsort(target.inward(np.arange(target.size)))[c.indices[0][keep]]
            line = np.argsort(source.inward(np.arange(source.size)))[c.indices[1][keep]]
            pairs = np.stack([row, line]).astype(np.int32)
            return synapses.Sparse(weights[keep], pairs, source.size, target.size, c.weight_exp)
        dense = np.zeros((target.size, source.size), np.int32)
        np.add.at(dense, (c.indices[0], c.indices[1]), weights)
        weights = dense
    ordered = target.inward(source.inward(weights).T).T
    if np.count_nonzero(ordered) < synapses.SPARSE_BELOW * ordered.size:
        pairs = np.stack(np.nonzero(ordered)).astype(np.int32)
        return synapses.Sparse(ordered[tuple(pairs)], pairs, source.size, target.size, c.weight_exp)
    return synapses.Dense(np.ascontiguousarray(ordered), c.weight_exp)


def _host(program: Program, layouts: dict[str, Layout]) -> Host | None:
    if program.host is None:
        return None
    c = program.host.connection
    found = operator(c, c.weights, layouts)
    layout = layouts[c.target]
    exponent = np.broadcast_to(program.population(c.target).params.bias_exp, layout.size)
    return Host(found, layout.inward(program.host.bias), layout.inward(exponent), c.target)
