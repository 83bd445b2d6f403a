"""Small NIR graphs for compiler tests."""

from typing import Any

import nir
import numpy as np

from nmtool.ir.graph import Graph, from_nir

DT_S = 1e-3
F = np.float64


def lif(shape: tuple[int, ...], beta: float = 0.7, v_th: float = 1.0, v_reset: float = 0.0) -> nir.LIF:
    """A LIF whose step is V = beta U + I."""
    one = np.ones(shape)
    return nir.LIF(one * DT_S / (1 - beta), one / (1 - beta), 0 * one, v_th * one, v_reset * one)


def cuba(shape: tuple[int, ...], beta_syn: float = 0.5, beta: float = 0.7) -> nir.CubaLIF:
    """A current-based LIF with i = beta_syn i + x and V = beta U + i."""
    one = np.ones(shape)
    return nir.CubaLIF(
        one * DT_S / (1 - beta_syn),
        one * DT_S / (1 - beta),
        one / (1 - beta),
        0 * one,
        one,
        w_in=one / (1 - beta_syn),
    )


def chain(shape: tuple[int, ...], *ops: Any, extra: tuple[tuple[str, str], ...] = (), **named: Any) -> Graph:
    """Input, ``ops`` as n0, n1, ..., ``named`` nodes, output; ``extra`` edges beside the chain."""
    nodes = {"in": nir.Input({"input": np.array(shape)})} | {f"n{i}": op for i, op in enumerate(ops)}
    names = [*nodes, "out"]
    nodes["out"] = nir.Output({"output": np.array(_neurons(ops[-1]))})
    edges = [*zip(names[:-1], names[1:], strict=True), *extra]
    return from_nir(nir.NIRGraph(nodes | named, edges, type_check=False), DT_S)


def _neurons(op: Any) -> tuple[int, ...]:
    return np.shape(op.v_threshold if hasattr(op, "v_threshold") else op.v_leak)
