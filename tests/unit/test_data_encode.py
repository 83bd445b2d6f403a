"""Rate coding as a counter-based stream, and spike files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.data.encode import rate_spikes, spikes_file
from nmtool.errors import ConfigError, ModelError
from nmtool.fixedpoint.encode import INPUT_BLOCK
from nmtool.fixedpoint.noise import philox4x32, words


def test_rates_are_the_values() -> None:
    x = np.linspace(0, 1, 11, dtype=np.float32).reshape(1, 11).repeat(200, axis=0)
    spikes = rate_spikes(x, 100, seed=1)
    assert spikes.shape == (100, 200, 11)
    assert spikes.dtype == np.uint8
    rate, p = spikes.mean(axis=(0, 1)), x[0].astype(np.float64)
    assert (np.abs(rate - p) <= 5 * np.sqrt(p * (1 - p) / 20_000)).all()
    assert rate[0] == 0
    assert rate[-1] == 1


def test_a_spike_is_a_word_below_the_value() -> None:
    """By hand from the generator: counter (line // 4, step, sample, block), lane line % 4."""
    x = np.array([[0.25, 0.5, 0.75, 0.9, 0.4, 0.6]])
    spikes = rate_spikes(x, 5, seed=9, sample_offset=3)
    for t in range(5):
        for i in range(6):
            word = int(philox4x32((i // 4, t, 3, 0xFFFF), 9)[i % 4])
            assert spikes[t, 0, i] == (word < round(x[0, i] * 2**32))


def test_threshold_is_cut_to_32_bits() -> None:
    word = int(words(0, 0, INPUT_BLOCK, 0, 0))
    for value, fires in (
        (word / 2**32, 0),
        ((word + 1) / 2**32, 1),
        ((word + 0.4) / 2**32, 0),
        ((word + 0.6) / 2**32, 0),
    ):
        assert rate_spikes(np.array([[value]]), 1, seed=0)[0, 0, 0] == fires


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), n=st.integers(1, 6), cut=st.integers(0, 6), n_steps=st.integers(1, 5))
def test_batch_and_chunk_do_not_matter(seed: int, n: int, cut: int, n_steps: int) -> None:
    x = np.random.default_rng(0).random((n, 2, 3))
    whole = rate_spikes(x, n_steps, seed, sample_offset=10)
    cut = min(cut, n)
    parts = [rate_spikes(x[:cut], n_steps, seed, 10), rate_spikes(x[cut:], n_steps, seed, 10 + cut)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    np.testing.assert_array_equal(rate_spikes(x, n_steps + 2, seed, 10)[:n_steps], whole)


@pytest.mark.parametrize("bad", [-0.01, 1.01, np.nan, np.inf])
def test_values_that_are_no_probability(bad: float) -> None:
    with pytest.raises(ModelError, match="NM109.*rate encoder.*allowed is 0 to 1"):
        rate_spikes(np.array([[0.5, bad]]), 3, seed=0)


def test_spike_file(tmp_path: Path) -> None:
    spikes = (np.random.default_rng(0).random((7, 3, 2, 4)) < 0.3).astype(np.uint8)
    np.savez(tmp_path / "s.npz", spikes=spikes, labels=np.array([2, 0, 1], np.int32), dt_s=0.002)
    read = spikes_file(tmp_path / "s.npz")
    np.testing.assert_array_equal(read.spikes, spikes)
    assert read.labels is not None
    assert (read.labels.tolist(), read.labels.dtype, read.dt_s) == ([2, 0, 1], np.int64, 0.002)
    np.savez(tmp_path / "bare.npz", spikes=spikes)
    bare = spikes_file(tmp_path / "bare.npz")
    assert (bare.labels, bare.dt_s) == (None, None)


SPIKES = np.zeros((4, 3, 2), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"spikes": SPIKES.astype(np.float32)}, r"NM109.*spikes is float32 \(4, 3, 2\), must be uint8"),
        ({"spikes": SPIKES[0]}, r"NM109.*spikes is uint8 \(3, 2\)"),
        ({"spikes": SPIKES[:0]}, r"NM109.*\(0, 3, 2\).*not empty"),
        (
            {"spikes": SPIKES, "labels": np.arange(4)},
            r"NM109.*labels is int64 \(4,\), must be integers \(3,\)",
        ),
        ({"spikes": SPIKES, "labels": np.ones(3)}, r"NM109.*labels is float64"),
        ({"spikes": SPIKES, "dt_s": 0.0}, r"NM109.*dt_s is float64 0.0, must be one positive"),
        ({"spikes": SPIKES, "dt_s": np.nan}, r"NM109.*dt_s is float64 nan"),
        ({"spikes": SPIKES, "dt_s": np.ones(2)}, r"NM109.*dt_s"),
        ({"spikes": SPIKES, "dt_s": 3}, r"NM109.*dt_s is int64"),
    ],
)
def test_spike_files_that_do_not_fit(tmp_path: Path, arrays: dict, match: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ModelError, match=match):
        spikes_file(tmp_path / "s.npz")


def test_files_that_hold_no_spikes(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", spike=SPIKES)
    with pytest.raises(
        ConfigError, match=r"NM006.*lacks the array 'spikes'; it holds spike.*numpy.savez\(spikes=...\)"
    ):
        spikes_file(tmp_path / "s.npz")
    np.savez(tmp_path / "o.npz", spikes=np.array([print], object))
    with pytest.raises(ConfigError, match=r"NM006.*o.npz.*plain arrays"):
        spikes_file(tmp_path / "o.npz")
    with pytest.raises(ConfigError, match="NM001"):
        spikes_file(tmp_path / "none.npz")
