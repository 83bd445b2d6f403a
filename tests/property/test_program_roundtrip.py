"""Saved programs: what is read is what was written, and a damaged file is NM110 and nothing else."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generator import case
from hypothesis import given, settings
from hypothesis import strategies as st
from net_writer import conv_net, write_net

from nmtool.compiler.program import Program, load, save
from nmtool.errors import ModelError
from nmtool.frontends.netx import read_net

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("program") / "program.npz"


@pytest.fixture(scope="module")
def program(path: Path) -> Program:
    """Conv, dense, recurrence, delays, a host layer."""
    return read_net(write_net(path.with_name("a.net"), conv_net()))


@pytest.fixture(scope="module")
def saved(path: Path, program: Program) -> bytes:
    save(program, path)
    return path.read_bytes()


def parts(content: bytes) -> dict[str, bytes]:
    """Entries of an npz."""
    with zipfile.ZipFile(io.BytesIO(content)) as z:
        return {name: z.read(name) for name in z.namelist()}


def npz(entries: dict[str, bytes]) -> bytes:
    """An npz of entries, with right checksums whatever stands in them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in entries.items():
            z.writestr(name, content)
    return out.getvalue()


def npy(value: Any) -> bytes:
    """One array as an ``.npy`` file."""
    out = io.BytesIO()
    np.save(out, value)
    return out.getvalue()


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Every leaf of two dataclasses that differs in value, dtype, shape or type."""
    if isinstance(a, np.ndarray):
        if not (
            isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
        ):
            yield where
    elif type(a) is not type(b):
        yield f"{where}: {type(a).__name__} became {type(b).__name__}"
    elif hasattr(a, "__dataclass_fields__"):
        for name in a.__dataclass_fields__:
            yield from differences(getattr(a, name), getattr(b, name), f"{where}.{name}")
    elif isinstance(a, tuple):
        if len(a) != len(b):
            yield where
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from differences(x, y, f"{where}[{i}]")
    elif a != b:
        yield where


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_what_was_saved_is_read(seed: int, path: Path) -> None:
    """Networks of every kind that the simulator accepts."""
    before = case(seed).program
    save(before, path)
    after = load(path)
    assert list(differences(before, after)) == []
    assert after.sha256 == before.sha256


def test_a_net_file_survives(program: Program, saved: bytes, path: Path) -> None:
    path.write_bytes(saved)
    after = load(path)
    assert list(differences(program, after)) == []
    assert after.sha256 == program.sha256


def refused_or_the_same(path: Path, content: bytes, program: Program) -> None:
    path.write_bytes(content)
    try:
        after = load(path)
    except ModelError as e:
        assert e.code == "NM110"  # noqa: PT017  (the other outcome is right as well)
        assert str(path) in e.where  # noqa: PT017
    else:
        assert list(differences(program, after)) == []


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes(data: st.DataObject, path: Path, saved: bytes, program: Program) -> None:
    content = bytearray(saved)
    place = st.integers(0, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=4)):
        content[at] = value
    start, stop = sorted(data.draw(st.tuples(place, place)))
    match data.draw(st.sampled_from(["as is", "truncated", "cut out", "doubled"])):
        case "truncated":
            del content[start:]
        case "cut out":
            del content[start:stop]
        case "doubled":
            content[start:start] = content[start:stop]
    refused_or_the_same(path, bytes(content), program)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_entries_with_right_checksums(
    data: st.DataObject, path: Path, saved: bytes, program: Program
) -> None:
    entries = parts(saved)
    name = data.draw(st.sampled_from(sorted(entries)))
    content = bytearray(entries[name])
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=3)
    ):
        content[at] = value
    entries[name] = bytes(content)
    refused_or_the_same(path, npz(entries), program)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_altered_headers(data: st.DataObject, path: Path, saved: bytes, program: Program) -> None:
    entries = parts(saved)
    node = header = json.loads(entries["header.json"])
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not (isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans())):
            break
        node = node[key]
    node[key] = data.draw(JSON)
    entries["header.json"] = json.dumps(header).encode()
    refused_or_the_same(path, npz(entries), program)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_altered_arrays(data: st.DataObject, path: Path, saved: bytes, program: Program) -> None:
    entries = parts(saved)
    name = data.draw(st.sampled_from([*sorted(entries), "connection/9/weights.npy"]))
    dtype = data.draw(st.sampled_from([np.int32, np.int64, np.float32, np.uint8, np.complex64, bool]))
    entries[name] = npy(np.zeros(data.draw(st.lists(st.integers(0, 3), max_size=3)), dtype))
    refused_or_the_same(path, npz(entries), program)


@pytest.mark.parametrize("name", ["header.json", "sha256", "connection/0/weights.npy"])
def test_a_missing_entry(name: str, path: Path, saved: bytes) -> None:
    entries = parts(saved)
    del entries[name]
    path.write_bytes(npz(entries))
    with pytest.raises(ModelError, match="NM110.*its digest is not that of its content"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"not a zip", bytes(5000)])
def test_other_files(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"NM110.*not a readable program .*Export the model again"):
        load(path)


def test_no_such_file(path: Path) -> None:
    with pytest.raises(ModelError, match="NM110"):
        load(path.with_name("absent.npz"))
