"""Arguments and options that several verbs share, each with one wording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmtool.cli.ui import Ui
from nmtool.errors import ConfigError, did_you_mean

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
Compile = Annotated[
    list[str] | None,
    typer.Option(
        "--compile",
        metavar="KEY=VALUE",
        help="sign_split=true, noise_model=irwin_hall, noise_draws=4, input_bits=4; may be repeated.",
        show_default=False,
        rich_help_panel=_COMPILE,
    ),
]
Read = Annotated[
    list[str] | None,
    typer.Option(
        "--read",
        metavar="KEY=VALUE",
        help="How the file is read: dt_s=1e-4 or scheme=exponential (.nir), layers=5 (.net); may be repeated.",
        show_default=False,
        rich_help_panel=_COMPILE,
    ),
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


@dataclass(frozen=True)
class Choices:
    """What the user said about reading and compiling a model."""

    target: str | None = None
    weight_bits: int = 8
    allow: list[str] | None = None
    compiling: list[str] | None = None
    reading: list[str] | None = None


def opened(model: Path, choices: Choices) -> OpenModel:
    """The model with the user's choices.

    Raises:
        ConfigError: NM003 for a key that does not exist, NM004 or NM005 for a value that is not allowed.
    """
    from nmtool import api

    said = pairs("--compile", choices.compiling, _COMPILE_KEYS)
    allow = frozenset(choices.allow or ())
    options = api.CompileOptions(weight_bits=choices.weight_bits, allow=allow, **said)
    reading = api.ReadOptions(**pairs("--read", choices.reading, _READ_KEYS))
    return api.open_model(model, choices.target, options, reading)


def pairs(option: str, given: list[str] | None, keys: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as values.

    Raises:
        ConfigError: NM003 for an unknown key, NM004 for a value of the wrong kind.
    """
    found = {}
    for text in given or ():
        key, _, value = text.partition("=")
        if key not in keys:
            raise ConfigError("NM003", option, f"there is no key '{key}'", did_you_mean(key, keys))
        try:
            found[key] = keys[key](value)
        except ValueError as e:
            raise ConfigError(
                "NM004", f"{option} {key}", f"is '{value}'", "Give a number, true or false"
            ) from e
    return found


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


_COMPILE_KEYS: dict[str, Callable[[str], Any]] = {
    "sign_split": _flag,
    "noise_model": str,
    "noise_draws": int,
    "input_bits": int,
}
_READ_KEYS: dict[str, Callable[[str], Any]] = {"dt_s": float, "scheme": str, "layers": int}


def warn_about_run(ui: Ui, record: Mapping[str, Any]) -> None:
    """What a run survived, on stderr."""
    for name, counts in record["overflow"].items():
        found = ", ".join(f"{n} times {what.replace('_', ' ')}" for what, n in counts.items())
        ui.warn(f"warning[NM401] {name}: {found}, as the chip does. Use --strict to make this an error.")
    for failure in record["failures"]:
        ui.warn(
            f"warning[NM403] sample {failure['sample']}: not finished, counted as zeros ({failure['error']})."
        )
