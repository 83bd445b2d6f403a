"""Placement against hand-computed budgets (reference loihi.md, section 7.1) and brute force."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nmtool.compiler.check import check_placement
from nmtool.compiler.place import Budgets, place, synapse_bits
from nmtool.compiler.program import Connection, InputSpec, Population, Program
from nmtool.compiler.tiling import Tiling, fan_in, fan_out_cores, pieces
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
    fan = fan_in(program.connections[0], 784, (256,), ((0, 256),), 512)
    assert synapse_bits(program.connections[0], fan, 0, Budgets.of(spec)) == 1_806_336
    placement = place(program, spec)
    assert placement.as_dict() == {"p0": [[0, 0, 128], [1, 128, 256]]}
    bits = [u.used for c in placement.cores for u in c.uses if u.name == "synapse memory bits"]
    assert bits == [903_168, 903_168]


def test_compartments_split_a_wide_layer_and_axons_follow() -> None:
    placement = place(mlp(4, 2500, 3), load_target("loihi1"))
    assert [b - a for c in placement.cores if c.population == "p0" for a, b in c.neurons] == [833, 833, 834]
    last = next(c for c in placement.cores if c.population == "p1")
    assert {u.name: u.used for u in last.uses}["input axons"] == 2500
    assert [
        {u.name: u.used for u in c.uses}["output axons"] for c in placement.cores if c.population == "p0"
    ] == [833, 833, 834]


def test_a_fan_in_that_no_split_can_satisfy_is_reported() -> None:
    program = mlp(5000, 2)
    spec = load_target("loihi1")
    found = [str(d) for d in check_placement(program, place(program, spec), spec) if d.severity == "error"]
    assert len(found) == 2
    assert "NM203" in found[0]
    assert "needs 5000 input axons" in found[0]
    assert "4096" in found[0]
    assert "core.max_in_axons" in found[0]


@st.composite
def convolutions(draw: st.DrawFn) -> Connection:
    """A small convolution, stride, padding, dilation and groups included."""
    groups, cin, k, stride, pad, dil = (
        draw(st.integers(a, b)) for a, b in ((1, 2), (1, 3), (1, 3), (1, 2), (0, 2), (1, 2))
    )
    n = 6
    out = (n + 2 * pad - dil * (k - 1) - 1) // stride + 1
    assume(out >= 1)
    cout = 2 * groups
    return Connection(
        "c", "a", "b", "conv", np.ones((cout, cin, k, k), np.int32), in_shape=(cin * groups, n, n),
        out_shape=(cout, out, out), stride=(stride, stride), padding=(pad, pad), dilation=(dil, dil), groups=groups,
    )  # fmt: skip


def synapses(c: Connection) -> list[tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]]:
    """Every (target, source, (ky, kx, input channel in its group)), by the definition."""
    assert c.in_shape
    assert c.out_shape
    per_out, (_, cin, k, _) = c.out_shape[0] // c.groups, c.weights.shape
    found = []
    for co, oy, ox in np.ndindex(c.out_shape):
        for ci, ky, kx in np.ndindex(cin, k, k):
            y, x = (o * c.stride[0] - c.padding[0] + t * c.dilation[0] for o, t in ((oy, ky), (ox, kx)))
            if 0 <= y < c.in_shape[1] and 0 <= x < c.in_shape[2]:
                found.append(((co, oy, ox), (co // per_out * cin + ci, y, x), (ky, kx, ci)))
    return found


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.data())
def test_conv_lists_and_axons_equal_brute_force(c: Connection, data: st.DataObject) -> None:
    """Lists are shared by positions whose readers differ by a shift alone; axons carry all channels of a position."""
    assert c.in_shape
    assert c.out_shape
    block = tuple(
        (a := data.draw(st.integers(0, n - 1)), data.draw(st.integers(a + 1, n))) for n in c.out_shape
    )
    lists: dict[tuple[int, int, int], list[tuple[tuple[int, int, int], tuple[int, int, int]]]] = {}
    for target, source, tap in synapses(c):
        if all(a <= t < b for t, (a, b) in zip(target, block, strict=True)):
            lists.setdefault(source, []).append((target, tap))
    stored = set()
    for source, readers in lists.items():
        base = [min(t[i] for t, _ in readers) for i in (1, 2)]
        stored.add(
            (source[0], tuple((t[0], t[1] - base[0], t[2] - base[1], tap[:2]) for t, tap in sorted(readers)))
        )
    fan = fan_in(c, int(np.prod(c.in_shape)), c.out_shape, block, 512)
    assert fan.lists.sum() == len(stored)
    assert (fan.lists * fan.synapses).sum() == sum(len(pattern) for _, pattern in stored)
    assert fan.axons == len({s[1:] for s in lists})


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.data())
def test_cores_reached_by_a_conv_equal_brute_force(c: Connection, data: st.DataObject) -> None:
    assert c.in_shape
    assert c.out_shape
    tiling = Tiling(c.out_shape, tuple(data.draw(st.integers(1, n)) for n in c.out_shape))
    reached: dict[int, set[int]] = {}
    for target, source, _ in synapses(c):
        flat = np.array([np.ravel_multi_index(target, c.out_shape)], np.int32)
        reached.setdefault(int(np.ravel_multi_index(source, c.in_shape)), set()).add(int(tiling.of(flat)[0]))
    expected = [len(reached.get(i, ())) for i in range(int(np.prod(c.in_shape)))]
    assert fan_out_cores(c, c.in_shape, tiling).tolist() == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), st.data())
def test_blocks_cover_every_neuron_once(shape: tuple[int, ...], data: st.DataObject) -> None:
    tiling = Tiling(shape, tuple(data.draw(st.integers(1, n)) for n in shape))
    owner = np.full(int(np.prod(shape)), -1)
    for i, block in enumerate(tiling.blocks()):
        for a, b in pieces(block, shape):
            assert (owner[a:b] == -1).all()
            owner[a:b] = i
    assert owner.tolist() == tiling.of(np.arange(owner.size, dtype=np.int32)).tolist()


def test_vgg_like_convolution_is_tiled_within_its_budgets() -> None:
    c = Connection("c", "in", "p", "conv", np.full((64, 64, 3, 3), 2, np.int32), in_shape=(64, 16, 16),
                   out_shape=(64, 16, 16), padding=(1, 1))  # fmt: skip
    p = population("p", (64, 16, 16), 1)
    program = Program(
        "loihi1", InputSpec("in", (64, 16, 16), "spikes", 4), (p,), (c,), None, "p", "spike_count", 1e-3
    )
    placement = place(program, load_target("loihi1"))
    assert all(u.used <= u.limit for core in placement.cores for u in core.uses)
    assert sum(b - a for core in placement.cores for a, b in core.neurons) == p.n_neurons
    assert placement.n_cores <= 64


def test_what_a_target_does_not_publish_is_not_checked() -> None:
    placement = place(mlp(4, 3), load_target("loihi2"))
    with pytest.raises(StopIteration):
        next(u for u in placement.cores[0].uses if u.name == "input axons")
