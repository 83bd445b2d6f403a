"""Arguments and options that several verbs share, each with one wording."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmtool.cli.ui import Ui

if TYPE_CHECKING:
    from nmtool.api import Model as OpenModel

_INPUT, RUN, _COMPILE = "What to run it on", "How to run it", "How to compile it"

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A .nir file, a lava-dl .net file, a run directory, or an exported target directory.",
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="NAME",
        help="Chip: a name from 'nmtool targets list', or a .toml file. "
        "Default: that of an exported directory, else loihi.",
        show_default=False,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="LOSS",
        help="Accept a lossy step that an error named; may be repeated.",
        show_default=False,
        rich_help_panel=_COMPILE,
    ),
]
WeightBits = Annotated[
    int, typer.Option("--weight-bits", min=1, max=8, help="Bits per weight.", rich_help_panel=_COMPILE)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the recipe; may be repeated.", show_default=False
    ),
]
Backend = Annotated[str, typer.Option("--backend", "-b", metavar="NAME", help="float, sim or lava.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help="Test samples of this data set (digits, mnist, or an .npz file). Default: what it was trained on.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
Spikes = Annotated[
    Path | None,
    typer.Option(
        "--spikes",
        metavar="FILE",
        help="An .npz with 'spikes' uint8 [T, B, ...], optional 'labels' and 'dt_s'.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--n",
        "-n",
        min=1,
        metavar="N",
        help="Only the first N samples.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Folder of the data sets that do not ship with nmtool.",
        envvar="NMTOOL_DATA",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
SavedRun = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Price this run (of 'nmtool run --out') instead of running.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="Prices to use; may be repeated. Default: all.",
        show_default=False,
    ),
]
StepTime = Annotated[
    float | None,
    typer.Option(
        "--step-time",
        metavar="SECONDS",
        min=0,
        help="Measured duration of a step, for static power.",
        show_default=False,
    ),
]
Record = Annotated[
    list[str] | None,
    typer.Option(
        "--record",
        metavar="LAYER",
        help="Trace a layer, or 'all'; needs --out. May be repeated.",
        show_default=False,
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, help="Of noise and stochastic encoders.", rich_help_panel=RUN),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        metavar="T",
        help="Time steps. Default: the model's own.",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch", min=1, help="Samples computed together; changes no result.", rich_help_panel=RUN),
]
Noise = Annotated[
    bool, typer.Option("--noise/--no-noise", help="With the network's own noise.", rich_help_panel=RUN)
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="An overflow is an error instead of a warning.", rich_help_panel=RUN),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="PATH", help="Where to write.", show_default=False),
]


def opened(model: Path, target: str | None, weight_bits: int, allow: list[str] | None) -> OpenModel:
    """The model with the user's choices."""
    from nmtool import api

    options = api.CompileOptions(weight_bits=weight_bits, allow=frozenset(allow or ()))
    return api.open_model(model, target, options)


def warn_about_run(ui: Ui, record: Mapping[str, Any]) -> None:
    """What a run survived, on stderr."""
    for name, counts in record["overflow"].items():
        found = ", ".join(f"{n} times {what.replace('_', ' ')}" for what, n in counts.items())
        ui.warn(f"warning[NM401] {name}: {found}, as the chip does. Use --strict to make this an error.")
    for failure in record["failures"]:
        ui.warn(
            f"warning[NM403] sample {failure['sample']}: not finished, counted as zeros ({failure['error']})."
        )
