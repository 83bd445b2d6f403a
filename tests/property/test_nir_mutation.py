"""Damaged and altered ``.nir`` files give a coded error or a sound graph that runs; never anything else."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmtool.errors import NmtoolError
from nmtool.ir import hdf5
from nmtool.ir.graph import Graph, from_tree, write
from nmtool.ir.reference import Engine
from nmtool.ir.semantics import ModelSemantics, NeuronSemantics

CODES = ("NM101", "NM102", "NM103", "NM104", "NM105", "NM106", "NM108", "NM401")


def ours(path: Path) -> None:
    """A convolution, a recurrent layer and all metadata."""
    rng = np.random.default_rng(0)

    def neuron(*shape: int) -> NeuronSemantics:
        one = np.ones(shape)
        beta = rng.uniform(0.5, 0.9, shape)
        return NeuronSemantics(beta, one, 0.5 * one, one, 0 * one, one, 0 * one, "subtract", True, 0.1)

    def weight(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    nodes = {
        "input": nir.Input(np.array([1, 6, 6])),
        "conv": nir.Conv2d((6, 6), weight(4, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1, weight(4)),
        "lif1": nir.LIF(*(np.ones((4, 6, 6), np.float32),) * 4),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flatten": nir.Flatten({"input": np.array([4, 3, 3])}, 0, -1),
        "fc": nir.Affine(weight(10, 36), weight(10)),
        "lif2": nir.LIF(*(np.ones(10, np.float32),) * 4),
        "rec": nir.Linear(weight(10, 10)),
        "output": nir.Output(np.array([10])),
    }
    chain = ["input", "conv", "lif1", "pool", "flatten", "fc", "lif2", "output"]
    edges = [*zip(chain[:-1], chain[1:], strict=True), ("lif2", "rec"), ("rec", "lif2")]
    model = ModelSemantics(1e-3, "direct", 8, class_labels=tuple("0123456789"), data="digits")
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    write(graph, model, {"lif1": neuron(4, 6, 6), "lif2": neuron(10)}, path)


def foreign(path: Path) -> None:
    """Every other node type, no metadata, a nested graph."""
    one = np.ones(3)
    inner = nir.NIRGraph(
        {
            "input": nir.Input(np.array([3])),
            "lif": nir.CubaLIF(1e-3 * one, 2e-3 * one, one, 0 * one, one),
            "w": nir.Linear(np.eye(3)),
            "output": nir.Output(np.array([3])),
        },
        [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
    )
    nodes = {
        "in": nir.Input(np.array([2, 5])),
        "conv": nir.Conv1d(5, np.ones((2, 2, 3)), 1, 1, 1, 1, np.zeros(2)),
        "if": nir.IF(np.full((2, 5), 1e4), np.ones((2, 5))),
        "flat": nir.Flatten({"input": np.array([2, 5])}, 0, -1),
        "lin": nir.Linear(np.ones((3, 10))),
        "scale": nir.Scale(0.5 * one),
        "delay": nir.Delay(2e-4 * one),
        "sub": inner,
        "li": nir.LI(2e-3 * one, one, 0 * one),
        "out": nir.Output(np.array([3])),
    }
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes, list(zip(names[:-1], names[1:], strict=True)), type_check=False))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("nir")
    for make in (ours, foreign):
        make(folder / make.__name__)
    return [(folder / make.__name__).read_bytes() for make in (ours, foreign)]


@pytest.fixture(scope="module")
def reader() -> Iterator[hdf5.Reader]:
    with hdf5.Reader() as r:
        yield r


@pytest.fixture(scope="module")
def trees(
    files: list[bytes], reader: hdf5.Reader, tmp_path_factory: pytest.TempPathFactory
) -> list[hdf5.Tree]:
    out = []
    for i, raw in enumerate(files):
        path = tmp_path_factory.mktemp("tree") / f"{i}.nir"
        path.write_bytes(raw)
        out.append(reader.load(path))
    return out


def run_a_little(graph: Graph) -> None:
    """A graph that was accepted also runs."""
    shape = graph.nodes[graph.input].out_shape
    if max(math.prod(n.out_shape) for n in graph.nodes.values()) < 10_000:
        Engine(graph).run(np.ones((3, 2, *shape), np.uint8), record=("all",))


def sound_or_coded(make: Callable[[], hdf5.Tree]) -> str:
    """Code of the error that a file gives, "" for one that is read and runs."""
    try:
        run_a_little(from_tree(make(), "m.nir", ""))
    except NmtoolError as e:
        text, code = e.message, e.code
    else:
        return ""
    assert code in CODES
    assert "\n" not in text
    return code


def test_the_unchanged_files_are_sound(trees: list[hdf5.Tree]) -> None:
    assert [sound_or_coded(lambda t=t: t) for t in trees] == ["", ""]


@st.composite
def damage(draw: st.DrawFn) -> Any:
    """A change to the bytes of a file, as a function."""
    where = draw(st.floats(0, 1, exclude_max=True))
    kind = draw(st.sampled_from(["flip", "cut", "fill", "copy", "insert"]))
    n = draw(st.integers(1, 64))
    values = draw(st.binary(min_size=n, max_size=n))
    other = draw(st.floats(0, 1, exclude_max=True))

    def apply(raw: bytes) -> bytes:
        b, i, j = bytearray(raw), int(where * len(raw)), int(other * len(raw))
        if kind == "flip":
            b[i] ^= 1 << n % 8
        elif kind == "cut":
            del b[i:]
        elif kind == "fill":
            b[i : i + n] = values[: len(b) - i]
        elif kind == "copy":
            b[i : i + n] = raw[j : j + n][: len(b) - i]
        else:
            b[i:i] = values
        return bytes(b)

    return apply


@settings(max_examples=220, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 1), changes=st.lists(damage(), min_size=1, max_size=3))
def test_changed_bytes(
    which: int, changes: list[Any], files: list[bytes], reader: hdf5.Reader, tmp_path: Path
) -> None:
    raw = files[which]
    for change in changes:
        raw = change(raw) or b"\0"
    path = tmp_path / "m.nir"
    path.write_bytes(raw)
    sound_or_coded(lambda: reader.load(path))


VALUES = st.sampled_from([
    np.array(0), np.array(-1.0), np.array(np.nan), np.array([]), np.array([np.inf, 1.0]), np.array([[1, 2], [3, 4]]),
    np.full((2, 2, 2), 1e30), np.array(2**62), np.array([2**31]), np.array([True, False]), np.array([1 + 2j]),
    np.ones((10,), np.int8), np.ones((4, 6, 6)), np.array(["a", "b"], object), "same", "", "subtract", "LIF",
    "NIRGraph", "[1", hdf5.Other("compound"), {}, {"type": "LIF"}, {"type": "Input", "shape": np.array([3])},
]).map(copy.deepcopy)  # fmt: skip


def paths(tree: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every group and leaf below the root."""
    if not isinstance(tree, dict):
        return [prefix]
    return ([prefix] if prefix else []) + [p for k, v in tree.items() for p in paths(v, (*prefix, k))]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_contents(data: st.DataObject, trees: list[hdf5.Tree]) -> None:
    tree: Any = copy.deepcopy(dict(trees[data.draw(st.integers(0, 1))]))
    for _ in range(data.draw(st.integers(1, 3))):
        all_paths = paths(tree)
        *groups, name = data.draw(st.sampled_from(all_paths))
        parent = tree
        for g in groups:
            parent = parent[g]
        action = data.draw(st.sampled_from(["delete", "replace", "rename", "change", "add"]))
        if action == "delete":
            del parent[name]
        elif action == "rename":
            parent[data.draw(st.sampled_from(["output", "x", "nmtool.reset", "v_reset", "input", "sub"]))] = (
                parent.pop(name)
            )
        elif action == "change" and isinstance(parent[name], np.ndarray) and parent[name].size:
            changed = parent[name].copy()
            at = data.draw(st.integers(0, changed.size - 1))
            changed.flat[at] = (
                "nobody" if changed.dtype == object else data.draw(st.sampled_from([0, 1, 2, 7, -1]))
            )
            parent[name] = changed
        elif action == "add" and isinstance(parent[name], dict):
            parent[name]["nmtool.extra"] = data.draw(VALUES)
        else:
            parent[name] = data.draw(VALUES)
        if not isinstance(tree, dict) or not tree:
            return
    sound_or_coded(lambda: tree)
