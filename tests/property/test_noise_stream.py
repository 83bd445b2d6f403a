"""The noise stream: published generator vectors, exact distribution, independence of order and batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nmtool.fixedpoint.noise import NoiseSpec, noise, philox4x32, uniform8, words
from nmtool.quant.noise import distribution, map_noise, shape_error, std_units

# Known-answer vectors published with Random123 (philox4x32, 10 rounds).
VECTORS = [
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0xA4093822 | 0x299F31D0 << 32,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_known_answers(counter: tuple[int, ...], key: int, expected: str) -> None:
    assert " ".join(f"{int(w):08x}" for w in philox4x32(counter, key)) == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 30), st.integers(0, 500), st.integers(0, 2**31))
def test_any_slice_of_the_stream_is_the_same(seed: int, block: int, step: int, sample: int) -> None:
    whole = words(seed, np.arange(sample, sample + 3)[:, None], block, np.arange(11)[None], step)
    assert np.array_equal(
        whole[1:, 4:9],
        words(seed, np.arange(sample + 1, sample + 3)[:, None], block, np.arange(4, 9)[None], step),
    )
    assert int(whole[2, 10]) == int(words(seed, sample + 2, block, 10, step))


def test_uniform8_covers_exactly_the_chips_values() -> None:
    edges = np.array([0, 2**32 - 1], np.uint64)
    assert uniform8(edges).tolist() == [-127, 127]
    counts = np.bincount(uniform8(words(3, 0, 0, np.arange(2_550_000), 0)) + 127, minlength=255)
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("exponent", [1, 4, 6, 7, 12])
def test_truncation_and_moments_follow_the_register_rule(exponent: int) -> None:
    # Standard deviations of shared reference loihi.md 6.3, row "trunc".
    table = {1: 0.709, 4: 8.821, 6: 36.59, 7: 73.61, 12: 2355.6}
    assert std_units(exponent) == pytest.approx(table[exponent], rel=1e-3)
    x = noise(NoiseSpec(exponent), 5, np.arange(200)[:, None], 2, np.arange(1000)[None], 7)
    assert x.std() == pytest.approx(std_units(exponent), rel=0.01)
    assert abs(x.mean()) < 5 * std_units(exponent) / np.sqrt(x.size)
    support, p = distribution(NoiseSpec(exponent))
    assert set(np.unique(x)) <= set(support[p > 0])


@pytest.mark.parametrize(
    ("draws", "cdf", "support"), [(1, 0.0572, 1.73), (2, 0.0164, 2.44), (4, 0.0074, 3.45), (12, 0.0023, 5.98)]
)
def test_shape_error_matches_the_exact_convolution(draws: int, cdf: float, support: float) -> None:
    got = shape_error(NoiseSpec(9, model="irwin_hall", draws=draws))
    assert got == pytest.approx((cdf, support), abs=0.006)


@pytest.mark.parametrize("model", ["irwin_hall", "gaussian"])
def test_summed_and_gaussian_models_have_the_same_variance(model: str) -> None:
    x = noise(NoiseSpec(9, model=model, draws=4), 1, np.arange(300)[:, None], 0, np.arange(1000)[None], 0)  # type: ignore[arg-type]
    assert x.std() == pytest.approx(std_units(9, draws=4), rel=0.01)
    assert stats.skew(x, axis=None) == pytest.approx(0, abs=0.03)


@given(st.floats(0.01, 2.0), st.floats(500, 2**17), st.integers(1, 6))
def test_mapping_makes_the_variance_exact_within_the_budget(sigma: float, budget: float, draws: int) -> None:
    mapped = map_noise(sigma, budget, (1, 23), "irwin_hall", draws)
    if mapped is None:
        assert std_units(1, 0, draws) / sigma > budget
    else:
        assert mapped.units_per_volt <= budget
        assert mapped.std_units / mapped.units_per_volt == pytest.approx(sigma, rel=1e-12)
        assert mapped.spec.exponent == 23 or std_units(mapped.spec.exponent + 1, 0, draws) / sigma > budget
