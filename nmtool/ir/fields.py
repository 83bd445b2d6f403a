"""Checked access to the fields of one node of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import did_you_mean

MAX_AXIS = 1 << 31


class BadFieldError(Exception):
    """What is wrong with a node, before its name is known."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code, self.message, self.hint = code, message, hint
        super().__init__(message)


class Fields:
    """The fields of one node; remembers which were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def ignore(self, *names: str) -> None:
        """Fields that say nothing which is not known otherwise."""
        self._used |= set(names)

    def all_used(self) -> None:
        """Refuse a field that nobody asked for: it may change what the node means.

        Raises:
            BadFieldError: NM103.
        """
        for name in sorted(set(self._values) - self._used):
            raise BadFieldError(
                "NM103", f"has a field '{name}' that nmtool does not know", did_you_mean(name, self._used)
            )

    def array(self, name: str) -> NDArray[Any]:
        """Finite real numbers of any shape, in the file's type; booleans count as 0 and 1.

        Raises:
            BadFieldError: NM103 missing or not numeric, NM108 not finite.
        """
        value = self._raw(name)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise BadFieldError("NM103", f"{name} is {kind}, must be real numbers")
        if value.dtype.kind == "b":
            return value.astype(np.int64)
        bad = ~np.isfinite(value) if value.dtype.kind == "f" else np.zeros(1, bool)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0]) if value.ndim else ()
            raise BadFieldError(
                "NM108",
                f"{name} has {int(bad.sum())} of {value.size} values that are not finite, the first at {first}",
                "A decay of exactly 1 exported by another tool gives an infinite time constant"
                if name.startswith(("tau", "r"))
                else "Export the model again",
            )
        return value

    def integers(self, name: str, low: int, n: int | None = None) -> tuple[int, ...]:
        """Integers not below ``low``; with ``n`` a single value stands for all ``n``.

        Raises:
            BadFieldError: NM103.
        """
        value = np.atleast_1d(self.array(name))
        if n is not None and value.size == 1:
            value = np.repeat(value.ravel(), n)
        whole = value.ndim == 1 and (n is None or value.size == n)
        if not whole or (value != np.floor(value)).any() or (value < low).any() or (value > MAX_AXIS).any():
            count = "" if n is None else f"{n} "
            raise BadFieldError("NM103", f"{name} is {value.tolist()}, must be {count}integers >= {low}")
        return tuple(int(v) for v in value)

    def integer(self, name: str, low: int = -MAX_AXIS, default: int | None = None) -> int:
        """One integer.

        Raises:
            BadFieldError: NM103.
        """
        if default is not None and name not in self:
            return default
        return self.integers(name, low, 1)[0]

    def padding(
        self, weight: NDArray[Any], stride: tuple[int, ...], dilation: tuple[int, ...]
    ) -> tuple[NDArray[Any], tuple[int, ...]]:
        """Kernel and equal padding on both sides of each axis; "same" and "valid" are worked out.

        "same" pads one more at the end if ``dilation * (k - 1)`` is odd. A zero tap in front of the kernel says the
        same with equal padding.

        Raises:
            BadFieldError: NM103, also for "same" with a stride, as PyTorch.
        """
        value = self._raw("padding")
        if not isinstance(value, str):
            return weight, self.integers("padding", 0, len(stride))
        if value not in ("same", "valid") or (value == "same" and set(stride) != {1}):
            raise BadFieldError(
                "NM103", f"padding is '{value}' with stride {stride}; 'same' needs stride 1", "Write numbers"
            )
        if value == "valid":
            return weight, (0,) * len(stride)
        for axis, d in enumerate(dilation):
            if d * (weight.shape[2 + axis] - 1) % 2:
                if d != 1:
                    raise BadFieldError(
                        "NM103", f"padding 'same' with an even kernel and dilation {d}", "Write numbers"
                    )
                front = [(1 if i == 2 + axis else 0, 0) for i in range(weight.ndim)]
                weight = np.pad(weight, front)
        return weight, tuple(d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[2:], strict=True))

    def _raw(self, name: str) -> Any:
        self._used.add(name)
        if name not in self._values:
            raise BadFieldError("NM103", f"lacks the field '{name}'", "Export the model again")
        return self._values[name]
