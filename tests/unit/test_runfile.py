"""A run survives its file; a damaged file is one coded error."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from nmtool.api import runfile
from nmtool.backends.base import RunResult, Trace
from nmtool.errors import ConfigError


def result() -> RunResult:
    rng = np.random.default_rng(5)
    t, b = 3, 4

    def trace(n: int) -> Trace:
        u, v = rng.integers(-9, 9, (2, t, b, n), dtype=np.int32)
        return Trace(rng.integers(0, 2, (t, b, n), dtype=np.uint8), u, v)

    traces = {
        "counts": trace(5),
        "a/b": trace(2),
        "input": Trace(rng.integers(0, 2, (t, b, 3), dtype=np.uint8)),
    }
    return RunResult(
        backend="sim",
        model_sha256="abc",
        n_steps=t,
        dt_s=1e-3,
        seed=7,
        noise=True,
        logits=rng.integers(0, 9, (b, 2)),
        spike_counts={n: x.spikes.sum(axis=0, dtype=np.int64) for n, x in traces.items()},
        last_spikes={n: x.spikes[-1] for n, x in traces.items()},
        active_updates={"counts": np.arange(b), "a/b": np.zeros(b, np.int64)},
        overflow={"counts": {"u_wrapped": 3}},
        latency={"input": 0, "counts": 1, "a/b": 2},
        traces=traces,
        steps_density={n: x.spikes.sum(axis=(1, 2), dtype=np.int64) for n, x in traces.items()},
        failures=({"sample": 1, "error": "it hung"},),
    )


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("active", [True, False])
def test_everything_comes_back(tmp_path: Path, active: bool) -> None:
    saved = result() if active else replace(result(), active_updates=None)
    labels = np.array([0, 1, 1, 0])
    runfile.save(saved, tmp_path / "run.npz", {"command": "nmtool run"}, labels)
    loaded, record, read_labels = runfile.load(tmp_path / "run.npz")
    assert [f.name for f in fields(saved) if not same(getattr(saved, f.name), getattr(loaded, f.name))] == []
    assert record == {"command": "nmtool run"}
    assert same(labels, read_labels)


def test_the_published_keys_need_no_nmtool(tmp_path: Path) -> None:
    saved = result()
    runfile.save(saved, tmp_path / "run.npz", {})
    with np.load(tmp_path / "run.npz", allow_pickle=False) as z:
        assert dict(zip(z["layers"].tolist(), z["latency"].tolist(), strict=True)) == saved.latency
        assert z["a/b/v"].dtype == np.int32
        assert z["a/b/spikes"].shape == (3, 4, 2)
        assert "input/v" not in z.files
        assert np.array_equal(z["predictions"], saved.logits.argmax(axis=1))


def test_a_run_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ConfigError, match=r"NM002.*cannot be written"):
        runfile.save(result(), tmp_path / "file" / "run.npz", {})
    assert (tmp_path / "file").read_text() == "old"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"NM001.*no such file"):
        runfile.load(tmp_path / "run.npz")


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, seed: int) -> None:
    """One byte changed, a piece cut out, or the end lost: the reader never raises anything uncoded."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "run.npz"
    runfile.save(result(), path, {})
    raw = bytearray(path.read_bytes())
    at = int(rng.integers(len(raw)))
    kind = seed % 3
    if kind == 0:
        raw[at] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del raw[at : at + int(rng.integers(1, 64))]
    else:
        del raw[at:]
    path.write_bytes(raw)
    assert outcome(path) in ("read", f"error[NM006] {path}: is not a saved run")


def outcome(path: Path) -> str:
    """What reading a file comes to, without the details of the damage."""
    try:
        return "read" if runfile.load(path)[0].n_samples == 4 else "misread"
    except ConfigError as e:
        return str(e).partition(" (")[0]


@pytest.mark.parametrize("header", [b"{}", b"[]", b"not json", b'{"schema": "nmtool.run-result/9"}', b"\xff"])
def test_a_foreign_header(tmp_path: Path, header: bytes) -> None:
    np.savez(tmp_path / "run.npz", header=np.frombuffer(header, np.uint8))
    with pytest.raises(ConfigError, match=r"NM006.*is not a saved run"):
        runfile.load(tmp_path / "run.npz")
