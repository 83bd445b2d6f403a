"""``nmtool train``: a recipe in, a run directory with a NIR network out."""

from __future__ import annotations

from typing import Annotated

import typer

from nmtool.cli import options as o
from nmtool.cli.show import percent
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb


@verb(
    "train",
    "nmtool train digits-tgo --out runs/mine",
    "nmtool train models/digits-tgo.toml --set train.epochs=5 --set seed=1",
    "nmtool train runs/mine/recipe.toml --out runs/mine --resume",
)
def train(
    ui: Ui,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A .toml file, or a name from 'nmtool models list'.",
            show_default=False,
        ),
    ],
    out: o.Out = None,
    overrides: o.Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    data_root: o.DataRoot = None,
) -> None:
    """Train a recipe and export the network to NIR."""
    from nmtool import api

    done = api.train(recipe, out, tuple(overrides or ()), resume, data_root, ui.watch)
    document = {"folder": str(done.folder), **done.record}
    score = done.record["accuracy"]
    text = f"test accuracy {percent(score['noise_on'])} with its noise, {percent(score['noise_off'])} without"
    ui.result(document, f"{done.folder}: {done.record['epochs']} epochs, {text}")
