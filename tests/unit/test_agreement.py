"""verify's comparison: equality is exact, and the first difference is named."""

from dataclasses import replace

import numpy as np
import pytest

from nmtool.backends.base import RunResult, Trace
from nmtool.errors import EvaluationError
from nmtool.metrics.agreement import best_lag, compare


def result(seed: int = 0, name: str = "a") -> RunResult:
    rng = np.random.default_rng(seed)
    spikes = (rng.random((9, 3, 2, 4)) < 0.4).astype(np.uint8)
    u, v = (rng.integers(-1000, 1000, spikes.shape).astype(np.int32) for _ in range(2))
    counts = spikes.sum(axis=0).astype(np.int64)
    return RunResult(
        name, "", 9, 1e-3, 0, False, counts.reshape(3, -1), {"l1": counts}, traces={"l1": Trace(spikes, u, v)}
    )


def altered(base: RunResult, at: tuple[int, ...], **fields: int) -> RunResult:
    old = base.traces["l1"]
    new = {k: getattr(old, k).copy() for k in ("spikes", "u", "v")}
    for k, value in fields.items():
        new[k][at] = value
    return replace(base, backend="b", traces={"l1": Trace(**new)})


def test_equal_runs_are_equal() -> None:
    record = compare(result(), result(name="b"))
    assert record["equal"]
    assert record["agreement"] == 1.0
    assert record["layers"][0]["first_divergence"] is None


def test_the_first_differing_spike_is_named() -> None:
    base = result()
    at = (4, 2, 1, 3)
    flipped = 1 - int(base.traces["l1"].spikes[at])
    record = compare(base, altered(base, at, spikes=flipped))
    assert not record["equal"]
    first = record["layers"][0]["first_divergence"]
    assert (first["step"], first["sample"], first["neuron"]) == (4, 2, [1, 3])
    assert first["other"]["spike"] == flipped
    assert record["layers"][0]["differing_spikes"] == 1


@pytest.mark.parametrize("field", ["u", "v"])
def test_a_register_that_differs_without_a_spike_is_a_difference(field: str) -> None:
    base = result()
    record = compare(base, altered(base, (1, 0, 0, 2), **{field: 5000}))
    assert not record["equal"]
    assert record["layers"][0]["differing_spikes"] == 0
    assert record["layers"][0]["first_divergence"]["other"][field] == 5000


def test_float_against_integer_compares_in_volts() -> None:
    base = result()
    old = base.traces["l1"]
    volts = replace(base, traces={"l1": Trace(old.spikes, None, (old.v * 0.001).astype(np.float32))})
    record = compare(volts, base, {"l1": 0.001})
    assert record["layers"][0]["max_abs_dv"] < 1e-6
    moved = altered(base, (1, 0, 0, 2), spikes=1 - int(old.spikes[1, 0, 0, 2]), v=500)
    first = compare(volts, moved, {"l1": 0.001})["layers"][0]["first_divergence"]
    assert first["other"]["v"] == pytest.approx(0.5)
    assert record["equal"]


@pytest.mark.parametrize("lag", [-2, 0, 3])
def test_lag_is_found(lag: int) -> None:
    rng = np.random.default_rng(1)
    a = (rng.random((40, 2, 30)) < 0.2).astype(np.uint8)
    b = np.zeros_like(a)
    if lag >= 0:
        b[lag:] = a[: len(a) - lag]
    else:
        b[:lag] = a[-lag:]
    assert best_lag(a, b) == lag


def test_silence_has_no_ratio() -> None:
    base = result()
    silent = replace(base, traces={"l1": Trace(np.zeros_like(base.traces["l1"].spikes))})
    row = compare(silent, silent)["layers"][0]
    assert row["spike_ratio"] is None
    assert row["cosine"] is None


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="NM501.*no recorded layer in common"):
        compare(result(), replace(result(), traces={}))
