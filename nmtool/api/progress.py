"""How a step of the pipeline tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

from nmtool.backends.base import Progress

Watch = Callable[[str], Progress]
"""Begins a line of progress with a title; what it returns is called with (done, total)."""


def silent(title: str) -> Progress:
    """A :data:`Watch` that shows nothing."""
    return lambda done, total: None
