"""Compiling whole graphs: scales, latencies, design rules, and writing the quantised network back."""

from pathlib import Path

import nir
import numpy as np
import pytest
from graphs import DT_S, chain, cuba, lif

from nmtool.backends.base import RunOptions
from nmtool.backends.reference import FloatBackend
from nmtool.backends.sim import SimBackend
from nmtool.compiler.compile import compile_graph
from nmtool.compiler.options import CompileOptions
from nmtool.compiler.writeback import write_quantised
from nmtool.errors import ConfigError, FindingsError, ModelError, TargetError
from nmtool.ir.graph import Graph, from_nir, read, write
from nmtool.ir.semantics import ModelSemantics
from nmtool.target import TargetSpec, load_target

RNG = np.random.default_rng(11)


def w(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape)


@pytest.fixture
def loihi1() -> TargetSpec:
    return load_target("loihi1")


def noisy(graph: Graph, std: float, tmp_path: Path, **model: object) -> Graph:
    """The graph with noise on every neuron and other model semantics, through a file."""
    from dataclasses import replace

    neurons = {n: replace(v.neuron, noise_std=std) for n, v in graph.nodes.items() if v.neuron is not None}
    plain = nir.NIRGraph({n: v.op for n, v in graph.nodes.items()}, list(graph.edges), type_check=False)
    write(plain, replace(graph.model, **model), neurons, tmp_path / "noisy.nir")  # type: ignore[arg-type]
    return read(tmp_path / "noisy.nir")


def mlp() -> Graph:
    return chain((20,), nir.Affine(w(16, 20), w(16)), lif((16,)), nir.Affine(w(5, 16), w(5)), lif((5,)))


def test_weights_fill_their_bits_and_nothing_can_wrap(loihi1: TargetSpec) -> None:
    ops = (nir.Linear(w(16, 20)), lif((16,)), nir.Linear(w(5, 16)), lif((5,)))
    program = compile_graph(chain((20,), *ops), loihi1).program
    for c in program.connections:
        assert c.sign_mode == "mixed"
        assert c.weights.max() == 254 or c.weights.min() == -256
        assert not (c.weights % 2).any()
        # worst case of |u|: every input spikes
        drive = np.abs(c.weights).sum(axis=1).max() << max(c.weight_exp, 0)
        assert 64 * drive < 2**23
        assert 64 * 2 * drive >= 2**23 or c.weight_exp == 7


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_fewer_bits_are_a_coarser_grid(loihi1: TargetSpec, bits: int) -> None:
    program = compile_graph(mlp(), loihi1, CompileOptions(weight_bits=bits)).program
    assert all(not (c.weights % (1 << (9 - bits))).any() for c in program.connections)
    assert all(len(np.unique(c.weights)) <= 2**bits for c in program.connections)


def test_one_bit_needs_the_sign_split(loihi1: TargetSpec) -> None:
    with pytest.raises(TargetError, match=r"NM202.*no positive weight.*sign_split"):
        compile_graph(mlp(), loihi1, CompileOptions(weight_bits=1))
    program = compile_graph(mlp(), loihi1, CompileOptions(weight_bits=1, sign_split=True)).program
    assert all(set(np.unique(c.weights)) <= {-128, 0, 128} for c in program.connections)


def test_sign_split_doubles_the_stages_and_halves_the_step(loihi1: TargetSpec) -> None:
    program = compile_graph(mlp(), loihi1, CompileOptions(sign_split=True)).program
    modes = sorted((c.target, c.sign_mode) for c in program.connections)
    assert modes == [("n1", "excitatory"), ("n1", "inhibitory"), ("n3", "excitatory"), ("n3", "inhibitory")]
    assert any((c.weights % 2).any() for c in program.connections)


def test_decays_are_the_chips_registers(loihi1: TargetSpec) -> None:
    graph = chain((6,), nir.Linear(w(4, 6)), cuba((4,), beta_syn=0.5, beta=0.75))
    (p,) = compile_graph(graph, loihi1).program.populations
    assert (int(p.decay_syn_q12), int(p.decay_mem_q12)) == (2048, 1024)


def test_noise_variance_is_exact_and_everything_scales_with_it(loihi1: TargetSpec, tmp_path: Path) -> None:
    from nmtool.quant.noise import std_units

    program = compile_graph(noisy(mlp(), 0.3, tmp_path), loihi1).program
    for p in program.populations:
        assert p.noise is not None
        assert std_units(p.noise.exponent) * p.scale == pytest.approx(0.3, rel=1e-12)
        assert int(p.v_th_man) * 64 * p.scale == pytest.approx(1.0, rel=1e-3)


def test_noise_that_the_target_lacks_needs_a_named_loss(tmp_path: Path) -> None:
    graph, spec = noisy(mlp(), 0.3, tmp_path), load_target("loihi2")
    with pytest.raises(TargetError, match=r"NM208.*n1.*--allow no-noise"):
        compile_graph(graph, spec)
    program = compile_graph(graph, spec, CompileOptions(allow=frozenset({"no-noise"}))).program
    assert all(p.noise is None for p in program.populations)
    assert program.info["options"]["allow"] == ["no-noise"]


def test_direct_input_runs_its_first_layer_on_the_host(loihi1: TargetSpec, tmp_path: Path) -> None:
    graph = noisy(mlp(), 0.0, tmp_path, encoder="direct", n_steps=8)
    program = compile_graph(graph, loihi1).program
    host = program.host
    assert host is not None
    assert [c.source for c in program.connections] == ["n1"]
    assert [p.latency for p in program.populations] == [0, 1]
    # the bias that the host writes is the layer's own, within half a mantissa and the input's rounding
    x = RNG.integers(0, 256, (50, 20))
    acc = x @ host.connection.weights.T.astype(np.int64) + host.bias
    man = (acc + (1 << host.shift >> 1)) >> host.shift
    assert np.abs(man).max() <= host.man_max
    volts = man * 2.0 ** int(program.population("n1").bias_exp) * program.population("n1").scale
    op = graph.nodes["n0"].op
    exact = x / 255 @ np.asarray(op.weight).T + np.asarray(op.bias)
    unit = 2.0 ** int(program.population("n1").bias_exp) * program.population("n1").scale
    assert np.abs(volts - exact).max() < unit


def test_graded_input_goes_onto_a_target_that_has_it(tmp_path: Path) -> None:
    graph = noisy(mlp(), 0.0, tmp_path, encoder="direct", n_steps=8)
    program = compile_graph(graph, load_target("loihi2")).program
    assert program.host is None
    assert [c.message_bits for c in program.connections] == [8, 0]


def test_a_skip_is_held_back_until_the_deeper_branch_arrives(loihi1: TargetSpec) -> None:
    ops = (nir.Linear(w(4, 3)), lif((4,)), nir.Linear(w(4, 4)), lif((4,)), nir.Linear(w(4, 4)), lif((4,)))
    program = compile_graph(chain((3,), *ops, extra=(("n1", "n5"),)), loihi1).program
    assert [p.latency for p in program.populations] == [1, 2, 3]
    delays = {(c.source, c.target): int(program.chip_delay(c)) for c in program.connections}
    assert delays[("n1", "n5")] == 1
    assert delays[("n3", "n5")] == 0


def test_recurrence_takes_the_step_that_a_synapse_costs(loihi1: TargetSpec) -> None:
    graph = chain(
        (3,), nir.Linear(w(4, 3)), lif((4,)), extra=(("n1", "rec"), ("rec", "n1")), rec=nir.Linear(w(4, 4))
    )
    program = compile_graph(graph, loihi1).program
    assert {c.source: int(program.chip_delay(c)) for c in program.connections} == {"in": 0, "n1": 0}


def test_a_loop_shorter_than_its_stages_is_refused(loihi1: TargetSpec) -> None:
    ops = (nir.Linear(w(4, 3)), lif((4,)), nir.Linear(w(4, 4)), lif((4,)))
    graph = chain((3,), *ops, extra=(("n3", "back"), ("back", "n1")), back=nir.Linear(w(4, 4)))
    with pytest.raises(FindingsError, match=r"NM206.*n3->n1.*Add a delay of 1 step"):
        compile_graph(graph, loihi1)


def test_delays_beyond_the_register_are_refused_with_the_key(loihi1: TargetSpec) -> None:
    graph = chain((4,), nir.Delay(np.full(4, 63 * DT_S)), nir.Linear(w(4, 4)), lif((4,)))
    with pytest.raises(FindingsError, match=r"NM210.*63 steps.*62.*synapse.max_delay_steps"):
        compile_graph(graph, loihi1)


def test_subtract_reset_is_refused_on_loihi1(loihi1: TargetSpec, tmp_path: Path) -> None:
    from dataclasses import replace

    graph = mlp()
    neurons = {n: replace(v.neuron, reset="subtract") for n, v in graph.nodes.items() if v.neuron is not None}
    plain = nir.NIRGraph({n: v.op for n, v in graph.nodes.items()}, list(graph.edges), type_check=False)
    write(plain, graph.model, neurons, tmp_path / "m.nir")
    with pytest.raises(FindingsError) as caught:
        compile_graph(read(tmp_path / "m.nir"), loihi1)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all("NM204" in line and "neuron.resets" in line for line in lines)


def test_a_bias_behind_a_synaptic_filter_needs_a_named_loss(loihi1: TargetSpec) -> None:
    graph = chain((6,), nir.Affine(w(4, 6), w(4)), cuba((4,)))
    with pytest.raises(TargetError, match=r"NM205.*n1.*steady-state-bias"):
        compile_graph(graph, loihi1)
    compile_graph(graph, loihi1, CompileOptions(allow=frozenset({"steady-state-bias"})))


def test_a_reset_to_another_value_is_refused(loihi1: TargetSpec) -> None:
    with pytest.raises(FindingsError, match=r"NM204.*n1.*resets to 0.25.*starts there"):
        compile_graph(chain((6,), nir.Linear(w(4, 6)), lif((4,), v_th=1.0, v_reset=0.25)), loihi1)


@pytest.mark.parametrize("beta", [0.5, 0.95, 0.9999])
def test_a_readout_never_reaches_a_threshold(loihi1: TargetSpec, beta: float) -> None:
    """A leaky integrator has no threshold; on the chip the largest one must stay out of reach for any input."""
    one = np.ones(4)
    readout = nir.LI(one * DT_S / (1 - beta), one / (1 - beta), 0 * one)
    graph = chain((30,), nir.Linear(np.abs(w(4, 30))), readout)
    program = compile_graph(graph, loihi1).program
    spikes = np.ones((program.input.n_steps, 3, 30), np.uint8)
    options = RunOptions(record=("all",))
    result = SimBackend(program).run(spikes, options)
    assert not result.traces["n1"].spikes.any()
    assert not result.overflow
    wanted = FloatBackend(graph).run(spikes, options)
    p = program.population("n1")
    assert result.traces["n1"].v * p.scale == pytest.approx(wanted.traces["n1"].v, rel=0.02)


@pytest.mark.parametrize("behind", [nir.Linear(w(5, 10)), nir.Linear(w(10, 10))])
def test_different_delays_inside_a_chain_are_refused(loihi1: TargetSpec, behind: nir.NIRNode) -> None:
    delay = nir.Delay(np.arange(10) * 2 * DT_S)
    graph = chain((20,), nir.Linear(w(10, 20)), delay, behind, lif((behind.weight.shape[0],)))
    with pytest.raises(TargetError, match=r"NM205.*n2.*follows delays that differ"):
        compile_graph(graph, loihi1)


def test_a_delayed_bias_needs_a_named_loss(loihi1: TargetSpec) -> None:
    graph = chain((6,), nir.Affine(w(4, 6), w(4)), nir.Delay(np.full(4, 5 * DT_S)), lif((4,)))
    with pytest.raises(TargetError, match=r"NM205.*n1.*delays a bias.*steady-state-bias"):
        compile_graph(graph, loihi1)
    compile_graph(graph, loihi1, CompileOptions(allow=frozenset({"steady-state-bias"})))


def test_time_constants_beyond_the_register_are_not_replaced_silently(loihi1: TargetSpec) -> None:
    slow = chain((6,), nir.Linear(w(4, 6)), cuba((4,), beta_syn=1 - 5e-5, beta=0.7))
    with pytest.raises(FindingsError, match=r"NM201.*current decay register is -1"):
        compile_graph(slow, loihi1)
    found = compile_graph(chain((6,), nir.Linear(w(4, 6)), lif((4,), beta=1 - 5e-5)), loihi1).findings
    assert any(d.code == "NM251" and "membrane should lose 5e-05 per step" in d.message for d in found)


@pytest.mark.parametrize("encoder", ["spikes", "direct"])
def test_the_quantised_file_compiles_to_the_same_program(
    loihi1: TargetSpec, tmp_path: Path, encoder: str
) -> None:
    graph = noisy(mlp(), 0.2, tmp_path, encoder=encoder)
    first = compile_graph(graph, loihi1)
    write_quantised(graph, first, tmp_path / "q.nir")
    again = compile_graph(read(tmp_path / "q.nir"), loihi1)
    for a, b in zip(first.program.connections, again.program.connections, strict=True):
        assert np.array_equal(a.weights, b.weights)
        assert a.weight_exp == b.weight_exp
    for p, q in zip(first.program.populations, again.program.populations, strict=True):
        assert np.array_equal(p.v_th_man, q.v_th_man)
        assert np.array_equal(p.bias_man, q.bias_man)
        assert p.noise == q.noise


def test_the_quantised_file_holds_the_integers(loihi1: TargetSpec, tmp_path: Path) -> None:
    graph = mlp()
    compiled = compile_graph(graph, loihi1)
    write_quantised(graph, compiled, tmp_path / "q.nir")
    op = nir.read(tmp_path / "q.nir").nodes["n0"]
    assert np.array_equal(op.metadata["nmtool.w_int"], compiled.program.connections[0].weights)
    assert np.allclose(op.metadata["nmtool.w_int"] * op.metadata["nmtool.w_scale"], op.weight, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "code"),
    [({"weight_bits": 9}, "NM004"), ({"noise_draws": 2}, "NM004"), ({"noise_model": "cauchy"}, "NM005"),
     ({"allow": frozenset({"no-nose"})}, "NM005.*no-noise")],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, object], code: str) -> None:
    with pytest.raises(ConfigError, match=code):
        CompileOptions(**options)  # type: ignore[arg-type]


def test_seven_bits_have_no_code(loihi1: TargetSpec) -> None:
    with pytest.raises(FindingsError, match=r"NM202.*7 bits.*weight_bits_allowed"):
        compile_graph(mlp(), loihi1, CompileOptions(weight_bits=7))


def test_an_output_without_neurons_is_refused(loihi1: TargetSpec) -> None:
    nodes = {"in": nir.Input({"input": np.array([4])}), "l": lif((4,)), "fc": nir.Linear(w(2, 4)),
             "out": nir.Output({"output": np.array([2])})}  # fmt: skip
    graph = from_nir(nir.NIRGraph(nodes, [("in", "l"), ("l", "fc"), ("fc", "out")], type_check=False), DT_S)
    with pytest.raises(ModelError, match=r"NM103.*fc"):
        compile_graph(graph, loihi1)


def test_model_semantics_travel(loihi1: TargetSpec, tmp_path: Path) -> None:
    graph = noisy(mlp(), 0.0, tmp_path, n_steps=7, class_labels=tuple("abcde"), data="digits")
    program = compile_graph(graph, loihi1).program
    assert isinstance(graph.model, ModelSemantics)
    assert (program.input.n_steps, program.class_labels, program.dt_s) == (7, tuple("abcde"), DT_S)
