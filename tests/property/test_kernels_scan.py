"""The compiled neuron steps equal the readable one, at ordinary values and at every limit of the registers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nmtool.fixedpoint import scan
from nmtool.fixedpoint.neuron import NeuronParams, State, step
from nmtool.fixedpoint.ops import DECAY_UNITY, U_HALF, V_MAX, wrap_int32

INT32 = st.integers(-(2**31), 2**31 - 1)
EDGES = st.sampled_from(
    [0, 1, -1, 4095, 4096, -4096, U_HALF, -U_HALF, V_MAX, 2**31 - 1, -(2**31), 3 * U_HALF]
)
STATES = INT32 | EDGES
POTENTIALS = st.integers(-V_MAX, V_MAX) | st.sampled_from([0, 1, -1, V_MAX, -V_MAX, 4095, -4097])
DRIVES = st.integers(-400, 400) | INT32 | st.sampled_from([2**25, 2**26, 2**26 + 1, 131072, -131072, 393217])
DECAYS = st.integers(0, DECAY_UNITY) | st.sampled_from([0, 1, DECAY_UNITY - 1, DECAY_UNITY])
THRESHOLDS = st.integers(-100, 131071) | st.sampled_from([-(2**31), 2**31 - 1, 131071])
SMALL = st.integers(-(2**24), 2**24)


@st.composite
def cases_st(draw):
    """Parameters, state, drive and noise of a few neurons, a few samples and a few steps."""
    n_steps, n_samples = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    n = draw(st.sampled_from([1, 3, 16, 70]))

    def array(elements, *shape):
        return draw(hnp.arrays(np.int64, shape, elements=elements, fill=elements))

    def register(elements):
        return array(elements, n) if draw(st.booleans()) else np.array(draw(elements), np.int64)

    params = NeuronParams(
        register(DECAYS),
        register(DECAYS),
        register(THRESHOLDS),
        register(st.integers(-4096, 4095)),
        register(st.integers(-8, 20)),
        refractory_steps=draw(st.sampled_from([1, 1, 2, 5])),
    )
    held = st.integers(0, 4) if params.refractory_steps > 1 else st.just(0)
    state = State(array(STATES, n_samples, n), array(POTENTIALS, n_samples, n), array(held, n_samples, n))
    drive = array(DRIVES, n_steps, n_samples, n)
    noise = [array(SMALL, n_steps, n_samples, n) for _ in range(2)] if draw(st.booleans()) else None
    return params, state, drive, noise


def compiled(params, state, drive, noise, largest_input=np.inf):
    """Run the kernel; returns the last state, the recording and the tally."""
    n_steps, n_samples, n = drive.shape
    held = scan.State(*(a.astype(np.int32).reshape(-1) for a in state))
    tally = scan.no_tally(n_samples, n_steps)._replace(spikes=np.zeros(n_samples * n, np.uint8))
    out = scan.Recording(*(np.zeros((n_steps, n_samples * n), t) for t in (np.uint8, np.int32, np.int32)))
    rows = [a.astype(np.int32).reshape(n_steps, -1) for a in noise] if noise else [scan.NOTHING] * 2
    chunk = scan.Chunk(
        n, scan.tiles_of(n_samples, n), drive.astype(np.int32).reshape(n_steps, -1), np.int32(0), np.int32(1),
        scan.NO_BIAS, *rows,
    )  # fmt: skip
    scan.scan(scan.registers(params, n, largest_input), held, chunk, tally, out)
    return held, out, tally


def check(params, state, drive, noise, largest_input=np.inf):
    """Spikes, u, v of every step, the state after the last, and all counters."""
    n_steps, n_samples, n = drive.shape
    held, out, tally = compiled(params, state, drive, noise, largest_input)
    active, overflow, spikes = np.zeros(n_samples), np.zeros(2), []
    for t in range(n_steps):
        awake = (state.u != 0) | (state.v != 0) | (drive[t] != 0) | (wrap_int32(params.bias) != 0)
        active += awake.sum(axis=1)
        noisy = (noise[0][t], noise[1][t]) if noise else (0, 0)
        r = step(params, state, drive[t], *noisy)
        state = r.state
        overflow += r.u_wrapped.sum(), r.v_clipped.sum()
        spikes.append(r.spikes)
        for found, wanted in ((out.spikes, r.spikes), (out.u, state.u), (out.v, state.v)):
            np.testing.assert_array_equal(found[t].reshape(n_samples, n), wanted)
    for found, wanted in zip(held, state, strict=True):
        np.testing.assert_array_equal(found.reshape(n_samples, n), wanted)
    np.testing.assert_array_equal(tally.active, active)
    np.testing.assert_array_equal(tally.overflow, overflow)
    np.testing.assert_array_equal(tally.spikes.reshape(n_samples, n), np.sum(spikes, axis=0))
    np.testing.assert_array_equal(tally.per_step, np.sum(spikes, axis=(1, 2)))


@settings(max_examples=300, deadline=None)
@given(cases_st())
def test_steps_equal_the_oracle(case):
    check(*case)


@settings(max_examples=150, deadline=None)
@given(cases_st(), st.integers(0, 2000))
def test_steps_without_the_wrap_equal_the_oracle_where_the_bound_holds(case, largest):
    params, state, drive, _ = case
    drive = np.clip(drive, -largest, largest)
    lost = int(params.decay_syn_q12.min())
    top = largest * 64 * DECAY_UNITY // lost if lost else 0
    state = State(np.clip(state.u, -top, top), state.v, state.refractory)
    check(params, state, drive, None, largest * 64.0)


@pytest.mark.parametrize(
    ("lost", "largest", "may_wrap"),
    [
        (DECAY_UNITY, U_HALF - 1, False),
        (DECAY_UNITY, U_HALF, True),
        (0, 1, True),
        (1, 2047, False),
        (1, 2048, True),
    ],
)
def test_the_proof_that_nothing_wraps_is_tight(lost, largest, may_wrap):
    params = NeuronParams(*(np.array(v) for v in (lost, 0, 1, 0, 0)))
    assert scan.registers(params, 4, float(largest)).may_wrap is may_wrap


@pytest.mark.parametrize("n", [1, 10, 63, 64, 511, 512, 513, 1300])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("largest_input", [np.inf, 400 * 64.0])
def test_populations_of_any_size_are_cut_into_tiles_without_a_seam(n, per_neuron, largest_input):
    rng = np.random.default_rng(n)
    shape = (n,) if per_neuron else ()
    params = NeuronParams(
        *(
            rng.integers(low, high, shape)
            for low, high in ((2000, 4097), (0, 4097), (0, 300), (-9, 9), (-2, 3))
        )
    )
    zero = np.zeros((3, n), np.int64)
    check(params, State(zero, zero, zero), rng.integers(-400, 400, (5, 3, n)), None, largest_input)


def test_a_sample_may_have_a_bias_of_its_own():
    n_samples, n = 3, 700
    rng = np.random.default_rng(0)
    bias = rng.integers(-5000, 5000, (n_samples, n))
    params = NeuronParams(*(np.array(v) for v in (4096, 100, 90, 7, 2)))
    own = NeuronParams(
        params.decay_syn_q12, params.decay_mem_q12, params.v_th_man, bias, np.zeros((), np.int64)
    )
    held = scan.state_at_rest(n_samples, n)
    out = scan.Recording(np.zeros((6, n_samples * n), np.uint8), scan.NOTHING, scan.NOTHING)
    silence = np.zeros((1, n_samples * n), np.int32)
    chunk = scan.Chunk(
        n, scan.tiles_of(n_samples, n), silence, np.int32(0), np.int32(1), bias.astype(np.int32).reshape(-1),
        scan.NOTHING, scan.NOTHING,
    )  # fmt: skip
    scan.scan(scan.registers(params, n, 0.0), held, chunk, scan.no_tally(n_samples, 6), out)
    state = State(*(np.zeros((n_samples, n), np.int64) for _ in range(3)))
    for t in range(6):
        r = step(own, state, np.zeros((n_samples, n), np.int64))
        state = r.state
        np.testing.assert_array_equal(out.spikes[t].reshape(n_samples, n), r.spikes)
    np.testing.assert_array_equal(held.v.reshape(n_samples, n), state.v)


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [(131072, 8388608), (131073, -8388544), (-131072, 8388608), (-131071, -8388544), (262144, 0), (393217, 8388672),
     (2**25, -2130706432), (2**26, 0), (2**26 + 1, 64)],
)  # fmt: skip
def test_a_current_beyond_24_bits_is_lavas(activation, wanted):
    """TV5 and TV5b of the Loihi reference: real Lava's register after one step without memory."""
    params = NeuronParams(*(np.array(v) for v in (4096, 0, 131071, 0, 0)))
    zero = np.zeros((1, 1), np.int64)
    held, _, _ = compiled(params, State(zero, zero, zero), np.full((1, 1, 1), activation), None)
    assert held.u[0] == wanted
