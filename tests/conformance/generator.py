"""Random programs and inputs: every construct that is accepted, parameters also at their limits.

A seed gives one case. Populations are drawn one after the other; a later one may listen to any earlier one, or send
back with a delay, so that chip delays, balanced branches, recurrence and silent lead times all occur.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program, check_consistent
from nmtool.fixedpoint.noise import NoiseSpec

RANGES = {"mixed": (-256, 255), "excitatory": (0, 255), "inhibitory": (-255, 0)}
LONGEST = 62


@dataclass(frozen=True)
class Case:
    """A program, what enters, and how it is run. ``x`` as the backends take it."""

    program: Program
    x: np.ndarray
    n_steps: int
    seed: int
    sample_offset: int
    features: frozenset[str]


class Draw:
    """The random choices of one case, and what they were."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([20250, seed])
        self.features: set[str] = set()

    def chance(self, p: float, feature: str = "") -> bool:
        hit = bool(self.rng.random() < p)
        if hit and feature:
            self.features.add(feature)
        return hit

    def one(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def upto(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def ints(self, low: int, high: int, shape=()) -> np.ndarray:
        return np.asarray(self.rng.integers(low, high + 1, shape), np.int32)


def case(seed: int) -> Case:
    """The case of that seed."""
    d = Draw(seed)
    spec = _input(d)
    net = _Network(d, spec)
    for _ in range(d.upto(1, 4)):
        net.grow()
    for _ in range(d.one(0, 0, 1, 2)):
        net.feed_back()
    program = net.program()
    check_consistent(program)
    longest = max((c.max_delay for c in program.connections), default=0)
    n_steps, n_samples = d.one(1, 4, 10, 16, 24), d.upto(1, 3)
    if longest > 20:
        n_steps, n_samples = d.upto(longest // 2, longest + 8), d.upto(1, 2)
    x = _stimulus(d, spec, n_steps, n_samples)
    if (
        not any(c.message_bits for c in program.connections if c.source == spec.name)
        and spec.encoder == "spikes"
    ):
        x = (x != 0).astype(np.uint8)
    return Case(program, x, n_steps, d.upto(0, 2**63 - 1), d.one(0, 0, 7, 70_000), frozenset(d.features))


def _input(d: Draw) -> InputSpec:
    encoder = d.one("spikes", "spikes", "spikes", "graded", "direct", "rate")
    shape = d.one(
        (d.upto(1, 20),), (d.one(1, 2, 4), d.upto(3, 8), d.upto(3, 8)), (d.one(1, 2), 1, d.upto(4, 16))
    )
    d.features.add(f"input {encoder}")
    d.features.add(f"{sum(n > 1 for n in shape[1:])}-D input" if len(shape) == 3 else "flat input")
    x_max = d.one(1, 15, 255) if encoder in ("graded", "direct") else 255
    return InputSpec("input", shape, "spikes" if encoder == "graded" else encoder, 16, 1 / 255, x_max)


def _stimulus(d: Draw, spec: InputSpec, n_steps: int, n_samples: int) -> np.ndarray:
    if spec.encoder != "spikes":
        return d.rng.random((n_samples, *spec.shape)) * d.one(0.3, 1.0)
    shape = (n_steps, n_samples, *spec.shape)
    fired = d.rng.random(shape) < d.one(0.05, 0.3, 0.9)
    if "input graded" not in d.features:
        return fired.astype(np.uint8)
    low = d.one(0, -spec.x_max)
    return (fired * d.rng.integers(low, spec.x_max + 1, shape)).astype(np.int32)


class _Network:
    """A program while it grows."""

    def __init__(self, d: Draw, spec: InputSpec) -> None:
        self.d, self.spec = d, spec
        self.populations: list[Population] = []
        self.connections: list[Connection] = []
        self.host: HostLayer | None = None
        self.shapes = {spec.name: spec.shape}
        self.latency = {spec.name: 0}
        self.graded = "input graded" in d.features or spec.encoder == "direct"

    def grow(self) -> None:
        """One more population and what leads into it."""
        d, name = self.d, f"p{len(self.populations)}"
        if self.spec.encoder == "direct" and not self.populations and d.chance(0.7, "host layer"):
            self._hosted(name)
            return
        chosen = [] if d.chance(0.04, "no input") else self._sources()
        if len(chosen) > 1:
            d.features.add("several inputs")
        first = self._conv_from(chosen[0], name) if chosen else None
        free = d.one((d.upto(1, 20),), (2, d.upto(2, 4), d.upto(2, 4)))
        self.shapes[name] = free if first is None else first.out_shape
        earliest = 1 + max((self.latency[c] for c in chosen), default=-1)
        self.latency[name] = earliest + (d.upto(1, 3) if d.chance(0.15, "slack") else 0)
        drive = 0.0
        for i, source in enumerate(chosen):
            c = self._matrix(f"c{len(self.connections)}", source, name) if i or first is None else first
            self._keep(c)
            drive += _typical(c)
        self.populations.append(self._population(name, drive))

    def _sources(self) -> list[str]:
        """One to three of what is there, the newest one more often; the input only where it reaches the chip."""
        d = self.d
        names = [n for n in self.shapes if n != self.spec.name or self.host is None]
        newest = names[-1]
        d.rng.shuffle(names)
        wanted = [newest if d.chance(0.5) else names[0], *(n for n in names[1:3] if d.chance(0.35))]
        return list(dict.fromkeys(wanted))

    def feed_back(self) -> None:
        """A connection from a population to itself or an earlier one."""
        d = self.d
        target = d.upto(0, len(self.populations) - 1)
        source = d.upto(target, len(self.populations) - 1)
        names = self.populations[source].name, self.populations[target].name
        least = max(1, self.latency[names[0]] - self.latency[names[1]] + 1)
        d.features.add("self loop" if source == target else "feedback")
        if (
            self.shapes[names[0]] == self.shapes[names[1]]
            and len(self.shapes[names[0]]) == 3
            and d.chance(0.4, "recurrent conv")
        ):
            c = self._conv(names[0], names[1], d.one((1, 1), (3, 3)), (1, 1), (1, 1), same=True)
        else:
            c = self._matrix(f"c{len(self.connections)}", *names)
        self._keep(c, least)

    def program(self) -> Program:
        d = self.d
        output = d.one(*self.populations).name
        readout = d.one("spike_count", "membrane")
        return Program(
            "generated",
            self.spec,
            tuple(self.populations),
            tuple(self.connections),
            self.host,
            output,
            readout,
            1e-3,
        )

    def _hosted(self, name: str) -> None:
        """The first layer on the host."""
        d = self.d
        c = self._conv_from(self.spec.name, name)
        self.shapes[name] = c.out_shape if c is not None else (d.upto(1, 20),)
        self.latency[name] = d.one(0, 0, 2)
        p = self._population(name, 60.0)
        if c is None:
            weights = d.ints(-500, 500, (p.n_neurons, int(np.prod(self.spec.shape))))
            c = Connection("host", self.spec.name, name, "dense", weights, message_bits=8)
        self.host = HostLayer(c, d.rng.integers(-5000, 5000, p.n_neurons), d.upto(0, 6), -4096, 4095)
        self.populations.append(p)

    def _keep(self, c: Connection, least: int = 0) -> None:
        """Add delays in own time of at least ``least``, so that the chip's delay lies in 0..62."""
        d = self.d
        lag = self.latency[c.target] - self.latency[c.source] - 1
        if lag > 0:
            d.features.add("balanced by delay" if c.kind != "conv" else "conv balanced by delay")
        room = LONGEST - lag
        delays = np.asarray(least, np.int32)
        if c.weights.size and d.chance(0.25, f"delay {c.kind}"):
            high = min(room, d.one(least, least + 3, least + 3, least + 9, LONGEST))
            if high + lag == LONGEST:
                d.features.add("longest delay")
            uniform = c.kind == "conv" or d.chance(0.3, "uniform delay")
            delays = (
                np.asarray(high, np.int32) if uniform else d.ints(min(least, high), high, c.weights.shape)
            )
        self.connections.append(Connection(**{**c.__dict__, "delay_steps": delays}))

    def _message_bits(self, source: str) -> int:
        payload = source == self.spec.name and self.graded
        bits = self.d.one(0, 8, 8, 8) if payload else self.d.one(0, 0, 0, 8)
        if bits:
            self.d.features.add("graded input" if payload else "graded spikes of 1")
        return bits

    def _weights(self, shape, sign_mode: str, bits: int, spread: int) -> np.ndarray:
        """On the grid that the chip truncates to."""
        d = self.d
        step = 1 << (8 - bits + (sign_mode == "mixed"))
        low, high = RANGES[sign_mode]
        w = np.clip(d.ints(-spread, spread, shape), low, high)
        if d.chance(0.15, "extreme weights"):
            w = np.where(d.rng.random(shape) < 0.5, low, high)
        w = np.sign(w) * (np.abs(w) // step * step) if sign_mode != "mixed" else w // step * step
        return w.astype(np.int32)

    def _matrix(self, name: str, source: str, target: str) -> Connection:
        d = self.d
        n_out, n_in = (int(np.prod(self.shapes[n])) for n in (target, source))
        kind = d.one("dense", "dense", "sparse")
        sign_mode = d.one("mixed", "mixed", "mixed", "excitatory", "inhibitory")
        bits = d.one(8, 8, 8, d.upto(1, 7))
        d.features |= {kind, sign_mode} | ({"few bits"} if bits < 8 else set())
        exponent = (
            d.one(d.upto(-6, 6), d.upto(-6, 6), d.upto(8, 10)) if d.chance(0.45, "weight exponent") else 0
        )
        common = {
            "weight_exp": exponent, "weight_bits": bits, "sign_mode": sign_mode,
            "message_bits": self._message_bits(source),
        }  # fmt: skip
        spread = d.one(30, 120, 256)
        if kind == "dense":
            return Connection(
                name, source, target, kind, self._weights((n_out, n_in), sign_mode, bits, spread), **common
            )
        there = np.argwhere(d.rng.random((n_out, n_in)) < d.one(0.05, 0.3, 0.8)).T.astype(np.int32)
        if not there.size:
            d.features.add("empty sparse")
        weights = self._weights(there.shape[1], sign_mode, bits, spread)
        return Connection(name, source, target, kind, weights, indices=there, **common)

    def _conv_from(self, source: str, target: str) -> Connection | None:
        """A convolution that fits the source's shape, which then decides the target's."""
        d, shape = self.d, self.shapes[source]
        if len(shape) != 3 or not d.chance(0.6):
            return None
        one_d = shape[1] == 1
        kernel = tuple(d.upto(1, 3) if n > 1 else 1 for n in shape[1:])
        dilation = tuple(
            d.one(1, 1, 2) if (k - 1) * 2 < n else 1 for k, n in zip(kernel, shape[1:], strict=True)
        )
        stride = tuple(d.one(1, 1, 2) if n > 1 else 1 for n in shape[1:])
        d.features.add("1-D conv" if one_d else "2-D conv")
        return self._conv(source, target, kernel, stride, dilation)

    def _conv(self, source: str, target: str, kernel, stride, dilation, same: bool = False) -> Connection:
        d, (c_in, h, w) = self.d, self.shapes[source]
        spans = [q * (k - 1) for k, q in zip(kernel, dilation, strict=True)]
        groups = 1 if same else d.one(*(g for g in (1, 1, 2, 4) if c_in % g == 0))
        c_out = c_in if same else groups * d.upto(1, 2)
        padding = tuple(
            n // 2 if same else d.one(0, n) if size > n else n for n, size in zip(spans, (h, w), strict=True)
        )
        out = [
            (n + 2 * p - r - 1) // s + 1 for n, p, r, s in zip((h, w), padding, spans, stride, strict=True)
        ]
        d.features |= {
            f"conv {feature}"
            for feature, used in (("stride", max(stride) > 1), ("padding", max(padding) > 0),
                                  ("dilation", max(dilation) > 1), ("groups", groups > 1))
            if used
        }  # fmt: skip
        sign_mode = d.one("mixed", "mixed", "excitatory", "inhibitory")
        weights = self._weights((c_out, c_in // groups, *kernel), sign_mode, 8, d.one(30, 120, 256))
        return Connection(
            f"c{len(self.connections)}", source, target, "conv", weights, sign_mode=sign_mode,
            message_bits=self._message_bits(source), in_shape=(c_in, h, w), out_shape=(c_out, *out), stride=stride,
            padding=padding, dilation=dilation, groups=groups,
        )  # fmt: skip

    def _population(self, name: str, drive: float) -> Population:
        d, shape = self.d, self.shapes[name]

        def register(feature: str, *choices) -> np.ndarray:
            if d.chance(0.25, f"per-neuron {feature}"):
                return np.asarray([d.one(*choices) for _ in range(int(np.prod(shape)))], np.int32).reshape(
                    shape
                )
            return np.asarray(d.one(*choices), np.int32)

        decays = (0, 1, 4095, 4096, d.upto(0, 4096), d.upto(0, 800), d.upto(3000, 4096))
        level = int(np.clip(drive * d.rng.uniform(0.02, 1.2), 0, 131071))
        biases = (0, 0, 0, d.upto(-60, 60), d.upto(-4096, 4095), d.one(-4096, 4095) if d.chance(0.2) else 0)
        decay_syn, decay_mem = register("decay_syn", *decays, 4096, 4096), register("decay_mem", *decays)
        thresholds = register(
            "v_th",
            level,
            level,
            level // 2,
            0 if d.chance(0.1) else level,
            131071 if d.chance(0.1) else level,
        )
        bias, exponent = register("bias", *biases), d.upto(-3, 7)
        for feature, there in (
            ("no current decay", decay_syn == 0), ("no membrane decay", decay_mem == 0),
            ("full current decay", decay_syn == 4096), ("full membrane decay", decay_mem == 4096),
            ("largest threshold", thresholds == 131071), ("threshold 0", thresholds == 0),
            ("most negative bias", bias == -4096), ("largest bias", bias == 4095),
            ("bias shifted right", bias * (exponent < 0) != 0),
        ):  # fmt: skip
            if there.any():
                d.features.add(feature)
        return Population(
            name, shape, decay_syn, decay_mem, thresholds, bias, np.asarray(exponent, np.int32), 1.0,
            self.latency[name],
            refractory_steps=d.upto(2, 6) if d.chance(0.2, "refractory") else 1,
            noise=_noise(d) if d.chance(0.25, "noise") else None,
        )  # fmt: skip


def _noise(d: Draw) -> NoiseSpec:
    model = d.one("uniform8", "uniform8", "irwin_hall", "gaussian")
    at = d.one("membrane", "current")
    d.features |= {f"noise {model}", f"noise at {at}"}
    return NoiseSpec(
        d.upto(1, 18), d.one(0, 0, -3, 5), at, model, d.upto(2, 4) if model == "irwin_hall" else 1
    )


def _typical(c: Connection) -> float:
    """About how large one step's sum is, to place thresholds where spikes happen."""
    w = c.weights.reshape(c.weights.shape[0], -1) if c.kind != "sparse" else c.weights[None]
    spread = float(np.sqrt((w.astype(np.float64) ** 2).sum(axis=1).mean())) if w.size else 1.0
    return spread * 2.0**c.weight_exp * (20 if c.message_bits else 1)


def coverage(cases: list[Case]) -> Counter[str]:
    """How many cases have each feature."""
    return Counter(f for c in cases for f in c.features)
