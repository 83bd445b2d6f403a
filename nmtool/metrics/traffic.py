"""Messages between cores, and how much work the busiest core has, from a placement; bounds where there is none.

A spike is sent once to every core that holds at least one of its targets, not once per synapse. Routes run east-west,
then north-south; hops are counted within a chip, messages that leave the chip separately.

``program.info["placement"]`` maps a population to its pieces ``{"core", "start", "stop"}``: neurons ``start..stop-1``
(flat, C order) sit on that core; cores are numbered through all chips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.program import Connection, Program
from nmtool.errors import EvaluationError
from nmtool.metrics.synops import I64, LayerCounts, RunCounts, taps
from nmtool.target import TargetSpec


class Piece(NamedTuple):
    """Neurons ``start..stop-1`` of a population on one core."""

    core: int
    start: int
    stop: int


Placement = Mapping[str, tuple[Piece, ...]]
BOUNDS = ("low", "nominal", "high")
COUNTS = ("messages", "hops_ew", "hops_ns", "interchip_messages")


@dataclass(frozen=True)
class Traffic:
    """Messages caused by spikes into each layer, summed over samples.

    Attributes:
        per_layer: ``{population: {count: {"low", "nominal", "high"}}}`` with :data:`COUNTS`; None where unknown.
        placed: whether a placement was given; if not, the three differ (see :func:`unplaced`).
    """

    per_layer: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    placed: bool


def placement(program: Program) -> Placement | None:
    """The program's placement, or None if it has none.

    Raises:
        EvaluationError: NM501 if it does not cover every population exactly once.
    """
    raw: Mapping[str, Any] | None = program.info.get("placement")
    if not raw:
        return None
    found = {}
    for p in program.populations:
        pieces = tuple(sorted((_piece(x) for x in raw.get(p.name, ())), key=lambda x: x.start))
        edges = [0, *(x.stop for x in pieces)]
        if (
            [x.start for x in pieces] != edges[:-1]
            or edges[-1] != p.n_neurons
            or any(x.core < 0 or x.stop <= x.start for x in pieces)
        ):
            raise EvaluationError(
                "NM501",
                p.name,
                f"the placement does not cover its {p.n_neurons} neurons exactly once",
                "Export the model again",
            )
        found[p.name] = pieces
    return found


def _piece(raw: Any) -> Piece:
    values = [raw[k] for k in Piece._fields] if isinstance(raw, Mapping) else list(raw)
    return Piece(*(int(v) for v in values))


def _by_core(pieces: Sequence[Piece]) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.core, []).append(piece)
    return found


def reached(connection: Connection, n_source: int, pieces: Sequence[Piece]) -> NDArray[np.bool_]:
    """Which sources have at least one (stored) synapse into these pieces of the target, ``[n_source]``."""
    if connection.kind == "dense":
        return np.ones(n_source, bool)
    if connection.kind == "sparse":
        mask = np.zeros(n_source, bool)
        if connection.indices is not None:
            target, source = connection.indices
            for piece in pieces:
                first, last = np.searchsorted(target, [piece.start, piece.stop])
                mask[source[first:last]] = True
        return mask
    return _reached_conv(connection, pieces)


def _reached_conv(c: Connection, pieces: Sequence[Piece]) -> NDArray[np.bool_]:
    if c.in_shape is None or c.out_shape is None:
        raise EvaluationError(
            "NM501", c.name, "a convolution without shapes cannot be counted", "Export the model again"
        )
    c_out, h_out, w_out = c.out_shape
    inside = np.zeros(c_out * h_out * w_out, bool)
    for piece in pieces:
        inside[piece.start : piece.stop] = True
    windows = np.logical_or.reduce(inside.reshape(c.groups, c_out // c.groups, h_out, w_out), axis=1)
    axes = [
        taps(
            c.in_shape[a + 1],
            c.out_shape[a + 1],
            c.weights.shape[a + 2],
            c.stride[a],
            c.padding[a],
            c.dilation[a],
        ).any(axis=0)
        for a in (0, 1)
    ]
    mask = np.zeros((c.groups, *c.in_shape[1:]), bool)
    for g in np.flatnonzero(windows.reshape(c.groups, -1).any(axis=1)):
        mask[g] = (
            axes[0].T.astype(np.float32) @ windows[g].astype(np.float32) @ axes[1].astype(np.float32) > 0
        )
    return np.repeat(mask, c.in_shape[0] // c.groups, axis=0).reshape(-1)


@dataclass(frozen=True)
class Grid:
    """Where cores sit: ``cores`` per chip in tiles of ``per_tile``, tiles row by row, ``x`` columns and ``y`` rows."""

    cores: int
    per_tile: int
    x: int
    y: int

    def hops(self, sources: I64, target: int) -> tuple[I64, I64, NDArray[np.bool_]]:
        """East-west and north-south hops from each core to ``target``, and which routes leave the chip (hops 0)."""
        inside = sources // self.cores == target // self.cores
        a, b = sources % self.cores // self.per_tile, target % self.cores // self.per_tile
        return np.abs(a % self.x - b % self.x) * inside, np.abs(a // self.x - b // self.x) * inside, ~inside

    def tiles(self, cores: set[int]) -> int:
        """How many tiles these cores occupy."""
        return len({core // self.per_tile for core in cores})

    @property
    def mean_hops(self) -> tuple[float, float]:
        """Between two uniformly random tiles: ``(n**2 - 1) / 3 n`` per axis."""
        return (self.x**2 - 1) / (3 * self.x), (self.y**2 - 1) / (3 * self.y)


def grid(spec: TargetSpec) -> Grid | None:
    """The target's grid, or None if it is not published."""
    keys = ("chip.cores", "chip.cores_per_tile", "chip.tiles_x", "chip.tiles_y")
    return Grid(*(int(spec.number(k)) for k in keys)) if all(spec.has(k) for k in keys) else None


def traffic(program: Program, counts: RunCounts, spec: TargetSpec) -> Traffic:
    """Messages and hops of a run, by placement or as bounds."""
    where, mesh = placement(program), grid(spec)
    sums = {p.name: np.zeros((len(COUNTS), len(BOUNDS))) for p in program.populations}
    for name, events in counts.events.items():
        outgoing = [c for c in program.connections if c.source == name]
        totals = events.sum(axis=0)
        if where is not None and outgoing:
            _placed(sums, outgoing, totals, where, mesh)
        elif outgoing:
            _unplaced(sums, outgoing, totals, counts, spec)
    known = {
        "messages": True,
        "hops_ew": mesh is not None,
        "hops_ns": mesh is not None,
        "interchip_messages": where is not None and mesh is not None,
    }
    per_layer = {
        name: {
            k: {bound: float(rows[i, j]) if known[k] else None for j, bound in enumerate(BOUNDS)}
            for i, k in enumerate(COUNTS)
        }
        for name, rows in sums.items()
    }
    return Traffic(per_layer, where is not None)


def _placed(
    sums: dict[str, NDArray[np.float64]],
    outgoing: list[Connection],
    totals: I64,
    where: Placement,
    mesh: Grid | None,
) -> None:
    """Add one source's messages. Input lines sit on no core: their messages cost no hop."""
    masks: dict[int, NDArray[np.bool_]] = {}
    homes = where.get(outgoing[0].source, (Piece(-1, 0, totals.size),))
    starts, cores = np.array([h.start for h in homes]), np.array([h.core for h in homes])
    for c in outgoing:
        for core, pieces in _by_core(where[c.target]).items():
            seen = masks.setdefault(core, np.zeros(totals.size, bool))
            fresh = reached(c, totals.size, pieces) & ~seen
            seen |= fresh
            sent = np.add.reduceat(np.where(fresh, totals, 0), starts)
            added = [int(sent.sum()), 0, 0, 0]
            if mesh is not None and homes[0].core >= 0:
                added[1:] = [int((sent * n).sum()) for n in mesh.hops(cores, core)]
            sums[c.target] += np.array(added)[:, None]


def _unplaced(
    sums: dict[str, NDArray[np.float64]],
    outgoing: list[Connection],
    totals: I64,
    counts: RunCounts,
    spec: TargetSpec,
) -> None:
    """Bounds without a placement.

    low: one message per spike with a target, no hop. nominal: one per core that the target population's
    compartments fill, tiles uniformly random. high: one per target, at most one per core of a chip, across the grid.
    """
    cores = int(spec.number("chip.cores")) if spec.has("chip.cores") else None
    per_core = _per_core(spec)
    mesh = grid(spec)
    mean, far = (mesh.mean_hops, (mesh.x - 1, mesh.y - 1)) if mesh else ((0.0, 0.0), (0, 0))
    sizes = {layer.name: layer.n_neurons for layer in counts.layers}
    told = np.zeros(totals.size, bool)
    for c in outgoing:
        f = counts.fan_outs[c.name].stored
        low = int(totals[(f > 0) & ~told].sum())
        told |= f > 0
        filled = sizes[c.target] if per_core is None else -(-sizes[c.target] // per_core)
        nominal = int(totals @ np.minimum(f, filled))
        high = int(totals @ (f if cores is None else np.minimum(f, max(cores, filled))))
        hops = [(0.0, nominal * mean[axis], high * far[axis]) for axis in (0, 1)]
        sums[c.target][:3] += np.array([(low, nominal, high), *hops])


def _per_core(spec: TargetSpec) -> int | None:
    return int(spec.number("core.max_compartments")) if spec.has("core.max_compartments") else None


def loads(program: Program, counts: RunCounts) -> list[dict[str, Any]]:
    """What one inference asks of each core: a list of distinct loads, each with how many cores have it.

    Updates, spikes and SynOps that arrive in time (means over samples) are shared out by the number of neurons.
    Empty without a placement.
    """
    where = placement(program) or {}
    cores: dict[int, dict[str, float]] = {}
    for layer in counts.layers if where else ():
        work = _work(layer, counts)
        for piece in where[layer.name]:
            load = cores.setdefault(piece.core, {})
            for key, value in work.items():
                load[key] = load.get(key, 0.0) + value * (piece.stop - piece.start) / layer.n_neurons
    distinct: dict[tuple[tuple[str, float], ...], int] = {}
    for load in cores.values():
        same = tuple(sorted(load.items()))
        distinct[same] = distinct.get(same, 0) + 1
    return [{"cores": n, **dict(load)} for load, n in distinct.items()]


def _work(layer: LayerCounts, counts: RunCounts) -> dict[str, float]:
    b = counts.n_samples
    active = layer.spikes if layer.active is None else layer.active
    sent = {kind: int(v.sum()) for kind, v in layer.stored.items()}
    late = 0 if layer.undelivered is None else int(layer.undelivered.sum())
    in_time = 1 - late / max(sum(sent.values()), 1)
    return {
        "updates": float(layer.n_neurons * counts.n_steps),
        "active": int(active.sum()) / b,
        "spikes": int(layer.spikes.sum()) / b,
        **{f"synops_{kind}": v * in_time / b for kind, v in sent.items() if v},
    }


def used(program: Program, spec: TargetSpec) -> dict[str, int | None]:
    """Cores, tiles and chips in use; None without a placement or where the target does not publish its grid."""
    where, mesh = placement(program), grid(spec)
    if where is None:
        return {"cores": None, "tiles": None, "chips": None}
    cores = {piece.core for pieces in where.values() for piece in pieces}
    per_chip = int(spec.number("chip.cores")) if spec.has("chip.cores") else None
    chips = len({core // per_chip for core in cores}) if per_chip else None
    return {"cores": len(cores), "tiles": mesh.tiles(cores) if mesh else None, "chips": chips}
