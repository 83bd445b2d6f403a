"""``nmtool robustness-report``: how robust a network is, float and as deployed."""

from __future__ import annotations

from typing import Annotated

import typer

from nmtool.cli import options as o
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb
from nmtool.errors import ConfigError

Attacked = Annotated[
    str,
    typer.Option("--backend", "-b", metavar="NAME", help="float, or sim: float and deployed side by side."),
]
Suite = Annotated[
    str,
    typer.Option("--suite", metavar="NAME", help="Which attacks: quick, or standard (stronger, far slower)."),
]
Eps = Annotated[
    list[str] | None,
    typer.Option(
        "--eps",
        metavar="E",
        help="Largest change of an input value, such as 0.1 or 8/255; may be repeated. "
        "Default: 5, 10 and 20 % of its range.",
        show_default=False,
    ),
]
Together = Annotated[
    int,
    typer.Option(
        "--batch", min=1, help="Samples attacked together; random starts depend on it.", rich_help_panel=o.RUN
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an interruption left in --out.")]


@verb(
    "robustness-report",
    "nmtool robustness-report runs/demo --suite standard --out runs/demo",
    "nmtool robustness-report runs/demo --eps 0.05 --eps 8/255 -n 100",
    "nmtool robustness-report net.nir --backend float --data mnist --json",
)
def robustness_report(
    ui: Ui,
    model: o.Model,
    backend: Attacked = "sim",
    target: o.Target = None,
    suite: Suite = "quick",
    eps: Eps = None,
    data: o.Data = None,
    n: o.Count = None,
    data_root: o.DataRoot = None,
    seed: o.Seed = 0,
    batch: Together = 500,
    resume: Resume = False,
    out: o.Out = None,
    weight_bits: o.WeightBits = 8,
    allow: o.Allow = None,
    compiling: o.Compile = None,
    reading: o.Read = None,
) -> None:
    """Attack a network with gradients, and doubt the result. --out DIR gets robustness.json and a page."""
    from nmtool import api
    from nmtool.report.text import render

    if resume and out is None:
        raise ConfigError("NM004", "--resume", "needs the folder to go on in", "Add --out DIR")
    record = api.robustness_report(
        o.opened(model, o.Choices(target, weight_bits, allow, compiling, reading)),
        backend,
        api.Inputs(data, None, n, data_root),
        api.AttackOptions(suite, _budgets(eps), seed, batch, resume),
        out,
        ui.watch,
    )
    ui.result(record, render(record))


def _budgets(texts: list[str] | None) -> tuple[float, ...] | None:
    """``0.1`` and ``8/255`` as numbers."""
    budgets = []
    for text in texts or ():
        number, _, of = text.partition("/")
        try:
            budgets.append(float(number) / float(of or 1))
        except (ValueError, ZeroDivisionError) as e:
            raise ConfigError("NM004", "--eps", f"is '{text}', not a number", "Examples: 0.1, 8/255") from e
    return tuple(budgets) or None
