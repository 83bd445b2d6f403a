"""Arrays of a data set as the tensors that attacks take."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def as_tensors(x: NDArray[Any], labels: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Inputs float32 ``[B, *shape]`` and labels int64 ``[B]``."""
    return torch.tensor(x, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)
