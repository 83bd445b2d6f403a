"""The integer cell on the vectors that real Lava was run on, and the backward rule against recorded autograd."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nmtool.compiler.program import Population
from nmtool.fixedpoint.noise import NoiseSpec, noise, philox4x32
from nmtool.surrogate import BackwardRule, Surrogate
from nmtool.twin import philox
from nmtool.twin.fixed import Bounds, IntegerCell
from nmtool.twin.neuron import CellState, Course, Dynamics, Stimulus, run_cell

LARGE = 2**31


def population(du: int, dv: int, vth: int, bias: tuple[int, int] = (0, 0), refractory: int = 1) -> Population:
    a = [np.asarray(k, np.int32) for k in (du + 1, dv, vth, *bias)]
    return Population("p", (1,), *a, 1.0, 0, refractory)


def run(
    p: Population, drive: list[list[int]], u0: list[int] | None = None, v0: list[int] | None = None
) -> Course:
    """Rows of neurons over time; states are given before their first decay, as registers."""
    cell = IntegerCell(p, Bounds(LARGE, LARGE))
    x = torch.tensor(drive, dtype=torch.float64).T[:, None]
    state = cell.rest(1, x.shape[2])
    keep_u, keep_v = (1 - int(d) / 4096 for d in (p.decay_syn_q12, p.decay_mem_q12))
    if u0 is not None:
        state = state._replace(u=torch.trunc(torch.tensor([u0]).double() * keep_u))
    if v0 is not None:
        state = state._replace(v=torch.trunc(torch.tensor([v0]).double() * keep_v))
    return cell.course(Stimulus(x, record=True), state)


def rows(x: Tensor | None) -> list[list[int]]:
    assert x is not None
    return x[:, 0].T.int().tolist()


def test_tv1_full_trace() -> None:
    c = run(population(1023, 512, 10), [[5, 0, 3, 0, 0]])
    assert rows(c.u) == [[320, 240, 372, 279, 209]]
    assert rows(c.v) == [[320, 520, 0, 279, 453]]
    assert rows(c.spikes) == [[0, 0, 1, 0, 0]]


def test_tv2_current_decay_rounds_to_zero() -> None:
    c = run(population(0, 4096, 131071), [[0, 0]] * 4, u0=[4095, 4096, -4096, 8388607])
    assert rows(c.u) == [[4094, 4093], [4095, 4094], [-4095, -4094], [8386559, 8384511]]


def test_tv3_membrane_decay_rounds_to_zero() -> None:
    c = run(population(4095, 1, 10), [[0, 0]] * 4, v0=[-1, -4097, 1, 4097])
    assert rows(c.v) == [[0, 0], [-4095, -4094], [0, 0], [0, 0]]
    assert rows(c.spikes)[3] == [1, 0]


def test_tv4_threshold_is_strict() -> None:
    c = run(population(4095, 0, 10), [[10, 0], [11, 0], [10, 1]])
    assert rows(c.spikes) == [[0, 0], [1, 0], [0, 1]]
    assert rows(c.v) == [[640, 640], [0, 0], [640, 0]]


def test_tv5_current_wraps_once() -> None:
    c = run(population(4095, 0, 131071), [[131072], [131073], [-131072], [-131071], [262144], [393217]])
    assert [r[0] for r in rows(c.u)] == [8388608, -8388544, 8388608, -8388544, 0, 8388672]
    assert [r[0] for r in rows(c.spikes)] == [1, 0, 1, 0, 0, 1]


def test_tv5b_input_wraps_to_int32() -> None:
    c = run(population(4095, 0, 131071), [[2**25], [2**26], [2**26 + 1]])
    assert [r[0] for r in rows(c.u)] == [-2130706432, 0, 64]


@pytest.mark.parametrize(("v0", "drive", "v", "spikes"), [
    (8388000, [100, 0], [0, 0], [1, 0]),
    (-8388000, [-100, 0], [-8388607, -8388607], [0, 0]),
])  # fmt: skip
def test_tv6_membrane_saturates(v0: int, drive: list[int], v: list[int], spikes: list[int]) -> None:
    c = run(population(4095, 0, 131071), [drive], v0=[v0])
    assert (rows(c.v), rows(c.spikes)) == ([v], [spikes])


@pytest.mark.parametrize(("bias", "v"), [((-3, -1), -2), ((3, -1), 1), ((-3, 2), -12), ((5, 7), 640)])
def test_tv7_bias(bias: tuple[int, int], v: int) -> None:
    assert rows(run(population(4095, 4096, 131071, bias), [[0]]).v) == [[v]]


def test_refractory_holds_the_membrane_but_not_the_current() -> None:
    c = run(population(1023, 0, 10, refractory=3), [[11, 0, 0, 0, 0]])
    assert rows(c.spikes) == [[1, 0, 0, 0, 0]]
    assert rows(c.v) == [[0, 0, 0, 297, 519]]
    assert rows(c.u) == [[704, 528, 396, 297, 222]]


def test_philox_equals_the_published_vectors() -> None:
    ones = torch.full((), 0xFFFFFFFF)
    got = [int(w) for w in philox.philox4x32((ones, ones, ones, ones), 2**64 - 1)]
    assert got == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert got == [int(w) for w in philox4x32((0xFFFFFFFF,) * 4, 2**64 - 1)]


@pytest.mark.parametrize("spec", [
    NoiseSpec(3), NoiseSpec(7, 1), NoiseSpec(12, -2), NoiseSpec(10, 1, "current", "irwin_hall", 4),
    NoiseSpec(9, 0, "membrane", "gaussian", 2),
])  # fmt: skip
def test_noise_is_the_same_stream(spec: NoiseSpec) -> None:
    samples = torch.tensor([4, 0, 2**31])
    got = philox.noise(spec, 2**63 - 5, samples, 3, (6, 7)).long().numpy()
    want = noise(
        spec, 2**63 - 5, samples.numpy()[None, :, None], 3, np.arange(7), np.arange(6)[:, None, None]
    )
    np.testing.assert_array_equal(got, want)


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return (z > 0).to(z.dtype)

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return g * Surrogate("atan", 0.7).density(z)


class Recorded:
    """The module's equations, step by step in recorded operations; also a cell, when gradients are off."""

    def __init__(self, d: Dynamics, reset_grad: str) -> None:
        self.d, self.reset_grad = d, reset_grad

    def dynamics(self) -> Dynamics:
        return self.d

    def course(self, stimulus: Stimulus, state: CellState) -> Course:
        d, spikes, potentials = self.d, [], []
        u, v, hold = state
        for drive in stimulus.drive:
            i = u + d.gain_syn * drive
            u = 0 * i if d.keep_syn is None else d.keep_syn * i
            potential = v + d.gain_mem * i + (0 if stimulus.bias is None else stimulus.bias)
            s = _Step.apply((potential - d.threshold) / d.unit)
            spikes.append(s)
            potentials.append(potential)
            v = self.left(potential, s)
        return Course(torch.stack(spikes), torch.stack(potentials), CellState(u, v, hold))

    def left(self, potential: Tensor, s: Tensor) -> Tensor:
        d, r = self.d, s if self.reset_grad == "through" else s.detach()
        if d.reset == "zero":
            after = potential + (d.v_reset - potential) * r
            if self.reset_grad == "ignore":
                after = potential + (after - potential).detach()
            return d.keep_mem * after
        if d.reset == "subtract":
            return d.keep_mem * potential - (1 if d.reset_delay else d.keep_mem) * d.threshold * r
        return d.keep_mem * potential


@pytest.mark.parametrize("reset_grad", ["detach", "through", "ignore"])
@pytest.mark.parametrize(
    ("reset", "delay"), [("zero", False), ("subtract", False), ("subtract", True), ("none", False)]
)
@pytest.mark.parametrize("filtered", [True, False])
def test_backward_equals_recorded_autograd(reset: str, delay: bool, reset_grad: str, filtered: bool) -> None:
    gen = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=gen, dtype=torch.float64)

    n, b, t = 5, 3, 8
    d = Dynamics(uniform(n), uniform(n) if filtered else None, 0.5 + uniform(n), 0.5 + uniform(n), 0.3 + uniform(n),
                 0.5 + uniform(n), 0.2 * uniform(n), reset, delay)  # fmt: skip
    inputs = [2 * uniform(t, b, n) - 0.6, uniform(b, n) - 0.5, uniform(b, n) * filtered, uniform(b, n)]
    weights = [uniform(t, b, n), uniform(t, b, n), uniform(b, n) * filtered, uniform(b, n)]
    cell, rule = Recorded(d, reset_grad), BackwardRule(Surrogate("atan", 0.7), reset_grad)

    def gradients(use_rule: bool) -> tuple[Tensor, ...]:
        drive, bias, u, v = leaves = [x.clone().requires_grad_() for x in inputs]
        stimulus, state = Stimulus(drive, bias), CellState(u, v, torch.zeros(b, n))
        c = run_cell(cell, rule, stimulus, state) if use_rule else cell.course(stimulus, state)
        assert 0 < c.spikes.sum() < c.spikes.numel()
        outputs = (c.spikes, c.potential, c.end.u, c.end.v)
        return torch.autograd.grad(sum((w * o).sum() for w, o in zip(weights, outputs, strict=True)), leaves)

    for mine, recorded in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(mine, recorded, rtol=1e-12, atol=1e-12)


def test_held_neurons_pass_nothing() -> None:
    p = population(4095, 0, 10, refractory=4)
    drive = torch.tensor([11.0, 5, 5, 5, 5])[:, None, None].requires_grad_()
    cell = IntegerCell(replace(p, scale=1 / 640), Bounds(20, 0))
    c = run_cell(cell, BackwardRule(Surrogate("gaussian", 1.0)), Stimulus(drive), cell.rest(1, 1))
    (g,) = torch.autograd.grad(c.spikes.sum(), drive)
    assert (g[1:4] == 0).all()
    assert g[0] > 0
    assert g[4] > 0


def test_surrogate_is_scaled_by_the_threshold() -> None:
    """d(spike)/d(drive) = 64 density(V / threshold - 1) / threshold."""
    drive = torch.tensor([[[6.0]]], requires_grad=True)
    cell = IntegerCell(population(4095, 0, 10), Bounds(20, 0))
    c = run_cell(cell, BackwardRule(Surrogate("triangle", 1.0)), Stimulus(drive), cell.rest(1, 1))
    (g,) = torch.autograd.grad(c.spikes.sum(), drive)
    assert g.item() == pytest.approx(64 * 0.6 / 640, rel=1e-6)
