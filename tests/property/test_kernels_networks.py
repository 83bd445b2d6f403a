"""Whole networks, however they are cut up and whichever way their sums are formed, equal the slow simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sim_wild import Wild, active

from nmtool.backends.sim import Blocking, SimBackend
from nmtool.fixedpoint import synapses

WAYS = {"events": 2.0, "measured": 0.3, "matrices": 0.0}


def check(wild: Wild, blocking: Blocking) -> None:
    """Every trace and every counter."""
    program, n_samples = wild.program, wild.n_samples
    want, entering = wild.expected()
    result = SimBackend(program, blocking).run(wild.x, wild.options)
    for p in program.populations:
        h, trace = want[p.name], result.traces[p.name]
        for found, wanted in ((trace.spikes, h.spikes), (trace.u, h.u), (trace.v, h.v)):
            np.testing.assert_array_equal(np.asarray(found).reshape(wanted.shape), wanted)
        np.testing.assert_array_equal(
            result.spike_counts[p.name].reshape(n_samples, -1), h.spikes.sum(axis=0)
        )
        np.testing.assert_array_equal(result.last_spikes[p.name].reshape(n_samples, -1), h.spikes[-1])
        np.testing.assert_array_equal(result.steps_density[p.name], h.spikes.sum(axis=(1, 2)))
        np.testing.assert_array_equal(result.active_updates[p.name], active(program, want, entering, p.name))
        over = result.overflow.get(p.name, {})
        assert (over.get("u_wrapped", 0), over.get("v_clipped", 0)) == (h.wrapped, h.clipped)
    output = want[program.output]
    spiking = program.readout == "spike_count"
    np.testing.assert_array_equal(result.logits, output.spikes.sum(axis=0) if spiking else output.v[-1])
    if "in" in result.traces:
        np.testing.assert_array_equal(
            result.traces["in"].spikes.reshape(entering.spikes.shape), entering.spikes
        )


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    blocking=st.builds(
        Blocking, samples=st.integers(1, 5), steps=st.integers(1, 9), threads=st.integers(1, 2)
    ),
)
def test_a_network_equals_the_slow_simulator(way, seed, blocking):
    limits = synapses.MATRIX_FROM_DENSITY, synapses.MAPS_FROM_DENSITY
    synapses.MATRIX_FROM_DENSITY = synapses.MAPS_FROM_DENSITY = WAYS[way]
    try:
        check(Wild(seed), blocking)
    finally:
        synapses.MATRIX_FROM_DENSITY, synapses.MAPS_FROM_DENSITY = limits


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.randoms(use_true_random=False))
def test_samples_do_not_know_each_other(seed, order):
    wild = Wild(seed)
    assume(wild.program.input.encoder != "rate" and not any(p.noise for p in wild.program.populations))
    index = list(range(wild.n_samples))
    order.shuffle(index)
    axis = 1 if wild.program.input.encoder == "spikes" else 0
    whole = SimBackend(wild.program).run(wild.x, wild.options)
    shuffled = SimBackend(wild.program).run(np.take(wild.x, index, axis), wild.options)
    for name, counts in whole.spike_counts.items():
        np.testing.assert_array_equal(shuffled.spike_counts[name], counts[index])
    np.testing.assert_array_equal(shuffled.logits, whole.logits[index])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_noise_belongs_to_the_sample_and_not_to_its_place_in_the_call(seed):
    wild = Wild(seed)
    axis = 1 if wild.program.input.encoder == "spikes" else 0
    whole = SimBackend(wild.program).run(wild.x, wild.options)
    for i in range(wild.n_samples):
        o = wild.options
        alone = SimBackend(wild.program).run(
            np.take(wild.x, [i], axis), type(o)(seed=o.seed, noise=o.noise, sample_offset=o.sample_offset + i)
        )
        np.testing.assert_array_equal(alone.logits[0], whole.logits[i])
