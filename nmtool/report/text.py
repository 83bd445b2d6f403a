"""Records for the terminal, as rich renderables; printing is the caller's business."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nmtool.report.tables import Record, Section, sections, title

_NOTED = {"Warnings": "yellow", "Not included": "dim"}


def render(record: Record) -> RenderableType:
    """Everything a record has to say, one section under the other.

    Raises:
        ConfigError: NM004 if its schema is unknown.
    """
    parts: list[RenderableType] = [Text(title(record), style="bold")]
    for section in sections(record):
        if section.rows or section.notes:
            parts += [Text(""), _section(section)]
    return Group(*parts)


def _section(section: Section) -> RenderableType:
    parts: list[RenderableType] = []
    plain = not any(c.lstrip(">") for c in section.columns)
    if section.title:
        parts.append(Text(section.title, style="bold"))
    if section.rows:
        table = Table(
            box=None if plain else box.SIMPLE_HEAD, show_header=not plain, pad_edge=False, show_edge=False
        )
        for name in section.columns:
            table.add_column(
                name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold"
            )
        for row in section.rows:
            table.add_row(*(Text(cell) for cell in row))
        if section.total:
            table.add_section()
            table.add_row(*(Text(cell, style="bold") for cell in section.total))
        parts.append(table)
    style = _NOTED.get(section.title, "dim")
    parts += [Padding(Text(note, style=style), (0, 0, 0, 2)) for note in section.notes if note]
    return Group(*parts)
