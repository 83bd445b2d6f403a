"""How data enter the integer twin: quantisation, the host layer's bias, and stochastic spikes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from nmtool.compiler.program import Connection, HostLayer, InputSpec, Program
from nmtool.errors import ModelError
from nmtool.fixedpoint.encode import INPUT_BLOCK
from nmtool.twin import philox
from nmtool.twin.synapses import Synapses, straight_through


def largest_message(program: Program, c: Connection) -> int:
    """Largest magnitude that the source of a connection can send."""
    if c.source != program.input.name or program.input.encoder == "rate":
        return 1
    return program.input.x_max if program.input.encoder == "direct" else (1 << payload_bits(program)) - 1 or 1


def payload_bits(program: Program) -> int:
    """Bits of the widest graded message that the input can send; 0 if it is binary."""
    return max((c.message_bits for c in program.connections if c.source == program.input.name), default=0)


def check_input(x: Tensor, program: Program) -> int:
    """Number of samples in ``x``.

    Raises:
        ModelError: NM109 if the shape is not that of the input, or a spike is larger than its message.
    """
    spec = program.input
    lead = 2 if spec.encoder == "spikes" else 1
    if x.ndim != lead + len(spec.shape) or tuple(x.shape[lead:]) != spec.shape or not x.numel():
        want = ", ".join(["T", "B"][2 - lead :] + [str(n) for n in spec.shape])
        raise ModelError("NM109", spec.name, f"input has shape {list(x.shape)}, expected [{want}], not empty")
    if spec.encoder == "spikes":
        allowed = max((1 << payload_bits(program)) - 1, 1)
        found = float(x.detach().abs().max())
        if not found <= allowed:
            raise ModelError("NM109", spec.name, f"input spikes go up to {found:g}, allowed is {allowed}")
    return int(x.shape[lead - 1])


def quantised(x: Tensor, spec: InputSpec) -> Tensor:
    """``clip(round(x / x_scale), 0, x_max)``, ties to even, float32; straight through inside the range."""
    units = x.double() / spec.x_scale
    whole = straight_through(units, torch.round)
    return whole.clamp(0, spec.x_max).float()


def enter(x: Tensor, spec: InputSpec, draw: tuple[int, int, Tensor]) -> Tensor:
    """What the input lines carry: ``[T, B, N]``, or ``[1, B, N]`` where a value stays.

    Args:
        x: as :func:`check_input` accepts it.
        spec: the input.
        draw: T, seed, and the index of each sample ``[B]``.
    """
    if spec.encoder == "spikes":
        return x.float().flatten(2)
    if spec.encoder == "direct":
        return quantised(x, spec).flatten(1)[None]
    n_steps, seed, samples = draw
    share = (x.double() / (spec.x_max * spec.x_scale)).clamp(0, 1).flatten(1)[None]
    words = philox.words(seed, samples, INPUT_BLOCK, (n_steps, share.shape[-1]))
    fired = (words < torch.floor(share.detach() * 2.0**32)).double()
    return (share + (fired - share.detach())).float()


class HostBias(nn.Module):
    """The host's part of a ``direct`` network: integer sums, rounded to the bias mantissa of the first population."""

    bias: Tensor
    factor: Tensor

    def __init__(self, program: Program, host: HostLayer) -> None:
        super().__init__()
        c = host.connection
        self.synapses = Synapses(
            c, (program.size(c.target), program.size(c.source)), program.input.x_max, on_chip=False
        )
        self.shift, self.man_min, self.man_max = host.shift, host.man_min, host.man_max
        exponent = program.population(c.target).bias_exp.reshape(-1)
        self.register_buffer("bias", torch.from_numpy(host.bias.reshape(-1).copy()), persistent=False)
        self.register_buffer("factor", torch.from_numpy(np.ldexp(1.0, exponent)), persistent=False)

    def forward(self, units: Tensor) -> Tensor:
        """Bias per step in membrane units, float64 ``[B, N]``, of integer inputs ``[B, n_in]``."""
        acc = self.synapses.arrive(units[None], 0)[0].double() + self.bias.double()
        half = 2.0 ** (self.shift - 1) if self.shift else 0.0
        mantissa = straight_through((acc + half) * 2.0**-self.shift, torch.floor).clamp(
            self.man_min, self.man_max
        )
        return straight_through(mantissa * self.factor.double(), torch.floor)
