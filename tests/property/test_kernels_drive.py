"""Weighted sums of events equal matrix arithmetic, in every storage form and by every way of adding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nmtool.fixedpoint import drive, kernels, synapses
from nmtool.fixedpoint.events import Span, graded_events, listed, pack, pack_and_count
from nmtool.fixedpoint.ops import shift_left_or_floor, wrap_24, wrap_int32
from nmtool.fixedpoint.window import Window

ROWS = st.integers(1, 5)
WIDTHS = st.sampled_from([1, 2, 7, 31, 32, 33, 63, 64, 65, 128, 130])
SEEDS = st.integers(0, 2**32 - 1)
DENSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0])


def spikes_of(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> np.ndarray:
    return (rng.random(shape) < density).astype(np.uint8)


def weights_of(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Integer weights of one storage form."""
    return {
        "mixed": lambda: 2 * rng.integers(-128, 128, shape),
        "largest": lambda: np.where(rng.random(shape) < 0.5, -256, 254),
        "excitatory": lambda: rng.integers(0, 256, shape),
        "inhibitory": lambda: -rng.integers(0, 256, shape),
        "odd": lambda: rng.integers(-256, 256, shape),
        "coarse": lambda: 32 * rng.integers(-100, 100, shape),
        "wide": lambda: rng.integers(-(2**30), 2**30, shape),
        "zero": lambda: np.zeros(shape, int),
    }[kind]().astype(np.int32)


KINDS = st.sampled_from(["mixed", "largest", "excitatory", "inhibitory", "odd", "coarse", "wide", "zero"])


def activation(part: synapses.Part) -> np.ndarray:
    """What a part stands for."""
    return wrap_int32((part.values.astype(np.int64) - part.offset) * int(synapses.gain(part.power)))


def shifted(total: np.ndarray, exponent: int) -> np.ndarray:
    return wrap_int32(shift_left_or_floor(wrap_int32(total), exponent))


@settings(max_examples=150, deadline=None)
@given(SEEDS, ROWS, ROWS, st.sampled_from([1, 5, 63, 64, 65, 128, 200]), DENSITIES, st.integers(1, 3))
def test_events_are_the_indices_of_ones(seed, n_steps, n_samples, n, density, fold):
    rng = np.random.default_rng(seed)
    x = spikes_of(rng, (n_steps + 2, n_samples + 3, n), density)
    span = Span(1, n_steps, 2, n_samples)
    part = x[1 : 1 + n_steps, 2 : 2 + n_samples].reshape(-1, n)
    events = listed(pack(x, span), fold)
    rows, lines = np.nonzero(part)
    np.testing.assert_array_equal(events.line, lines + rows % fold * n)
    np.testing.assert_array_equal(np.diff(events.start), part.sum(axis=1))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 9), ROWS, st.sampled_from([1, 64, 70]), st.sampled_from([1, 2, 255]))
def test_packing_counts_lines_and_sees_what_is_not_binary(seed, n_steps, n_samples, n, largest):
    rng = np.random.default_rng(seed)
    x = spikes_of(rng, (n_steps, n_samples, n), 0.3)
    counts = np.zeros((n_samples, n), np.uint8)
    _, seen = pack_and_count(x, Span(0, n_steps, 0, n_samples), counts)
    np.testing.assert_array_equal(counts, x.sum(axis=0))
    assert seen == x.max()
    x[rng.integers(n_steps), rng.integers(n_samples), rng.integers(n)] = largest
    _, seen = pack_and_count(x, Span(0, n_steps, 0, n_samples), counts)
    assert (seen > 1) == (largest > 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, ROWS, ROWS, WIDTHS)
def test_graded_events_carry_their_payload(seed, n_steps, n_samples, n):
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (n_steps, n_samples, n)).astype(np.int32)
    events = graded_events(x, Span(0, n_steps, 0, n_samples))
    rows, lines = np.nonzero(x.reshape(-1, n))
    np.testing.assert_array_equal(events.line, lines)
    np.testing.assert_array_equal(events.value, x.reshape(-1, n)[rows, lines])


@settings(max_examples=200, deadline=None)
@given(SEEDS, KINDS, WIDTHS, WIDTHS, DENSITIES, st.integers(-40, 40), st.booleans())
def test_a_dense_connection_is_a_matrix_product(seed, kind, n_in, n_out, density, exponent, graded):
    rng = np.random.default_rng(seed)
    w = weights_of(rng, kind, (n_out, n_in))
    x = spikes_of(rng, (3, 2, n_in), density)
    if graded:
        x = (x * rng.integers(-(2**31), 2**31, x.shape)).astype(np.int32)
    want = shifted(x.astype(np.int64) @ w.T.astype(np.int64), exponent)
    for known in (0.0, 1.0):
        part = synapses.Dense(w, exponent).drive(Window(x, Span(0, 3, 0, 2), density=known), 0)
        np.testing.assert_array_equal(activation(part), want)


@pytest.mark.parametrize("n_in", [255, 256, 600, 1100])
@pytest.mark.parametrize("kind", ["largest", "excitatory"])
def test_a_sixteen_bit_sum_is_emptied_before_it_overflows(n_in, kind):
    rng = np.random.default_rng(0)
    w = weights_of(rng, kind, (40, n_in))
    w[0], w[1] = w.min(), w.max()
    x = np.ones((1, 1, n_in), np.uint8)
    part = synapses.Dense(w).drive(Window(x, Span(0, 1, 0, 1), density=0.0), 0)
    np.testing.assert_array_equal(activation(part)[0, 0], w.sum(axis=1))


@settings(max_examples=100, deadline=None)
@given(SEEDS, KINDS, WIDTHS, WIDTHS, DENSITIES, st.integers(-40, 40), st.booleans())
def test_a_synapse_list_is_a_matrix_product(seed, kind, n_in, n_out, density, exponent, graded):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, n_in * n_out + 1))
    indices = np.stack([rng.integers(0, n_out, count), rng.integers(0, n_in, count)]).astype(np.int32)
    w = weights_of(rng, kind, (count,))
    x = spikes_of(rng, (3, 2, n_in), density)
    if graded:
        x = (x * rng.integers(-200, 201, x.shape)).astype(np.int32)
    matrix = np.zeros((n_out, n_in), np.int64)
    np.add.at(matrix, tuple(indices), w)
    operator = synapses.Sparse(w, indices, n_in, n_out, exponent)
    part = operator.drive(Window(x, Span(0, 3, 0, 2)), 0)
    np.testing.assert_array_equal(activation(part), shifted(x.astype(np.int64) @ matrix.T, exponent))
    y = rng.integers(0, 256, (2, n_in))
    np.testing.assert_array_equal(operator.exact(y), y @ matrix.T)


@st.composite
def geometries_st(draw):
    """Shapes of a convolution that leaves at least one output."""
    channels, groups = draw(st.sampled_from([(1, 1), (2, 1), (8, 1), (9, 1), (2, 2), (6, 3)]))
    out_channels = groups * draw(st.sampled_from([1, 2, 5, 33]))
    sides = [draw(st.integers(1, 9)) for _ in "hw"]
    kernel = [draw(st.integers(1, 4)) for _ in "hw"]
    stride, dilation = ([draw(st.integers(1, 3)) for _ in "hw"] for _ in range(2))
    padding = [draw(st.integers(0, 2)) for _ in "hw"]
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(sides, kernel, stride, padding, dilation, strict=True)
    ]
    assume(min(out) > 0)
    shapes = (channels, *sides), (out_channels, *out)
    return kernels.Geometry(*shapes, tuple(stride), tuple(padding), tuple(dilation), groups), tuple(kernel)


def correlated(w: np.ndarray, g: kernels.Geometry, x: np.ndarray) -> np.ndarray:
    """By definition: ``x`` ``[R, C, H, W]`` to ``[R, C_out, H, W]`` in int64."""
    (ph, pw), (sh, sw), (dh, dw) = g.padding, g.stride, g.dilation
    x = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    out = np.zeros((len(x), *g.out_shape), np.int64)
    fan, per_group = w.shape[1], len(w) // g.groups
    for o, oy, ox in np.ndindex(*g.out_shape):
        top, left = oy * sh, ox * sw
        view = x[
            :, :, top : top + dh * (w.shape[2] - 1) + 1 : dh, left : left + dw * (w.shape[3] - 1) + 1 : dw
        ]
        first = o // per_group * fan
        out[:, o, oy, ox] = (view[:, first : first + fan] * w[o].astype(np.int64)).sum(axis=(1, 2, 3))
    return out


@settings(max_examples=150, deadline=None)
@given(SEEDS, geometries_st(), KINDS, DENSITIES, st.booleans())
def test_a_convolution_is_its_definition(seed, shapes, kind, density, graded):
    g, kernel = shapes
    rng = np.random.default_rng(seed)
    w = weights_of(rng, kind, (g.out_shape[0], g.in_shape[0] // g.groups, *kernel))
    maps = spikes_of(rng, (2, 2, *g.in_shape), density)
    if graded:
        maps = (maps * rng.integers(-255, 256, maps.shape)).astype(np.int32)
    last = np.moveaxis(maps, 2, -1).reshape(2, 2, -1).copy()
    want = wrap_24(correlated(w, g, maps.reshape(4, *g.in_shape)))
    want = np.moveaxis(want, 1, -1).reshape(2, 2, -1)
    for known in (0.0, 1.0):
        part = synapses.Conv(w, g).drive(Window(last, Span(0, 2, 0, 2), density=known), 0)
        np.testing.assert_array_equal(activation(part), want)


@pytest.mark.parametrize("kind", ["largest", "excitatory", "inhibitory"])
@pytest.mark.parametrize("channels", [28, 29, 60])
def test_a_convolutions_sixteen_bit_sum_is_emptied_before_it_overflows(kind, channels):
    g = kernels.Geometry((channels, 4, 4), (3, 4, 4), padding=(1, 1))
    w = weights_of(np.random.default_rng(0), kind, (3, channels, 3, 3))
    w[0], w[1] = w.min(), w.max()
    x = np.ones((1, 1, channels * 16), np.uint8)
    part = synapses.Conv(w, g).drive(Window(x, Span(0, 1, 0, 1), density=0.0), 0)
    want = np.moveaxis(correlated(w, g, np.ones((1, *g.in_shape))), 1, -1)
    np.testing.assert_array_equal(activation(part).reshape(want.shape), want)


@settings(max_examples=50, deadline=None)
@given(SEEDS, geometries_st(), KINDS)
def test_a_host_convolution_is_exact(seed, shapes, kind):
    g, kernel = shapes
    rng = np.random.default_rng(seed)
    w = weights_of(rng, kind, (g.out_shape[0], g.in_shape[0] // g.groups, *kernel))
    x = rng.integers(0, 256, (2, *g.in_shape))
    found = synapses.Conv(w, g).exact(np.moveaxis(x, 1, -1).reshape(2, -1).copy())
    np.testing.assert_array_equal(found, np.moveaxis(correlated(w, g, x), 1, -1).reshape(2, -1))


def test_a_host_sum_that_float64_cannot_hold_is_refused():
    operator = synapses.Conv(np.full((1, 1, 1, 1), 2**30, np.int32), kernels.Geometry((1, 1, 1), (1, 1, 1)))
    with pytest.raises(OverflowError, match="beyond what float64 holds exactly"):
        operator.exact(np.full((1, 1), 2**24))


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_parts_add_up_modulo_32_bits(seed, powers):
    rng = np.random.default_rng(seed)
    parts = [
        synapses.Part(rng.integers(-(2**31), 2**31, (2, 3, 5)).astype(np.int32), int(rng.integers(-9, 9)), p)
        for p in powers
    ]
    want = wrap_int32(sum(activation(p) for p in parts))
    np.testing.assert_array_equal(activation(synapses.summed(parts)), want)


@given(hnp.arrays(np.int32, st.integers(0, 20), elements=st.integers(-(2**31), 2**31 - 1)))
def test_the_eight_bit_form_gives_the_weights_back(weights):
    small = synapses.in_bytes(weights)
    power = synapses.common_power(weights)
    assert not (weights & ((1 << power) - 1)).any()
    if small is None:
        values = weights.astype(np.int64) >> power
        assert max(values.max(), 0) - min(values.min(), 0) > 255
    else:
        np.testing.assert_array_equal((small.values.astype(np.int64) + small.offset) << small.power, weights)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 12), st.integers(-8, 20))
def test_the_hosts_bias_is_rounded_clipped_and_scaled(seed, shift, exponent):
    rng = np.random.default_rng(seed)
    acc, bias = rng.integers(-(10**8), 10**8, (3, 7)), rng.integers(-(10**6), 10**6, 7)
    out = np.empty((3, 7), np.int32)
    drive.host_bias(acc, bias, drive.HostRange(shift, -4096, 4095), np.full(7, exponent), out)
    mantissa = np.clip(np.floor((acc + bias) / 2.0**shift + 0.5), -4096, 4095).astype(np.int64)
    np.testing.assert_array_equal(out, wrap_int32(shift_left_or_floor(mantissa, exponent)))


def test_the_fast_ways_of_this_machine_are_reported():
    assert isinstance(kernels.int8_product_works(), bool)
    g = kernels.Geometry((16, 5, 5), (3, 5, 5), padding=(1, 1))
    w = 2 * np.random.default_rng(0).integers(-128, 128, (3, 16, 3, 3)).astype(np.int32)
    odd = kernels.Geometry((16, 5, 5), (3, 3, 3), dilation=(2, 2), padding=(1, 1))
    assert kernels.int8_convolution(w, g) is None, "weights of nine bits do not fit"
    assert kernels.int8_convolution(w >> 1, odd) is None, "dilated kernels are left to float32"
