"""The process that opens HDF5 files: it answers one JSON line per path with the file's contents as plain arrays.

It runs on its own because the HDF5 library loops for ever or crashes on some damaged files; started by
:mod:`nmtool.ir.hdf5` as a script, so it imports nothing of nmtool.

    request   {"path": str, "max_bytes": int, "cpu_s": int}\\n
    answer    {"tree": {...}, "nbytes": n}\\n and n bytes, or {"error": str, "nbytes": 0}\\n

Leaves of the tree: ``["array", dtype, shape, offset]`` into those bytes, ``["text", str]``,
``["texts", shape, [str, ...]]`` and ``["other", what]`` for what no model file needs.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

MAX_OBJECTS, MAX_DEPTH, ALIGN = 200_000, 40, 64

BASE_MEMORY = 4 << 30
"""Address space for Python and its libraries."""


class TooMuchError(Exception):
    """The file says that it holds more than a file of its size can."""


@dataclass
class Walk:
    """What has been collected from one file, and how much more may be."""

    left_bytes: int
    left_objects: int = MAX_OBJECTS
    offset: int = 0
    blobs: list[bytes] = field(default_factory=list)

    def group(self, group: Any, depth: int = 0) -> dict[str, Any]:
        """A group as a dict; only hard links are followed, so that no file points outside itself."""
        import h5py

        if depth > MAX_DEPTH:
            raise TooMuchError(f"nests groups deeper than {MAX_DEPTH}")
        out: dict[str, Any] = {}
        for key in group:
            self.left_objects -= 1
            if self.left_objects < 0:
                raise TooMuchError(f"holds more than {MAX_OBJECTS} objects")
            name = _clean(key)
            item = group[key] if isinstance(group.get(key, getlink=True), h5py.HardLink) else None
            if isinstance(item, h5py.Group):
                out[name] = self.group(item, depth + 1)
            elif isinstance(item, h5py.Dataset):
                out[name] = self.dataset(item)
            else:
                out[name] = ["other", type(item).__name__]
        return out

    def dataset(self, item: Any) -> list[Any]:
        """One data set, if its sizes are plausible."""
        if item.shape is None:
            return ["other", "empty data set"]
        size = math.prod(item.shape) * max(item.dtype.itemsize, 1)
        chunk = math.prod(item.chunks or (0,)) * item.dtype.itemsize
        self.left_bytes -= size
        if max(-self.left_bytes, chunk - size - (1 << 24)) > 0:
            raise TooMuchError(f"says that {_clean(item.name)} has shape {item.shape}")
        value = item[()]
        if item.dtype.kind in "biufc":
            return self.array(value)
        if isinstance(value, bytes | str):
            return ["text", _clean(value)]
        texts = list(getattr(value, "flat", ()))
        if texts and all(isinstance(t, bytes | str) for t in texts):
            return ["texts", list(value.shape), [_clean(t) for t in texts]]
        return ["other", str(item.dtype)]

    def array(self, value: Any) -> list[Any]:
        """Native little-endian numbers, appended to the blobs."""
        import numpy as np

        a = np.asarray(value)
        a = a.astype(a.dtype.newbyteorder("<"), copy=False)
        where, gap = self.offset, -a.nbytes % ALIGN
        self.blobs += [a.tobytes(), bytes(gap)]
        self.offset += a.nbytes + gap
        return ["array", a.dtype.str, list(a.shape), where]


def _clean(text: Any) -> str:
    """Text that can be shown on any terminal, whatever bytes stood in the file."""
    raw = text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def _limit(cpu_s: int, max_bytes: int) -> None:
    """Give this process ``cpu_s`` more seconds to compute, on Linux bounded memory, and no core file."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {resource.RLIMIT_CPU: math.ceil(used.ru_utime + used.ru_stime) + cpu_s, resource.RLIMIT_CORE: 0}
    if sys.platform == "linux":
        limits[resource.RLIMIT_AS] = BASE_MEMORY + 4 * max_bytes
    for kind, soft in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Header and blobs for one request."""
    import h5py

    _limit(request["cpu_s"], request["max_bytes"])
    walk = Walk(request["max_bytes"])
    try:
        with h5py.File(Path(request["path"]), "r") as f:
            tree = walk.group(f)
    except TooMuchError as e:
        return {"error": f"it {e}", "nbytes": 0}, []
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as e:
        return {"error": _clean(e).splitlines()[0] if str(e) else type(e).__name__, "nbytes": 0}, []
    return {"tree": tree, "nbytes": walk.offset}, walk.blobs


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the requests end."""
    import h5py  # noqa: F401  (said to be ready only when it can be imported)

    answers.write(b'{"ready": true, "nbytes": 0}\n')
    answers.flush()
    for line in requests:
        header, blobs = answer(json.loads(line))
        answers.write(json.dumps(header).encode() + b"\n")
        for blob in blobs:
            answers.write(blob)
        answers.flush()


if __name__ == "__main__":
    # A script's folder stands on the path, and the names in this one are not meant to be found there.
    sys.path = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
    serve(sys.stdin.buffer, sys.stdout.buffer)
