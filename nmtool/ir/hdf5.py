"""HDF5 files read by a process of their own, so that a damaged file can neither hang nor crash this one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import BackendUnavailableError, ConfigError, ModelError

Leaf = NDArray[Any] | str
"""An array (strings: of ``str`` objects) or one text."""

Tree = Mapping[str, Any]
"""Groups by name; a value is another Tree, a :data:`Leaf` or :class:`Other`."""

MIN_BYTES, MAX_RATIO = 1 << 28, 50
"""A file may unfold to this many bytes, or to this many times its own size if that is more."""

_CHILD = Path(__file__).with_name("hdf5_child.py")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HINT = "Write the file again, or copy it again from where it came"


class Other(str):
    """What stands in the file but is no number and no text: its kind, in words."""


class Reader:
    """A running reader process; a context manager. One per thread.

    Loading one file starts a process (about 0.1 s); use one Reader for many files.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def load(self, path: Path) -> Tree:
        """Everything in a file.

        Raises:
            ConfigError: NM001 if there is no such file or it cannot be read.
            ModelError: NM101 if it is not HDF5, or damaged in a way that the HDF5 library notices, loops or dies on.
            BackendUnavailableError: NM303 if the process does not start.
        """
        size = _check(path)
        process = self._start()
        cpu_s = 1 + size // (2 << 20)
        request = {
            "path": os.fspath(path.resolve()),
            "max_bytes": max(MIN_BYTES, MAX_RATIO * size),
            "cpu_s": cpu_s,
        }
        deadline = threading.Timer(60.0 + 4.0 * cpu_s, process.kill)
        deadline.start()
        try:
            header, data = _ask(process, request)
        finally:
            deadline.cancel()
        if header is None:
            self._stop()
            raise ModelError(
                "NM101", str(path), "is damaged: the HDF5 library crashes or never ends on it", _HINT
            )
        if "error" in header:
            raise ModelError("NM101", str(path), f"is not readable HDF5: {header['error']}", _HINT)
        return _tree(header["tree"], data)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(  # noqa: S603  (our own file, no shell)
                [sys.executable, os.fspath(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            if _answer(self._process)[0] is None:
                self._stop()
                raise BackendUnavailableError(
                    "NM303",
                    "h5py",
                    f"the process that reads HDF5 files does not start ({sys.executable})",
                    "python -c 'import h5py' shows why",
                )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def load(path: Path) -> Tree:
    """Everything in one HDF5 file; see :meth:`Reader.load`."""
    with Reader() as reader:
        return reader.load(path)


def _check(path: Path) -> int:
    """Size in bytes of a file that begins like HDF5."""
    if not path.is_file():
        raise ConfigError("NM001", str(path), "no such file", "Give the path of a .nir file")
    try:
        with path.open("rb") as f:
            start = f.read(1 << 12)
        size = path.stat().st_size
    except OSError as e:
        raise ConfigError(
            "NM001", str(path), f"cannot be read ({e.strerror})", "Check its permissions"
        ) from e
    if not size:
        raise ModelError("NM101", str(path), "is empty", _HINT)
    if _SIGNATURE not in start:
        raise ModelError("NM101", str(path), f"is not HDF5: it begins with {start[:8]!r}", _HINT)
    return size


def _ask(
    process: subprocess.Popen[bytes], request: dict[str, Any]
) -> tuple[dict[str, Any] | None, bytearray]:
    if process.stdin is None:
        return None, bytearray()
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None, bytearray()
    return _answer(process)


def _answer(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any] | None, bytearray]:
    """Header and bytes of one answer; None if the process ended before it was complete."""
    line = process.stdout.readline() if process.stdout else b""
    if process.stdout is None or not line.endswith(b"\n"):
        return None, bytearray()
    header: dict[str, Any] = json.loads(line)
    data = bytearray(header["nbytes"])
    view = memoryview(data)
    while view:
        n = process.stdout.readinto(view)  # type: ignore[attr-defined]
        if not n:
            return None, bytearray()
        view = view[n:]
    return header, data


def _tree(node: Any, data: bytearray) -> Any:
    if isinstance(node, dict):
        return {k: _tree(v, data) for k, v in node.items()}
    kind, *rest = node
    if kind == "array":
        dtype, shape, offset = rest
        n = math.prod(shape)
        return np.frombuffer(data, dtype, n, offset).reshape(shape) if n else np.zeros(shape, dtype)
    if kind == "texts":
        texts = np.empty(len(rest[1]), object)
        texts[:] = rest[1]
        return texts.reshape(rest[0])
    return rest[0] if kind == "text" else Other(rest[0])
