"""Files that HDF5 itself trips over, and files that ask for more than they hold."""

import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmtool.errors import BackendUnavailableError, ConfigError, ModelError
from nmtool.ir import hdf5


@pytest.fixture(scope="module")
def reader() -> Iterator[hdf5.Reader]:
    with hdf5.Reader() as r:
        yield r


def test_values_come_back_as_they_are(tmp_path: Path, reader: hdf5.Reader) -> None:
    path = tmp_path / "a.h5"
    arrays = {
        "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
        "big_endian": np.arange(3, dtype=">f8"),
        "i1": np.array([-1, 2], np.int8),
        "bool": np.array([True, False]),
        "scalar": np.float64(0.1),
        "empty": np.zeros((0, 4)),
    }
    with h5py.File(path, "w") as f:
        for name, a in arrays.items():
            f[f"g/{name}"] = a
        f["text"] = "µ"
        f["texts"] = [["a", "b"], ["c", ""]]
    tree = reader.load(path)
    for name, a in arrays.items():
        np.testing.assert_array_equal(tree["g"][name], a)
        assert tree["g"][name].dtype.kind == np.asarray(a).dtype.kind
    assert tree["g"]["f4"].dtype == np.float32
    assert tree["text"] == "µ"
    assert tree["texts"].tolist() == [["a", "b"], ["c", ""]]


def test_arrays_may_be_changed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x"] = np.zeros(3)
    hdf5.load(tmp_path / "a.h5")["x"][0] = 1.0


def test_links_out_of_the_file_are_not_followed(tmp_path: Path, reader: hdf5.Reader) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as f:
        f["x"] = 1.0
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["out"] = h5py.ExternalLink("secret.h5", "/x")
        f["soft"] = h5py.SoftLink("/nowhere")
        f["loop"] = f["/"]
    with pytest.raises(ModelError, match=r"NM101.*nests groups deeper than 40"):
        reader.load(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as f:
        del f["loop"]
    tree = reader.load(tmp_path / "a.h5")
    assert all(isinstance(tree[k], hdf5.Other) for k in ("out", "soft"))


@pytest.mark.parametrize("chunks", [None, (1 << 10, 1 << 10)])
def test_a_small_file_that_unfolds_to_terabytes(chunks: tuple[int, ...] | None, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("w", (1 << 20, 1 << 20), np.float64, chunks=chunks)
    with pytest.raises(ModelError, match=r"NM101.*says that /w has shape \(1048576, 1048576\)"):
        hdf5.load(tmp_path / "a.h5")


def test_a_file_on_which_the_library_loops(tmp_path: Path, reader: hdf5.Reader) -> None:
    """An empty free-space object in the heap of texts: HDF5 2.0 never leaves it."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["texts"] = ["a", "b"]
    raw = bytearray(path.read_bytes())
    heap = raw.index(b"GCOL") + 16
    raw[heap : heap + 16] = bytes(16)
    (tmp_path / "b.h5").write_bytes(raw)
    start = time.process_time()
    with pytest.raises(ModelError, match=r"NM101.*b\.h5"):
        reader.load(tmp_path / "b.h5")
    assert time.process_time() - start < 1.0, "the work is done in the other process"
    assert reader.load(path)["texts"].tolist() == ["a", "b"], "and the next file is read by a new one"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x00" * 100, "is not HDF5"),
        (b"PK\x03\x04 something", "is not HDF5: it begins with b'PK"),
        (b"\x89HDF\r\n\x1a\n" + b"\xff" * 600, "is not readable HDF5"),
    ],
)
def test_other_contents(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.nir").write_bytes(content)
    with pytest.raises(ModelError, match=rf"NM101.*x\.nir: {message}"):
        hdf5.load(tmp_path / "x.nir")


def test_truncated(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x"] = np.zeros(1000)
    raw = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelError, match=r"NM101.*truncated"):
        hdf5.load(tmp_path / "b.h5")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"NM001.*no\.nir: no such file"):
        hdf5.load(tmp_path / "no.nir")
    with pytest.raises(ConfigError, match="NM001"):
        hdf5.load(tmp_path)


def test_the_process_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["x"] = 1.0
    monkeypatch.setattr(hdf5, "_CHILD", tmp_path / "missing.py")
    with pytest.raises(BackendUnavailableError, match=r"NM303.*does not start"):
        hdf5.load(tmp_path / "a.h5")
