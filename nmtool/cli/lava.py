"""``nmtool lava``: the environment in which real Lava runs."""

from __future__ import annotations

from typing import Annotated

import typer

from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb
from nmtool.errors import EXIT_NO, EXIT_OK


@verb("install", "nmtool lava install", "nmtool lava install --python python3.10")
def install(
    ui: Ui,
    python: Annotated[
        str | None,
        typer.Option(
            "--python", metavar="PATH", help="A Python 3.10. Default: look for one.", show_default=False
        ),
    ] = None,
    with_lava_dl: Annotated[
        bool, typer.Option("--with-lava-dl", help="Also lava-dl and its torch (several GB).")
    ] = False,
    recordings: Annotated[
        bool,
        typer.Option("--recordings", help="Also lava-dl's published recordings, for the tests (68 MB)."),
    ] = False,
) -> int:
    """Install Lava into an environment of its own. Does nothing if it is there."""
    from nmtool import lava_env

    lava_env.install(python, with_lava_dl, ui.announce)
    if recordings:
        lava_env.install_recordings(progress=ui.announce)
    return _show(ui)


@verb("status", "nmtool lava status", "nmtool lava status --json")
def status(ui: Ui) -> int:
    """Say whether Lava is installed, and where. Ends with 1 if it is not."""
    return _show(ui)


def _show(ui: Ui) -> int:
    from nmtool import lava_env

    status = lava_env.status()
    ui.result(status, *(f"{key}: {value}" for key, value in status.items() if value is not None))
    return EXIT_OK if status["installed"] else EXIT_NO
