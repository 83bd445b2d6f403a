"""One self-contained HTML page per record: its tables, its figures, and where it came from."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmtool.provenance import writing
from nmtool.report.tables import Record, sections, title

TEMPLATE = "page.html.j2"
_ORIGIN = ("command", "created_utc", "seed", "environment", "sha256")


def page(record: Record, images: Mapping[str, bytes] | None = None) -> str:
    """The page as text; nothing in it is loaded from elsewhere.

    Args:
        record: of a schema that has tables; its figures are drawn as well.
        images: further PNG files by caption.

    Raises:
        ConfigError: NM004 if the record's schema is unknown.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from nmtool.report import plots

    drawn = {name.replace("_", " "): plots.png(figure) for name, figure in plots.figures(record).items()}
    embedded = {
        caption: base64.b64encode(content).decode("ascii")
        for caption, content in {**drawn, **(images or {})}.items()
    }
    shown = [s for r in (record, *record.get("further", ())) for s in sections(r) if s.rows or s.notes]
    loader = PackageLoader("nmtool.report", "")
    jinja = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return jinja.get_template(TEMPLATE).render(
        title=title(record), schema=record["schema"], sections=shown, images=embedded, origin=_origin(record)
    )


def _origin(record: Mapping[str, Any]) -> dict[str, str]:
    """What the record says of how it was made."""
    found = {k: record[k] for k in _ORIGIN if record.get(k) is not None}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items()}


def save(record: Record, path: Path, images: Mapping[str, bytes] | None = None) -> None:
    """Write the page, whole or not at all.

    Raises:
        ConfigError: NM002 if it cannot be written, NM004 if the record's schema is unknown.
    """
    text = page(record, images)
    with writing(path) as part:
        part.write_text(text, encoding="utf-8")
