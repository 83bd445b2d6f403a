"""What a verb may write: its result to stdout; progress, notes and errors to stderr."""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nmtool.errors import NmtoolError

PLAIN_WIDTH = 132
"""Columns of a table that goes to a file or a pipe."""


class Ui:
    """The streams of one call. Progress and notes vanish when stderr is no terminal.

    Args:
        as_json: the result is one JSON document.
        quiet: no progress, no notes, no warnings.
        verbose: notes also where stderr is no terminal.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose
        self._err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._out = Console(highlight=False, markup=False, width=width, soft_wrap=False)
        self._bars: Progress | None = None

    @property
    def live(self) -> bool:
        """Whether progress is shown."""
        return self._err.is_terminal and not self.quiet

    def watch(self, title: str) -> Callable[[int, int], None]:
        """A line of progress; call what is returned with (done, total)."""
        if not self.live:
            if self.verbose:
                self.note(title)
            return lambda done, total: None
        if self._bars is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bars = Progress(*columns, console=self._err, transient=True)
            self._bars.start()
        bars, task = self._bars, self._bars.add_task(title, total=None)

        def update(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        return update

    def note(self, text: str) -> None:
        """A line for the person who watches."""
        if self.verbose or self.live:
            self._err.print(text)

    def announce(self, text: str) -> None:
        """A line before something that takes minutes; shown also where stderr is no terminal."""
        if not self.quiet:
            self._err.print(text)

    def warn(self, text: object) -> None:
        """A finding that does not stop the work."""
        if not self.quiet:
            self._err.print(str(text))

    def close(self) -> None:
        """Take the progress lines away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def result(self, document: Mapping[str, Any], *parts: RenderableType) -> None:
        """The verb's only output: ``document`` with --json, else ``parts`` one under the other."""
        self.close()
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
            return
        for part in parts:
            with self._out.capture() as drawn:
                self._out.print(part)
            sys.stdout.writelines(f"{line.rstrip()}\n" for line in drawn.get().splitlines())
        sys.stdout.flush()

    def fail(self, error: NmtoolError) -> None:
        """A coded error."""
        self.close()
        self._err.print(str(error))

    def bug(self, error: BaseException, show: bool) -> None:
        """An error that nmtool did not foresee; the traceback goes to a file, or here if ``show``."""
        self.close()
        self._err.print(f"error: this is a bug in nmtool. {type(error).__name__}: {error}")
        text = "".join(traceback.format_exception(error))
        if show:
            self._err.print(text)
            return
        with tempfile.NamedTemporaryFile(
            "w", prefix="nmtool-", suffix=".traceback.txt", delete=False, encoding="utf-8"
        ) as f:
            f.write(text)
        self._err.print(
            f"The traceback is in {f.name}; --debug shows it here. Please report it with the command."
        )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose numbers stand to the right.

    Args:
        title: line above, may be empty.
        columns: headings.
        rows: cells; None is an empty cell.
    """
    out = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(columns):
        numbers = all(isinstance(row[i], int | float) or row[i] is None for row in rows) and bool(rows)
        out.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        out.add_row(*("" if cell is None else _cell(cell) for cell in row))
    return out


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
