"""How a function becomes a verb: options that every verb has, exit codes, and what an error looks like."""

from __future__ import annotations

import functools
import inspect
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from nmtool.cli.ui import Ui
from nmtool.errors import EXIT_BUG, EXIT_OK, NmtoolError

EXIT_INTERRUPTED = 130

Body = Callable[..., int | None]

_PANEL = "Everywhere"
_COMMON: dict[str, Any] = {
    "as_json": Annotated[
        bool, typer.Option("--json", help="Write one JSON document to stdout.", rich_help_panel=_PANEL)
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no warnings.", rich_help_panel=_PANEL)
    ],
    "verbose": Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Say what is being done, also without a terminal.", rich_help_panel=_PANEL
        ),
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a bug.", rich_help_panel=_PANEL)
    ],
}


@dataclass(frozen=True)
class Verb:
    """Something that the user can type.

    Attributes:
        name: the word.
        examples: command lines for the end of ``--help``.
        body: takes a :class:`Ui` first and its own options after it; returns its exit code, None for 0.
    """

    name: str
    examples: tuple[str, ...]
    body: Body


def verb(name: str, *examples: str) -> Callable[[Body], Verb]:
    """Make a function a :class:`Verb`."""
    return lambda body: Verb(name, examples, body)


def attach(app: typer.Typer, what: Verb, panel: str | None = None) -> None:
    """Give a verb to a command line or a group; ``panel`` is the heading under which ``--help`` lists it."""
    hints = typing.get_type_hints(what.body, include_extras=True)
    own = [
        p.replace(annotation=hints[p.name])
        for p in list(inspect.signature(what.body).parameters.values())[1:]
    ]
    common = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hint)
        for key, hint in _COMMON.items()
    ]

    @functools.wraps(what.body)
    def command(*, as_json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any) -> None:
        ui = Ui(as_json, quiet, verbose)
        raise typer.Exit(_run(what.body, ui, options, debug))

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + common
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    # Help renderers join lines, but keep paragraphs.
    epilog = "\n\n".join(("Examples:", *what.examples)) if what.examples else None
    app.command(what.name, epilog=epilog, rich_help_panel=panel)(command)


def _run(body: Body, ui: Ui, options: dict[str, Any], debug: bool) -> int:
    """Run a verb; every way in which it can end becomes an exit code."""
    with warnings.catch_warnings():
        if not (ui.verbose or debug):
            warnings.simplefilter("ignore")
        try:
            return body(ui, **options) or EXIT_OK
        except NmtoolError as e:
            ui.fail(e)
            return e.exit_code
        except KeyboardInterrupt:
            ui.close()
            ui.announce("interrupted")
            return EXIT_INTERRUPTED
        except (BrokenPipeError, typer.Exit):
            raise
        except Exception as e:
            ui.bug(e, show=debug)
            return EXIT_BUG
        finally:
            ui.close()
