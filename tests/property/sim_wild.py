"""Networks beyond what a compiler would write: wide weights, odd exponents, every layout, noise and delay at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from oracle import History, Stimulus, arriving, simulate, stimulus

from nmtool.backends.base import RunOptions
from nmtool.compiler.program import Connection, HostLayer, InputSpec, Population, Program
from nmtool.fixedpoint.noise import NoiseSpec

Shape = tuple[int, ...]


class Wild:
    """One network, its input and its options, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.program = self._program()
        self.n_samples = self.integer(1, 5)
        self.x = self._input()
        self.options = RunOptions(
            seed=int(self.rng.integers(0, 2**63)),
            record=("all",),
            sample_offset=self.integer(0, 1000),
            noise=self.chance(0.8),
        )

    def expected(self) -> tuple[dict[str, History], Stimulus]:
        """The slow simulator's answer."""
        o, n_steps = self.options, self.program.input.n_steps
        entering = stimulus(self.program, self.x, n_steps, o.seed, o.sample_offset)
        return simulate(self.program, entering, o.seed, o.noise, o.sample_offset), entering

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, *values):
        return values[self.integer(0, len(values) - 1)]

    def _register(self, low: int, high: int, shape: Shape) -> np.ndarray:
        return np.asarray(self.rng.integers(low, high + 1, shape if self.chance(0.5) else ()), np.int32)

    def _population(self, name: str, shape: Shape) -> Population:
        noise = None
        if self.chance(0.3):
            model = self.pick("uniform8", "irwin_hall", "gaussian")
            where = self.pick("membrane", "current")
            noise = NoiseSpec(self.integer(1, 23), self.integer(-3, 3), where, model, self.integer(1, 3))
        return Population(
            name,
            shape,
            self._register(0, 4096, shape) if self.chance(0.6) else np.array(4096, np.int32),
            self._register(0, 4096, shape) if self.chance(0.7) else np.array(self.pick(0, 4096), np.int32),
            self._register(-5, 40, shape) if self.chance(0.7) else self._register(0, 131071, shape),
            np.zeros((), np.int32) if self.chance(0.5) else self._register(-4096, 4095, shape),
            self._register(-3, 7, shape),
            scale=1.0,
            latency=1,
            refractory_steps=self.pick(1, 1, 1, 2, 5),
            noise=noise,
        )

    def _weights(self, shape: Shape) -> np.ndarray:
        r = self.rng
        return np.asarray(
            self.pick(
                2 * r.integers(-128, 128, shape),
                r.integers(0, 256, shape),
                -r.integers(0, 256, shape),
                r.integers(-256, 256, shape),
                16 * r.integers(-10, 10, shape) * (r.random(shape) < 0.03),
                r.integers(-(2**20), 2**20, shape),
                np.zeros(shape),
            ),
            np.int32,
        )

    def _delays(self, low: int, shape: Shape) -> np.ndarray:
        if self.chance(0.6):
            return np.array(self.integer(low, low + 3), np.int32)
        return self.rng.integers(low, low + 6, shape).astype(np.int32)

    def _connection(
        self, source: str, target: str, sizes: dict[str, Shape], bits: int, low: int
    ) -> Connection:
        n_in, n_out = (int(np.prod(sizes[n])) for n in (source, target))
        exponent = self.integer(-5, 5) if self.chance(0.5) else 0
        name = f"{source}->{target}"
        if self.chance(0.5):
            w = self._weights((n_out, n_in))
            return Connection(
                name,
                source,
                target,
                "dense",
                w,
                exponent,
                message_bits=bits,
                delay_steps=self._delays(low, w.shape),
            )
        count = self.integer(1, n_in * n_out)
        flat = np.sort(self.rng.choice(n_in * n_out, count, replace=False))
        return Connection(
            name, source, target, "sparse", self._weights((count,)), exponent, message_bits=bits,
            delay_steps=self._delays(low, (count,)), indices=np.stack(np.divmod(flat, n_in)).astype(np.int32),
        )  # fmt: skip

    def _conv(self, source: str, target: str, shape: Shape, bits: int) -> Connection | None:
        """A convolution from maps of that shape, or None if no output would be left."""
        kernel = [self.integer(1, min(4, s)) for s in shape[1:]]
        stride, padding = ([self.integer(low, low + 1) for _ in "hw"] for low in (1, 0))
        dilation = [self.pick(1, 1, 2) for _ in "hw"]
        size = [
            (s + 2 * p - d * (k - 1) - 1) // t + 1
            for s, k, t, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
        ]
        if min(size) < 1:
            return None
        groups = shape[0] if self.chance(0.3) else 1
        channels = groups * self.integer(1, 3)
        w = self._weights((channels, shape[0] // groups, *kernel))
        return Connection(
            f"{source}->{target}", source, target, "conv", w, message_bits=bits,
            delay_steps=np.array(self.integer(0, 2), np.int32), in_shape=(shape[0], shape[1], shape[2]),
            out_shape=(channels, size[0], size[1]), stride=(stride[0], stride[1]),
            padding=(padding[0], padding[1]), dilation=(dilation[0], dilation[1]), groups=groups,
        )  # fmt: skip

    def _program(self) -> Program:
        encoder = self.pick("spikes", "spikes", "spikes", "direct", "rate")
        image = (self.integer(1, 3), self.integer(3, 7), self.integer(3, 7))
        shapes: dict[str, Shape] = {"in": image if self.chance(0.5) else (self.integer(1, 90),)}
        bits = {"spikes": self.pick(0, 1, 2, 8), "direct": 8, "rate": 0}[encoder]
        host: HostLayer | None = None
        populations: list[Population] = []
        connections: list[Connection] = []
        for i in range(self.integer(1, 3)):
            name, source = f"p{i}", list(shapes)[-1] if self.chance(0.8) else self.pick(*shapes)
            if host is not None and source == "in":
                source = "p0"
            mine = bits if source == "in" else self.pick(0, 8)
            c = (
                self._conv(source, name, shapes[source], mine)
                if len(shapes[source]) == 3 and self.chance(0.75)
                else None
            )
            shapes[name] = c.out_shape if c is not None else (self.integer(1, 70),)
            c = c or self._connection(source, name, shapes, mine, 0)
            populations.append(self._population(name, shapes[name]))
            if encoder == "direct" and i == 0 and self.chance(0.6):
                at_once = replace(c, weight_exp=0, delay_steps=np.zeros((), np.int32))
                bias = self.rng.integers(-(10**6), 10**6, populations[0].n_neurons)
                host = HostLayer(at_once, bias, self.integer(0, 11), -4096, 4095)
            else:
                connections.append(c)
        for _ in range(self.integer(0, 2)):
            target, source = self.integer(0, len(populations) - 1), self.integer(0, len(populations) - 1)
            low = 1 if source >= target else 0
            connections.append(self._connection(f"p{source}", f"p{target}", shapes, 0, low))
        spec = InputSpec("in", shapes["in"], encoder, self.integer(1, 8))
        readout = self.pick("spike_count", "membrane")
        return Program(
            "wild", spec, tuple(populations), tuple(connections), host, populations[-1].name, readout, 1e-3
        )

    def _input(self) -> np.ndarray:
        spec, r = self.program.input, self.rng
        if spec.encoder != "spikes":
            return r.random((self.n_samples, *spec.shape)).astype(np.float32)
        x = r.random((self.integer(1, 12), self.n_samples, *spec.shape)) < self.pick(0.05, 0.3, 0.9)
        bits = [c.message_bits for c in self.program.connections if c.source == "in" and c.message_bits]
        if not bits or self.chance(0.3):
            return x.astype(np.uint8)
        limit = 1 << min(bits)
        return (x * r.integers(1 - limit, limit, x.shape)).astype(np.int32)


def active(program: Program, found: dict[str, History], entering: Stimulus, name: str) -> np.ndarray:
    """Neuron-steps with state, input or bias, ``[B]``, by the definition."""
    p, h = program.population(name), found[name]
    past = {n: f.spikes for n, f in found.items()}
    if entering.spikes is not None:
        past["in"] = entering.spikes.astype(np.int64)
    bias = p.params.bias
    if entering.bias is not None and program.host is not None and program.host.connection.target == name:
        bias = replace(p.params, bias_man=entering.bias).bias
    total = np.zeros(h.u.shape[1], np.int64)
    for t in range(len(h.u)):
        awake = np.broadcast_to(bias != 0, h.u.shape[1:]).copy()
        if t:
            awake |= (h.u[t - 1] != 0) | (h.v[t - 1] != 0)
        a = sum((arriving(program, c, past[c.source], t) for c in program.incoming(name)), np.int64(0))
        total += (awake | ((np.asarray(a) & 0xFFFFFFFF) != 0)).sum(axis=1)
    return total
