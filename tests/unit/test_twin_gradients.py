"""Gradients of the twins: exact where the network is linear, the same in either order of computation, overridable."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nmtool import surrogate
from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program
from nmtool.errors import BackendUnavailableError, ModelError
from nmtool.fixedpoint.encode import rate_spikes, rate_thresholds
from nmtool.fixedpoint.noise import NoiseSpec
from nmtool.twin.integer import IntegerTwin
from nmtool.twin.options import TwinOptions
from nmtool.twin.schedule import groups
from nmtool.twin.synapses import Synapses


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2))


def i32(x: object) -> np.ndarray:
    return np.asarray(x, np.int32)


def population(name: str, n: int, **kw: object) -> Population:
    registers = {
        "decay_syn_q12": 4096,
        "decay_mem_q12": 2048,
        "v_th_man": 100,
        "bias_man": 0,
        "bias_exp": 6,
    } | kw
    own = {
        k: i32(registers.pop(k))
        for k in ("decay_syn_q12", "decay_mem_q12", "v_th_man", "bias_man", "bias_exp")
    }
    return Population(name, (n,), **own, scale=1 / 6400, latency=0, **registers)


def dense(name: str, ends: tuple[str, str], shape: tuple[int, int], **kw: object) -> Connection:
    rng = np.random.default_rng(sum(map(ord, name)))
    return Connection(name, *ends, "dense", i32(rng.integers(-60, 90, shape) * 2), **kw)


def program(
    populations: list[Population], connections: list[Connection], host: HostLayer | None = None, **kw: object
) -> Program:
    spec = InputSpec("input", (6,), str(kw.pop("encoder", "direct")), 8, 1 / 255, 255)
    return Program("loihi1", spec, tuple(populations), tuple(connections), host, populations[-1].name,
                   str(kw.pop("readout", "spike_count")), 1e-3)  # fmt: skip


def looped() -> Program:
    """Two populations in a loop with delays, one behind it, noise and refractory neurons among them."""
    return program(
        [
            population("a", 5, decay_syn_q12=1024, noise=NoiseSpec(9)),
            population("b", 4, refractory_steps=2),
            population("c", 3),
        ],
        [
            dense("ia", ("input", "a"), (5, 6), message_bits=8, weight_exp=-6),
            dense("ab", ("a", "b"), (4, 5), delay_steps=i32(rng().integers(0, 3, (4, 5)))),
            dense("ba", ("b", "a"), (5, 4), delay_steps=i32(2), weight_exp=-1),
            dense("bc", ("b", "c"), (3, 4)),
            dense("ac", ("a", "c"), (3, 5), delay_steps=i32(1)),
        ],
    )  # fmt: skip


def gradient(twin: IntegerTwin, x: Tensor, seed: int = 3) -> tuple[Tensor, Tensor]:
    point = x.clone().requires_grad_()
    logits = twin(point, seed=seed)
    weights = torch.arange(1.0, logits.numel() + 1).reshape(logits.shape)
    return logits.detach(), torch.autograd.grad((weights * logits).sum(), point)[0]


def test_a_linear_network_has_its_exact_gradient() -> None:
    """No decay, no spike: v after T steps is T 2**exp (W x / x_scale) / 2**shift."""
    w = i32(rng().integers(-100, 100, (3, 6)))
    wired = Connection("fc", "input", "v", "dense", w, message_bits=8)
    host = HostLayer(wired, np.zeros(3, np.int64), 4, -4096, 4095)
    p = program(
        [population("v", 3, decay_mem_q12=0, v_th_man=131071, bias_exp=5)], [], host, readout="membrane"
    )
    x = uniform(2, 6)
    logits, g = gradient(IntegerTwin(p), x)
    per_unit = 8 * 2**5 * torch.from_numpy(w).float() * 255 / 2**4 / 6400
    want = torch.arange(1.0, 7).reshape(2, 3) @ per_unit
    torch.testing.assert_close(g, want, rtol=1e-5, atol=1e-5)
    units = torch.round(x.double() * 255)
    man = torch.floor((units @ torch.from_numpy(w).double().T + 8) / 16)
    torch.testing.assert_close(logits, 8 * 32 * man / 6400, rtol=1e-15, atol=0)


@pytest.mark.parametrize("exponent", [0, 2])
@pytest.mark.parametrize("kind", ["dense", "sparse", "conv"])
def test_synapses_transpose_exactly(kind: str, exponent: int) -> None:
    """Without a right shift the sums are linear, so the gradient is the difference that one unit makes."""
    gen = torch.Generator().manual_seed(1)
    if kind == "conv":
        w = i32(rng().integers(-9, 9, (4, 1, 2, 3)))
        how = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
        c = Connection(
            "c", "a", "b", "conv", w, message_bits=4, in_shape=(2, 5, 4), out_shape=(4, 3, 4), **how
        )
        sizes = (48, 40)
    else:
        mask = np.argwhere(rng().random((7, 5)) < 0.5).T
        shape, indices = ((7, 5), None) if kind == "dense" else ((mask.shape[1],), i32(mask))
        w, late = i32(rng().integers(-9, 9, shape)), i32(rng().integers(0, 3, shape))
        c = Connection("c", "a", "b", kind, w, exponent, message_bits=4, indices=indices, delay_steps=late)
        sizes = (7, 5)
    synapses = Synapses(c, sizes, 15)
    source = torch.randint(0, 14, (3, 1, sizes[1]), generator=gen).float().requires_grad_()
    out = synapses(source, 3)
    cotangent = torch.randint(-3, 4, out.shape, generator=gen).to(out.dtype)
    (g,) = torch.autograd.grad((cotangent * out).sum(), source)
    for t, i in [(0, 0), (1, sizes[1] - 1), (2, 3)]:
        more = source.detach().clone()
        more[t, 0, i] += 1
        assert float(g[t, 0, i]) == float((cotangent * (synapses(more, 3) - out.detach())).sum())


def test_step_by_step_equals_all_at_once() -> None:
    """A loop is only a reason to go step by step; logits and gradients do not depend on the way."""
    p = looped()
    feed_forward = [c for c in p.connections if c.name != "ba"]
    p = program(list(p.populations), feed_forward)
    x = uniform(4, 6)
    fast, slow = IntegerTwin(p), IntegerTwin(p)
    slow.groups = [("a", "b", "c")]
    for rule in (("triangle", 1.0, "detach"), ("atan", 0.5, "through"), ("sigmoid", 0.3, "ignore")):
        with surrogate.override(*rule):
            (a, ga), (b, gb) = gradient(fast, x), gradient(slow, x)
        assert torch.equal(a, b)
        assert float(ga.abs().max()) > 0
        torch.testing.assert_close(ga, gb, rtol=1e-4, atol=1e-6)


def test_gradient_flows_through_a_loop() -> None:
    """The input reaches c only through the loop here, so a gradient there has passed delays and recurrence."""
    p = looped()
    p = program(list(p.populations), [c for c in p.connections if c.name != "ac"])
    with surrogate.override("atan", 1.0):
        logits, g = gradient(IntegerTwin(p), uniform(4, 6))
    assert float(logits.sum()) > 0
    assert (g.abs().sum(0) > 0).all()


def test_override_changes_the_gradient_and_no_bit() -> None:
    twin, x = IntegerTwin(looped()), uniform(4, 6)
    own, g_own = gradient(twin, x)
    with surrogate.override("rectangle", 2.0):
        other, g_other = gradient(twin, x)
    assert torch.equal(own, other)
    assert not torch.equal(g_own, g_other)


def test_the_rule_is_that_of_the_forward_pass() -> None:
    twin = IntegerTwin(looped())
    x = uniform(4, 6).requires_grad_()
    plain = torch.autograd.grad(twin(x).sum(), x)[0]
    logits = twin(x)
    with surrogate.override("rectangle", 2.0):
        late = torch.autograd.grad(logits.sum(), x)[0]
    assert torch.equal(plain, late)


def test_float32_is_left_where_two_exact_sums_together_are_not() -> None:
    """Each connection alone stays below 2**24, their sum does not, and its last bit decides."""
    spec = InputSpec("input", (2,), "direct", 1, 1.0, 2**13 - 1)
    both = [
        Connection(n, "input", "v", "dense", i32([w]), message_bits=13)
        for n, w in (("a", [1023, 1023]), ("b", [1022, 1023]))
    ]
    p = population("v", 1, decay_mem_q12=0, v_th_man=131071)
    p = Program("loihi1", spec, (p,), tuple(both), None, "v", "membrane", 1e-3)
    run = IntegerTwin(p).run(torch.tensor([[8191.0, 8190.0]]), TwinOptions(record=("all",)))
    want = ((1023 + 1022) * 8191 + 2 * 1023 * 8190) * 64
    assert int(run.u["v"]) == (want + 2**31) % 2**32 - 2**31 - 2**24


def test_the_hosts_sums_leave_float32_where_they_must() -> None:
    w = i32([[32767, 32766, 32765]])
    wired = Connection("fc", "input", "v", "dense", w, message_bits=8)
    host = HostLayer(wired, np.ones(1, np.int64), 13, -4096, 4095)
    p = population("v", 1, decay_mem_q12=0, v_th_man=131071, bias_exp=0)
    spec = InputSpec("input", (3,), "direct", 1, 1.0, 255)
    twin = IntegerTwin(Program("loihi1", spec, (p,), (), host, "v", "membrane", 1e-3))
    for x in ([255.0, 255, 254], [255.0, 251, 255], [253.0, 255, 252]):
        acc = int(w[0].astype(np.int64) @ np.array(x, np.int64)) + 1
        assert float(twin(torch.tensor([x]))) * 6400 == pytest.approx((acc + 2**12) >> 13, abs=1e-9)
    assert twin.host.synapses.dtype == torch.float64


def test_an_accumulator_wraps_to_int32_before_it_is_shifted_right() -> None:
    """Lava's own case: weight 254 and a message of 2**24 give -2**25, here then divided by 8."""
    c = Connection("c", "a", "b", "dense", i32([[254]]), -3, message_bits=25)
    assert float(Synapses(c, (1, 1), 2**24)(torch.tensor([[[2.0**24]]]), 1)) == -(2**22)


def test_sums_beyond_float64_are_refused() -> None:
    spec = InputSpec("input", (600,), "direct", 1, 1.0, 2**20)
    w = Connection("big", "input", "v", "dense", i32(np.full((1, 600), 2**25)), message_bits=20)
    p = Program("loihi1", spec, (population("v", 1),), (w,), None, "v", "spike_count", 1e-3)
    with pytest.raises(BackendUnavailableError, match=r"NM304\] big: sums may reach 2\.11e\+16"):
        IntegerTwin(p)


@pytest.mark.parametrize(
    ("encoder", "shape"), [("direct", (4, 5)), ("direct", (6,)), ("spikes", (4, 6)), ("direct", (0, 6))]
)
def test_input_of_the_wrong_shape_is_refused(encoder: str, shape: tuple[int, ...]) -> None:
    p = program([population("a", 3)], [dense("ia", ("input", "a"), (3, 6), message_bits=8)], encoder=encoder)
    with pytest.raises(ModelError, match=r"NM109\] input: input has shape \[[0-9, ]+\], expected \["):
        IntegerTwin(p)(torch.zeros(shape))


@pytest.mark.parametrize(("bits", "value", "allowed"), [(0, 2, 1), (4, 16, 15)])
def test_spikes_larger_than_their_message_are_refused(bits: int, value: int, allowed: int) -> None:
    p = program(
        [population("a", 3)], [dense("ia", ("input", "a"), (3, 6), message_bits=bits)], encoder="spikes"
    )
    x = torch.zeros(5, 2, 6)
    x[1, 1, 1] = value
    with pytest.raises(ModelError, match=f"go up to {value}, allowed is {allowed}"):
        IntegerTwin(p)(x)


def test_rate_code_is_the_simulators_and_passes_its_probability() -> None:
    w = dense("ia", ("input", "a"), (3, 6))
    p = program(
        [population("a", 3, v_th_man=131071, decay_mem_q12=0)], [w], encoder="rate", readout="membrane"
    )
    x = uniform(3, 6)
    twin = IntegerTwin(p)
    assert twin.stochastic
    logits, g = gradient(twin, x, seed=7)
    spikes = rate_spikes(rate_thresholds(x.numpy(), 1 / 255, 255), 7, np.arange(3), np.arange(8))
    want = 64 * torch.from_numpy((spikes.astype(np.int64) @ w.weights.T).sum(0)).double() / 6400
    torch.testing.assert_close(logits, want, rtol=1e-15, atol=0)
    expected = torch.arange(1.0, 10).reshape(3, 3) @ torch.from_numpy(w.weights).float() * 8 * 64 / 6400
    torch.testing.assert_close(g, expected, rtol=1e-5, atol=1e-5)


def test_noise_can_be_switched_off_and_follows_the_seed() -> None:
    twin, x = IntegerTwin(looped()), uniform(40, 6)
    assert twin.stochastic
    on = [twin(x, seed=s) for s in (1, 2)]
    off = [twin(x, seed=s, noise=False) for s in (1, 2)]
    assert not torch.equal(*on)
    assert torch.equal(*off)


def test_groups_put_sources_first_and_keep_loops_together() -> None:
    edges = [("d", "a"), ("a", "b"), ("b", "c"), ("c", "b"), ("c", "e"), ("x", "a")]
    assert groups(["a", "b", "c", "d", "e"], edges) == [("d",), ("a",), ("b", "c"), ("e",)]
