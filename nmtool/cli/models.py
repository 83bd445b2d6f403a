"""``nmtool models``: the recipes that ship with nmtool, and what each key of one means."""

from __future__ import annotations

from typing import Annotated

import typer

from nmtool.cli.options import Overrides
from nmtool.cli.ui import Ui, table
from nmtool.cli.verbs import verb


@verb("list", "nmtool models list", "nmtool models list --json")
def list_models(ui: Ui) -> None:
    """List the recipes by name."""
    from nmtool import resources
    from nmtool.config import load_recipe

    rows = [(path.stem, load_recipe(path).summary) for path in resources.listing("models")]
    document = {"models": [{"name": name, "summary": text} for name, text in rows]}
    ui.result(document, table("", ("recipe", "summary"), rows))


@verb("show", "nmtool models show digits-tgo", "nmtool models show mine.toml --set train.epochs=5")
def show_model(
    ui: Ui,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a recipe, or a .toml file.")],
    overrides: Overrides = None,
) -> None:
    """Print every key of a recipe: its value, what is allowed, and what it means."""
    from nmtool.config import explain, load_recipe

    recipe = load_recipe(name, tuple(overrides or ()))
    keys = explain(recipe)
    document = {"name": recipe.name, "sha256": recipe.sha256, "keys": [key._asdict() for key in keys]}
    rows = [(k.path, "off" if k.value is None else k.value, k.allowed, k.description) for k in keys]
    ui.result(
        document, table(f"{recipe.name}: {recipe.summary}", ("key", "value", "allowed", "meaning"), rows)
    )
