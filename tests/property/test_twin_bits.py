"""The integer twin equals a plain loop over ``fixedpoint.neuron.step``, bit for bit, on random programs."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.backends.base import RunOptions
from nmtool.backends.sim import SimBackend
from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program, check_consistent
from nmtool.fixedpoint import encode
from nmtool.fixedpoint import noise as oracle_noise
from nmtool.fixedpoint.neuron import step, zero_state
from nmtool.fixedpoint.noise import NoiseSpec
from nmtool.fixedpoint.ops import shift_left_or_floor, wrap_24, wrap_int32
from nmtool.twin.entry import payload_bits
from nmtool.twin.integer import IntegerTwin, TwinOptions

Rng = np.random.Generator
N_STEPS = 7
Ends = tuple[Population | InputSpec, Population]


def i32(x: object) -> np.ndarray:
    return np.asarray(x, np.int32)


def conv_sum(c: Connection, s: np.ndarray) -> np.ndarray:
    """Cross-correlation by its definition, one product at a time. ``s`` [B, n_in] -> [B, n_out]."""
    frames = s.reshape(len(s), *c.in_shape)
    n_out, n_in, kh, kw = c.weights.shape
    padded = np.pad(frames, ((0, 0), (0, 0), (c.padding[0],) * 2, (c.padding[1],) * 2))
    out = np.zeros((len(s), *c.out_shape), np.int64)
    for o, y, x in np.ndindex(*c.out_shape):
        first = o // (n_out // c.groups) * n_in
        for i, ky, kx in np.ndindex(n_in, kh, kw):
            at = (y * c.stride[0] + ky * c.dilation[0], x * c.stride[1] + kx * c.dilation[1])
            out[:, o, y, x] += int(c.weights[o, i, ky, kx]) * padded[:, first + i, at[0], at[1]]
    return out.reshape(len(s), -1)


def plain_sum(c: Connection, s: np.ndarray, n_out: int, kept: np.ndarray) -> np.ndarray:
    w = np.where(kept, c.weights, 0).astype(np.int64)
    if c.kind == "dense":
        return s @ w.T
    if c.kind == "conv":
        return conv_sum(c, s) if kept.any() else np.zeros((len(s), n_out), np.int64)
    out = np.zeros((len(s), n_out), np.int64)
    for (target, source), value in zip(c.indices.T, w, strict=True):
        out[:, target] += s[:, source] * value
    return out


def arriving(program: Program, c: Connection, history: list[np.ndarray], t: int, n: int) -> np.ndarray:
    n_out = program.size(c.target)
    total = np.zeros((n, n_out), np.int64)
    for d in np.unique(c.delay_steps):
        if d <= t:
            s = history[t - d].astype(np.int64)
            s = s if c.message_bits else (s != 0).astype(np.int64)
            acc = plain_sum(c, s, n_out, np.broadcast_to(c.delay_steps == d, c.weights.shape))
            if c.kind == "conv":
                total += wrap_24(acc)
            else:
                total += wrap_int32(shift_left_or_floor(wrap_int32(acc), c.weight_exp))
    return total


def reference(
    program: Program, x: np.ndarray, options: TwinOptions, n_steps: int
) -> dict[str, dict[str, np.ndarray]]:
    """Spikes, u and v of every population ``[T, B, N]`` by the readable step."""
    spec = program.input
    if spec.encoder == "spikes":
        given_input = [frame.reshape(x.shape[1], -1) for frame in x]
    elif spec.encoder == "rate":
        firing = encode.rate_thresholds(x.reshape(len(x), -1), spec.x_scale, spec.x_max)
        first = options.sample_offset
        given_input = list(
            encode.rate_spikes(firing, options.seed, np.arange(first, first + len(x)), np.arange(n_steps))
        )
    else:
        units = np.clip(np.rint(x.astype(np.float64) / spec.x_scale), 0, spec.x_max).astype(np.int64)
        given_input = [units.reshape(len(x), -1)] * n_steps
    n = given_input[0].shape[0]
    params = {p.name: p.params for p in program.populations}
    samples = np.arange(options.sample_offset, options.sample_offset + n)[:, None]
    state = {p.name: zero_state(n, p.n_neurons) for p in program.populations}
    history = {program.input.name: given_input} | {p.name: [] for p in program.populations}
    traces = {p.name: {"spikes": [], "u": [], "v": []} for p in program.populations}
    for t in range(n_steps):
        for block, p in enumerate(program.populations):
            own = params[p.name]
            if program.host is not None and program.host.connection.target == p.name:
                h = program.host
                w = h.connection
                acc = plain_sum(w, given_input[t], p.n_neurons, np.ones(w.weights.shape, bool)) + h.bias
                acc = (acc + (1 << (h.shift - 1)) >> h.shift) if h.shift else acc
                man = np.clip(acc, h.man_min, h.man_max)
                own = own.__class__(own.decay_syn_q12, own.decay_mem_q12, own.v_th_man, man, own.bias_exp,
                                    own.refractory_steps)  # fmt: skip
            drive = np.zeros((n, p.n_neurons), np.int64)
            for c in program.incoming(p.name):
                drive = drive + arriving(program, c, history[c.source], t, n)
            loud = {}
            if p.noise is not None and options.noise:
                drawn = oracle_noise.noise(p.noise, options.seed, samples, block, np.arange(p.n_neurons), t)
                loud["noise_v" if p.noise.at == "membrane" else "noise_u"] = drawn
            result = step(own, state[p.name], drive, **loud)
            state[p.name] = result.state
            history[p.name].append(result.spikes)
            for key, value in (("spikes", result.spikes), ("u", result.state.u), ("v", result.state.v)):
                traces[p.name][key].append(value)
    return {n: {k: np.stack(v) for k, v in tr.items()} for n, tr in traces.items()}


@dataclass(frozen=True)
class Taste:
    """What kind of program to draw."""

    encoder: str
    n_populations: int
    loop: bool
    extreme: bool
    noisy: bool


def draw_population(rng: Rng, taste: Taste, name: str, shape: tuple[int, ...]) -> Population:
    def register(low: int, high: int) -> np.ndarray:
        return i32(rng.integers(low, high + 1, shape if rng.random() < 0.3 else ()))

    noise = None
    if taste.noisy and rng.random() < 0.7:
        model = str(rng.choice(["uniform8", "irwin_hall", "gaussian"]))
        noise = NoiseSpec(
            int(rng.integers(1, 24 if taste.extreme else 12)), int(rng.integers(-3, 4)),
            str(rng.choice(["membrane", "current"])), model, int(rng.integers(2, 5)) if model != "uniform8" else 1,
        )  # fmt: skip
    threshold = register(0, 131071) if taste.extreme else register(5, 300)
    bias = register(-4096, 4095) if taste.extreme else register(-30, 60)
    return Population(
        name, shape, register(0, 4096), register(0, 4096), threshold, bias, register(-3, 7), 1 / 6400, 0,
        int(rng.choice([1, 1, 2, 5])), noise,
    )  # fmt: skip


def draw_connection(
    rng: Rng, taste: Taste, name: str, ends: tuple[Population | InputSpec, Population]
) -> Connection:
    source, target = ends
    n_in, n_out = int(np.prod(source.shape)), int(np.prod(target.shape))
    big = int(2.0 ** rng.integers(9, 28)) if taste.extreme and rng.random() < 0.3 else 256
    graded = 8 if isinstance(source, InputSpec) and rng.random() < 0.5 else 0
    common = {
        "weight_exp": int(rng.integers(-6, 7)),
        "message_bits": graded,
        "sign_mode": "mixed",
    }
    back = source.name == target.name or name.startswith("back")
    delays = (1, 4) if back else (0, 3)

    def delay(shape: tuple[int, ...]) -> np.ndarray:
        return i32(rng.integers(delays[0], delays[1] + 1, shape if rng.random() < 0.5 else ()))

    if len(source.shape) == 3 and len(target.shape) == 3 and not back:
        return draw_conv(rng, name, (source, target), graded, int(delay(())))
    if rng.random() < 0.5:
        w = i32(rng.integers(-big, big, (n_out, n_in)))
        return Connection(name, source.name, target.name, "dense", w, delay_steps=delay(w.shape), **common)
    mask = rng.random((n_out, n_in)) < 0.4
    mask[0, 0] = True
    indices = i32(np.argwhere(mask).T.reshape(2, -1))
    w = i32(rng.integers(-big, big, indices.shape[1]))
    return Connection(
        name, source.name, target.name, "sparse", w, indices=indices, delay_steps=delay(w.shape), **common
    )


CONV = {"groups": 2, "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
CONV_IN, CONV_OUT, KERNEL = (2, 5, 4), (4, 3, 4), (4, 1, 2, 3)


def draw_conv(
    rng: Rng, name: str, ends: tuple[Population | InputSpec, Population], graded: int, delay: int
) -> Connection:
    w = i32(rng.integers(-256, 256, KERNEL) * (2**14 if rng.random() < 0.2 else 1))
    return Connection(
        name, ends[0].name, ends[1].name, "conv", w, message_bits=graded, delay_steps=i32(delay),
        in_shape=CONV_IN, out_shape=CONV_OUT, **CONV,
    )  # fmt: skip


def draw_program(rng: Rng, taste: Taste) -> Program:
    image = rng.random() < 0.5
    spec = InputSpec(
        "input", CONV_IN if image else (int(rng.integers(1, 9)),), taste.encoder, 6, 1 / 255, 255
    )
    populations = [
        draw_population(rng, taste, f"p{k}", CONV_OUT if k == 0 and image else (int(rng.integers(1, 7)),))
        for k in range(taste.n_populations)
    ]
    connections, host = [], None
    for k, p in enumerate(populations):
        sources = [spec, *populations[:k]]
        for s in {int(rng.integers(len(sources))), len(sources) - 1}:
            connections.append(draw_connection(rng, taste, f"c{s}-{k}", (sources[s], p)))
        if taste.loop and rng.random() < 0.7:
            later = populations[int(rng.integers(k, len(populations)))]
            connections.append(draw_connection(rng, taste, f"back{k}", (later, p)))
    if taste.encoder == "direct" and rng.random() < 0.7:
        first = connections.pop(next(i for i, c in enumerate(connections) if c.source == "input"))
        connections = [c for c in connections if c.source != "input"]
        plain = {"weight_exp": 0, "message_bits": 8, "delay_steps": i32(0)}
        n = populations[[p.name for p in populations].index(first.target)].n_neurons
        w = first.__class__(**{**first.__dict__, **plain})
        host = HostLayer(w, rng.integers(-5000, 5000, n), int(rng.integers(0, 9)), -4096, 4095)
    readout = str(rng.choice(["spike_count", "membrane"]))
    out = populations[-1].name
    return Program("loihi1", spec, tuple(populations), tuple(connections), host, out, readout, 1e-3)


def draw_input(rng: Rng, program: Program) -> np.ndarray:
    """Three samples that the program accepts, some analog values outside the range of its input."""
    shape = program.input.shape
    if program.input.encoder != "spikes":
        return rng.random((3, *shape)).astype(np.float32) * 1.2 - 0.1
    x = rng.integers(1, 256 if payload_bits(program) else 2, (N_STEPS, 3, *shape))
    return np.where(rng.random(x.shape) < 0.4, x, 0).astype(np.uint8)


TASTES = st.builds(
    Taste,
    encoder=st.sampled_from(["spikes", "direct", "rate"]),
    n_populations=st.integers(1, 4),
    loop=st.booleans(),
    extreme=st.booleans(),
    noisy=st.booleans(),
)


@settings(max_examples=120, deadline=None)
@given(TASTES, st.integers(0, 2**32 - 1))
def test_spikes_u_and_v_equal_the_readable_step(taste: Taste, seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = draw_program(rng, taste)
    check_consistent(program)
    x = draw_input(rng, program)
    options = TwinOptions(
        seed=seed, sample_offset=int(rng.integers(0, 1000)), n_steps=N_STEPS, record=("all",)
    )
    want = reference(program, x, options, N_STEPS)
    run = IntegerTwin(program).run(torch.from_numpy(x), options)
    for name, traces in want.items():
        for key in ("spikes", "u", "v"):
            got = getattr(run, key)[name].flatten(2).numpy().astype(np.int64)
            np.testing.assert_array_equal(got, traces[key], err_msg=f"{name}.{key}")
    last = want[program.output]
    scale = program.population(program.output).scale
    logits = last["spikes"].sum(0) if program.readout == "spike_count" else last["v"][-1] * scale
    np.testing.assert_array_equal(run.logits.detach().numpy(), logits)


@settings(max_examples=40, deadline=None)
@given(TASTES, st.integers(0, 2**32 - 1))
def test_equals_the_simulator(taste: Taste, seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = draw_program(rng, taste)
    x = draw_input(rng, program)
    steps = None if taste.encoder == "spikes" else N_STEPS
    want = SimBackend(program).run(x, RunOptions(steps, seed, record=("all",)))
    run = IntegerTwin(program).run(
        torch.from_numpy(x), TwinOptions(seed=seed, n_steps=steps, record=("all",))
    )
    for name in (p.name for p in program.populations):
        for key in ("spikes", "u", "v"):
            got = getattr(run, key)[name].numpy().astype(np.int64)
            np.testing.assert_array_equal(got, getattr(want.traces[name], key), err_msg=f"{name}.{key}")


def test_extreme_programs_do_overflow() -> None:
    """The generator reaches what it is for: u wraps, v saturates, refractory neurons, recurrence, every kind."""
    kinds, wrapped, clipped = set(), 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        program = draw_program(rng, Taste("spikes", 3, True, True, False))
        kinds |= {c.kind for c in program.connections}
        x = rng.integers(0, 256 if payload_bits(program) else 2, (7, 2, *program.input.shape)).astype(
            np.uint8
        )
        traces = reference(program, x, TwinOptions(), 7)
        clipped += sum(int((np.abs(t["v"]) == 2**23 - 1).sum()) for t in traces.values())
        wrapped += sum(int((np.abs(np.diff(t["u"], axis=0)) > 2**23).sum()) for t in traces.values())
    assert kinds == {"dense", "sparse", "conv"}
    assert clipped > 50
    assert wrapped > 50


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_batch_size_and_order_change_nothing(chunk: int) -> None:
    rng = np.random.default_rng(3)
    program = draw_program(rng, Taste("direct", 3, True, False, True))
    x = torch.from_numpy(rng.random((5, *program.input.shape)).astype(np.float32))
    twin = IntegerTwin(program)
    whole = twin.run(x, TwinOptions(seed=9)).logits
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = twin.run(x[order], TwinOptions(seed=9, sample_offset=order)).logits
    assert torch.equal(permuted, whole[order])
    parts = [
        twin.run(x[i : i + chunk], TwinOptions(seed=9, sample_offset=i)).logits for i in range(0, 5, chunk)
    ]
    assert torch.equal(torch.cat(parts), whole)
