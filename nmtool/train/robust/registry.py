"""The one table from a recipe's ``[robust.*]`` tables to the methods that they switch on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nmtool.config import Robust
from nmtool.train.robust import tgo
from nmtool.train.robust.base import Regulariser

METHODS: dict[str, Callable[[Any], Regulariser]] = {"tgo": tgo.regulariser}


def regularisers(robust: Robust) -> tuple[Regulariser, ...]:
    """The methods whose table is present, in the order of :data:`METHODS`."""
    present = {name: getattr(robust, name) for name in METHODS}
    return tuple(METHODS[name](options) for name, options in present.items() if options is not None)
