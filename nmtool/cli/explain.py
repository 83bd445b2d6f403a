"""``nmtool explain``: what an error code means."""

from __future__ import annotations

from typing import Annotated

import typer

from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb
from nmtool.errors import CODES, ConfigError, Diagnostic, FindingsError, did_you_mean


@verb("explain", "nmtool explain NM203", "nmtool explain NM203 --json")
def explain(
    ui: Ui,
    code: Annotated[str, typer.Argument(metavar="CODE", help="A code from a message, such as NM203.")],
) -> None:
    """Say what the code of a message means."""
    name = code.upper().strip("[]")
    if name not in CODES:
        raise ConfigError("NM005", code, "no such code", did_you_mean(name, CODES))
    exit_code = FindingsError([Diagnostic(name, "", "")]).exit_code
    document = {"code": name, "meaning": CODES[name], "exit_code": exit_code}
    ui.result(
        document, f"{name}  {CODES[name]}\n       An error of this kind ends with exit code {exit_code}."
    )
