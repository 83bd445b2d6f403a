"""Train robust spiking networks, deploy them on Loihi-class chips, and prove what arrived.

Importing this package imports neither torch nor snnTorch nor Lava: the public functions live in
:mod:`nmtool.api` and are loaded when first used.
"""

from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "api"]


def __getattr__(name: str) -> Any:
    if name == "api":
        import importlib

        return importlib.import_module("nmtool.api")
    raise AttributeError(f"module 'nmtool' has no attribute {name!r}")
