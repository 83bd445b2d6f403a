"""What the simulator takes, gives and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from nmtool.backends.base import RunOptions
from nmtool.backends.sim import Blocking, SimBackend
from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program
from nmtool.errors import ConfigError, ModelError, SimulationError
from nmtool.fixedpoint import jit, kernels
from nmtool.fixedpoint.noise import NoiseSpec


def i32(value: object) -> np.ndarray:
    return np.array(value, np.int32)


def population(name: str, shape: tuple[int, ...], threshold: int = 100, **other) -> Population:
    registers = {
        "decay_syn_q12": i32(4096),
        "decay_mem_q12": i32(0),
        "v_th_man": i32(threshold),
        "bias_man": i32(0),
        "bias_exp": i32(0),
    }
    return Population(name, shape, **(registers | {"scale": 1.0, "latency": 1} | other))


def dense(source: str, target: str, weights: object, **other) -> Connection:
    return Connection(f"{source}->{target}", source, target, "dense", i32(weights), **other)


def program(*populations: Population, connections: tuple[Connection, ...] = (), **other) -> Program:
    spec = other.pop("input", InputSpec("in", (2,), "spikes", 4))
    host = other.pop("host", None)
    return Program("test", spec, populations, connections, host, populations[-1].name,
                   other.pop("readout", "spike_count"), 1e-3, **other)  # fmt: skip


@pytest.fixture
def small() -> Program:
    """Two lines into three neurons; neuron j fires when line 0 and 1 have brought 64 w together."""
    weights = [[60, 60], [120, 0], [0, 40]]
    return program(population("out", (3,)), connections=(dense("in", "out", weights),))


SPIKES = np.array([[[1, 0]], [[1, 1]], [[0, 1]], [[0, 1]]], np.uint8)


def test_a_run_by_hand(small):
    """In units of 64: neuron 0 has 60, 180, 60, 120; neuron 1 has 120, 120, 0, 0; neuron 2 has 0, 40, 80, 120."""
    result = SimBackend(small).run(SPIKES, RunOptions(record=("all",)))
    np.testing.assert_array_equal(
        result.traces["out"].spikes[:, 0], [[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]]
    )
    np.testing.assert_array_equal(
        result.traces["out"].v[:, 0] // 64, [[60, 0, 0], [0, 0, 40], [60, 0, 80], [0, 0, 0]]
    )
    np.testing.assert_array_equal(
        result.traces["out"].u[:, 0] // 64, [[60, 120, 0], [120, 120, 40], *[[60, 0, 40]] * 2]
    )
    np.testing.assert_array_equal(result.traces["in"].spikes, SPIKES)
    np.testing.assert_array_equal(result.logits, [[2, 2, 1]])
    np.testing.assert_array_equal(result.spike_counts["in"], [[2, 3]])
    np.testing.assert_array_equal(result.last_spikes["out"], [[1, 0, 1]])
    np.testing.assert_array_equal(result.steps_density["out"], [1, 2, 0, 2])
    np.testing.assert_array_equal(result.steps_density["in"], [1, 2, 1, 1])
    # neuron 0 always; neuron 1 has input in 1 and 2 and a current to forget in 3; neuron 2 from step 2 on
    np.testing.assert_array_equal(result.active_updates["out"], [4 + 3 + 3])
    assert (result.backend, result.n_steps, result.predictions.tolist()) == ("sim", 4, [0])
    assert result.model_sha256 == small.sha256
    assert result.latency == {"out": 1}
    assert result.logits.dtype == result.spike_counts["in"].dtype == np.int64
    assert not result.overflow
    assert set(result.spike_counts) == {"in", "out"}
    assert len(result.spike_counts) == 2


def test_maps_come_back_in_the_models_order():
    shape = (2, 3, 4)
    pair = {"in_shape": shape, "out_shape": shape, "groups": 2}
    w = np.full((2, 1, 1, 1), 200, np.int32)
    p = program(
        population("out", shape),
        connections=(Connection("c", "in", "out", "conv", w, **pair),),
        input=InputSpec("in", shape, "spikes", 1),
    )
    x = (np.random.default_rng(0).random((5, 3, *shape)) < 0.4).astype(np.uint8)
    result = SimBackend(p).run(x, RunOptions(record=("all",)))
    np.testing.assert_array_equal(result.traces["out"].spikes, x)
    np.testing.assert_array_equal(result.traces["in"].spikes, x)
    np.testing.assert_array_equal(result.spike_counts["out"], x.sum(axis=0))
    np.testing.assert_array_equal(result.last_spikes["out"], x[-1])
    np.testing.assert_array_equal(result.logits, x.sum(axis=0).reshape(3, -1))


@pytest.mark.parametrize(
    "change", [lambda x: x.astype(bool), lambda x: x.astype(np.int64), lambda x: x[:, ::-1][:, ::-1]]
)
def test_spikes_of_any_integer_type_and_layout_are_taken(small, change):
    x = np.repeat(SPIKES, 3, axis=1)
    x.flags.writeable = False
    want = SimBackend(small).run(x, RunOptions())
    np.testing.assert_array_equal(SimBackend(small).run(change(x), RunOptions()).logits, want.logits)


@pytest.mark.parametrize("encoder", ["spikes", "direct", "rate"])
def test_no_samples_are_no_error(small, encoder):
    p = replace(small, input=InputSpec("in", (2,), encoder, 4))
    x = np.zeros((4, 0, 2), np.uint8) if encoder == "spikes" else np.zeros((0, 2))
    result = SimBackend(p).run(x, RunOptions(record=("all",)))
    assert result.logits.shape == (0, 3)
    assert result.predictions.shape == (0,)
    assert result.traces["out"].v.shape == (4, 0, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.zeros((4, 1, 3), np.uint8),
            r"NM109.*in: spikes are uint8 \(4, 1, 3\), allowed is uint8 \[T, B, 2\]",
        ),
        (np.zeros((4, 2), np.uint8), r"NM109.*allowed is uint8 \[T, B, 2\]"),
        (np.zeros((0, 1, 2), np.uint8), r"NM109.*with T >= 1"),
        (np.zeros((4, 1, 2)), "NM109.*spikes are float64"),
        (np.full((4, 1, 2), 3, np.uint8), "NM109.*values such as 3, allowed are 0 and 1"),
        (np.full((4, 1, 2), -1), "NM109.*span -1 to -1, allowed are 0 and 1"),
    ],
)
def test_spikes_that_do_not_fit_are_refused(small, x, message):
    with pytest.raises(ModelError, match=message):
        SimBackend(small).run(x, RunOptions())


def test_asking_for_other_steps_than_the_spikes_have_is_refused(small):
    with pytest.raises(ModelError, match="NM109.*4 steps, 5 were asked for"):
        SimBackend(small).run(SPIKES, RunOptions(n_steps=5))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3)), r"NM109.*x is float64 \(1, 3\), allowed is \[B, 2\]"),
        (np.array([["a", "b"]]), "NM109.*allowed are real numbers"),
        (np.array([[np.nan, 0.0]]), "NM109.*not finite"),
    ],
)
@pytest.mark.parametrize("encoder", ["direct", "rate"])
def test_analog_values_that_do_not_fit_are_refused(small, x, message, encoder):
    p = replace(small, input=InputSpec("in", (2,), encoder, 4))
    with pytest.raises(ModelError, match=message):
        SimBackend(p).run(x, RunOptions())


def test_payloads_beyond_the_message_are_refused(small):
    p = replace(small, connections=(dense("in", "out", np.ones((3, 2)), message_bits=4),))
    SimBackend(p).run(np.full((1, 1, 2), 15), RunOptions())
    with pytest.raises(ModelError, match="NM109.*span 16 to 16, 4 bits allow less than 16"):
        SimBackend(p).run(np.full((1, 1, 2), 16), RunOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunOptions(record=("outs",)), "NM004.*'outs' is no population.*Did you mean 'out'"),
        (RunOptions(batch_size=0), "NM004.*batch_size: is 0"),
        (RunOptions(sample_offset=-1), "NM004.*sample_offset: is -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(small, options, message):
    with pytest.raises(ConfigError, match=message):
        SimBackend(small).run(SPIKES, options)


def conv(**other) -> Connection:
    shapes = {"in_shape": (2, 1, 1), "out_shape": (3, 1, 1)} | other
    return Connection("c", "in", "out", "conv", np.ones((3, 2, 1, 1), np.int32), **shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"connections": (dense("in", "out", np.ones((3, 3))),)}, "NM110.*weights"),
        (
            {"connections": (dense("in", "out", np.ones((3, 2)), delay_steps=i32(-1)),)},
            "NM110.*delay -1 is negative",
        ),
        ({"connections": (dense("in", "out", np.ones((3, 2)), delay_steps=i32([1, 2])),)}, "NM110.*delays"),
        ({"connections": (dense("out", "out", np.ones((3, 3))),)}, "NM110.*needs a delay of 1 or more"),
        ({"connections": (conv(weight_exp=1),)}, "NM110.*no weight exponent"),
        (
            {"populations": (population("out", (3,), decay_mem_q12=i32(4097)),)},
            "NM110.*decay_mem_q12 spans 4097",
        ),
        ({"populations": (population("out", (3,), bias_exp=i32(40)),)}, "NM110.*bias_exp has magnitude 40"),
        ({"populations": (population("out", (3,), refractory_steps=0),)}, "NM110.*refractory_steps is 0"),
    ],
)
def test_a_program_whose_parts_do_not_fit_is_refused(small, change, message):
    with pytest.raises(ModelError, match=message):
        SimBackend(replace(small, **change)).run(SPIKES, RunOptions())


def test_one_population_cannot_have_two_channel_counts():
    shape = (6, 1, 2)
    first = Connection(
        "a", "in", "out", "conv", np.ones((6, 6, 1, 1), np.int32), in_shape=shape, out_shape=shape
    )
    w = np.ones((4, 4, 1, 1), np.int32)
    second = Connection("b", "in", "out", "conv", w, in_shape=(4, 1, 3), out_shape=(4, 1, 3))
    p = program(
        population("out", shape), connections=(first, second), input=InputSpec("in", shape, "spikes", 1)
    )
    with pytest.raises(ModelError, match="NM110.*'in' has 4 channels here and 6 elsewhere"):
        SimBackend(p).run(np.zeros((1, 1, *shape), np.uint8), RunOptions())


def test_a_host_layer_without_direct_input_is_refused(small):
    p = replace(small, connections=(), host=HostLayer(small.connections[0], np.zeros(3, np.int64), 0, -1, 1))
    with pytest.raises(ModelError, match="NM110.*a host layer needs the encoder 'direct'"):
        SimBackend(p).run(SPIKES, RunOptions())


def test_an_overflow_is_counted_and_in_strict_mode_refused():
    p = program(
        population("out", (1,), decay_syn_q12=i32(0), v_th_man=i32(131071)),
        connections=(dense("in", "out", [[65536, -65536]]),),
    )
    x = np.repeat([[[1, 0]]], 3, axis=0).astype(np.uint8)
    result = SimBackend(p).run(x, RunOptions())
    assert result.overflow == {"out": {"u_wrapped": 1, "v_clipped": 1}}
    with pytest.raises(SimulationError, match="NM401.*out: u_wrapped 1 times, v_clipped 1 times"):
        SimBackend(p).run(x, RunOptions(strict=True))
    assert SimBackend(p).run(x[:1], RunOptions(strict=True)).overflow == {}


def test_a_membrane_readout_is_the_last_potential(small):
    p = replace(small, readout="membrane")
    np.testing.assert_array_equal(SimBackend(p).run(SPIKES[:3], RunOptions()).logits, [[60 * 64, 0, 80 * 64]])


def test_noise_can_be_switched_off_and_follows_the_seed():
    noisy = program(
        population("out", (40,), threshold=1, noise=NoiseSpec(6)), input=InputSpec("in", (2,), "spikes", 1)
    )
    x, backend = np.zeros((50, 2, 2), np.uint8), SimBackend(noisy)
    assert backend.run(x, RunOptions(noise=False)).logits.sum() == 0
    a, b, c = (backend.run(x, RunOptions(seed=s)).logits for s in (1, 1, 2))
    assert a.sum() > 0
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_progress_goes_up_to_all_samples(small):
    seen: list[tuple[int, int]] = []
    x = np.repeat(SPIKES, 7, axis=1)
    SimBackend(small, Blocking(samples=2)).run(x, RunOptions(), lambda done, n: seen.append((done, n)))
    assert [n for _, n in seen] == [7] * len(seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (7, 7)


def test_an_error_in_a_block_ends_the_run_and_every_thread(small):
    x = np.repeat(SPIKES, 40, axis=1)
    x[0, 30, 0] = 9
    before = threading.active_count()
    with pytest.raises(ModelError, match="NM109.*values such as 9"):
        SimBackend(small, Blocking(samples=4, threads=2)).run(x, RunOptions())
    assert threading.active_count() == before


def test_memory_does_not_grow_with_time_when_only_counts_are_asked_for(small):
    backend = SimBackend(small, Blocking(threads=1))
    peaks = []
    for n_steps in (2000, 20000):
        x = np.zeros((n_steps, 4, 2), np.uint8)
        backend.run(x, RunOptions())
        tracemalloc.start()
        backend.run(x, RunOptions())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    per_step_results = 3 * 8 * 18000
    assert peaks[1] - peaks[0] < 2 * per_step_results


@pytest.mark.parametrize("n_steps", [255, 256, 600])
def test_counts_do_not_end_at_a_byte(n_steps):
    p = program(population("out", (2,), threshold=-1), connections=(dense("in", "out", np.zeros((2, 2))),))
    result = SimBackend(p).run(np.ones((n_steps, 1, 2), np.uint8), RunOptions())
    np.testing.assert_array_equal(result.logits, [[n_steps] * 2])
    np.testing.assert_array_equal(result.spike_counts["in"], [[n_steps] * 2])


def test_leaving_counts_out_changes_no_answer(small):
    result = SimBackend(small, Blocking(count=False)).run(SPIKES, RunOptions())
    np.testing.assert_array_equal(result.logits, [[2, 2, 1]])
    assert list(result.spike_counts) == ["out"]


def test_one_backend_serves_several_threads(small):
    backend, x = SimBackend(small), np.repeat(SPIKES, 50, axis=1)
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(backend.run(x, RunOptions()).logits)) for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert all((f == [2, 2, 1]).all() for f in found)


def test_torchs_threads_are_given_back():
    import torch

    before = torch.get_num_threads()
    with kernels.torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_asking_for_fewer_threads_is_heard(small, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    backend = SimBackend(small)
    seen = set()
    backend.run(
        np.repeat(SPIKES, 300, axis=1), RunOptions(batch_size=10), lambda *_: seen.add(threading.get_ident())
    )
    assert seen == {threading.get_ident()}
    assert backend._threads() == 1


def test_an_install_without_any_writable_cache_compiles_every_time(monkeypatch):
    import numba

    njit, asked = numba.njit, []

    def refuse(function, **options):
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError(
                f"cannot cache function {function.__name__!r}: no locator available for file 'x'"
            )
        return njit(function, **options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert jit.kernel(lambda x: x + 1)(2) == 3
    assert asked == [True, False]


def test_another_refusal_to_compile_is_not_hidden(monkeypatch):
    import numba

    def refuse(function, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(numba, "njit", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        jit.kernel(lambda x: x)


def test_a_network_without_convolutions_runs_without_torch():
    code = (
        "import sys, json; sys.path.insert(0, 'tests/unit')\n"
        "import numpy as np\n"
        "from test_sim_backend import *\n"
        "p = program(population('out', (3,)), connections=(dense('in', 'out', [[60, 60], [120, 0], [0, 40]]),))\n"
        "x = np.zeros((4, 6, 2), np.uint8); x[0, 0, 0] = 1\n"
        "SimBackend(p).run(x, RunOptions())\n"
        "print(json.dumps('torch' in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) is False
