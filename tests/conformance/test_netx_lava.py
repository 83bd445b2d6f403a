"""Programs that were read from ``.net`` files, on real Lava and on the simulator: every spike, u and v."""

from pathlib import Path

import numpy as np
import pytest
from net_writer import conv_net, cuba, dense, dense_rec, old_net, weights, write_net
from numpy.typing import NDArray

from nmtool.backends.base import RunOptions
from nmtool.backends.lava import LavaBackend
from nmtool.backends.sim import SimBackend
from nmtool.backends.worker_link import WorkerLink
from nmtool.frontends.netx import read_net

pytestmark = pytest.mark.lava

RNG = np.random.default_rng(7)
IMAGES = RNG.random((2, 2, 5, 4)).astype(np.float32)
SPIKES = (RNG.random((40, 2, 6)) < 0.3).astype(np.uint8)
LINES = {"type": "input", "shape": np.array([6])}
RESTLESS = cuba(700, 300, 20)

NETS = {
    "every kind": (conv_net(), IMAGES),
    "old file": (old_net(), IMAGES),
    "delays": ([LINES, dense(weights((5, 6), 1), RESTLESS, delay=np.float32([0, 3, 62, 1, 9]))], SPIKES),
    "recurrent": ([LINES, dense_rec(weights((5, 6), 1), weights((5, 5), 2), RESTLESS)], SPIKES),
    "odd weights": ([LINES, dense(weights((5, 6), 3, -128, 127, 1), RESTLESS)], SPIKES),
    "odd weights of 9 bits": ([LINES, dense(weights((5, 6), 4, -256, 254, 1), RESTLESS)], SPIKES),
    "weights of -1 and -128": (
        [LINES, dense(-(128 ** weights((5, 6), 5, 0, 1, 1)), cuba(700, 4096, 131071))],
        SPIKES,
    ),
    "zeros": ([LINES, dense(0 * weights((5, 6)), RESTLESS, bias=weights((5,), 6, -20, 20))], SPIKES),
    "no neurons": ([LINES, dense(weights((5, 6), 7), {})], SPIKES),
}


@pytest.mark.parametrize("name", NETS)
def test_lava_agrees(name: str, tmp_path: Path, lava_link: WorkerLink) -> None:
    net, x = NETS[name]
    program = read_net(write_net(tmp_path / "a.net", net), n_steps=24)
    options = RunOptions(record=("all",))
    lava = LavaBackend(program, link=lava_link).run(x, options).traces
    sim = SimBackend(program).run(x, options).traces
    for p in program.populations:
        for found, expected in zip(lava[p.name], sim[p.name], strict=True):
            assert differing(found, expected) == 0, p.name


def differing(a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> int:
    """How many entries differ."""
    assert a is not None
    assert b is not None
    assert a.shape == b.shape
    return int(np.count_nonzero(a != b))
