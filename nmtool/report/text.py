"""Records for the terminal, as rich renderables; printing is the caller's business."""

from __future__ import annotations

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nmtool.report.tables import Record, Section, sections, title

_GAP = 3


def render(record: Record) -> RenderableType:
    """Everything a record has to say, one section under the other, fitted to the width it is printed at.

    Raises:
        ConfigError: NM004 if its schema is unknown.
    """
    shown = [s for s in sections(record) if s.rows or s.notes]
    return Group(Text(title(record), style="bold"), *(_Fitted(s) for s in shown))


class _Fitted:
    """A section that leaves columns out where there is no room."""

    def __init__(self, section: Section) -> None:
        self.section = section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        section = self.section
        yield Text("")
        if section.title:
            yield Text(section.title, style="bold")
        if section.rows:
            yield _table(section, _kept(section, options.max_width))
        style = "yellow" if section.title == "Warnings" else "dim"
        for note in section.notes:
            yield Padding(Text(note, style=style), (0, 0, 0, 2), expand=False)


def _kept(section: Section, room: int) -> list[int]:
    """Indexes of the columns that fit."""
    lines = [section.columns, *section.rows, *([section.total] if section.total else [])]
    widths = [max(len(line[i].lstrip(">")) for line in lines) for i in range(len(section.columns))]
    kept = list(range(len(section.columns)))
    for name in section.droppable:
        if sum(widths[i] + _GAP for i in kept) <= room:
            break
        kept = [i for i in kept if section.columns[i].lstrip(">") != name]
    return kept


def _table(section: Section, kept: list[int]) -> Table:
    plain = not any(c.lstrip(">") for c in section.columns)
    table = Table(
        box=None if plain else box.SIMPLE_HEAD, show_header=not plain, pad_edge=False, show_edge=False
    )
    for i in kept:
        name = section.columns[i]
        table.add_column(
            name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold"
        )
    for row in section.rows:
        table.add_row(*(Text(row[i]) for i in kept))
    if section.total:
        table.add_section()
        table.add_row(*(Text(section.total[i], style="bold") for i in kept))
    return table
