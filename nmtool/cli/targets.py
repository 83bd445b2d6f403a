"""``nmtool targets``: what chips nmtool knows, and every number of one with its source."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import RenderableType

from nmtool.cli.ui import Ui, table
from nmtool.cli.verbs import verb


@verb("list", "nmtool targets list", "nmtool targets list --json")
def list_targets(ui: Ui) -> None:
    """List the targets by name."""
    from nmtool import resources
    from nmtool.target import description

    rows = [(path.stem, description(path)) for path in resources.listing("targets")]
    document = {"targets": [{"name": name, "description": text} for name, text in rows]}
    ui.result(document, table("", ("target", "description"), rows))


@verb("show", "nmtool targets show loihi", "nmtool targets show ./mine.toml --json")
def show_target(
    ui: Ui,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a target, or a .toml file.")],
) -> None:
    """Print every number of a target with its source, and its energy profiles."""
    from nmtool.target import load_target

    spec = load_target(name)
    items = [_entry(key, item) for key, item in spec.items.items()]
    profiles: list[dict[str, Any]] = [
        {
            "name": p.name, "description": p.description, "scope": p.scope, "evidence": p.evidence,
            "citation": p.citation, "prices": [_entry(k, i) for k, i in p.items.items()],
        }
        for p in spec.profiles.values()
    ]  # fmt: skip
    document = {
        "name": spec.name, "asked_for": name, "file": spec.path.name, "sha256": spec.sha256,
        "description": spec.description, "numbers": items, "energy_profiles": profiles,
        "estimate": dict(spec.estimate),
    }  # fmt: skip
    parts: list[RenderableType] = [
        table(f"{spec.name}: {spec.description}", ("key", "value", "source"), [_row(i) for i in items])
    ]
    for p in profiles:
        title = f"\nEnergy profile {p['name']} ({p['scope']}, {p['evidence']}): {p['citation']}"
        parts.append(table(title, ("key", "value", "source"), [_row(i) for i in p["prices"]]))
    if not profiles:
        parts.append(f"\nNo energy per event is published for {spec.name}.")
    ui.result(document, *parts)


def _entry(key: str, item: Any) -> dict[str, Any]:
    return {
        "key": key,
        "value": item.value,
        "source": item.source,
        "condition": item.condition,
        "file": item.file,
    }


def _row(entry: dict[str, Any]) -> tuple[str, str, str]:
    value = entry["value"]
    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return (
        entry["key"],
        shown,
        f"{entry['source']} ({entry['condition']})" if entry["condition"] else entry["source"],
    )
