"""Length-prefixed frames between client and worker: a JSON header and raw little-endian arrays, no pickle.

Layout, all little-endian: 4 bytes magic, u32 header length, u64 body length, u32 CRC-32 of header and body, header
(UTF-8 JSON object), body. The header's ``arrays`` lists name, type and shape; the body holds their bytes one after
the other. The same stream works over a pipe and over ``ssh host nmtool-worker``.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import SimulationError

PROTOCOL = 1
MAGIC = b"NMF1"
PREFIX = struct.Struct("<4sIQI")
MAX_HEADER = 1 << 24
MAX_BODY = 1 << 36
CHUNK = 1 << 20
DTYPES = {name: np.dtype("<" + name) for name in ("u1", "i4", "i8", "f4", "f8")}


class Frame(NamedTuple):
    """One message: ``header["kind"]`` says which; ``arrays`` are read-only views of the received bytes."""

    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def kind(self) -> str:
        """Which message this is."""
        return str(self.header["kind"])


def _broken(what: str) -> SimulationError:
    return SimulationError(
        "NM404", "worker protocol", what, "Run 'nmtool doctor' to compare the versions of both sides"
    )


def write_frame(
    stream: BinaryIO, kind: str, arrays: Mapping[str, NDArray[Any]] | None = None, **header: Any
) -> None:
    """Send one frame and flush.

    Args:
        stream: binary, writable.
        kind: which message.
        arrays: uint8, int32, int64, float32 or float64; sent in C order.
        header: what else stands in the header, JSON types only.

    Raises:
        SimulationError: NM404 if an array has another type.
        OSError: the other side is gone.
    """
    listing, parts = [], []
    for name, array in (arrays or {}).items():
        code = f"{array.dtype.kind}{array.dtype.itemsize}"
        if code not in DTYPES:
            raise _broken(f"array '{name}' has type {array.dtype}, a frame carries {', '.join(DTYPES)}")
        listing.append([name, code, list(array.shape)])
        parts.append(np.ascontiguousarray(array, DTYPES[code]).tobytes())
    head = json.dumps({**header, "kind": kind, "arrays": listing}, allow_nan=False).encode()
    body = b"".join(parts)
    stream.write(PREFIX.pack(MAGIC, len(head), len(body), zlib.crc32(body, zlib.crc32(head))))
    stream.write(head)
    stream.write(body)
    stream.flush()


def read_frame(stream: BinaryIO) -> Frame | None:
    """Receive one frame; None if the stream ended between two frames.

    Raises:
        SimulationError: NM404 if what arrives is no frame, is damaged, or ends in the middle.
    """
    prefix = _read(stream, PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < PREFIX.size:
        raise _broken(f"the stream ended after {len(prefix)} of {PREFIX.size} bytes of a frame's prefix")
    magic, n_head, n_body, crc = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise _broken(f"a frame begins with {MAGIC!r}, found {magic!r}")
    if n_head > MAX_HEADER or n_body > MAX_BODY:
        raise _broken(f"a frame of {n_head} + {n_body} bytes is longer than {MAX_HEADER} + {MAX_BODY}")
    head, body = _read(stream, n_head), _read(stream, n_body)
    if len(head) < n_head or len(body) < n_body:
        raise _broken(f"the stream ended after {len(head) + len(body)} of {n_head + n_body} bytes of a frame")
    if zlib.crc32(body, zlib.crc32(head)) != crc:
        raise _broken("a frame's checksum does not match its content")
    return _decode(head, body)


def _read(stream: BinaryIO, size: int) -> bytes:
    """Up to ``size`` bytes, fewer only at the end; memory grows with what arrives, not with what was announced."""
    parts: list[bytes] = []
    while size and (part := stream.read(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _decode(head: bytes, body: bytes) -> Frame:
    try:
        header = json.loads(head.decode())
    except (ValueError, RecursionError) as e:
        raise _broken(f"a frame's header is not JSON ({e})") from e
    if not isinstance(header, dict) or not isinstance(header.get("kind"), str):
        raise _broken("a frame's header is not an object with a 'kind'")
    listing = header.pop("arrays", None)
    if not isinstance(listing, list):
        raise _broken("a frame's header has no list 'arrays'")
    arrays, offset = {}, 0
    for entry in listing:
        name, dtype, shape = _array_entry(entry)
        count = 1
        for n in shape:
            count *= n
        if offset + count * dtype.itemsize > len(body):
            raise _broken(
                f"array '{name}' of shape {tuple(shape)} does not fit the {len(body)} bytes of its frame"
            )
        arrays[name] = np.frombuffer(body, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    if offset != len(body):
        raise _broken(f"a frame's arrays have {offset} bytes, its body {len(body)}")
    return Frame(header, arrays)


def _array_entry(entry: Any) -> tuple[str, np.dtype[Any], list[int]]:
    """One line of ``arrays``, checked."""
    if not isinstance(entry, list) or len(entry) != 3:
        raise _broken(f"an array is announced as {entry!r}, expected [name, type, shape]")
    name, code, shape = entry
    if not isinstance(name, str) or not isinstance(code, str) or code not in DTYPES:
        raise _broken(f"array {name!r} has type {code!r}, a frame carries {', '.join(DTYPES)}")
    if (
        not isinstance(shape, list)
        or any(type(n) is not int or not 0 <= n <= MAX_BODY for n in shape)
        or len(shape) > 32
    ):
        raise _broken(f"array '{name}' has shape {shape!r}, expected a list of sizes")
    return name, DTYPES[code], shape


def field(frame: Frame, name: str, kind: type) -> Any:
    """A header field of that type.

    Raises:
        SimulationError: NM404 if it is missing or of another type.
    """
    value = frame.header.get(name)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _broken(f"frame '{frame.kind}' has {name} = {value!r}, expected {kind.__name__}")
    return value


def array(frame: Frame, name: str, code: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of that type and shape.

    Raises:
        SimulationError: NM404 if it is missing or of another type or shape.
    """
    value = frame.arrays.get(name)
    if value is None or value.dtype != DTYPES[code] or value.shape != shape:
        found = "nothing" if value is None else f"{value.dtype} {value.shape}"
        raise _broken(f"frame '{frame.kind}' has {found} for '{name}', expected {DTYPES[code]} {shape}")
    return value
