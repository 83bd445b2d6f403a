"""Analog values to spikes as a counter-based stream, and spikes from a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmtool.data.files import read_npz
from nmtool.errors import ModelError
from nmtool.fixedpoint import encode


@dataclass(frozen=True)
class Spikes:
    """Input spikes.

    Attributes:
        spikes: uint8 ``[T, B, *shape]``.
        labels: int64 ``[B]``, or None.
        dt_s: seconds per step, or None.
    """

    spikes: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    dt_s: float | None = None


def rate_spikes(
    x: NDArray[np.floating], n_steps: int, seed: int, sample_offset: int = 0
) -> NDArray[np.uint8]:
    """Bernoulli spikes: each step fires with probability ``x``, the same in any batch, order or chunk.

    The rule is that of every backend (:mod:`nmtool.fixedpoint.encode`): 0 never fires and 1 always does.

    Args:
        x: ``[B, *shape]`` in [0, 1].
        n_steps: T.
        seed: 64-bit key of the run.
        sample_offset: index of the first sample in its data set.

    Returns:
        ``[T, B, *shape]``.

    Raises:
        ModelError: NM109 if a value is outside [0, 1] or not finite.
    """
    if not ((x >= 0) & (x <= 1)).all():
        raise ModelError(
            "NM109",
            "rate encoder",
            f"x spans {x.min():g} to {x.max():g}, allowed is 0 to 1",
            "Scale the data to [0, 1]",
        )
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    samples = np.arange(sample_offset, sample_offset + len(x))
    spikes = encode.rate_spikes(encode.rate_thresholds(flat, 1.0, 1), seed, samples, np.arange(n_steps))
    return spikes.reshape(n_steps, *x.shape)


def spikes_file(path: Path) -> Spikes:
    """Read a spike file: ``spikes`` uint8 ``[T, B, *shape]``, optionally ``labels`` ``[B]`` and ``dt_s``.

    Raises:
        ConfigError: NM001 no such file, NM006 not an .npz file with ``spikes``.
        ModelError: NM109 if an array has another type or shape, or a time step that is not positive.
    """
    z = read_npz(path, ("spikes",), ("labels", "dt_s"))
    spikes, labels, dt_s = z["spikes"], z.get("labels"), z.get("dt_s")
    if spikes.dtype != np.uint8 or spikes.ndim < 3 or not spikes.size:
        raise _misfit(
            path, f"spikes is {spikes.dtype} {spikes.shape}, must be uint8 [T, B, *shape], not empty"
        )
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != spikes.shape[1:2]):
        raise _misfit(path, f"labels is {labels.dtype} {labels.shape}, must be integers ({spikes.shape[1]},)")
    if dt_s is not None and (dt_s.dtype.kind != "f" or dt_s.size != 1 or not 0 < dt_s.item() < np.inf):
        raise _misfit(path, f"dt_s is {dt_s.dtype} {dt_s.tolist()}, must be one positive number of seconds")
    return Spikes(
        spikes,
        None if labels is None else labels.astype(np.int64),
        None if dt_s is None else float(dt_s.item()),
    )


def _misfit(path: Path, message: str) -> ModelError:
    return ModelError("NM109", str(path), message, "Write the file again with numpy.savez")
