"""Fan-out, MACs and messages against brute force over every synapse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.backends.base import RunResult
from nmtool.compiler.program import Connection, InputSpec, Population, Program
from nmtool.errors import EvaluationError
from nmtool.metrics.synops import axis_fan_out, count, fan_out, macs, pooling_tile
from nmtool.metrics.traffic import Piece, reached, traffic
from nmtool.target import load_target

VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


def out_size(h: int, k: int, s: int, p: int, d: int) -> int:
    return (h + 2 * p - d * (k - 1) - 1) // s + 1


@st.composite
def convolutions(draw: Any) -> Connection:
    groups = draw(st.integers(1, 2))
    c_in, c_out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    size, kernel, stride, padding, dilation = (
        tuple(draw(st.integers(low, high)) for _ in range(2))
        for low, high in ((1, 6), (1, 3), (1, 3), (0, 2), (1, 2))
    )
    out = tuple(out_size(*a) for a in zip(size, kernel, stride, padding, dilation, strict=True))
    if min(out) < 1:
        size = tuple(dd * (k - 1) + 1 for dd, k in zip(dilation, kernel, strict=True))
        out = tuple(out_size(*a) for a in zip(size, kernel, stride, padding, dilation, strict=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w = rng.integers(-1, 2, (c_out, c_in // groups, *kernel)).astype(np.int32)
    return Connection(
        "c", "input", "out", "conv", w, in_shape=(c_in, *size), out_shape=(c_out, *out),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip


def synapses(c: Connection) -> list[tuple[int, int, int]]:
    """Every synapse of a convolution as (target, source, weight), by definition."""
    assert c.in_shape is not None
    assert c.out_shape is not None
    found = []
    per_out, per_in = c.out_shape[0] // c.groups, c.in_shape[0] // c.groups
    for o, y, x in np.ndindex(*c.out_shape):
        for i, ky, kx in np.ndindex(*c.weights.shape[1:]):
            sy, sx = (
                y * c.stride[0] - c.padding[0] + ky * c.dilation[0],
                x * c.stride[1] - c.padding[1] + kx * c.dilation[1],
            )
            if 0 <= sy < c.in_shape[1] and 0 <= sx < c.in_shape[2]:
                source = np.ravel_multi_index((o // per_out * per_in + i, sy, sx), c.in_shape)
                found.append(
                    (
                        int(np.ravel_multi_index((o, y, x), c.out_shape)),
                        int(source),
                        int(c.weights[o, i, ky, kx]),
                    )
                )
    return found


@settings(max_examples=120, deadline=None)
@given(convolutions())
def test_convolution_fan_out_is_the_number_of_its_synapses(c: Connection) -> None:
    n = int(np.prod(c.in_shape))
    every = synapses(c)
    f = fan_out(c, n)
    assert f.stored.tolist() == np.bincount([s for _, s, _ in every], minlength=n).tolist()
    assert f.nonzero.tolist() == np.bincount([s for _, s, w in every if w], minlength=n).tolist()
    assert f.stored.dtype == f.nonzero.dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.data())
def test_convolution_reaches_a_core_where_a_synapse_ends(c: Connection, data: Any) -> None:
    n, n_out = int(np.prod(c.in_shape)), int(np.prod(c.out_shape))
    start = data.draw(st.integers(0, n_out - 1))
    stop = data.draw(st.integers(start + 1, n_out))
    mask = np.zeros(n, bool)
    mask[[s for t, s, _ in synapses(c) if start <= t < stop]] = True
    assert reached(c, n, [Piece(0, start, stop)]).tolist() == mask.tolist()


def test_axis_that_no_window_reaches() -> None:
    assert axis_fan_out(5, 2, 2, 2, 0, 1).tolist() == [1, 1, 1, 1, 0]
    assert axis_fan_out(4, 4, 3, 1, 1, 1).tolist() == [2, 3, 3, 2]


def test_sparse_fan_out() -> None:
    at = np.array([[0, 0, 1, 2], [0, 2, 2, 1]], np.int32)
    c = Connection("s", "input", "out", "sparse", np.array([4, 0, -2, 6], np.int32), indices=at)
    f = fan_out(c, 4)
    assert (f.stored.tolist(), f.nonzero.tolist()) == ([1, 1, 2, 0], [1, 1, 1, 0])
    assert reached(c, 4, [Piece(0, 1, 3)]).tolist() == [False, True, True, False]


def population(name: str, shape: tuple[int, ...], latency: int = 0) -> Population:
    zero = np.zeros((), np.int32)
    return Population(name, shape, zero + 4096, zero, zero + 10, zero, zero, 1.0, latency)


def network(pops: list[Population], conns: list[Connection], shape: tuple[int, ...], **info: Any) -> Program:
    spec = InputSpec("input", shape, "spikes", 4)
    return Program(
        "loihi1", spec, tuple(pops), tuple(conns), None, pops[-1].name, "spike_count", 1e-3, info=info
    )


def vgg11(folded: bool) -> Program:
    """VGG-11 at 32x32; pooling as layers between (no synapse counted here), or folded into the next weights."""
    rng = np.random.default_rng(0)
    pops: list[Population] = []
    conns: list[Connection] = []
    shape, source, pooled = (3, 32, 32), "input", False
    for step in VGG11:
        if step == "M":
            pooled = True
            shape = shape if folded else (shape[0], shape[1] // 2, shape[2] // 2)
            continue
        name, k = f"conv{len(pops)}", 2 if pooled and folded else 1
        channels = int(step)
        w = rng.integers(1, 100, (channels, shape[0], 3, 3)).astype(np.int32)
        out = (channels, shape[1] // k, shape[2] // k)
        big = np.kron(w, np.ones((k, k), np.int32))
        if not folded and pooled:
            pops.append(population(f"pool{len(pops)}", shape))
            source = pops[-1].name
        conns.append(
            Connection(
                name, source, name, "conv", big, in_shape=shape, out_shape=out, stride=(k, k), padding=(k, k)
            )
        )
        pops.append(population(name, out))
        shape, source, pooled = out, name, False
    w = rng.integers(1, 100, (10, shape[0])).astype(np.int32)
    if folded:
        w = np.repeat(w, shape[1] * shape[2], axis=1)
    else:
        shape = (shape[0], 1, 1)
        pops.append(population("last", shape))
        source = "last"
    conns.append(Connection("fc", source, "fc", "dense", w))
    pops.append(population("fc", (10,)))
    return network(pops, conns, (3, 32, 32))


@pytest.mark.parametrize("folded", [False, True])
def test_vgg11_multiplications(folded: bool) -> None:
    p = vgg11(folded)
    shapes = {"input": p.input.shape, **{q.name: q.shape for q in p.populations}}
    total = [macs(c, shapes[c.source], fan_out(c, p.size(c.source)).stored) for c in p.connections]
    assert sum(m.exact for m in total) / 1e6 == pytest.approx(114.33, abs=0.005)
    assert sum(m.naive for m in total) / 1e6 == pytest.approx(152.77, abs=0.005)


def test_pooling_is_found_only_where_weights_repeat() -> None:
    w = np.arange(9, dtype=np.int32).reshape(1, 1, 3, 3)
    big = np.kron(w, np.ones((2, 2), np.int32))
    shapes: dict[str, Any] = {
        "in_shape": (1, 8, 8),
        "out_shape": (1, 4, 4),
        "stride": (2, 2),
        "padding": (2, 2),
    }
    assert pooling_tile(Connection("c", "a", "b", "conv", big, **shapes), (1, 8, 8)) == (2, 2)
    big[0, 0, 0, 0] += 1
    assert pooling_tile(Connection("c", "a", "b", "conv", big, **shapes), (1, 8, 8)) == (1, 1)
    flat = np.repeat(np.arange(6, dtype=np.int32).reshape(2, 3), 4, axis=1)
    assert pooling_tile(Connection("c", "a", "b", "dense", flat), (3, 2, 2)) == (2, 2)
    assert pooling_tile(Connection("c", "a", "b", "dense", flat), (12,)) == (1, 1)


def run(p: Program, counts: dict[str, Any], steps: int = 4, **kw: Any) -> RunResult:
    n = next(iter(counts.values())).shape[0]
    return RunResult("sim", "", steps, 1e-3, 0, True, np.zeros((n, p.size(p.output)), np.int64), counts, **kw)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_synops_and_messages_of_random_networks(seed: int) -> None:
    """Two populations, a skip and a loop, placed at random: counted spike by spike and synapse by synapse."""
    rng = np.random.default_rng(seed)
    sizes = dict(zip(("input", "a", "b"), rng.integers(1, 8, 3).tolist(), strict=True))
    conns, edges = [], []
    for i, (s, t) in enumerate([("input", "a"), ("a", "b"), ("input", "b"), ("b", "a"), ("b", "b")]):
        w = rng.integers(-1, 2, (sizes[t], sizes[s])).astype(np.int32)
        at = np.stack(np.nonzero(rng.random(w.shape) < 0.5)).astype(np.int32)
        sparse = bool(rng.integers(2))
        conns.append(
            Connection(
                f"c{i}",
                s,
                t,
                "sparse" if sparse else "dense",
                w[tuple(at)] if sparse else w,
                indices=at if sparse else None,
            )
        )
        pairs = at.T.tolist() if sparse else [list(x) for x in np.ndindex(*w.shape)]
        edges += [(t, s, int(a), int(b), int(w[a, b])) for a, b in pairs]
    placement, core = {}, 0
    for name in ("a", "b"):
        cuts = sorted({0, sizes[name], *rng.integers(0, sizes[name] + 1, 2).tolist()})
        placement[name] = [
            [core + i + int(rng.integers(3)) * 40, a, b]
            for i, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False))
        ]
        core += int(rng.integers(3))
    p = network(
        [population(n, (sizes[n],)) for n in ("a", "b")], conns, (sizes["input"],), placement=placement
    )
    spikes = {n: rng.integers(0, 5, (3, sizes[n])) for n in sizes}
    c = count(p, run(p, spikes))
    for layer in c.layers:
        per_sample = [
            sum(int(spikes[s][b, j]) for t, s, _, j, _ in edges if t == layer.name) for b in range(3)
        ]
        nonzero = [
            sum(int(spikes[s][b, j]) for t, s, _, j, w in edges if t == layer.name and w) for b in range(3)
        ]
        assert sum(layer.stored.values(), np.zeros(3, int)).tolist() == per_sample
        assert sum(layer.nonzero.values(), np.zeros(3, int)).tolist() == nonzero
    home = {(n, i): core for n, pieces in placement.items() for core, a, b in pieces for i in range(a, b)}
    sent = {(s, j, home[t, i]) for t, s, i, j, _ in edges}
    total, ew, ns, between = 0, 0, 0, 0
    for s, j, core in sent:
        n = int(spikes[s][:, j].sum())
        total += n
        if s != "input" and home[s, j] // 128 != core // 128:
            between += n
        elif s != "input":
            a, b = home[s, j] % 128 // 4, core % 128 // 4
            ew, ns = ew + n * abs(a % 8 - b % 8), ns + n * abs(a // 8 - b // 8)
    flow = traffic(p, c, load_target("loihi1"))
    got = {
        k: sum(float(rows[k]["nominal"] or 0) for rows in flow.per_layer.values())
        for k in ("messages", "hops_ew", "hops_ns", "interchip_messages")
    }
    assert got == {"messages": total, "hops_ew": ew, "hops_ns": ns, "interchip_messages": between}


def test_messages_without_a_placement_are_bounds() -> None:
    p = network(
        [population("a", (3000,))],
        [Connection("c", "input", "a", "dense", np.ones((3000, 2), np.int32))],
        (2,),
    )
    c = count(p, run(p, {"input": np.array([[3, 1]]), "a": np.zeros((1, 3000), np.int64)}))
    flow = traffic(p, c, load_target("loihi1"))
    assert not flow.placed
    assert flow.per_layer["a"]["messages"] == {"low": 4, "nominal": 12, "high": 4 * 128}
    assert flow.per_layer["a"]["hops_ew"] == {"low": 0, "nominal": 12 * 2.625, "high": 4 * 128 * 7}
    assert flow.per_layer["a"]["hops_ns"] == {"low": 0, "nominal": 12 * 1.25, "high": 4 * 128 * 3}
    assert flow.per_layer["a"]["interchip_messages"]["nominal"] is None


@pytest.mark.parametrize("pieces", [[[0, 0, 2]], [[0, 0, 2], [1, 1, 4]], [[-1, 0, 4]], []])
def test_placement_that_does_not_cover_the_population(pieces: list[list[int]]) -> None:
    p = network([population("a", (4,))], [Connection("c", "input", "a", "dense", np.ones((4, 2), np.int32))], (2,),
                placement={"a": pieces})  # fmt: skip
    c = count(p, run(p, {"input": np.ones((1, 2), np.int64), "a": np.zeros((1, 4), np.int64)}))
    with pytest.raises(EvaluationError, match="a: the placement does not cover its 4 neurons"):
        traffic(p, c, load_target("loihi1"))


def test_counts_beyond_float32_stay_exact() -> None:
    w = np.ones((70000, 1), np.int32)
    p = network([population("a", (70000,))], [Connection("c", "input", "a", "dense", w)], (1,))
    c = count(p, run(p, {"input": np.array([[1001]]), "a": np.zeros((1, 70000), np.int64)}, steps=2000))
    assert int(c.layers[0].stored["dense"][0]) == 70_000 * 1001 > 2**24


def test_missing_counts_are_named() -> None:
    p = network(
        [population("a", (4,))], [Connection("c", "input", "a", "dense", np.ones((4, 2), np.int32))], (2,)
    )
    with pytest.raises(EvaluationError, match=r"NM501.*input: the run of backend 'sim' has no spike counts"):
        count(p, run(p, {"a": np.zeros((1, 4), np.int64)}))
    with pytest.raises(EvaluationError, match=r"NM501.*a: spike counts of shape \(1, 5\) do not fit"):
        count(p, run(p, {"input": np.ones((1, 2), np.int64), "a": np.zeros((1, 5), np.int64)}))
    with pytest.raises(EvaluationError, match="NM501.*no finished sample"):
        count(
            p,
            run(
                p,
                {"input": np.ones((1, 2), np.int64), "a": np.zeros((1, 4), np.int64)},
                failures=({"sample": 0, "error": "x"},),
            ),
        )


def test_unfinished_samples_are_left_out() -> None:
    p = network(
        [population("a", (4,))], [Connection("c", "input", "a", "dense", np.ones((4, 2), np.int32))], (2,)
    )
    counts = {"input": np.array([[1, 0], [9, 9], [3, 0]]), "a": np.zeros((3, 4), np.int64)}
    c = count(p, run(p, counts, failures=({"sample": 1, "error": "x"},)))
    assert (c.n_samples, c.layers[0].stored["dense"].tolist()) == (2, [4, 12])


@pytest.mark.parametrize(("delay", "expected"), [(0, 0), (1, 2 * 4), (2, None)])
def test_undelivered_needs_enough_of_the_last_steps(delay: int, expected: int | None) -> None:
    c = Connection(
        "c", "input", "a", "dense", np.ones((4, 3), np.int32), delay_steps=np.array(delay, np.int32)
    )
    p = network([population("a", (4,))], [c], (3,))
    counts = {"input": np.array([[1, 2, 3]]), "a": np.zeros((1, 4), np.int64)}
    got = (
        count(p, run(p, counts, last_spikes={"input": np.array([[1, 0, 1]], np.uint8)})).layers[0].undelivered
    )
    assert (None if got is None else int(got[0])) == expected


def test_undelivered_counts_only_delayed_synapses() -> None:
    w, d = np.ones((2, 3), np.int32), np.array([[1, 0, 0], [1, 1, 0]], np.int32)
    p = network([population("a", (2,))], [Connection("c", "input", "a", "dense", w, delay_steps=d)], (3,))
    counts = {"input": np.array([[1, 1, 1]]), "a": np.zeros((1, 2), np.int64)}
    got = (
        count(p, run(p, counts, last_spikes={"input": np.array([[1, 1, 1]], np.uint8)})).layers[0].undelivered
    )
    assert got is not None
    assert got.tolist() == [3]
