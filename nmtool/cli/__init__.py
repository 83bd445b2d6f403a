"""The command line: one module per verb. Nothing here imports torch before a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from nmtool import __version__
from nmtool.cli import (
    check,
    demo,
    doctor,
    energy_report,
    explain,
    export,
    lava,
    models,
    robustness_report,
    run,
    targets,
    train,
    verify,
)
from nmtool.errors import EXIT_OK, EXIT_USAGE, ConfigError

_VERBS = (
    demo,
    train,
    export,
    check,
    run,
    verify,
    robustness_report,
    energy_report,
    targets,
    models,
    explain,
    lava,
    doctor,
)

# typer brings its own click in newer releases and imports it in older ones: this is its ClickException in both.
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: nmtool demo",
)
for _module in _VERBS:
    _module.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"nmtool {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train robust spiking networks, deploy them on Loihi-class chips, and prove what arrived."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: what follows ``nmtool``; None takes that of the process.

    Returns:
        the exit code: 0 done, 1 the answer is no, 2 usage, 3 model or target, 4 backend, 5 run, 70 a bug.
    """
    try:
        code = app(args=argv, prog_name="nmtool", standalone_mode=False)
    except _ClickError as e:
        return _usage_error(e)
    return code if isinstance(code, int) else EXIT_OK


def _usage_error(error: Any) -> int:
    """What typer finds wrong with a command line, in the form of all other errors."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "nmtool"
    message = " ".join(error.format_message().split())
    hint = f"See '{where} --help'"
    if message:  # empty where the help was printed instead
        sys.stderr.write(f"{ConfigError('NM004', where, message, hint)}\n")
    return EXIT_USAGE
