"""A lava-dl ``.net`` file as plain arrays: HDF5 is opened, read within bounds and closed here alone.

Layout (lava-dl 0.6.0 and older): groups ``layer/0 .. layer/<n-1>`` in forward order, each with ``type``,
``shape`` and what the type needs; ``neuron/*`` below a layer; optional ``simulation/{Ts, tSample}``. No HDF5
attributes, no pickle. Numbers may be of any integer or float type, but are integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nmtool.errors import ConfigError, ModelError

Int = NDArray[np.int64]

MAX_VALUES = 1 << 27
"""Largest data set that is read: more synapses than the largest chip holds."""

_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
_AGAIN = "Export the network again with lava-dl"


@dataclass(frozen=True)
class Section:
    """The data sets of one HDF5 group, by their path below it, such as ``neuron/vThMant``.

    Attributes:
        file: path of the file, for messages.
        group: path of the group, such as ``layer/3``.
        values: numeric arrays as stored, texts as ``str``.
    """

    file: str
    group: str
    values: Mapping[str, NDArray[Any] | str]

    def __contains__(self, key: str) -> bool:
        return key in self.values or any(k.startswith(key + "/") for k in self.values)

    def error(self, code: str, key: str, message: str, hint: str = "") -> ModelError:
        """An error that names the file and the data set (or, with an empty key, the group)."""
        return ModelError(code, f"{self.file}: {self.group}{'/' if key else ''}{key}", message, hint)

    def text(self, key: str) -> str:
        """A string data set.

        Raises:
            ModelError: NM106 if it is missing, NM103 if it is no text.
        """
        value = self._value(key)
        if not isinstance(value, str):
            raise self.error(
                "NM103", key, f"holds {value.dtype} of shape {value.shape}, expected one text", _AGAIN
            )
        return value

    def integers(self, key: str, low: int, high: int) -> Int:
        """A numeric data set of any shape, as int64; booleans count as 0 and 1.

        Args:
            key: path below the group.
            low, high: allowed values, both included.

        Raises:
            ModelError: NM106 missing, NM108 not finite, NM103 not numeric, not integer or outside the range.
        """
        value = self._value(key)
        if isinstance(value, str):
            raise self.error("NM103", key, f"holds the text {value!r}, expected numbers", _AGAIN)
        if not np.isfinite(value).all():
            raise self.error("NM108", key, "holds values that are not finite", _AGAIN)
        fractional = value != np.floor(value) if value.dtype.kind == "f" else np.zeros(value.shape, bool)
        if fractional.any():
            found = float(value[fractional].flat[0])
            raise self.error("NM103", key, f"holds {found:g}, expected integers in {low} .. {high}", _AGAIN)
        outside = (value < low) | (value > high)
        if outside.any():
            found = float(value[outside].flat[0])
            raise self.error("NM103", key, f"holds {found:g}, allowed is {low} .. {high}", _AGAIN)
        return value.astype(np.int64)

    def scalar(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """One integer, stored with shape ``()`` or ``(1,)``; ``default`` stands for a missing data set.

        Raises:
            ModelError: see :meth:`integers`; NM104 if it holds more than one value.
        """
        if default is not None and key not in self:
            return default
        value = self.integers(key, low, high)
        if value.size != 1:
            raise self.error("NM104", key, f"has shape {value.shape}, expected one value", _AGAIN)
        return int(value.flat[0])

    def _value(self, key: str) -> NDArray[Any] | str:
        if key not in self.values:
            raise self.error("NM106", key, "is missing", _AGAIN)
        return self.values[key]


@dataclass(frozen=True)
class NetFile:
    """What a ``.net`` file holds.

    Attributes:
        layers: in forward order; layer ``i`` is group ``layer/i``.
        simulation: the group of that name, without values if the file has none.
    """

    layers: tuple[Section, ...]
    simulation: Section


def read(path: Path) -> NetFile:
    """Read every data set into memory and close the file.

    Raises:
        ConfigError: NM001 if there is no such file or it cannot be opened.
        ModelError: NM101 if it is not HDF5, is damaged or has no layers; NM106 if a layer is missing.
    """
    if not path.is_file():
        raise ConfigError("NM001", str(path), "no such file", "Give the path of a lava-dl .net file")
    try:
        with path.open("rb"):
            pass
    except OSError as e:
        raise ConfigError(
            "NM001", str(path), f"cannot be read ({e.strerror})", "Check its permissions"
        ) from e
    try:
        with h5py.File(path, "r") as f:
            return _read_open(str(path), f)
    except ModelError:
        raise
    except _HDF5_ERRORS as e:
        raise ModelError(
            "NM101", str(path), f"is not a readable HDF5 file ({type(e).__name__}: {e})", _AGAIN
        ) from e


def _read_open(file: str, f: h5py.File) -> NetFile:
    root = f.get("layer")
    if not isinstance(root, h5py.Group) or not len(root):
        raise ModelError(
            "NM101",
            file,
            f"is HDF5, but has no layers; it holds {sorted(f) or 'nothing'}",
            "A lava-dl .net file has the groups layer/0, layer/1, ...",
        )
    expected = {str(i) for i in range(len(root))}
    if set(root) != expected:
        odd, absent = sorted(set(root) - expected), sorted(expected - set(root), key=int)
        raise ModelError(
            "NM106",
            f"{file}: layer",
            f"has the groups {odd}, but lacks {absent}",
            "Layers are numbered from 0 without a gap",
        )
    layers = tuple(_section(file, f"layer/{i}", root[str(i)]) for i in range(len(root)))
    simulation = f.get("simulation")
    return NetFile(
        layers,
        _section(file, "simulation", simulation)
        if simulation is not None
        else Section(file, "simulation", {}),
    )


def _section(file: str, name: str, group: Any) -> Section:
    if not isinstance(group, h5py.Group):
        raise ModelError("NM101", f"{file}: {name}", f"is a {type(group).__name__}, expected a group", _AGAIN)
    values = {key: _load(f"{file}: {name}/{key}", item) for key, item in _walk(f"{file}: {name}", group)}
    return Section(file, name, values)


def _walk(where: str, group: h5py.Group, depth: int = 2) -> Iterator[tuple[str, h5py.Dataset]]:
    """Data sets of a group and of its direct subgroups; nothing deeper belongs to the format."""
    for key in group:
        if not isinstance(key, str):
            raise ModelError("NM101", where, f"has an entry whose name is no text ({key!r})", _AGAIN)
        item = group[key]
        if isinstance(item, h5py.Dataset):
            yield key, item
        elif isinstance(item, h5py.Group) and depth > 1:
            if not len(item):
                raise ModelError("NM106", f"{where}/{key}", "is an empty group", _AGAIN)
            yield from ((f"{key}/{k}", v) for k, v in _walk(f"{where}/{key}", item, depth - 1))


def _load(where: str, item: h5py.Dataset) -> NDArray[Any] | str:
    if item.shape is None or item.size == 0:
        raise ModelError("NM106", where, "is empty", _AGAIN)
    if item.chunks is None and item.id.get_storage_size() < item.nbytes:
        raise ModelError("NM101", where, "was never written in full: the file is damaged", _AGAIN)
    if item.size > MAX_VALUES:
        raise ModelError(
            "NM101", where, f"has shape {item.shape}; more than {MAX_VALUES} values are not read", _AGAIN
        )
    if item.dtype.kind in "iufb":
        return np.asarray(item[()])
    value = np.asarray(item[()]).flat[0] if item.size == 1 else None
    if isinstance(value, bytes | str):
        return value.decode("ascii") if isinstance(value, bytes) else value
    raise ModelError(
        "NM103", where, f"has type {item.dtype} and shape {item.shape}, expected numbers or one text", _AGAIN
    )
