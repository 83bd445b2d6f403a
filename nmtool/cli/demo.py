"""``nmtool demo``: the whole chain on handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmtool.cli import options as o
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb


@verb("demo", "nmtool demo", "nmtool demo --quick --out runs/quick")
def demo(
    ui: Ui,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")] = Path(
        "runs/demo"
    ),
    target: o.Target = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short training, few samples: does it work at all?")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Of training. Default: the recipe's.", show_default=False),
    ] = None,
) -> None:
    """Train on handwritten digits, deploy, attack again and price: everything once, in less than a minute."""
    from nmtool import api
    from nmtool.report.text import render

    done = api.demo(out, target or api.DEFAULT_TARGET, quick, seed, ui.watch)
    written = f"\n{done.folder}/: {', '.join(done.files)}"
    ui.result(done.summary, render(done.summary), written)
