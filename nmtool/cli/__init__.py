"""The command line: one module per verb. Nothing here imports torch before a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from nmtool import __version__
from nmtool.cli import doctor, explain, lava, models, targets
from nmtool.errors import EXIT_OK

# typer brings its own copy of click in newer releases; the base of its public class is right in both.
_ClickError = typer.BadParameter.__mro__[2]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: nmtool demo",
)

for module in (targets, models, lava, doctor, explain):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"nmtool {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train robust spiking networks, deploy them on Loihi-class chips, and prove what arrived."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code (0 done, 1 the answer is no, 2 usage, 3..5 and 70: errors)."""
    try:
        code = app(args=argv, prog_name="nmtool", standalone_mode=False)
    except _ClickError as e:
        return _usage_error(e)
    return code if isinstance(code, int) else EXIT_OK
