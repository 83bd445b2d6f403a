"""From differential to difference equations, the step, and metadata against both."""

import re
from dataclasses import fields, replace
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmtool.errors import ConfigError, Diagnostic
from nmtool.ir import metadata
from nmtool.ir.resolve import resolve, resolve_dt, to_nir
from nmtool.ir.semantics import ModelSemantics, NeuronSemantics

ONE = np.ones(2)


def lif(tau: float, r: float) -> nir.LIF:
    return nir.LIF(tau * ONE, r * ONE, 0 * ONE, ONE)


def texts(found: list[Diagnostic]) -> str:
    return "\n".join(map(str, found))


def test_euler_and_exponential_with_their_own_gains() -> None:
    op = nir.CubaLIF(
        tau_syn=2e-3 * ONE, tau_mem=1e-2 * ONE, r=3 * ONE, v_leak=0.5 * ONE, v_threshold=ONE, w_in=4 * ONE
    )
    euler, _ = resolve("n", op, (2,), 1e-3, "euler")
    assert euler.beta_mem == pytest.approx(0.9 * ONE)
    assert euler.gain_mem == pytest.approx(0.3 * ONE)
    assert euler.leak == pytest.approx(0.05 * ONE)
    assert euler.beta_syn == pytest.approx(0.5 * ONE)
    assert euler.gain_syn == pytest.approx(2 * ONE)
    exponential, _ = resolve("n", op, (2,), 1e-3, "exponential")
    keep, keep_syn = np.exp(-0.1), np.exp(-0.5)
    assert exponential.beta_mem == pytest.approx(keep * ONE)
    assert exponential.gain_mem == pytest.approx(3 * (1 - keep) * ONE)
    assert exponential.leak == pytest.approx(0.5 * (1 - keep) * ONE)
    assert exponential.gain_syn == pytest.approx(4 * (1 - keep_syn) * ONE)


def test_a_constant_input_leads_to_the_same_membrane_in_both_schemes() -> None:
    """The fixed point R I + v_leak does not depend on how time is cut."""
    op = nir.LI(7e-3 * ONE, 3 * ONE, 0.25 * ONE)
    for scheme in ("euler", "exponential"):
        n, _ = resolve("n", op, (2,), 1e-3, scheme)
        assert (n.gain_mem * 2.0 + n.leak) / (1 - n.beta_mem) == pytest.approx(3 * 2.0 + 0.25)


@pytest.mark.parametrize(
    ("nodes", "recorded", "asked", "dt", "message"),
    [
        ({"a": lif(1e-2, 1)}, None, 5e-4, 5e-4, ""),
        ({"a": lif(1e-2, 1)}, 1e-3, None, 1e-3, ""),
        ({"a": lif(1e-2, 1)}, 1e-3, 2e-3, 2e-3, r"warning\[NM151\].*records dt = 0.001 s; 0.002 s was asked for"),
        ({"a": lif(1e-2, 10), "b": lif(5e-3, 5)}, None, None, 1e-3, r"warning\[NM106\].*tau / dt with dt = 0.001 s"),
        ({"a": lif(1e-2, 10), "b": lif(5e-3, 10)}, None, None, 1e-4, r"error\[NM106\].*a: 0.001, b: 0.0005"),
        ({"a": lif(1e-2, 1)}, None, None, 1e-4, r"warning\[NM106\].*0.0001 s is assumed"),
        ({"a": nir.Linear(np.eye(2))}, None, None, 1e-4, ""),
        ({}, "soon", None, 1e-4, r"error\[NM103\].*nmtool.dt_s is 'soon'"),
        ({}, -1.0, None, 1e-4, r"error\[NM103\].*nmtool.dt_s"),
    ],
    ids=range(9),
)  # fmt: skip
def test_the_step(nodes: dict[str, Any], recorded: Any, asked: float | None, dt: float, message: str) -> None:
    found_dt, found, _ = resolve_dt(nodes, recorded, asked)
    assert found_dt == dt
    assert bool(found) == bool(message)
    if message:
        assert re.search(message, texts(found))


def test_snntorchs_files_give_the_step_exactly() -> None:
    """tau = dt / (1 - beta), r = tau / dt, in float32, as its exporter writes them."""
    beta = np.array([0.9, 0.5, 0.95, 0.0], np.float32)
    tau = (1e-4 / (1 - beta)).astype(np.float32)
    op = nir.LIF(tau, (tau / np.float32(1e-4)).astype(np.float32), 0 * tau, 1 + 0 * tau)
    dt, found, _ = resolve_dt({"a": op}, None, None)
    assert dt == 1e-4
    n, notes = resolve("a", op, (4,), dt, "euler")
    assert not notes
    assert np.array_equal(n.gain_mem, np.ones(4))
    assert n.beta_mem == pytest.approx(beta, abs=1e-7)
    assert found[0].severity == "warning"


def test_a_step_that_is_none() -> None:
    with pytest.raises(ConfigError, match="NM004.*dt_s: is -1"):
        resolve_dt({}, None, -1)


numbers = st.floats(0.0, 1.0).map(lambda v: np.array([v, 0.5]))


@given(
    beta=numbers,
    gain=st.floats(1e-3, 1e3),
    beta_syn=st.one_of(st.none(), numbers),
    leak=st.floats(-2, 2),
    v_th=st.sampled_from([1.0, 1e-3, np.inf]),
)
def test_what_is_written_means_the_same(
    beta: Any, gain: float, beta_syn: Any, leak: float, v_th: float
) -> None:
    neuron = NeuronSemantics(beta, gain * ONE, beta_syn, (1.0 if beta_syn is None else gain) * ONE, leak * ONE,
                             v_th * ONE, 0 * ONE, "zero", False, 0.1)  # fmt: skip
    op = to_nir(neuron, 1e-3)
    assert all(getattr(op, k).dtype == np.float32 for k in ("r", "v_leak"))
    rounded, found = resolve("n", op, (2,), 1e-3, "euler")
    assert not [d for d in found if d.severity == "error"]
    exact, found = metadata.decode_neuron("n", rounded, metadata.encode_neuron(neuron), True)
    assert not found
    for f in fields(neuron):
        a, b = getattr(neuron, f.name), getattr(exact, f.name)
        assert (a is None and b is None) or np.array_equal(a, b), f.name


def neuron(**changes: Any) -> NeuronSemantics:
    return replace(NeuronSemantics(0.9 * ONE, ONE, None, ONE, 0 * ONE, ONE, 0 * ONE), **changes)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("beta_mem", 0.8, r"error\[NM106\].*nmtool.beta_mem records 0.8, but the node's own parameters give 0.9"),
        ("v_th", np.array([1.0, 2.0]), r"error\[NM106\].*nmtool.v_th records 2.*\(neuron 1\)"),
        ("beta_syn", 0.5, r"error\[NM106\].*the node has no synaptic current"),
        ("gain_mem", np.ones(3), r"error\[NM106\].*shape \(3,\), the node has \(2,\)"),
        ("leak", "much", r"error\[NM106\].*nmtool.leak is"),
        ("reset", "soft", r"error\[NM103\].*nmtool.reset is 'soft', must be one of zero, subtract, none"),
        ("reset_delay", 1, r"error\[NM103\].*nmtool.reset_delay is 1, must be true or false"),
        ("noise_std", -0.1, r"error\[NM103\].*nmtool.noise_std is -0.1, must be a finite number >= 0"),
        ("noise", 0.1, r"warning\[NM151\].*'nmtool.noise' is unknown and ignored. Did you mean 'nmtool.noise_std'"),
    ],
)  # fmt: skip
def test_metadata_that_contradict(key: str, value: Any, message: str) -> None:
    _, found = metadata.decode_neuron("n", neuron(), {"nmtool.reset": "zero", f"nmtool.{key}": value}, True)
    assert len(found) == 1
    assert re.search(message, str(found[0]))


def test_a_missing_reset_is_a_warning() -> None:
    back, found = metadata.decode_neuron("n", neuron(), {"nmtool.beta_mem": 0.9}, True)
    assert back.reset == "zero"
    assert [str(d) for d in found] == [
        "warning[NM106] n: metadata lack nmtool.reset; read as 'zero', which is what NIR means. Export again."
    ]


def test_subtraction_with_a_reset_value_contradicts_itself() -> None:
    _, found = metadata.decode_neuron("n", neuron(v_reset=0.5 * ONE), {"nmtool.reset": "subtract"}, True)
    assert "error[NM106] n: nmtool.reset is 'subtract', but v_reset is not 0" in texts(found)


def test_recorded_decays_do_not_hold_at_another_step() -> None:
    recorded = metadata.encode_neuron(neuron(beta_mem=0.5 * ONE, reset="subtract"))
    back, found = metadata.decode_neuron("n", neuron(), recorded, False)
    assert not found
    assert np.array_equal(back.beta_mem, 0.9 * ONE)
    assert back.reset == "subtract"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", "nmtool.nir/9", "must be 'nmtool.nir/1'. Update nmtool"),
        ("encoder", "poisson", "must be one of spikes, direct, rate"),
        ("n_steps", 0, "must be a whole number >= 1"),
        ("n_steps", 2.5, "must be a whole number >= 1"),
        ("readout", "max", "must be one of spike_count, membrane"),
        ("bounds", np.array([1.0, 0.0]), "must be two numbers, the lower first"),
        ("bounds", np.array([1.0]), "must be two numbers, the lower first"),
        ("class_labels", "a, b", "must be a JSON list of texts"),
        ("class_labels", "[1]", "must be a JSON list of texts"),
        ("data", 3, "must be a text"),
    ],
)
def test_graph_metadata_that_are_refused(key: str, value: Any, message: str) -> None:
    good = metadata.encode_model(ModelSemantics(1e-3))
    _, found = metadata.decode_model({**good, f"nmtool.{key}": value}, 1e-3)
    assert [d.code for d in found] == ["NM103"]
    assert message in str(found[0])


def test_missing_graph_metadata() -> None:
    good = metadata.encode_model(ModelSemantics(1e-3, "direct", 7, "membrane", (0, 2), ("a",), "d"))
    model, found = metadata.decode_model(good, 1e-3)
    assert (model, found) == (ModelSemantics(1e-3, "direct", 7, "membrane", (0, 2), ("a",), "d"), [])
    model, found = metadata.decode_model({"nmtool.schema": metadata.SCHEMA, "other.key": 1}, 1e-3)
    assert model == ModelSemantics(1e-3)
    assert "lacks nmtool.encoder (read as spikes), nmtool.n_steps (read as 16)" in texts(found)


@pytest.mark.parametrize(
    ("integers", "scale", "fits"),
    [
        (np.array([[1, -2]]), 0.25, True),
        (np.array([[1, -3]]), 0.25, False),
        (np.array([1, -2]), 0.25, False),
        (np.array([[1, -2]]), "0.25", False),
    ],
)
def test_recorded_integers(integers: Any, scale: Any, fits: bool) -> None:
    op = nir.Linear(np.array([[0.25, -0.5]], np.float32))
    op.metadata = {"nmtool.w_int": integers, "nmtool.w_scale": scale, "nmtool.w_bits": 8}
    found = list(metadata.check_weights("n", op))
    assert fits == (not found)
    assert fits or "recorded integers (nmtool.w_int, nmtool.w_scale) differ from the weights" in texts(found)
