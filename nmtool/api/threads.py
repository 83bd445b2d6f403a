"""How many threads torch gets. For small networks its own threads cost more than they give."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

SMALL = 1 << 20
"""Synapses. Below this one thread is at least as fast on an idle machine and far faster on a busy one."""


@contextlib.contextmanager
def threads_for(n_synapses: float) -> Iterator[None]:
    """One torch thread while a small network is computed, else as torch is set up."""
    if n_synapses >= SMALL:
        yield
        return
    from nmtool.fixedpoint.kernels import torch_threads

    with torch_threads(1):
        yield
