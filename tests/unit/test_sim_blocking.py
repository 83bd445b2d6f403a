"""How the simulator cuts up a run never changes a bit: samples, steps, threads, order; counts alone equal traces."""

from dataclasses import replace

import generator
import numpy as np
import pytest
from compare import options

from nmtool.backends.base import RunOptions, RunResult
from nmtool.backends.sim import Blocking, SimBackend
from nmtool.errors import ModelError, SimulationError
from nmtool.fixedpoint.noise import NoiseSpec

SEEDS = range(7000, 7040)


def same(a: RunResult, b: RunResult) -> None:
    assert np.array_equal(a.logits, b.logits)
    assert a.overflow == b.overflow
    for name, counts in a.spike_counts.items():
        assert np.array_equal(counts, b.spike_counts[name])
    for name, trace in a.traces.items():
        for x, y in zip(trace, b.traces[name], strict=True):
            assert (x is None and y is None) or np.array_equal(x, y)
    for name in a.steps_density:
        assert np.array_equal(a.steps_density[name], b.steps_density[name])
    assert a.active_updates is not None
    assert b.active_updates is not None
    for name, active in a.active_updates.items():
        assert np.array_equal(active, b.active_updates[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_of_any_size_give_the_same_bits(seed: int) -> None:
    case = generator.case(seed)
    whole = SimBackend(case.program).run(case.x, options(case))
    for blocking in (Blocking(1, 1, 1), Blocking(2, 3, 2), Blocking(3, 1000, 1)):
        same(whole, SimBackend(case.program, blocking).run(case.x, options(case)))
    same(whole, SimBackend(case.program).run(case.x, options(case, batch_size=1)))


@pytest.mark.parametrize("seed", SEEDS[:15])
def test_counts_alone_equal_the_traced_run(seed: int) -> None:
    case = generator.case(seed)
    traced = SimBackend(case.program).run(case.x, options(case))
    counted = SimBackend(case.program).run(case.x, options(case, record=()))
    same(replace(traced, traces={}), counted)
    for p in case.program.populations:
        assert np.array_equal(traced.traces[p.name].spikes.sum(axis=0), counted.spike_counts[p.name])


@pytest.mark.parametrize("seed", SEEDS[:15])
def test_a_sample_alone_equals_the_sample_among_others(seed: int) -> None:
    case = generator.case(seed)
    whole = SimBackend(case.program).run(case.x, options(case))
    axis = 1 if case.program.input.encoder == "spikes" else 0
    for i in range(whole.n_samples):
        part = np.take(case.x, [i], axis=axis)
        alone = SimBackend(case.program).run(part, options(case, sample_offset=case.sample_offset + i))
        assert np.array_equal(alone.logits[0], whole.logits[i])
        for p in case.program.populations:
            assert np.array_equal(alone.traces[p.name].v[:, 0], whole.traces[p.name].v[:, i])


def with_noise() -> generator.Case:
    """A generated network with chip noise on every population."""
    case = generator.case(7003)
    noisy = tuple(replace(p, noise=NoiseSpec(12)) for p in case.program.populations)
    return replace(case, program=replace(case.program, populations=noisy))


def test_noise_follows_the_seed_and_can_be_switched_off() -> None:
    case = with_noise()
    one, again, other, off = (
        SimBackend(case.program).run(case.x, options(case, **kw))
        for kw in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {"seed": 1, "noise": False})
    )
    same(one, again)
    name = case.program.populations[0].name
    assert not np.array_equal(one.traces[name].v, other.traces[name].v)
    assert not np.array_equal(one.traces[name].v, off.traces[name].v)


def test_strict_refuses_what_is_otherwise_counted() -> None:
    overflowing = []
    for seed in SEEDS:
        case = generator.case(seed)
        loose = SimBackend(case.program).run(case.x, options(case, record=()))
        if loose.overflow:
            overflowing.append(seed)
            with pytest.raises(SimulationError, match="NM401"):
                SimBackend(case.program).run(case.x, options(case, record=(), strict=True))
        else:
            SimBackend(case.program).run(case.x, options(case, record=(), strict=True))
    assert overflowing


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((3, 2, 5, 5), np.uint8),
        np.zeros(3, np.uint8),
        np.full((2, 2, 7), "a"),
        np.zeros((0, 2, 7), np.uint8),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: np.ndarray) -> None:
    case = next(c for s in SEEDS if (c := generator.case(s)).program.input.encoder == "spikes")
    with pytest.raises(ModelError, match="NM109"):
        SimBackend(case.program).run(x, RunOptions())
