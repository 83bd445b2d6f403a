"""Compiled noise and rate-coded input are the readable stream, word for word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.fixedpoint import encode, streams
from nmtool.fixedpoint.noise import NoiseSpec, noise
from nmtool.fixedpoint.ops import wrap_int32

SPECS = st.builds(
    NoiseSpec,
    exponent=st.integers(1, 23),
    mantissa_offset=st.integers(-8, 8),
    at=st.sampled_from(["membrane", "current"]),
    model=st.sampled_from(["uniform8", "irwin_hall", "gaussian"]),
    draws=st.integers(1, 6),
)
STREAMS = st.builds(
    streams.Stream,
    seed=st.integers(0, 2**64 - 1),
    first_sample=st.integers(0, 2**31),
    first_step=st.integers(0, 2**31),
    block=st.integers(0, 300),
)


@settings(max_examples=100, deadline=None)
@given(SPECS, STREAMS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))
def test_noise_is_the_oracles(spec, stream, n_steps, n_samples, n):
    found = streams.noise_chunk(spec, stream, (n_steps, n_samples, n))
    sample = stream.first_sample + np.arange(n_samples)[:, None]
    for t in range(n_steps):
        drawn = noise(spec, stream.seed, sample, stream.block, np.arange(n), stream.first_step + t)
        np.testing.assert_array_equal(found[t], wrap_int32(drawn))


@settings(max_examples=50, deadline=None)
@given(STREAMS, st.integers(1, 3), st.integers(1, 9), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_rate_coded_spikes_are_the_oracles(stream, n_steps, x_max, shares):
    x = np.array([shares])
    thresholds = encode.rate_thresholds(x, 1 / x_max, x_max)
    out = np.empty((n_steps, 1, len(shares)), np.uint8)
    streams.rate_chunk(thresholds, stream, out)
    steps = stream.first_step + np.arange(n_steps)
    np.testing.assert_array_equal(
        out, encode.rate_spikes(thresholds, stream.seed, [stream.first_sample], steps)
    )


@pytest.mark.parametrize(("share", "rate"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_a_rate_is_kept(share, rate):
    thresholds = encode.rate_thresholds(np.full((1, 20000), share), 1.0, 1)
    out = np.empty((4, 1, 20000), np.uint8)
    streams.rate_chunk(thresholds, streams.Stream(1, 0, 0, 0), out)
    assert out.mean() == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / out.size))


@given(st.floats(-1, 2), st.integers(1, 255))
def test_an_analog_value_becomes_the_nearest_unit_within_the_range(x, x_max):
    unit = int(encode.input_units(x, 1 / x_max, x_max))
    assert 0 <= unit <= x_max
    assert abs(unit - np.clip(x * x_max, 0, x_max)) <= 0.5 + 1e-9
