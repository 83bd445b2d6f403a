"""A lava-dl ``.net`` file as plain arrays.

Layout (lava-dl 0.6.0 and older): groups ``layer/0 .. layer/<n-1>`` in forward order, each with ``type``,
``shape`` and what the type needs; ``neuron/*`` below a layer; optional ``simulation/{Ts, tSample}``. No HDF5
attributes. Numbers may be of any integer or float type, but are integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import ModelError
from nmtool.ir import hdf5

Int = NDArray[np.int64]
Reader = hdf5.Reader

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


def read(path: Path, reader: hdf5.Reader | None = None) -> NetFile:
    """Read every data set.

    Args:
        path: the file.
        reader: a running reader, for many files.

    Raises:
        ConfigError: NM001 if there is no such file or it cannot be read.
        ModelError: NM101 if it is not HDF5, is damaged or has no layers; NM106 if a layer is missing or empty.
    """
    tree, file = reader.load(path) if reader else hdf5.load(path), str(path)
    layers = tree.get("layer")
    if not isinstance(layers, dict) or not layers:
        found = f"is HDF5, but has no layers; it holds {', '.join(sorted(tree)) or 'nothing'}"
        raise ModelError("NM101", file, found, "A lava-dl .net file has the groups layer/0, layer/1, ...")
    expected = {str(i) for i in range(len(layers))}
    if set(layers) != expected:
        odd, absent = sorted(set(layers) - expected), sorted(expected - set(layers), key=int)
        found = f"lacks {', '.join(absent)} and has {', '.join(odd)}"
        raise ModelError("NM106", f"{file}: layer", found, "Layers are numbered from 0 without a gap")
    return NetFile(
        tuple(_section(file, f"layer/{i}", layers[str(i)]) for i in range(len(layers))),
        _section(file, "simulation", tree.get("simulation", {})),
    )


def _section(file: str, group: str, tree: Any) -> Section:
    if not isinstance(tree, dict):
        raise ModelError("NM101", f"{file}: {group}", "is a data set, expected a group", _AGAIN)
    return Section(file, group, dict(_leaves(file, group, tree)))


def _leaves(
    file: str, group: str, tree: hdf5.Tree, depth: int = 2
) -> Iterator[tuple[str, NDArray[Any] | str]]:
    """Data sets of a group and of its direct subgroups; nothing deeper belongs to the format."""
    for key, value in tree.items():
        where = f"{file}: {group}/{key}"
        if isinstance(value, dict):
            if not value:
                raise ModelError("NM106", where, "is an empty group", _AGAIN)
            below = _leaves(file, f"{group}/{key}", value, depth - 1) if depth > 1 else ()
            yield from ((f"{key}/{k}", v) for k, v in below)
            continue
        if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
            value = str(value.item())
        if isinstance(value, np.ndarray) and not value.size:
            raise ModelError("NM106", where, "is empty", _AGAIN)
        number = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        if not number and (isinstance(value, hdf5.Other) or not isinstance(value, str)):
            found = value if isinstance(value, hdf5.Other) else f"an array of {value.dtype}"
            raise ModelError("NM103", where, f"holds {found}, expected numbers or one text", _AGAIN)
        yield key, value
