"""Reading .npz files that someone else wrote: no pickle, and any damage is one coded error."""

from __future__ import annotations

import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import ConfigError

# What NumPy's and Python's readers raise on damaged bytes; found by mutating files, see tests/property.
DAMAGED = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file; ``optional`` ones where present.

    Raises:
        ConfigError: NM001 if there is no such file, NM006 if it is damaged, is no .npz, holds Python
            objects or lacks a required array.
    """
    try:
        # NumPy leaves a file open that it opened itself and cannot read.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            with np.load(file, allow_pickle=False) as archive:
                names = list(archive.files)
                arrays = {k: archive[k] for k in (*required, *optional) if k in names}
    except OSError as e:
        if path.is_file() and e.errno is None:
            raise _damaged(path, e) from e
        raise ConfigError("NM001", str(path), f"cannot be read ({e.strerror or e})", "Name a file") from e
    except DAMAGED as e:
        raise _damaged(path, e) from e
    missing = [k for k in required if k not in arrays]
    if missing:
        raise ConfigError(
            "NM006",
            str(path),
            f"lacks the array {missing[0]!r}; it holds {', '.join(names) or 'nothing'}",
            f"Write it with numpy.savez({', '.join(f'{k}=...' for k in required)})",
        )
    return arrays


def _damaged(path: Path, cause: BaseException) -> ConfigError:
    return ConfigError(
        "NM006",
        str(path),
        f"is not a readable .npz file ({type(cause).__name__}: {cause})",
        "Write it again with numpy.savez, plain arrays only",
    )
