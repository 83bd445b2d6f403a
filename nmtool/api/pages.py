"""A report on disk: its record, its figures and a page that holds both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_report(record: Mapping[str, Any], folder: Path, stem: str) -> tuple[str, ...]:
    """Write ``<stem>.json``, ``<stem>.html`` and a PNG per figure.

    Args:
        record: of a schema that :mod:`nmtool.report` knows.
        folder: made if it is not there.
        stem: of the file names.

    Returns:
        names of the figures.

    Raises:
        ConfigError: NM002 if a file cannot be written.
    """
    from nmtool.report import html, plots, schema

    schema.save(record, folder / f"{stem}.json")
    figures = plots.figures(record)
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")
    html.save(record, folder / f"{stem}.html")
    return tuple(f"{name}.png" for name in figures)
