"""Real ProcessModels that raise or never return: reported with sample and block, and nothing is left behind."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tv_programs import inputs, into, population, program

from nmtool.backends.base import RunOptions
from nmtool.backends.lava import LavaBackend
from nmtool.backends.sim import SimBackend
from nmtool.errors import SimulationError
from nmtool.fixedpoint.noise import NoiseSpec

pytestmark = pytest.mark.lava

STEPS = 6


def network(noise: NoiseSpec | None):
    """Two populations in a row; the second one is noisy."""
    second = replace(population("second", (3,), 2, v_th_man=3), noise=noise)
    weights = [[20, 20], [20, -20], [4, 6]]
    connections = [into(weights, target="first"), into(np.eye(3, dtype=int) * 20, "first", "second")]
    return program(2, [population("first", (3,), 1, v_th_man=10), second], connections)


def x(n_samples: int) -> np.ndarray:
    return np.repeat(inputs([[1, 1]] * STEPS), n_samples, axis=1)


def shared_memory() -> set[str]:
    """Segments that no running process has mapped; other programs may use shared memory at the same time."""
    folder = Path("/dev/shm")
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            text = maps.read_text(errors="replace")
            there -= {name for name in there if f"/dev/shm/{name}" in text}
    return there


def group_is_gone(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_process_model_that_raises_is_named_and_the_worker_is_replaced(lava_link):
    before = shared_memory()
    poisoned = network(NoiseSpec(exponent=7, mantissa_offset=10**30))
    with pytest.raises(SimulationError, match=r"NM403\] second: OverflowError: .*in _draw") as e:
        LavaBackend(poisoned, link=lava_link).run(x(2), RunOptions(deadline_s=60))
    assert e.value.exit_code == 5
    healthy = network(NoiseSpec(exponent=7))
    after = LavaBackend(healthy, link=lava_link).run(x(2), RunOptions())
    np.testing.assert_array_equal(after.logits, SimBackend(healthy).run(x(2), RunOptions()).logits)
    assert shared_memory() <= before


def test_only_the_samples_that_raise_are_lost(lava_link):
    noisy = network(NoiseSpec(exponent=7))
    last = 2**64 - 1  # the noise stream ends here: the sample after it cannot be drawn
    options = RunOptions(sample_offset=last - 1, record=("all",), deadline_s=60)
    result = LavaBackend(noisy, link=lava_link).run(x(3), options)
    assert [(f["sample"], f["block"]) for f in result.failures] == [(2, "second")]
    want = LavaBackend(noisy, link=lava_link).run(x(2), options)
    assert want.failures == ()
    for name in ("first", "second"):
        for found, wanted in zip(result.traces[name], want.traces[name], strict=True):
            np.testing.assert_array_equal(found[:, :2], wanted)
            assert not found[:, 2].any()


def test_a_process_model_that_never_returns_is_stopped_at_the_deadline(lava_link):
    before = shared_memory()
    LavaBackend(network(None), link=lava_link).run(x(1), RunOptions())
    pid = lava_link._worker.process.pid
    endless = network(NoiseSpec(exponent=7, model="irwin_hall", draws=10**9))
    with pytest.raises(SimulationError, match=r"NM402\] second: no answer for 5 s"):
        LavaBackend(endless, link=lava_link).run(x(1), RunOptions(deadline_s=5))
    assert group_is_gone(pid)
    assert shared_memory() <= before


def test_weights_off_the_grid_are_refused_before_they_run(lava_link):
    odd = program(2, [population("p", (1,), 1)], [into([[3, -2]])])
    with pytest.raises(SimulationError, match=r"NM403\] in->p: weight 3 would become 2 in Lava"):
        LavaBackend(odd, link=lava_link).run(inputs([[1, 0]]), RunOptions())
    fine = program(2, [population("p", (1,), 1)], [into([[3, 1]], sign_mode="excitatory")])
    assert (
        LavaBackend(fine, link=lava_link).run(inputs([[1, 0]]), RunOptions(record=("p",))).traces["p"].u[0]
        == 192
    )
