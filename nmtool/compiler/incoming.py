"""Links into one population, quantised together because their sum enters one register."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.compiler.link import Link
from nmtool.compiler.program import Connection
from nmtool.errors import TargetError
from nmtool.quant import scheme
from nmtool.target import TargetSpec

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Incoming:
    """A link with the target's input gain and its grid.

    Attributes:
        link: the real map.
        gain: factor per row of ``link.base``, broadcastable to it.
        grid: integers that its weights may take.
        payload: largest value of one message: 1 for spikes.
        suffix: distinguishes the two halves of a sign split.
    """

    link: Link
    gain: F64
    grid: scheme.Grid
    payload: int = 1
    suffix: str = ""

    @property
    def effective(self) -> F64:
        """Weights in volts per unit of payload, in ``base`` layout."""
        w: F64 = self.link.base * (self.link.factor * self.gain)
        return w

    def row_sum(self) -> float:
        """Largest sum of absolute effective weights into one neuron, times the payload, in volts."""
        w = np.abs(self.link.expand(self.effective))
        if self.link.kind == "sparse":
            rows = self.link.indices[0] if self.link.indices is not None else np.zeros(0, np.int32)
            return float(np.bincount(rows, w).max(initial=0.0)) * self.payload
        return float(w.reshape(w.shape[0], -1).sum(axis=1).max(initial=0.0)) * self.payload


def rows_of(link: Link, gain: F64) -> F64:
    """Input gains ``[*shape]`` of a population, arranged along the rows of a link's ``base``.

    Raises:
        TargetError: NM205 if a convolution would need a gain per position.
    """
    if np.ptp(gain) <= 1e-12 * np.abs(gain).max(initial=0):
        return np.asarray(gain.flat[0])
    if link.kind == "dense":
        return gain.reshape(-1, 1)
    if link.kind == "sparse":
        return gain.ravel()[link.indices[0]] if link.indices is not None else gain.ravel()[:0]
    per_channel = gain.reshape(gain.shape[0], -1)
    if np.ptp(per_channel, axis=1).max() > 1e-12 * np.abs(gain).max():
        raise TargetError(
            "NM205",
            link.target,
            "input gains differ between positions behind a convolution",
            "Use one time constant per channel",
        )
    return per_channel[:, :1, None, None]


def arrange(
    links: tuple[Link, ...], gain: F64, payloads: tuple[int, ...], spec: TargetSpec, bits: int, split: bool
) -> tuple[Incoming, ...]:
    """Choose each link's grid; with ``split`` a mixed matrix becomes an excitatory and an inhibitory one."""
    limits = {
        k: int(spec.number(f"synapse.{k}"))
        for k in ("mixed_min", "mixed_max", "excitatory_max", "inhibitory_min")
    }
    result = []
    for link, payload in zip(links, payloads, strict=True):
        whole = Incoming(link, rows_of(link, gain), scheme.grid_for(link.base, bits, limits), payload)
        if not split and whole.grid.scale_limit(link.base) == 0:
            message = (
                f"{bits} bit with both signs leaves no positive weight ({spec.cite('synapse.mixed_max')})"
            )
            raise TargetError(
                "NM202",
                f"{link.source}->{link.target}",
                message,
                "Use more bits, or --compile sign_split=true",
            )
        if not split or whole.grid.sign_mode != "mixed":
            result.append(whole)
            continue
        for half, suffix in ((np.maximum(link.base, 0), "+"), (np.minimum(link.base, 0), "-")):
            result.append(
                replace(
                    whole,
                    link=replace(link, base=half),
                    suffix=suffix,
                    grid=scheme.grid_for(half, bits, limits),
                )
            )
    return tuple(result)


@dataclass(frozen=True)
class OnGrid:
    """Weights of one graph node as the chip holds them.

    Attributes:
        integers: int64, in the node's layout up to singleton axes.
        per_unit: integer counts per real unit, scalar or broadcastable to ``integers``.
        bits: of the grid.
    """

    integers: NDArray[np.int64]
    per_unit: F64
    bits: int

    @property
    def values(self) -> F64:
        """Real weights that lie on the grid."""
        w: F64 = self.integers / self.per_unit
        return w


def quantise(
    chip: tuple[Incoming, ...], scale: scheme.Scale
) -> tuple[tuple[Connection, ...], dict[str, OnGrid], list[dict[str, Any]]]:
    """Integers of all chip connections into one population.

    Returns:
        connections; the same integers per graph node whose weights they are; report rows.
    """
    connections: list[Connection] = []
    on_grid: dict[str, OnGrid] = {}
    rows: list[dict[str, Any]] = []
    for item, exponent in zip(chip, scale.weight_exps, strict=True):
        per_volt = scale.units_per_volt / scheme.UNIT / 2.0**exponent
        integers, clipped = item.grid.quantise(item.effective * per_volt)
        name = f"{item.link.source}->{item.link.target}{item.suffix}"
        name += (
            f"#{sum(c.name.startswith(name) for c in connections)}"
            if any(c.name == name for c in connections)
            else ""
        )
        connections.append(
            connection(item.link, name, item.link.expand(integers), exponent, item.grid, item.payload)
        )
        if item.link.node is not None:
            other_half = on_grid[item.link.node].integers if item.suffix == "-" else 0
            per_unit = np.asarray(per_volt * item.link.factor * item.gain)
            on_grid[item.link.node] = OnGrid(integers + np.int64(other_half), per_unit, item.grid.bits)
        rows.append(
            {
                "connection": name,
                "on": "chip",
                "weight_bits": item.grid.bits,
                "sign_mode": item.grid.sign_mode,
                "weight_exp": exponent,
                "clipped_share": clipped / max(integers.size, 1),
                **scheme.error_report(item.effective, integers, per_volt),
            }
        )
    return tuple(connections), on_grid, rows


def connection(
    link: Link, name: str, weights: NDArray[Any], exponent: int, grid: scheme.Grid, payload: int
) -> Connection:
    """The program's connection for a quantised link; message bits hold the payload, 0 for spikes."""
    conv = (
        {k: getattr(link, k) for k in ("stride", "padding", "dilation", "groups")}
        if link.kind == "conv"
        else {}
    )
    if link.kind == "conv":
        conv |= {"in_shape": link.in_shape, "out_shape": link.map_shape}
    order = (
        np.arange(weights.size) if link.indices is None else np.lexsort((link.indices[1], link.indices[0]))
    )
    sparse = link.kind == "sparse"
    delay = link.delay_steps[order] if sparse and link.delay_steps.ndim else link.delay_steps
    return Connection(
        name,
        link.source,
        link.target,
        link.kind,  # type: ignore[arg-type]
        np.ascontiguousarray(weights[order] if sparse else weights, np.int32),
        exponent,
        grid.bits,
        grid.sign_mode,
        0 if payload == 1 else int(payload).bit_length(),
        np.asarray(delay, np.int32),
        np.ascontiguousarray(link.indices[:, order]) if sparse and link.indices is not None else None,
        **conv,
    )
