"""The frame protocol: round trip, and what damaged or foreign bytes get."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.backends.frames import MAGIC, PREFIX, Frame, array, field, read_frame, write_frame
from nmtool.errors import SimulationError

ARRAYS = {
    "spikes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "u": np.array([-(2**31), 2**31 - 1], np.int32),
    "counts": np.array([[2**62]], np.int64),
    "scalar": np.array(1.5, np.float64),
    "empty": np.zeros((0, 5), np.float32),
}


def packed(kind: str = "result", **header: object) -> bytes:
    stream = io.BytesIO()
    write_frame(stream, kind, ARRAYS, **header)
    return stream.getvalue()


def unpacked(data: bytes) -> Frame | None:
    return read_frame(io.BytesIO(data))


def outcome(data: bytes) -> Frame | str | None:
    """What reading gives: a frame, the end, or the code of an error."""
    try:
        return unpacked(data)
    except SimulationError as e:
        return e.code


def raw(head: bytes, body: bytes = b"") -> bytes:
    return PREFIX.pack(MAGIC, len(head), len(body), zlib.crc32(body, zlib.crc32(head))) + head + body


def test_a_frame_comes_back_as_it_was_sent():
    frame = unpacked(packed(n=3, text="ü", nested={"a": [1, None]}))
    assert frame is not None
    assert frame.kind == "result"
    assert frame.header == {"kind": "result", "n": 3, "text": "ü", "nested": {"a": [1, None]}}
    assert frame.arrays.keys() == ARRAYS.keys()
    for name, sent in ARRAYS.items():
        np.testing.assert_array_equal(frame.arrays[name], sent)
        assert frame.arrays[name].dtype == sent.dtype


def test_several_frames_follow_each_other_and_then_the_stream_ends():
    stream = io.BytesIO(packed(n=1) + packed(n=2))
    assert [read_frame(stream).header["n"] for _ in range(2)] == [1, 2]
    assert read_frame(stream) is None


def test_the_bytes_on_the_wire_are_little_endian_and_documented():
    stream = io.BytesIO()
    write_frame(stream, "k", {"a": np.array([1, -2], ">i4")})
    data = stream.getvalue()
    magic, n_head, n_body, _ = struct.unpack("<4sIQI", data[:20])
    assert (magic, n_body, len(data)) == (b"NMF1", 8, 20 + n_head + 8)
    assert data[-8:] == b"\x01\0\0\0\xfe\xff\xff\xff"


def test_a_strided_array_is_sent_in_c_order():
    stream = io.BytesIO()
    sent = np.arange(12, dtype=np.int32).reshape(3, 4).T[::2]
    write_frame(stream, "k", {"a": sent})
    stream.seek(0)
    np.testing.assert_array_equal(read_frame(stream).arrays["a"], sent)


def test_an_object_array_is_refused_when_sent():
    with pytest.raises(SimulationError, match=r"NM404.*'a' has type object"):
        write_frame(io.BytesIO(), "k", {"a": np.array([None])})


FOREIGN = {
    "text": (b"Traceback (most recent call last):\n", "begins with"),
    "short prefix": (b"NMF1\0", "ended after 5 of 20"),
    "no json": (raw(b"{"), "not JSON"),
    "not utf-8": (raw(b"\xff{}"), "not JSON"),
    "deep json": (raw(b"[" * 100_000), "not JSON"),
    "no object": (raw(b"[1]"), "not an object"),
    "no kind": (raw(b'{"arrays": []}'), "not an object"),
    "no arrays": (raw(b'{"kind": "x"}'), "no list 'arrays'"),
    "array entry": (raw(b'{"kind": "x", "arrays": [["a", "u1"]]}'), "announced as"),
    "pickle": (raw(b'{"kind": "x", "arrays": [["a", "O", [1]]]}', b"12345678"), "has type 'O'"),
    "negative size": (raw(b'{"kind": "x", "arrays": [["a", "u1", [-1]]]}', b"1"), "has shape"),
    "true as size": (raw(b'{"kind": "x", "arrays": [["a", "u1", [true]]]}', b"1"), "has shape"),
    "many axes": (raw(b'{"kind": "x", "arrays": [["a", "u1", [' + b"1," * 40 + b"1]]]}", b"1"), "has shape"),
    "too much": (raw(b'{"kind": "x", "arrays": [["a", "i8", [9]]]}', b"1"), "does not fit"),
    "overflow": (
        raw(b'{"kind": "x", "arrays": [["a", "u1", [4294967296, 4294967296]]]}', b"1"),
        "does not fit",
    ),
    "too little": (raw(b'{"kind": "x", "arrays": []}', b"1"), "arrays have 0 bytes"),
    "long header": (PREFIX.pack(MAGIC, 2**32 - 1, 0, 0), "longer than"),
    "long body": (PREFIX.pack(MAGIC, 2, 2**63, 0), "longer than"),
    "announced more": (PREFIX.pack(MAGIC, 2, 2**30, 0) + b"{}", "ended after 2 of"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_bytes_are_a_coded_error(case):
    data, match = FOREIGN[case]
    with pytest.raises(SimulationError, match=match) as e:
        unpacked(data)
    assert e.value.code == "NM404"


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_mutated_frame_never_decodes_to_something_else(data):
    sent = bytearray(packed(n=7))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(sent) - 1))
        match data.draw(st.sampled_from(("set", "drop", "insert", "cut"))):
            case "set":
                sent[at] = data.draw(st.integers(0, 255))
            case "drop":
                del sent[at]
            case "insert":
                sent.insert(at, data.draw(st.integers(0, 255)))
            case _:
                del sent[at:]
        if not sent:
            break
    if bytes(sent[: len(packed(n=7))]) == packed(n=7):
        return
    assert outcome(bytes(sent)) == ("NM404" if sent else None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=40))
def test_any_header_with_a_right_checksum_is_a_frame_or_a_coded_error(head, body):
    found = outcome(raw(head, body))
    assert isinstance(found, Frame) or found == "NM404"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.sampled_from(("u1", "i4", "a", "kind")),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.sampled_from(("kind", "arrays", "x")), v),
)


@settings(max_examples=300, deadline=None)
@given(json_values, json_values, st.binary(max_size=16))
def test_any_json_header_is_a_frame_or_a_coded_error(kind, arrays, body):
    found = outcome(raw(json.dumps({"kind": kind, "arrays": arrays}).encode(), body))
    if isinstance(found, Frame):
        assert sum(a.nbytes for a in found.arrays.values()) == len(body)
    else:
        assert found == "NM404"


def test_fields_and_arrays_are_checked_when_read():
    frame = unpacked(packed(n=7, ok=True))
    assert field(frame, "n", int) == 7
    assert field(frame, "ok", bool) is True
    np.testing.assert_array_equal(array(frame, "u", "i4", (2,)), ARRAYS["u"])
    for name, kind in (("n", str), ("ok", int), ("missing", int)):
        with pytest.raises(SimulationError, match=rf"NM404.*{name} = .*expected {kind.__name__}"):
            field(frame, name, kind)
    for name, code, shape in (("u", "i8", (2,)), ("u", "i4", (3,)), ("missing", "i4", (2,))):
        with pytest.raises(SimulationError, match=rf"NM404.*for '{name}', expected"):
            array(frame, name, code, shape)
