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
from nmtool.cli.verbs import Verb, attach
from nmtool.errors import EXIT_OK, EXIT_USAGE, ConfigError

VERBS: dict[str, tuple[Verb, ...]] = {
    "Pipeline": (demo.demo, train.train, export.export, check.check, run.run),
    "Evaluate": (verify.verify, robustness_report.robustness_report, energy_report.energy_report),
    "Look up": (explain.explain,),
    "Set up": (doctor.doctor,),
}
"""Heading in ``--help``, and the verbs under it."""

GROUPS: dict[str, tuple[str, str, tuple[Verb, ...]]] = {
    "targets": (
        "Look up",
        "Chips, and what is known about them.",
        (targets.list_targets, targets.show_target),
    ),
    "models": ("Look up", "Training recipes, and their keys.", (models.list_models, models.show_model)),
    "lava": ("Set up", "The environment in which real Lava runs.", (lava.install, lava.status)),
}
"""Verbs with verbs of their own: heading, one line for ``--help``, and those."""

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
for _panel, _verbs in VERBS.items():
    for _verb in _verbs:
        attach(app, _verb, _panel)
for _name, (_panel, _text, _verbs) in GROUPS.items():
    _group = typer.Typer(no_args_is_help=True)
    app.add_typer(_group, name=_name, help=_text, rich_help_panel=_panel)
    for _verb in _verbs:
        attach(_group, _verb)


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
