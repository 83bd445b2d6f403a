"""Closed-form values of the papers' losses and neurons: ``robust_vectors.json``, float64 computed apart from nmtool."""

import json
import math
from pathlib import Path

import pytest
import torch

from nmtool.config import Tgo
from nmtool.surrogate import Surrogate
from nmtool.train.neurons import NoisyLeaky
from nmtool.train.robust.base import LayerTrace
from nmtool.train.robust.tgo import constraint, regulariser, weight

VECTORS = json.loads((Path(__file__).parent / "robust_vectors.json").read_text())
SAMPLES = 400_000


def trace(
    v: torch.Tensor, noise: torch.Tensor | None = None, spiking: bool = True, name: str = "lif"
) -> LayerTrace:
    theta, beta = torch.tensor(1.0, dtype=v.dtype), torch.tensor(0.5)
    return LayerTrace(name, v, v, (v > theta).to(v), theta, beta, "zero", Surrogate(), noise, spiking=spiking)


@pytest.mark.parametrize("case", VECTORS["tgo_mc"], ids=lambda c: f"delta={c['delta']}")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_tgo_constraint(case: dict, reduction: str) -> None:
    v = torch.tensor(case["V"], dtype=torch.float64, requires_grad=True)
    value, terms = constraint([trace(v)], Tgo(delta=case["delta"], reduction=reduction))
    assert value.item() == pytest.approx(case[reduction], abs=1e-9)
    assert terms["lif"].item() == value.item()
    value.backward()
    factor = 1 if reduction == "mean" else v.numel()
    expected = torch.tensor(case["grad_of_mean"], dtype=torch.float64) * factor
    torch.testing.assert_close(v.grad.flatten(), expected)


def test_tgo_sums_spiking_layers_and_leaves_out_a_silent_readout() -> None:
    v = torch.tensor(VECTORS["tgo_mc"][0]["V"], dtype=torch.float64)
    traces = [trace(v, name="a"), trace(v + 10, name="far"), trace(v, name="out", spiking=False)]
    value, terms = constraint(traces, Tgo(delta=0.5))
    assert value.item() == pytest.approx(VECTORS["tgo_mc"][0]["mean"])
    assert sorted(terms) == ["a", "far"]


def test_tgo_total() -> None:
    case = VECTORS["tgo_total"]
    assert case["task"] + case["lambda"] * sum(case["C"]) == pytest.approx(case["total"])
    # Two layers whose terms are the published ones, through our own sum.
    near = torch.tensor(VECTORS["tgo_mc"][0]["V"], dtype=torch.float64)
    tenth = torch.full((2, 1, 3), 1.4, dtype=torch.float64)
    value, _ = constraint([trace(near, name="a"), trace(tenth, name="b")], Tgo(delta=0.5))
    assert case["task"] + case["lambda"] * value.item() == pytest.approx(case["total"])


def test_tgo_of_the_clean_potential() -> None:
    v = torch.tensor(VECTORS["tgo_mc"][0]["V"], dtype=torch.float64)
    noise = torch.full_like(v, 0.7)
    noisy, _ = constraint([trace(v + noise, noise)], Tgo(delta=0.5, v="noisy"))
    clean, _ = constraint([trace(v + noise, noise)], Tgo(delta=0.5, v="clean"))
    assert clean.item() == pytest.approx(VECTORS["tgo_mc"][0]["mean"])
    assert noisy.item() != pytest.approx(clean.item())


def test_tgo_schedule() -> None:
    case = VECTORS["tgo_lambda"]
    for epoch, expected in case["epoch"].items():
        assert weight(int(epoch), case["E"], case["lmax"]) == pytest.approx(expected, abs=1e-9)
    method = regulariser(Tgo(lambda_max=case["lmax"]))
    assert method.name == "tgo"
    assert method.weight(150, case["E"]) == pytest.approx(0.2)


def test_tgo_gradient_vanishes_outside_the_band_and_cancels_for_symmetric_potentials() -> None:
    z = torch.linspace(-2, 2, 40, dtype=torch.float64)
    v = (1 + z).reshape(1, 1, -1).requires_grad_()
    constraint([trace(v)], Tgo(delta=0.75, reduction="sum"))[0].backward()
    grad, inside = v.grad.flatten(), z.abs() < 0.75
    assert (grad[~inside] == 0).all()
    torch.testing.assert_close(grad[inside], -z[inside].sign())
    assert grad.sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("case", VECTORS["nlif"], ids=lambda c: f"V={c['V']},sigma={c['sigma']:.2f}")
def test_noisy_lif_fires_with_the_probability_of_theory(case: dict) -> None:
    neuron = NoisyLeaky(0.5, 1.0, noise_std=case["sigma"])
    current = torch.full((1, SAMPLES), case["V"])
    fired = neuron.scan(current, torch.Generator().manual_seed(0)).spikes.mean().item()
    p = case["P"]
    assert fired == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / SAMPLES))


def test_noise_is_carried_over_by_the_leak() -> None:
    case = VECTORS["nlif_noise_var"]
    neuron = NoisyLeaky(case["tau"], threshold=math.inf, noise_std=math.sqrt(case["sigma2"]))
    v = neuron.scan(torch.zeros(4, SAMPLES), torch.Generator().manual_seed(1)).v_pre
    # The standard error of a variance is var sqrt(2 / n).
    torch.testing.assert_close(
        v.var(dim=1), torch.tensor(case["no_spike_t1_4"]), rtol=5 * math.sqrt(2 / SAMPLES), atol=0
    )


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_potential_before_the_reset(reset: str) -> None:
    case = VECTORS["snntorch_leaky"]
    neuron = NoisyLeaky(case["beta"], 1.0, reset=reset)
    result = neuron.scan(torch.tensor(case["current"]).reshape(4, 1, 1))
    torch.testing.assert_close(result.v_pre.flatten(), torch.tensor(case[reset]))
    assert result.spikes.flatten().tolist() == [0, 1, 0, 1]


def test_surrogate_densities() -> None:
    case = VECTORS["surrogates"]
    z = torch.tensor(case["x"], dtype=torch.float64)
    for family, width, key in (("triangle", 1.0, "triangle_g1"), ("atan", 0.5, "atan_a2")):
        expected = torch.tensor(case[key], dtype=torch.float64)
        torch.testing.assert_close(Surrogate(family, width).density(z), expected, atol=1e-9, rtol=0)
