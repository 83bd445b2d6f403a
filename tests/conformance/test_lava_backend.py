"""The Lava backend on constructs and options that the generator does not draw; the slow simulator knows the answers."""

from dataclasses import replace

import numpy as np
import pytest
from compare import differences, expected, options
from generator import Case, case
from tv_programs import inputs, into, population, program

from nmtool.backends.base import RunOptions
from nmtool.backends.lava import LavaBackend
from nmtool.compiler.program import Connection, InputSpec, Program

pytestmark = pytest.mark.lava

RECURRENT, HOSTED, DELAYED, PLAIN = "recurrent", "hosted", "delayed", "plain"
WANTED = {
    RECURRENT: {"self loop", "input spikes", "noise"},
    HOSTED: {"host layer", "dense"},
    DELAYED: {"delay dense", "balanced by delay", "refractory"},
    PLAIN: {"several inputs", "2-D conv", "input rate"},
}


def find(kind: str, n_samples: int = 3) -> Case:
    """The first generated case with these features and several samples."""
    for c in map(case, range(2000)):
        batch_axis = int(c.program.input.encoder == "spikes")
        if c.features >= WANTED[kind] and c.x.shape[batch_axis] >= n_samples:
            return c
    raise LookupError(kind)


def chosen(c: Case, samples: list[int]) -> np.ndarray:
    return c.x[:, samples] if c.program.input.encoder == "spikes" else c.x[samples]


def values(result) -> list[np.ndarray]:
    return [a for name in sorted(result.traces) for a in result.traces[name] if a is not None]


@pytest.mark.parametrize("kind", WANTED)
def test_a_sample_does_not_know_its_neighbours(kind, lava_link):
    c = find(kind)
    backend = LavaBackend(c.program, link=lava_link)
    together = backend.run(c.x, options(c))
    for i in range(together.n_samples):
        alone = backend.run(chosen(c, [i]), options(c, sample_offset=c.sample_offset + i))
        np.testing.assert_array_equal(alone.logits[0], together.logits[i])
        for a, b in zip(values(alone), values(together), strict=True):
            np.testing.assert_array_equal(a[:, 0], b[:, i])


@pytest.mark.parametrize("kind", WANTED)
def test_batches_do_not_change_a_result(kind, lava_link):
    c = find(kind)
    backend = LavaBackend(c.program, link=lava_link)
    whole, cut = backend.run(c.x, options(c)), backend.run(c.x, options(c, batch_size=2))
    for a, b in zip(values(whole), values(cut), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in whole.spike_counts:
        np.testing.assert_array_equal(whole.spike_counts[name], cut.spike_counts[name])
        if name in whole.steps_density:
            np.testing.assert_array_equal(whole.steps_density[name], cut.steps_density[name])


def test_without_noise_the_seed_does_not_matter(lava_link):
    c = find(RECURRENT)
    quiet = replace(c.program, populations=tuple(replace(p, noise=None) for p in c.program.populations))
    off = LavaBackend(c.program, link=lava_link).run(c.x, options(c, noise=False, seed=5))
    want = LavaBackend(quiet, link=lava_link).run(c.x, options(c, seed=6))
    noisy = LavaBackend(c.program, link=lava_link).run(c.x, options(c))
    for a, b in zip(values(off), values(want), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(values(off), values(noisy), strict=True))


def test_counting_fewer_populations_and_tracing_none_changes_no_count(lava_link):
    c = find(PLAIN)
    whole = LavaBackend(c.program, link=lava_link).run(c.x, options(c))
    part = LavaBackend(c.program, link=lava_link, counted=()).run(c.x, options(c, record=()))
    np.testing.assert_array_equal(part.logits, whole.logits)
    assert set(part.spike_counts) == {c.program.output, c.program.input.name}
    np.testing.assert_array_equal(part.spike_counts[c.program.output], whole.spike_counts[c.program.output])
    assert part.traces == {}


def conv_case(weights: np.ndarray, shape: tuple[int, int, int], **geometry) -> Case:
    rng = np.random.default_rng(8)
    spans = [d * (k - 1) for d, k in zip(geometry.get("dilation", (1, 1)), weights.shape[2:], strict=True)]
    padding, stride = geometry.get("padding", (0, 0)), geometry.get("stride", (1, 1))
    out = (
        len(weights),
        *((n + 2 * p - r - 1) // s + 1 for n, p, r, s in zip(shape[1:], padding, spans, stride, strict=True)),
    )
    c = Connection(
        "in->p", "in", "p", "conv", weights.astype(np.int32), in_shape=shape, out_shape=out, **geometry
    )
    p = program(shape, [population("p", out, 3, v_th_man=300, decay_mem_q12=100)], [c])
    x = (rng.random((7, 2, *shape)) < 0.4).astype(np.uint8)
    return Case(p, x, 7, 0, 0, frozenset())


def even(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(9).integers(-128, 128, shape) * 2


@pytest.mark.parametrize(
    "wide",
    [
        conv_case(even((1, 1, 1, 130)), (1, 1, 150)),
        conv_case(even((130, 1, 2, 2)), (130, 3, 3), groups=130),
        conv_case(even((2, 1, 1, 3)), (1, 1, 6), padding=(0, 70), stride=(1, 2)),
        conv_case(even((2, 2, 2, 2)), (2, 3, 140), dilation=(1, 130)),
        conv_case(even((2, 2, 2, 2)), (2, 130, 3), stride=(129, 1)),
    ],
    ids=["kernel", "groups", "padding", "dilation", "stride"],
)
def test_a_convolution_beyond_the_8_bits_of_lavas_conv_is_the_same_convolution(wide, lava_link):
    assert expected(wide)["p"].spikes.any()
    assert (
        differences(
            wide, expected(wide), LavaBackend(wide.program, link=lava_link).run(wide.x, options(wide))
        )
        == []
    )


def test_parts_that_are_not_connected_run_side_by_side(lava_link):
    def biased(name: str, latency: int):
        return population(name, (3,), latency, v_th_man=9, bias_man=100, decay_mem_q12=64)

    populations = [biased("alone", 2), population("fed", (2,), 1, v_th_man=3), biased("last", 0)]
    p = Program("t", InputSpec("in", (2,), "spikes", 8), tuple(populations),
                (into([[20, 0], [0, 20]], target="fed"), into(np.eye(3, dtype=int) * -4, "last", "last",
                 delay_steps=np.asarray(2, np.int32))), None, "fed", "spike_count", 1e-3)  # fmt: skip
    c = Case(p, inputs([[1, 0], [1, 1], [0, 0], [0, 1]] * 5), 20, 0, 0, frozenset())
    want = expected(c)
    assert all(h.spikes.any() for h in want.values())
    assert differences(c, want, LavaBackend(p, link=lava_link).run(c.x, options(c))) == []


def test_names_may_be_anything(lava_link):
    names = ["0", "a b/ü", "in:tap"]
    populations = [population(n, (2,), i + 1, v_th_man=3) for i, n in enumerate(names)]
    connections = [into([[20, 0], [0, 20]], a, b) for a, b in zip(["in", *names], names, strict=False)]
    connections = [replace(c, name="same") for c in connections]
    p = program(2, populations, connections)
    result = LavaBackend(p, link=lava_link).run(inputs([[1, 0], [1, 1]]), RunOptions(record=("all",)))
    for name in names:
        np.testing.assert_array_equal(result.traces[name].spikes[:, 0], [[1, 0], [1, 1]])


def test_synapses_without_any_weight_are_silent(lava_link):
    nothing = Connection("c", "in", "p", "sparse", np.zeros(0, np.int32), indices=np.zeros((2, 0), np.int32))
    p = program(2, [population("p", (2,), 1)], [nothing])
    result = LavaBackend(p, link=lava_link).run(inputs([[1, 1]]), RunOptions(record=("all",)))
    assert not result.traces["p"].u.any()
