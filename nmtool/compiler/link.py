"""One linear map between two populations: weights, geometry, delays, and how it expands into synapses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from nmtool.errors import TargetError

F64 = NDArray[np.float64]
Pair = tuple[int, int]
MAX_SYNAPSES = 50_000_000


@dataclass(frozen=True)
class Link:
    """One linear map from a population (or the input) to a population, in real numbers.

    Attributes:
        base: weights to quantise: ``dense`` ``[n_out, n_in]``, ``conv`` ``[C_out, C_in / g, kH, kW]``,
            ``sparse`` ``[nnz]``.
        factor: the map is ``factor * expand(base)``, with non-negative integer-preserving ``expand``.
        expand: from ``base`` (real or integer) to the connection's weights.
        node: the graph node whose weights ``base`` is, or None after a composition.
        delay_steps: NIR delays on the way, own time; scalar or ``[n_out, n_in]``.
        path: names of the nodes on the way.
        in_shape: of the source, ``(C, H, W)`` for a convolution.
        out_shape: of what leaves the last node so far.
        map_shape: ``(C, H, W)`` of a convolution's result, before anything reshaped it.
        pooled: a pooling without overlap and nothing else, which folds into the next layer.
    """

    source: str
    target: str
    kind: Literal["identity", "dense", "sparse", "conv"]
    base: F64
    factor: float = 1.0
    expand: Callable[[NDArray[Any]], NDArray[Any]] = lambda w: w
    node: str | None = None
    delay_steps: NDArray[np.int32] = field(default_factory=lambda: np.zeros((), np.int32))
    path: tuple[str, ...] = ()
    indices: NDArray[np.int32] | None = None
    in_shape: tuple[int, ...] = ()
    out_shape: tuple[int, ...] = ()
    map_shape: tuple[int, int, int] = (0, 0, 0)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pooled: bool = False

    @property
    def weights(self) -> F64:
        """Real weights of the connection."""
        w: F64 = self.factor * self.expand(self.base)
        return w

    def matrix(self) -> sp.csr_matrix:
        """The map as a sparse ``[n_out, n_in]`` matrix."""
        n_out, n_in = int(np.prod(self.out_shape)), int(np.prod(self.in_shape))
        if self.kind == "identity":
            return sp.identity(n_in, format="csr") * self.factor
        if self.kind == "dense":
            return sp.csr_matrix(self.weights)
        if self.kind == "sparse":
            indices = self.indices if self.indices is not None else np.zeros((2, 0), np.int32)
            return sp.csr_matrix((self.weights, (indices[0], indices[1])), shape=(n_out, n_in))
        return conv_matrix(self)


def conv_matrix(link: Link) -> sp.csr_matrix:
    """Every synapse of a convolution, border-exact.

    Raises:
        TargetError: NM205 if that were more than 50 million.
    """
    w = link.weights
    _, h_in, w_in = link.in_shape
    c_out, h_out, w_out = link.map_shape
    _, per_group, kh, kw = w.shape
    if c_out * h_out * w_out * per_group * kh * kw > MAX_SYNAPSES:
        raise too_many(link)
    co, ci, ky, kx = (a.ravel() for a in np.indices(w.shape))
    oy, ox = (a.ravel() for a in np.indices((h_out, w_out)))
    y = oy[None] * link.stride[0] - link.padding[0] + ky[:, None] * link.dilation[0]
    x = ox[None] * link.stride[1] - link.padding[1] + kx[:, None] * link.dilation[1]
    inside = (y >= 0) & (y < h_in) & (x >= 0) & (x < w_in)
    channel = (co // (c_out // link.groups)) * per_group + ci
    rows = (co[:, None] * h_out + oy[None]) * w_out + ox[None]
    cols = (channel[:, None] * h_in + y) * w_in + x
    values = np.broadcast_to(w.reshape(-1, 1), inside.shape)
    shape = (c_out * h_out * w_out, int(np.prod(link.in_shape)))
    return sp.csr_matrix((values[inside], (rows[inside], cols[inside])), shape=shape)


def too_many(link: Link) -> TargetError:
    """The error for a composition that would have to be written out synapse by synapse."""
    return TargetError(
        "NM205",
        " > ".join(link.path),
        f"this composition of linear layers has more than {MAX_SYNAPSES} synapses",
        "Put a neuron between the layers",
    )
