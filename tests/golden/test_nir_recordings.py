"""Recordings published with NIR (Pedersen et al. 2024, ``paper/01_lif``): one LIF neuron on many platforms.

tau = 2.5 ms, R = 1, threshold 0.1, dt = 0.1 ms, 1000 steps. Values are rows of the published CSV files.
"""

from dataclasses import replace

import nir
import numpy as np
import pytest

from nmtool.ir.graph import Graph, from_nir
from nmtool.ir.reference import FloatTrace, run
from nmtool.ir.resolve import Scheme

PATTERN = (
    "0000001000000000000000100001000110010100110111111111110000000000000111111111111000001100000000000000"
)
INPUT_STEPS = [10 * i for i, c in enumerate(PATTERN) if c == "1"]
NORSE = {60: 0.04, 61: 0.038399998, 118: 0.00374793, 220: 0.04005827, 270: 0.045202997, 310: 0.048831135,
         320: 0.072464526, 350: 0.061294258, 370: 0.06709221, 400: 0.059715554, 410: 0.07970084,
         430: 0.07522796, 440: 0.090013996, 450: 0.09984423, 459: 0.06914552, 460: 0.0, 470: 0.04,
         480: 0.066593304, 490: 0.0842734, 500: 0.09602771, 510: 0.0}  # fmt: skip
SNNTORCH = {60: 0.03999999910593033, 61: 0.03839999809861183, 62: 0.03686399757862091, 220: 0.04005827009677887,
            270: 0.04520299285650253, 310: 0.04883112758398056, 320: 0.07246451079845428, 450: 0.09984421730041504,
            490: 0.08427339047193527, 500: 0.0960276797413826}  # fmt: skip
SINABS = {60: 0.03999999910593033, 61: 0.03843157738447189, 220: 0.04006646201014519, 320: 0.07296005636453629,
          440: 0.09106221795082092, 450: 0.001040823757648468, 451: 0.0010000125039368868, 460: 0.04069768264889717,
          490: 0.09704386442899704, 500: 0.005050450563430786, 510: 0.04338541626930237}  # fmt: skip


def lif_norse(scheme: Scheme = "euler", gain: float = 1.0) -> Graph:
    """The published graph; ``gain`` scales input and threshold alike."""
    one = np.ones(1, np.float32)
    nodes = {
        "input": nir.Input(np.array([1])),
        "0": nir.Affine(np.full((1, 1), gain, np.float32), 0 * one),
        "1": nir.LIF(tau=one * 2.5e-3, r=one, v_leak=0 * one, v_threshold=one * np.float32(0.1 * gain)),
        "output": nir.Output(np.array([1])),
    }
    return from_nir(nir.NIRGraph(nodes, [("input", "0"), ("0", "1"), ("1", "output")]), 1e-4, scheme=scheme)


def trace(g: Graph) -> FloatTrace:
    x = np.zeros((1000, 1, 1), np.uint8)
    x[INPUT_STEPS] = 1
    return run(g, x, record=("1",)).traces["1"]


def with_neuron(g: Graph, **changes: object) -> Graph:
    node = g.nodes["1"]
    return replace(g, nodes={**g.nodes, "1": replace(node, neuron=replace(node.neuron, **changes))})


def steps(t: FloatTrace) -> list[int]:
    return np.flatnonzero(t.spikes).tolist()


def test_the_pattern_is_the_published_one() -> None:
    assert len(PATTERN) == 100
    assert len(INPUT_STEPS) == 34


def test_norse() -> None:
    t = trace(lif_norse())
    assert steps(t) == [460, 510, 710, 760]
    for step, v in NORSE.items():
        assert t.v_post[step, 0, 0] == pytest.approx(v, abs=4e-8), step


def test_snntorch_to_the_last_bit() -> None:
    t = trace(lif_norse())
    for step, v in SNNTORCH.items():
        assert t.v_post[step, 0, 0] == np.float32(v), step


def test_a_common_factor_of_input_and_threshold_changes_no_spike() -> None:
    assert steps(trace(lif_norse(gain=25.0))) == [460, 510, 710, 760]


def test_nengo_uses_the_exponential_step_with_its_own_gain() -> None:
    g = lif_norse("exponential")
    assert g.nodes["1"].neuron.gain_mem[0] == pytest.approx(1 - np.exp(-0.04), rel=1e-6)
    assert steps(trace(g)) == [460, 510, 710, 760]


def test_sinabs_pairs_the_exponential_decay_with_eulers_gain_and_subtracts() -> None:
    g = with_neuron(
        lif_norse(), beta_mem=np.array([np.exp(-0.04)]), gain_mem=np.array([0.04]), reset="subtract"
    )
    t = trace(g)
    assert steps(t) == [450, 500, 710, 760]
    for step, v in SINABS.items():
        assert t.v_post[step, 0, 0] == pytest.approx(v, abs=2e-8), step


@pytest.mark.parametrize(
    ("dt_s", "scheme", "period"),
    [
        (5e-3, "euler", 3),
        (1e-3, "euler", 18),
        (1e-4, "euler", 179),
        (1e-5, "euler", 1791),
        (5e-3, "exponential", 4),
        (1e-3, "exponential", 18),
        (1e-4, "exponential", 180),
        (1e-5, "exponential", 1792),
    ],
)
def test_two_lif_neurons_at_four_time_steps(dt_s: float, scheme: Scheme, period: int) -> None:
    """The first fires by its leak every 17.92 ms; its spike moves the second by R dt / tau, which depends on dt."""
    one = np.ones(1)
    nodes = {
        "in": nir.Input(np.array([1])),
        "linear1": nir.Linear(np.ones((1, 1))),
        "lif1": nir.LIF(tau=0.01 * one, r=one, v_leak=1.2 * one, v_threshold=one),
        "linear2": nir.Linear(np.ones((1, 1))),
        "lif2": nir.LIF(tau=0.01 * one, r=one, v_leak=0 * one, v_threshold=20 * one),
        "out": nir.Output(np.array([1])),
    }
    names = list(nodes)
    g = from_nir(nir.NIRGraph(nodes, list(zip(names[:-1], names[1:], strict=True))), dt_s, scheme=scheme)
    traces = run(g, np.zeros((2 * period, 1, 1), np.uint8), record=("all",)).traces
    assert np.flatnonzero(traces["lif1"].spikes).tolist() == [period - 1, 2 * period - 1]
    jump = float(traces["lif2"].v_post[period - 1, 0, 0])
    exact = dt_s / 0.01 if scheme == "euler" else 1 - np.exp(-dt_s / 0.01)
    assert jump == pytest.approx(exact, rel=1e-6)
