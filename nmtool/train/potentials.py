"""Membrane potentials of a trained network, for figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from nmtool.train.checkpoint import load_run


class Potential(NamedTuple):
    """One layer: potentials before the threshold test, float32 ``[T, B, ...]``, threshold, half-width of the window."""

    name: str
    v_pre: NDArray[Any]
    v_th: float
    half_window: float


def potentials(run_dir: Path, x: NDArray[Any]) -> list[Potential]:
    """Potentials of every spiking layer of a run on ``x`` ``[B, *shape]``, noise on, drawn from the recipe's seed.

    Raises:
        ConfigError: NM008, NM009 if the run directory is not whole.
    """
    recipe, net = load_run(run_dir)
    with torch.no_grad():
        traces = net(torch.tensor(x, dtype=torch.float32), torch.Generator().manual_seed(recipe.seed)).traces
    return [
        Potential(t.name, t.v_pre.numpy(), float(t.theta), t.surrogate.window) for t in traces if t.spiking
    ]
