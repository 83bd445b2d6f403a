"""What this installation has: target descriptions, recipes and optional packages."""

from __future__ import annotations

import importlib
import os
from importlib import metadata, resources, util
from pathlib import Path
from types import ModuleType
from typing import Literal

from nmtool.errors import BackendUnavailableError, ConfigError, did_you_mean

Kind = Literal["targets", "models"]

VARIABLES: dict[Kind, str] = {"targets": "NMTOOL_TARGETS", "models": "NMTOOL_MODELS"}
_NOUNS: dict[Kind, str] = {"targets": "target", "models": "recipe"}


def folders(kind: Kind) -> list[Path]:
    """Existing folders that hold this kind of file, the one that wins first.

    Order: the folder in the environment variable of :data:`VARIABLES`, the data inside an installed
    package, the folder beside the package in a checkout.

    Raises:
        ConfigError: NM001 if the environment variable names something that is no folder.
    """
    found = []
    if named := os.environ.get(VARIABLES[kind]):
        if not Path(named).is_dir():
            raise ConfigError(
                "NM001",
                named,
                f"is no folder, but ${VARIABLES[kind]} names it",
                f"Unset {VARIABLES[kind]} or name a folder of .toml files",
            )
        found.append(Path(named))
    package = Path(str(resources.files("nmtool")))
    found += [p for p in (package / "_data" / kind, package.parent / kind) if p.is_dir()]
    return found


def listing(kind: Kind) -> list[Path]:
    """Every file of this kind, sorted by name; of two with one name the first folder's counts."""
    by_name: dict[str, Path] = {}
    for folder in folders(kind):
        for path in folder.glob("*.toml"):
            by_name.setdefault(path.stem, path)
    return [by_name[name] for name in sorted(by_name)]


def find(kind: Kind, name: str) -> Path:
    """The file that a user means by ``name``: a path, or the name of one that ships with nmtool.

    Raises:
        ConfigError: NM001 if ``name`` is a path without a file, NM005 if no file of that name exists.
    """
    known = {path.stem: path for path in listing(kind)}
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix == ".toml" or len(path.parts) > 1:
        shipped = (
            f"'{path.stem}' ships with nmtool: name it without folder and .toml" if path.stem in known else ""
        )
        raise ConfigError("NM001", name, "no such file", shipped or did_you_mean(path.stem, known))
    if name not in known:
        raise ConfigError("NM005", name, f"no {_NOUNS[kind]} of that name", did_you_mean(name, known))
    return known[name]


def have(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return util.find_spec(package) is not None


def version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def require(package: str, purpose: str, remedy: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: its import name.
        purpose: what needs it, for the message.
        remedy: how to get it, for the message.

    Raises:
        BackendUnavailableError: NM303 if it is missing or does not import.
    """
    try:
        return importlib.import_module(package)
    except ImportError as e:
        message = f"{purpose} needs it, but it cannot be imported ({e})"
        raise BackendUnavailableError("NM303", package, message, remedy) from e
