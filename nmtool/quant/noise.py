"""Training noise to the chip's noise source: exponent, and the scale at which the variance is exact.

The model's noise is Gaussian with standard deviation sigma on the membrane. The chip draws x uniform on {-127..127} and
adds ``trunc((x + 64 m) 2**(e - 7))``. Only powers of two exist, but the layer's scale is free: choosing membrane units
per volt = ``std(e) / sigma`` makes the variance exact. What stays is the shape: uniform against Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from nmtool.fixedpoint.noise import DRAW_VALUES, NoiseModel, NoiseSpec, scaled


@dataclass(frozen=True)
class NoiseMap:
    """One layer's mapping.

    Attributes:
        spec: registers.
        units_per_volt: membrane units per real unit at which the variance equals the model's.
        std_units: standard deviation of the realised noise in membrane units.
        cdf_error: largest difference between the realised and the Gaussian distribution function.
        support_std: largest possible draw in standard deviations (a Gaussian has no bound).
    """

    spec: NoiseSpec
    units_per_volt: float
    std_units: float
    cdf_error: float
    support_std: float


def values(spec: NoiseSpec) -> np.ndarray:
    """Every value that one uniform draw can take, int64 ``[255]``, equally likely."""
    return scaled(np.arange(DRAW_VALUES) - DRAW_VALUES // 2, spec)


@lru_cache(maxsize=256)
def std_units(exponent: int, mantissa_offset: int = 0, draws: int = 1) -> float:
    """Standard deviation in membrane units, truncation included (exact, by enumeration)."""
    return float(np.sqrt(draws) * values(NoiseSpec(exponent, mantissa_offset)).std())


def distribution(spec: NoiseSpec) -> tuple[np.ndarray, np.ndarray]:
    """Support (int64, ascending) and probabilities of the realised noise, exact by convolution."""
    one = values(spec)
    low, high = int(one.min()), int(one.max())
    single = np.bincount(one - low, minlength=high - low + 1) / DRAW_VALUES
    total = single
    for _ in range(spec.draws - 1):
        total = np.convolve(total, single)
    return np.arange(len(total)) + low * spec.draws, total


def shape_error(spec: NoiseSpec) -> tuple[float, float]:
    """``(sup |F - Phi|, largest |draw| / std)`` of the realised noise against a Gaussian of the same moments.

    Source: shared reference on Loihi noise, section 6.4-6.5 (0.057 and 1.73 for one uniform draw, 0.0074 and 3.45 for
    four). A rounded Gaussian is unbounded and reported as ``(0, inf)``.
    """
    if spec.model == "gaussian":
        return 0.0, float("inf")
    coarse = (
        NoiseSpec(7, spec.mantissa_offset, spec.at, spec.model, spec.draws) if spec.exponent > 7 else spec
    )
    x, p = distribution(coarse)
    mean = float((x * p).sum())
    std = float(np.sqrt(((x - mean) ** 2 * p).sum()))
    cdf = np.cumsum(p)
    gauss = ndtr((x + 0.5 - mean) / std)
    return float(np.abs(cdf - gauss).max()), float(np.abs(x - mean).max() / std)


def map_noise(
    sigma: float,
    max_units_per_volt: float,
    exponents: tuple[int, int],
    model: NoiseModel = "uniform8",
    draws: int = 1,
) -> NoiseMap | None:
    """The largest exponent whose exact scale stays within the layer's budget.

    Args:
        sigma: standard deviation of the model's noise, real units.
        max_units_per_volt: largest scale that the layer's registers allow.
        exponents: smallest and largest exponent of the target's generator.
        model, draws: see :class:`nmtool.fixedpoint.noise.NoiseSpec`.

    Returns:
        None if even the smallest exponent needs a larger scale than the budget.
    """
    for e in range(exponents[1], exponents[0] - 1, -1):
        std = std_units(e, 0, draws)
        if std / sigma <= max_units_per_volt:
            spec = NoiseSpec(e, 0, "membrane", model, draws)
            return NoiseMap(spec, std / sigma, std, *shape_error(spec))
    return None
