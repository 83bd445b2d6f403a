"""Placement against hand-computed budgets (reference loihi.md, section 7.1) and brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmtool.compiler.place import place, synapse_bits, synapses_into
from nmtool.compiler.program import Connection, InputSpec, Population, Program
from nmtool.target import load_target


def population(name: str, shape: tuple[int, ...], latency: int) -> Population:
    return Population(
        name, shape, *(np.asarray(v, np.int32) for v in (4096, 0, 100, 0, 0)), scale=1.0, latency=latency
    )


def mlp(*sizes: int) -> Program:
    pops = tuple(population(f"p{i}", (n,), i + 1) for i, n in enumerate(sizes[1:]))
    names = ["in", *(p.name for p in pops)]
    conns = tuple(
        Connection(f"c{i}", a, b, "dense", np.full((sizes[i + 1], sizes[i]), 2, np.int32))
        for i, (a, b) in enumerate(zip(names[:-1], names[1:], strict=True))
    )
    return Program(
        "loihi1", InputSpec("in", (sizes[0],), "spikes", 4), pops, conns, None, names[-1], "spike_count", 1e-3
    )


def test_dense_784_to_256_takes_two_cores_by_synapse_memory() -> None:
    program = mlp(784, 256)
    spec = load_target("loihi1")
    assert synapse_bits(program.connections[0], np.full(784, 256), 0, spec) == 1_806_336
    placement = place(program, spec)
    assert placement.as_dict() == {"p0": [[0, 0, 128], [1, 128, 256]]}
    bits = [u.used for c in placement.cores for u in c.uses if u.name == "synapse memory bits"]
    assert bits == [903_168, 903_168]


def test_compartments_split_a_wide_layer_and_axons_follow() -> None:
    placement = place(mlp(4, 2500, 3), load_target("loihi1"))
    assert [c.stop - c.start for c in placement.cores if c.population == "p0"] == [833, 833, 834]
    last = next(c for c in placement.cores if c.population == "p1")
    assert {u.name: u.used for u in last.uses}["input axons"] == 2500
    assert [
        {u.name: u.used for u in c.uses}["output axons"] for c in placement.cores if c.population == "p0"
    ] == [833, 833, 834]


def test_a_fan_in_that_no_split_can_satisfy_is_reported() -> None:
    from nmtool.compiler.check import check_placement

    program = mlp(5000, 2)
    spec = load_target("loihi1")
    found = [str(d) for d in check_placement(program, place(program, spec), spec) if d.severity == "error"]
    assert len(found) == 2
    assert "NM203" in found[0]
    assert "needs 5000 input axons" in found[0]
    assert "4096" in found[0]
    assert "core.max_in_axons" in found[0]


@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.data(),
)
def test_conv_synapse_counts_equal_brute_force(
    groups: int, cin: int, k: int, stride: int, pad: int, dil: int, data: st.DataObject
) -> None:
    h = w = 6
    out = (h + 2 * pad - dil * (k - 1) - 1) // stride + 1
    if out < 1:
        return
    cout = 2 * groups
    c = Connection(
        "c",
        "a",
        "b",
        "conv",
        np.ones((cout, cin, k, k), np.int32),
        in_shape=(cin * groups, h, w),
        out_shape=(cout, out, out),
        stride=(stride, stride),
        padding=(pad, pad),
        dilation=(dil, dil),
        groups=groups,
    )
    n = cout * out * out
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    expected = np.zeros((cin * groups, h, w), int)
    for flat in range(start, stop):
        co, oy, ox = np.unravel_index(flat, (cout, out, out))
        for ci in range(cin):
            for ky in range(k):
                for kx in range(k):
                    y, x = oy * stride - pad + ky * dil, ox * stride - pad + kx * dil
                    if 0 <= y < h and 0 <= x < w:
                        expected[co // 2 * cin + ci, y, x] += 1
    assert np.array_equal(synapses_into(c, expected.size, (start, stop)), expected.ravel())


def test_what_a_target_does_not_publish_is_not_checked() -> None:
    placement = place(mlp(4, 3), load_target("loihi2"))
    with pytest.raises(StopIteration):
        next(u for u in placement.cores[0].uses if u.name == "input axons")
