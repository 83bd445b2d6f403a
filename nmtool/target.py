"""Target descriptions: what a chip can do and what an event costs on it, read from TOML; every number has a source.

``[section]`` tables hold entries ``key = { value = ..., source = "...", condition = "..." }``, units in the key's name.
``alias_of`` gives a target a second name, ``extends`` takes another target and replaces single entries.
``[energy.NAME]`` tables are price lists; those that belong to no chip stand in ``energy/*.toml`` beside the targets.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nmtool import resources
from nmtool.errors import ConfigError, TargetError, did_you_mean
from nmtool.target_schema import (
    PROFILES_SCHEMA,
    SECTIONS,
    TARGET_SCHEMA,
    AliasFile,
    Entry,
    Origins,
    ProfileFile,
    Table,
    TargetFile,
    brief,
    validated,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Item:
    """One entry of a target: its value, who says so, under which condition, and in which file it stands."""

    value: Any
    source: str
    condition: str
    file: str


@dataclass(frozen=True)
class EnergyProfile:
    """What events cost, from one origin.

    Attributes:
        name, description: of the profile.
        file: where it stands, for messages.
        scope: what the sum stands for: ``ops`` (arithmetic alone), ``chip-dynamic``, ``chip-total``, ``system``.
        evidence: ``simulated``, ``fitted``, ``measured`` or ``derived``.
        citation: where the numbers come from.
        all_in: the price per synaptic event holds everything; nothing may be added.
        items: entries by key, see :class:`nmtool.target_schema.Profile`.
    """

    name: str
    description: str
    file: str
    scope: str
    evidence: str
    citation: str
    all_in: bool
    items: Mapping[str, Item]

    def get(self, key: str) -> float | None:
        """A price or time, or None if this profile has none."""
        item = self.items.get(key)
        return None if item is None else float(item.value)

    def per_format(self, stem: str, kind: str) -> float | None:
        """``synop_<kind>_<unit>`` if there is one, else ``synop_<unit>``; ``stem`` is ``synop_pj`` or ``synop_ns``."""
        name, unit = stem.rsplit("_", 1)
        specific = self.get(f"{name}_{kind}_{unit}")
        return self.get(stem) if specific is None else specific

    @property
    def barrier_ns(self) -> tuple[tuple[float, float], ...]:
        """``(tiles, ns)`` points of the synchronisation time, ascending; empty if not published."""
        item = self.items.get("barrier_ns")
        return () if item is None else tuple((float(n), float(t)) for n, t in item.value)


@dataclass(frozen=True)
class TargetSpec:
    """A validated target description.

    Attributes:
        name: of the target itself, never of an alias.
        path: the file that it was read from.
        sha256: digest of that file and of every file that it extends.
        description: one line.
        profiles: the target's own energy profiles.
        estimate: which profiles make the headline, ``{"nominal": name, "second": name}``, or empty.
    """

    name: str
    path: Path
    sha256: str
    description: str
    profiles: Mapping[str, EnergyProfile]
    estimate: Mapping[str, str]
    items: Mapping[str, Item]

    def has(self, key: str) -> bool:
        """Whether the number is published for this target."""
        return _known(key) in self.items

    def _item(self, key: str) -> Item:
        if not self.has(key):
            section, _, name = key.partition(".")
            raise TargetError(
                "NM207",
                self.name,
                f"{key} is not published for this target ({_shown(self.path)} has no such entry)",
                f'If you know it, write a target file with extends = "{self.name}" and, under [{section}], '
                f'{name} = {{ value = ..., source = "..." }}',
            )
        return self.items[key]

    def number(self, key: str) -> Any:
        """A number (int, or float where the key is not a count).

        Raises:
            TargetError: NM207 if it is not published for this target.
        """
        value = self._item(key).value
        if isinstance(value, bool | list):
            raise TypeError(f"{key} holds no number")
        return value

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of integers, for example ``synapse.weight_bits_allowed``.

        Raises:
            TargetError: NM207 if it is not published for this target.
        """
        return tuple(int(v) for v in self._item(key).value)

    def choice(self, key: str) -> tuple[str, ...]:
        """A list of names, as text.

        Raises:
            TargetError: NM207 if it is not published for this target.
        """
        return tuple(str(v) for v in self._item(key).value)

    def flag(self, key: str) -> bool:
        """Yes or no.

        Raises:
            TargetError: NM207 if it is not published for this target.
        """
        value = self._item(key).value
        if not isinstance(value, bool):
            raise TypeError(f"{key} holds no flag")
        return value

    def cite(self, key: str) -> str:
        """Where the entry stands, for messages: ``targets/loihi1.toml: core.max_in_axons``."""
        return f"{self._item(key).file}: {key}"

    def source(self, key: str) -> str:
        """Who says so."""
        return self._item(key).source

    def profile(self, name: str) -> EnergyProfile:
        """An energy profile of this target or of the library.

        Raises:
            ConfigError: NM005 if there is none of that name.
        """
        known = {**library(), **self.profiles}
        if name not in known:
            own = "" if self.profiles else f"no energy per event is published for {self.name}; "
            raise ConfigError(
                "NM005", name, f"{own}no energy profile of that name", did_you_mean(name, known)
            )
        return known[name]


def load_target(name_or_path: str | Path) -> TargetSpec:
    """Read a target by name (``loihi``) or by path (``./mine.toml``), following ``alias_of`` and ``extends``.

    Raises:
        ConfigError: NM001 no such file, NM003 unknown key, NM004 bad value, NM005 unknown name, NM006 no TOML.
        FindingsError: several of NM003 and NM004 in one file.
    """
    chain = _chain(resources.find("targets", str(name_or_path)))
    merged: dict[str, Any] = {}
    origins: Origins = {}
    digest = hashlib.sha256()
    for path, content, document in reversed(chain):
        _merge(merged, document, origins, _shown(path))
        digest.update(content)
    path = chain[0][0]
    spec = validated(TargetFile, merged, _shown(path), origins)
    items = {}
    for section in SECTIONS:
        for key, item in _items(getattr(spec, section), origins, (section,)).items():
            items[f"{section}.{key}"] = item
    profiles = _profiles(spec.energy, origins)
    estimate = spec.estimate.model_dump(exclude_none=True) if spec.estimate else {}
    for key, profile in estimate.items():
        if profile not in profiles:
            where = f"{origins['estimate', key]}: estimate.{key}"
            raise ConfigError(
                "NM005",
                where,
                f"no energy profile '{profile}' in this target",
                did_you_mean(profile, profiles),
            )
    return TargetSpec(
        path.stem, path, digest.hexdigest(), spec.description, profiles, estimate, MappingProxyType(items)
    )


def load_profiles(path: Path) -> dict[str, EnergyProfile]:
    """The energy profiles of a library file (``schema = "nmtool.profiles/1"``).

    Raises:
        ConfigError: NM001, NM003, NM004, NM006 as :func:`load_target`; NM504 if a profile mixes scopes.
    """
    _, document = _read(path)
    library_file = validated(ProfileFile, document, _shown(path))
    origins: Origins = {}
    _merge({}, document, origins, _shown(path))
    return _profiles(library_file.energy, origins)


@lru_cache(maxsize=8)
def _library(paths: tuple[tuple[Path, int], ...]) -> Mapping[str, EnergyProfile]:
    found: dict[str, EnergyProfile] = {}
    for path, _ in paths:
        found = {**load_profiles(path), **found}
    return MappingProxyType(found)


def library() -> Mapping[str, EnergyProfile]:
    """Energy profiles that belong to no target, from ``energy/*.toml`` beside the targets; the first folder wins."""
    files = [p for folder in resources.folders("targets") for p in sorted((folder / "energy").glob("*.toml"))]
    return _library(tuple((p, p.stat().st_mtime_ns) for p in files))


def description(path: Path) -> str:
    """The one-line description of a target file, an alias too.

    Raises:
        ConfigError: NM001, NM004 or NM006 if the file is not a target.
    """
    _, document = _read(path)
    text = document.get("description", "")
    if not isinstance(text, str):
        raise ConfigError("NM004", f"{_shown(path)}: description", f"is {brief(text)}, not text")
    return text


def _shown(path: Path) -> str:
    """The short name of a file in messages: folder and file for what ships with nmtool, else as the user gave it."""
    parts = path.parts
    if "targets" in parts:
        return "/".join(parts[len(parts) - 1 - parts[::-1].index("targets") :])
    return str(path)


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise ConfigError("NM001", str(path), f"cannot be read ({e.strerror or e})") from e
    try:
        return content, tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise ConfigError("NM006", str(path), f"is not valid TOML ({str(e) or 'nested too deeply'})") from e


def _chain(path: Path) -> list[tuple[Path, bytes, dict[str, Any]]]:
    """The file and those that it extends, nearest first; aliases are followed and dropped."""
    chain: list[tuple[Path, bytes, dict[str, Any]]] = []
    seen: list[Path] = []
    while True:
        seen.append(path.resolve())
        content, document = _read(path)
        if document.get("schema") == PROFILES_SCHEMA:
            raise ConfigError(
                "NM004",
                _shown(path),
                "is a library of energy profiles, not a target",
                f'Add extends or a [chip] table and schema = "{TARGET_SCHEMA}" to describe a chip',
            )
        if document.get("schema") != TARGET_SCHEMA:
            found = brief(document["schema"]) if "schema" in document else "missing"
            raise ConfigError("NM004", f"{_shown(path)}: schema", f'is {found}, expected "{TARGET_SCHEMA}"')
        alias = not chain and "alias_of" in document
        if alias:
            following: Any = validated(AliasFile, document, _shown(path)).alias_of
        else:
            chain.append((path, content, document))
            following = document.get("extends")
        if following is None:
            return chain
        if not isinstance(following, str) or not following:
            raise ConfigError(
                "NM004", f"{_shown(path)}: extends", f"is {brief(following)}, not the name of a target"
            )
        path = _successor(path, following, seen, "alias_of" if alias else "extends")


def _successor(path: Path, name: str, seen: list[Path], key: str) -> Path:
    """The file that ``name`` means inside ``path``: beside it, or as everywhere, never one that was there before."""
    folders = [path.parent, *resources.folders("targets")]
    named = [folder / f"{name}.toml" for folder in folders]
    fresh = [p for p in named if p.is_file() and p.resolve() not in seen]
    if fresh:
        return fresh[0]
    if any(p.is_file() for p in named):
        raise ConfigError(
            "NM004",
            f"{_shown(path)}: {key}",
            f"'{name}' leads back to a file that refers to it",
            "Name another target",
        )
    known = [p.stem for p in resources.listing("targets")]
    raise ConfigError(
        "NM005", f"{_shown(path)}: {key}", f"no target of the name '{name}'", did_you_mean(name, known)
    )


def _merge(
    base: dict[str, Any], over: Mapping[str, Any], origins: Origins, file: str, prefix: tuple[str, ...] = ()
) -> None:
    """Replace entries of ``base`` by those of ``over``, whole entries only, and note where each comes from."""
    for key, value in over.items():
        here = (*prefix, key)
        if isinstance(value, dict) and len(here) < (3 if here[0] == "energy" else 2):
            if not isinstance(base.get(key), dict):
                base[key] = {}
            _merge(base[key], value, origins, file, here)
        else:
            base[key] = value
            origins[here] = file


def _items(table: Table | None, origins: Origins, prefix: tuple[str, ...]) -> dict[str, Item]:
    if table is None:
        return {}
    entries = {k: getattr(table, k) for k in type(table).model_fields}
    return {
        k: Item(e.value, e.source, e.condition, origins[(*prefix, k)])
        for k, e in entries.items()
        if isinstance(e, Entry)
    }


def _profiles(tables: Mapping[str, Any], origins: Origins) -> dict[str, EnergyProfile]:
    return {
        name: EnergyProfile(
            name,
            p.description,
            origins["energy", name, "scope"],
            p.scope,
            p.evidence,
            p.citation,
            p.all_in,
            MappingProxyType(_items(p, origins, ("energy", name))),
        )
        for name, p in tables.items()
    }


def _known(key: str) -> str:
    section, _, name = key.partition(".")
    if section not in SECTIONS or name not in SECTIONS[section].model_fields:
        known = [f"{s}.{k}" for s, table in SECTIONS.items() for k in table.model_fields]
        raise KeyError(f"no target has a key {key}. {did_you_mean(key, known)}")
    return key
