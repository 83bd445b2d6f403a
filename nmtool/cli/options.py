"""Arguments and options that several verbs share, with one wording each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

_INPUT, _RUN = "Input", "Run"

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A .nir file, a lava-dl .net file, a run directory, or an exported target directory.",
        show_default=False,
    ),
]
Target = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--target", "-t", help="Target chip: a name from 'nmtool targets list', or a .toml file."),
]
