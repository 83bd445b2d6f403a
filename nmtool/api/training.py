"""Train a recipe and export the network to NIR."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmtool import provenance
from nmtool.api.models import MODEL_FILE
from nmtool.api.progress import Watch, silent
from nmtool.api.threads import threads_for

if TYPE_CHECKING:
    from nmtool.config import Recipe
    from nmtool.data.datasets import DataSpec

TRAIN_RECORD = "run.json"


@dataclass(frozen=True)
class Trained:
    """A run directory, and what training says about it (``run.json``)."""

    folder: Path
    record: Mapping[str, Any]


def train(
    recipe: str | Path,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    data_root: Path | None = None,
    watch: Watch = silent,
) -> Trained:
    """Train a recipe and export the network to NIR.

    Args:
        recipe: name of a recipe that ships with nmtool, or a TOML file.
        out: run directory; default ``runs/<name of the recipe>``.
        overrides: ``key=value`` each, over the recipe.
        resume: go on from the checkpoint in ``out``.
        data_root: folder of the data sets that do not ship with nmtool.
        watch: progress.

    Raises:
        ConfigError: NM001 to NM009 for recipe, data, output folder or checkpoint.
        SimulationError: NM405 if training left the finite numbers.
        ModelError: NM107 if the network cannot be exported without loss.
    """
    from nmtool.config import load_recipe
    from nmtool.data import datasets
    from nmtool.frontends import snntorch
    from nmtool.train import loop

    wanted = load_recipe(recipe, tuple(overrides))
    data = datasets.load(wanted.data.name, data_root)
    folder = Path(out) if out is not None else Path("runs") / wanted.name
    provenance.claim_folder(folder)
    tick = watch(f"training {wanted.name}")

    def progress(done: int, total: int, row: Mapping[str, Any]) -> None:
        if done == 1:  # a network of an earlier run belongs to weights that are gone now
            (folder / MODEL_FILE).unlink(missing_ok=True)
        tick(done, total)

    with threads_for(_synapses(wanted, data.spec)):
        result = loop.train(wanted, data, folder, progress, resume=resume)
    snntorch.save(result.net.layers, data.spec.shape, result.net.model, folder / MODEL_FILE)
    return Trained(folder, json.loads((folder / TRAIN_RECORD).read_text(encoding="utf-8")))


def _synapses(recipe: Recipe, data: DataSpec) -> float:
    """Synapses of a dense network; a convolution counts as large."""
    if recipe.network.kind != "mlp":
        return inf
    widths = (prod(data.shape), *recipe.network.hidden, len(data.class_labels))
    return sum(a * b for a, b in pairwise(widths))
