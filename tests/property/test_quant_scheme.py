"""Grids and scales: every integer is representable, nothing overflows, rounding is to the nearest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nmtool.quant import scheme

LIMITS = {"mixed_min": -256, "mixed_max": 254, "excitatory_max": 255, "inhibitory_min": -255}
WEIGHTS = arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-3, 3, width=32)
)


@given(WEIGHTS, st.integers(1, 8))
def test_scaled_weights_fill_the_grid_without_clipping(w: np.ndarray, bits: int) -> None:
    grid = scheme.grid_for(w, bits, LIMITS)
    limit = grid.scale_limit(w)
    if not np.isfinite(limit):
        assert not w.any()
        return
    q, clipped = grid.quantise(w * limit)
    assert clipped == 0
    assert (q % grid.step == 0).all()
    assert q.min() >= grid.low
    assert q.max() <= grid.high
    assert np.abs(q - w * limit).max() <= grid.step / 2 + 1e-6


@given(WEIGHTS, st.integers(1, 8))
def test_the_chip_truncates_nothing(w: np.ndarray, bits: int) -> None:
    """Lava's preparation (clip, floor to a multiple of the step) leaves quantised weights alone."""
    grid = scheme.grid_for(w, bits, LIMITS)
    q, _ = grid.quantise(w * min(grid.scale_limit(w), 1e6))
    mixed = q.min() < 0 < q.max()
    k = 8 - bits + (1 if mixed else 0)
    prepared = (np.abs(q) >> k << k) * np.sign(q) if q.max() <= 0 else q >> k << k
    if grid.sign_mode == "mixed" and not mixed:
        return  # rounding removed one sign: the program states the sign mode, so the class is not derived again
    assert np.array_equal(prepared, q)


@pytest.mark.parametrize(
    ("w", "mode", "step"),
    [
        ([[0.5, -0.5]], "mixed", 2),
        ([[0.5, 0.0]], "excitatory", 1),
        ([[-0.5]], "inhibitory", 1),
        ([[0.0]], "excitatory", 1),
    ],
)
def test_sign_mode_follows_the_data(w: list[list[float]], mode: str, step: int) -> None:
    grid = scheme.grid_for(np.array(w), 8, LIMITS)
    assert (grid.sign_mode, grid.step) == (mode, step)


BUDGETS = st.builds(
    scheme.Budget,
    st.lists(st.floats(10, 1e6), max_size=3).map(tuple),
    st.floats(1e3, 1e7),
    st.floats(1e3, 1e7),
    st.floats(1e3, 1e7),
    st.just((-7, 7)) | st.just((0, 0)),
)


@given(BUDGETS)
def test_the_scale_respects_every_budget_and_weights_fit(budget: scheme.Budget) -> None:
    scale = scheme.choose_scale(budget)
    assert scale.units_per_volt <= min(budget.threshold, budget.bias, budget.current) * (1 + 1e-12)
    for limit, e in zip(budget.weights, scale.weight_exps, strict=True):
        assert scale.units_per_volt <= limit * 2.0**e * (1 + 1e-9) or e == budget.exponents[1]


def test_current_budget_is_tight() -> None:
    units = scheme.current_budget(2.0, 4096)
    assert int(2.0 * units) < 2**23
    assert int(2.01 * units) >= 2**23
    assert scheme.current_budget(2.0, 1024) == pytest.approx(units / 4)
