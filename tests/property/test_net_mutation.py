"""Damaged and altered ``.net`` files: every one gives a Program or a coded error."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from net_writer import conv_net, old_net, write_net

from nmtool.compiler.program import check_consistent
from nmtool.errors import ConfigError, FindingsError, ModelError
from nmtool.frontends.netx import read_net
from nmtool.ir.hdf5 import Reader

NETS = (conv_net(), old_net())
PLACES = [(n, i, key) for n, net in enumerate(NETS) for i, layer in enumerate(net) for key in layer]
ABSENT = object()

NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32),
    hnp.arrays(
        st.sampled_from([np.int8, np.int64, np.uint64, np.float32, np.float64, bool]),
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    ),
    hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=6), elements=st.integers(-2, 300)),
)
TEXTS = st.sampled_from(["CUBA", "LOIHI", "RF", "dense", "conv", "input", "flatten", "SDNN", "é"])
VALUES = st.one_of(NUMBERS, TEXTS, st.just(ABSENT))
LAYER_TYPES = st.sampled_from(["input", "flatten", "dense", "dense_rec", "conv", "pool", "average", "?"])

Try = Callable[[Path], None]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("net") / "mutated.net"


@pytest.fixture(scope="module")
def originals(path: Path) -> list[bytes]:
    return [write_net(path, net, Ts=1, tSample=16).read_bytes() for net in NETS]


@pytest.fixture(scope="module")
def attempt() -> Iterator[Try]:
    """Reads a file; anything but a sound Program or one of nmtool's errors fails the test."""
    with Reader() as reader:

        def run(path: Path) -> None:
            try:
                program = read_net(path, reader=reader)
            except (ModelError, ConfigError, FindingsError) as e:
                event(e.code)
                return
            event("Program")
            check_consistent(program)

        yield run


def test_the_originals_are_read(path: Path, originals: list[bytes]) -> None:
    for content in originals:
        path.write_bytes(content)
        check_consistent(read_net(path))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_bytes(data: st.DataObject, path: Path, originals: list[bytes], attempt: Try) -> None:
    content = bytearray(data.draw(st.sampled_from(originals)))
    place = st.integers(0, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)):
        content[at] = value
    start, stop = sorted(data.draw(st.tuples(place, place)))
    match data.draw(st.sampled_from(["as is", "truncated", "cut out", "doubled"])):
        case "truncated":
            del content[start:]
        case "cut out":
            del content[start:stop]
        case "doubled":
            content[start:start] = content[start:stop]
    path.write_bytes(content)
    attempt(path)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_data_sets(
    place: tuple[int, int, str], value: Any, path: Path, originals: list[bytes], attempt: Try
) -> None:
    n, i, key = place
    path.write_bytes(originals[n])
    with h5py.File(path, "a") as f:
        del f[f"layer/{i}/{key}"]
        if value is not ABSENT:
            f[f"layer/{i}/{key}"] = value
    attempt(path)


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(0, 1),
    order=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    types=st.lists(st.none() | LAYER_TYPES, min_size=6, max_size=6),
)
def test_order_and_types_of_layers(
    n: int, order: list[int], types: list[str | None], path: Path, attempt: Try
) -> None:
    net = [dict(NETS[n][i]) for i in order]
    for layer, kind in zip(net, types, strict=False):
        layer["type"] = kind or layer["type"]
    attempt(write_net(path, net))
