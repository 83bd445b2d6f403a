"""The chip's noise stream of :mod:`nmtool.fixedpoint.noise` on tensors: the same integers, on any device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nmtool.fixedpoint import noise as oracle
from nmtool.fixedpoint.noise import DRAW_VALUES, NoiseSpec
from nmtool.fixedpoint.streams import Stream, noise_chunk

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW32 = 0xFFFFFFFF


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al., SC'11): four 32-bit words per counter, int64.

    A product of two 32-bit numbers overflows int64 by wrapping, which leaves its 64 bits right; only the shift has to
    be made logical.

    Args:
        counter: four broadcastable int64 tensors below 2**32.
        seed: the 64-bit key.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _LOW32, (seed >> 32) & _LOW32
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c2 = (p1 >> 32 & _LOW32) ^ c1 ^ k0, (p0 >> 32 & _LOW32) ^ c3 ^ k1
        c1, c3 = p1 & _LOW32, p0 & _LOW32
        k0, k1 = (k0 + _W0) & _LOW32, (k1 + _W1) & _LOW32
    return c0, c1, c2, c3


def words(seed: int, samples: Tensor, block: int, shape: tuple[int, int], draw: int = 0) -> Tensor:
    """32-bit words ``[T, B, N]`` of :func:`nmtool.fixedpoint.noise.words`, int64.

    Args:
        seed: 64-bit key of the run.
        samples: int64 ``[B]``, index of each sample.
        block: index of the population.
        shape: T and N.
        draw: which of several draws.
    """
    n_steps, n = shape
    device = samples.device
    quads = torch.arange((n + 3) // 4, device=device)
    steps = torch.arange(n_steps, device=device)[:, None, None]
    last = torch.tensor(block + (draw << 16), device=device)
    lanes = philox4x32((quads, steps, samples[None, :, None], last), seed)
    full = torch.broadcast_shapes(*(w.shape for w in lanes))
    return torch.stack([w.expand(full) for w in lanes], -1).flatten(-2)[..., :n]


def noise(spec: NoiseSpec, seed: int, samples: Tensor, block: int, shape: tuple[int, int]) -> Tensor:
    """Noise integers ``[T, B, N]`` in membrane units, equal to :func:`nmtool.fixedpoint.noise.noise`.

    On a CPU neighbouring samples take the compiled stream, which is ten times as fast. The Gaussian model exists in
    simulation only and is drawn by the oracle itself, because logarithm and cosine differ in their last bit between
    libraries.

    Arguments as :func:`words`.
    """
    n_steps, n = shape
    if spec.model == "gaussian":
        sample, steps = samples.cpu().numpy()[:, None], np.arange(n_steps)[:, None, None]
        drawn = oracle.noise(spec, seed, sample, block, np.arange(n), steps)
        return torch.from_numpy(drawn).to(samples.device)
    if samples.device.type == "cpu" and bool((samples.diff() == 1).all()):
        stream = Stream(seed, int(samples[0]), 0, block)
        return torch.from_numpy(noise_chunk(spec, stream, (n_steps, len(samples), n)))
    return sum(
        (_scaled(words(seed, samples, block, shape, k), spec) for k in range(1, spec.draws)),
        _scaled(words(seed, samples, block, shape), spec),
    )


def _scaled(word: Tensor, spec: NoiseSpec) -> Tensor:
    """One uniform draw of a word, ``trunc_to_zero((draw + 64 m) * 2**(e - 7))``; exact in float64."""
    draw = (word * DRAW_VALUES >> 32) - DRAW_VALUES // 2
    return torch.trunc((draw + 64 * spec.mantissa_offset).double() * 2.0 ** (spec.exponent - 7))
