"""The float engine and its backend: hand-worked series, time, noise, readouts, and independence of batches."""

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest

from nmtool.backends.base import RunOptions
from nmtool.backends.reference import FloatBackend
from nmtool.errors import ConfigError, ModelError, SimulationError
from nmtool.fixedpoint.encode import rate_spikes, rate_thresholds
from nmtool.ir.graph import Graph, from_nir
from nmtool.ir.reference import Engine, run
from nmtool.ir.semantics import ModelSemantics

DT_S = 1e-3


def lif(n: int, beta: float = 0.5, v_th: float = 1.0) -> nir.LIF:
    one = np.ones(n)
    return nir.LIF(DT_S / (1 - beta) * one, one / (1 - beta), 0 * one, v_th * one)


def graph(
    edges: str, model: ModelSemantics | None = None, changes: dict[str, Any] | None = None, **nodes: Any
) -> Graph:
    """Edges as ``in>fc fc>lif``; ``changes`` are applied to the neuron of every neuron node."""
    pairs = [tuple(e.split(">")) for e in edges.split()]
    g = from_nir(nir.NIRGraph(nodes, pairs, type_check=False), DT_S)
    changed = {
        n: replace(v, neuron=replace(v.neuron, **changes)) if v.neuron and changes else v
        for n, v in g.nodes.items()
    }
    return replace(g, nodes=changed, model=replace(model, readout=g.model.readout) if model else g.model)


def one_neuron(model: ModelSemantics | None = None, **changes: Any) -> Graph:
    ends = {"in": nir.Input(np.array([1])), "out": nir.Output(np.array([1]))}
    return graph("in>n n>out", model, changes, n=lif(1), **ends)


def series(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1, 1)


X = [0.75, 0.75, 0.0, 3.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("changes", "spikes", "v_post"),
    [
        # V = U / 2 + x: .75  1.125* -> 0   0   3* -> 0  .25  1.125*
        ({"reset": "zero"}, [0, 1, 0, 1, 0, 1], [0.75, 0, 0, 0, 0.25, 0]),
        # a delayed reset to zero drops what arrives: V: .75  1.125*  (0)  3*  (0)  1
        ({"reset": "zero", "reset_delay": True}, [0, 1, 0, 1, 0, 0], [0.75, 1.125, 0, 3, 0, 1]),
        # V: .75  1.125* (-1 next)  .5625-1  -.21875+3*  1.390625+.25-1  .3203125+1*
        (
            {"reset": "subtract", "reset_delay": True},
            [0, 1, 0, 1, 0, 1],
            [0.75, 1.125, -0.4375, 2.78125, 0.640625, 1.3203125],
        ),
        # U after 3.0625*: 2.0625 is above 1 still: V = 1.03125+.25-1 = .28125, no spike, so 1 comes back: 1.28125,
        # which is above 1 again: V = .640625+1-1 = .640625, no spike: 1.640625
        (
            {"reset": "subtract"},
            [0, 1, 0, 1, 0, 0],
            [0.75, 0.125, 0.0625, 2.03125, 1.265625, 1.6328125],
        ),
        ({"reset": "none"}, [0, 1, 0, 1, 1, 1], [0.75, 1.125, 0.5625, 3.28125, 1.890625, 1.9453125]),
        ({"v_reset": np.array([-0.5])}, [0, 1, 0, 1, 0, 0], [0.75, -0.5, -0.25, -0.5, 0, 1]),
        ({"leak": np.array([0.5])}, [1, 1, 0, 1, 0, 1], [0, 0, 0.5, 0, 0.75, 0]),
        ({"beta_syn": np.array([0.5])}, [0, 1, 0, 1, 1, 1], [0.75, 0, 0.5625, 0, 0, 0]),
    ],
    ids=["zero", "zero late", "subtract late", "subtract", "none", "v_reset", "leak", "current"],
)
def test_series_by_hand(changes: dict[str, Any], spikes: list[int], v_post: list[float]) -> None:
    trace = run(one_neuron(**changes), series(X), record=("n",)).traces["n"]
    np.testing.assert_array_equal(trace.spikes.ravel(), spikes)
    np.testing.assert_array_equal(trace.v_post.ravel(), np.array(v_post, np.float32))
    assert (trace.i_syn is None) == ("beta_syn" not in changes)


def test_the_threshold_itself_is_not_enough() -> None:
    assert run(one_neuron(), series([1.0])).logits.item() == 0
    assert run(one_neuron(), series([np.nextafter(np.float32(1), np.float32(2))])).logits.item() == 1


def test_feedback_carries_the_step_before_and_its_bias_from_the_first_on() -> None:
    """0.6 alone never fires; with the recurrent bias of 0.5 it does at once; its spike (-2) returns one step later."""
    ends = {"in": nir.Input(np.array([1])), "out": nir.Output(np.array([1]))}
    rec = nir.Affine(np.array([[-2.0]]), np.array([0.5]))
    g = graph("in>n n>rec rec>n n>out", n=lif(1), rec=rec, **ends)
    trace = run(g, series([0.6, 0.6, 0.6]), record=("n",)).traces["n"]
    assert trace.spikes.ravel().tolist() == [1, 0, 0]
    assert trace.v_post.ravel() == pytest.approx([0, 0.6 + 0.5 - 2, -0.45 + 0.6 + 0.5])


def test_several_edges_are_added_up() -> None:
    ends = {"in": nir.Input(np.array([2])), "out": nir.Output(np.array([2]))}
    g = graph("in>a in>b a>n b>n in>n n>out", a=nir.Linear(2 * np.eye(2)), b=nir.Scale(np.array([4.0, 8.0])),
              n=nir.LI(DT_S * np.ones(2), np.ones(2), np.zeros(2)), **ends)  # fmt: skip
    assert run(g, np.ones((1, 3, 2), np.float32)).logits.tolist() == [[7.0, 11.0]] * 3


def test_delays_per_element_and_longer_than_the_run() -> None:
    ends = {"in": nir.Input(np.array([4])), "out": nir.Output(np.array([4]))}
    delay = nir.Delay(np.array([0.0, 1e-3, 3e-3, 1.0]))
    g = graph("in>d d>n n>out", d=delay, n=lif(4, 0.0, 0.5), **ends)
    x = np.zeros((6, 2, 4), np.uint8)
    x[1] = 1
    spikes = run(g, x, record=("n",)).traces["n"].spikes
    assert [np.flatnonzero(spikes[:, 1, i]).tolist() for i in range(4)] == [[1], [2], [4], []]


def test_a_delay_in_a_loop() -> None:
    ends = {"in": nir.Input(np.array([1])), "out": nir.Output(np.array([1]))}
    g = graph("in>n n>d d>n n>out", n=lif(1, 0.0, 0.5), d=nir.Delay(np.array([2e-3])), **ends)
    assert g.feedback_edges == (("n", "d"),)
    spikes = run(g, series([1, 0, 0, 0, 0, 0, 0]), record=("n",)).traces["n"].spikes
    assert np.flatnonzero(spikes).tolist() == [0, 3, 6]


def net(noise_std: float = 0.0, encoder: str = "direct", kind: str = "conv") -> Graph:
    rng = np.random.default_rng(7)
    conv = nir.Conv2d((6, 6), rng.normal(size=(4, 1, 3, 3)), (1, 1), (1, 1), (1, 1), 1, rng.normal(size=4))
    one = np.ones((4, 6, 6))
    fc = nir.Affine(rng.normal(size=(5, 36)), rng.normal(size=5))
    nodes = {
        "in": nir.Input(np.array([1, 6, 6])),
        "conv": conv,
        "n1": nir.LIF(DT_S / 0.3 * one, one / 0.3, 0 * one, one),
        "pool": nir.AvgPool2d(*(np.array([2, 2]),) * 2, np.array([0, 0])),
        "flat": nir.Flatten(None, 0, -1),
        "fc": fc,
        "n2": lif(5),
        "out": nir.Output(np.array([5])),
    }
    names = list(nodes)
    edges = " ".join(f"{a}>{b}" for a, b in zip(names[:-1], names[1:], strict=True))
    model = ModelSemantics(DT_S, encoder, 12)  # type: ignore[arg-type]
    return graph(edges, model, {"noise_std": noise_std}, **nodes)


IMAGES = np.random.default_rng(1).random((23, 1, 6, 6), dtype=np.float32)


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
@pytest.mark.parametrize("encoder", ["direct", "rate"])
def test_batches_change_nothing(noise_std: float, encoder: str) -> None:
    backend = FloatBackend(net(noise_std, encoder))
    done: list[tuple[int, int]] = []
    whole = backend.run(IMAGES, RunOptions(record=("all",), seed=3))
    split = backend.run(IMAGES, RunOptions(record=("all",), seed=3, batch_size=7), lambda *a: done.append(a))
    late = backend.run(IMAGES[5:], RunOptions(seed=3, sample_offset=5, batch_size=4))
    assert done == [(7, 23), (14, 23), (21, 23), (23, 23)]
    np.testing.assert_array_equal(whole.logits, split.logits)
    np.testing.assert_array_equal(whole.logits[5:], late.logits)
    assert set(whole.traces) == {"n1", "n2"} | ({"in"} if encoder == "rate" else set())
    for name, trace in whole.traces.items():
        for a, b in zip(trace, split.traces[name], strict=True):
            assert (a is None and b is None) or np.array_equal(a, b)
        np.testing.assert_array_equal(trace.spikes.sum(0), whole.spike_counts[name])
        np.testing.assert_array_equal(trace.spikes[-1], whole.last_spikes[name])
        np.testing.assert_array_equal(trace.spikes.reshape(12, -1).sum(1), whole.steps_density[name])
        np.testing.assert_array_equal(whole.steps_density[name], split.steps_density[name])
    assert (whole.spike_counts["n2"] == whole.logits).all()
    assert (whole.n_steps, whole.n_samples, whole.backend, whole.dt_s) == (12, 23, "float", DT_S)


def test_rate_coding_draws_from_the_common_stream() -> None:
    trace = (
        FloatBackend(net(0.0, "rate")).run(IMAGES, RunOptions(record=("in",), seed=9, n_steps=5)).traces["in"]
    )
    thresholds = rate_thresholds(IMAGES.reshape(23, -1), 1 / 255, 255)
    wanted = rate_spikes(thresholds, 9, np.arange(23), np.arange(5)).reshape(5, 23, 1, 6, 6)
    np.testing.assert_array_equal(trace.spikes, wanted)
    assert trace.u is None
    assert trace.v is None


def test_noise_is_gaussian_seeded_and_can_be_switched_off() -> None:
    ends = {"in": nir.Input(np.array([500])), "out": nir.Output(np.array([500]))}
    model = ModelSemantics(DT_S, "direct", 200)
    li = nir.LI(DT_S * np.ones(500), np.ones(500), np.zeros(500))
    g = graph("in>n n>out", model, {"noise_std": 0.5}, n=li, **ends)
    engine = Engine(g)
    x = np.ones((2, 500), np.float32)
    v = engine.run(x, seed=4, record=("n",)).traces["n"].v_post
    z = (v - 1) / 0.5
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert z.std() == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.05, abs=0.005)
    assert abs(np.corrcoef(z[:, 0].ravel(), z[:, 1].ravel())[0, 1]) < 0.02
    assert np.array_equal(v, engine.run(x, seed=4, record=("n",)).traces["n"].v_post)
    assert not np.array_equal(v, engine.run(x, seed=5, record=("n",)).traces["n"].v_post)
    assert (engine.run(x, noise=False).logits == 1).all()


def test_a_constant_input_equals_its_repetition() -> None:
    engine = Engine(net())
    repeated = np.repeat(IMAGES[None], 12, axis=0)
    np.testing.assert_array_equal(engine.run(IMAGES).logits, engine.run(repeated).logits)


def test_readouts() -> None:
    ends = {"in": nir.Input(np.array([2])), "out": nir.Output(np.array([2]))}
    x = np.ones((3, 1, 2), np.uint8)
    summed = run(graph("in>fc fc>out", fc=nir.Linear(np.array([[1.0, 2.0], [0.5, 0.0]])), **ends), x)
    assert summed.logits.tolist() == [[9.0, 1.5]]
    counted = run(graph("in>n n>out", n=lif(2, 0.5, 1.2), **ends), x)
    assert counted.logits.dtype == np.int64
    assert counted.logits.tolist() == [[1, 1]]
    assert counted.counts["in"].tolist() == [[3, 3]]
    read = run(graph("in>n n>out", n=nir.LI(DT_S * 2 * np.ones(2), np.ones(2), np.zeros(2)), **ends), x)
    assert read.logits.tolist() == [[0.875, 0.875]]


def test_double_precision() -> None:
    assert Engine(net(), np.float64).run(IMAGES, record=("n2",)).traces["n2"].v_post.dtype == np.float64


@pytest.mark.parametrize(
    ("x", "n_steps", "message"),
    [
        (
            np.zeros((4, 6, 6)),
            None,
            r"NM109.*input in: x has shape \[4, 6, 6\], must be \[B, 1, 6, 6\] or \[T, B, 1, 6, 6\]",
        ),
        (np.zeros((4, 2, 1, 6, 7)), None, r"NM109.*has shape \[4, 2, 1, 6, 7\]"),
        (np.zeros((4, 2, 1, 6, 6)), 5, "NM109.*x has 4 steps, 5 were asked for"),
        (np.zeros((4, 0, 1, 6, 6)), None, "NM109.*no samples"),
    ],
)
def test_inputs_that_do_not_fit(x: np.ndarray, n_steps: int | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        FloatBackend(net()).run(x, RunOptions(n_steps=n_steps))


def test_a_model_that_takes_spikes_gets_no_images() -> None:
    with pytest.raises(
        ModelError, match=r"NM109.*no time axis, and the encoder is 'spikes'. Encode the samples"
    ):
        FloatBackend(net(encoder="spikes")).run(IMAGES, RunOptions())


def test_a_population_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="NM005.*no population 'n3' to record. Known: all, in, n1, n2"):
        FloatBackend(net()).run(IMAGES, RunOptions(record=("n3",)))


def test_an_overflow_is_reported() -> None:
    g = one_neuron(reset="none", beta_mem=np.array([1.0]))
    with pytest.raises(SimulationError, match="NM401.*node n: the membrane overflows float32"):
        run(g, series([3e38, 3e38]))
