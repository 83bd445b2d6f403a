"""Data sets: what the arrays are, and what happens when files are not what they claim."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from nmtool.data import datasets
from nmtool.data.datasets import MNIST_FILES, DataSet, load
from nmtool.errors import ConfigError


def test_digits() -> None:
    from sklearn.datasets import load_digits

    data = load("digits")
    assert data.x_train.shape == (1397, 64)
    assert data.x_test.shape == (400, 64)
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int64
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    # Stratified: every class within one sample of its share.
    counts = np.bincount(data.y_test)
    assert np.abs(counts - 400 * np.bincount(load_digits().target) / 1797).max() < 1
    # Every sample of the source is in exactly one part.
    both = np.concatenate([data.x_train, data.x_test]) * 16
    assert sorted(map(bytes, both.astype(np.uint8))) == sorted(
        map(bytes, load_digits().data.astype(np.uint8))
    )
    assert data.spec == datasets.DataSpec("digits", (64,), (0.0, 1.0), tuple("0123456789"))


def test_digest_is_that_of_the_content() -> None:
    a, b = load("digits"), load("digits")
    assert a.sha256 == b.sha256
    y = a.y_train.copy()
    y[3] = (y[3] + 1) % 10
    assert DataSet("digits", a.x_train, y, a.x_test, a.y_test).sha256 != a.sha256


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"NM005.*'digit'.*Did you mean 'digits'\?.*\.npz"):
        load("digit")


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def fake_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four small files in the official layout, two of them compressed, with digests to match."""
    rng = np.random.default_rng(0)
    digests = {}
    for stem in MNIST_FILES:
        n = 30 if stem.startswith("train") else 20
        array = (
            rng.integers(0, 256, (n, 28, 28), np.uint8)
            if "idx3" in stem
            else (np.arange(n) % 10).astype(np.uint8)
        )
        raw = idx(array)
        digests[stem] = datasets.hashlib.sha256(raw).hexdigest()
        zipped = stem.startswith("t10k")
        (tmp_path / f"{stem}{'.gz' if zipped else ''}").write_bytes(gzip.compress(raw) if zipped else raw)
    monkeypatch.setattr(datasets, "MNIST_FILES", digests)
    return tmp_path


def test_mnist_layout(fake_mnist: Path) -> None:
    data = load("mnist", fake_mnist)
    assert data.x_train.shape == (30, 1, 28, 28)
    assert data.x_test.shape == (20, 1, 28, 28)
    raw = (fake_mnist / "train-images-idx3-ubyte").read_bytes()
    assert data.x_train[2, 0, 5, 7] == np.float32(raw[16 + 2 * 784 + 5 * 28 + 7]) * np.float32(1 / 255)
    assert data.y_train.tolist() == [i % 10 for i in range(30)]


def test_mnist_root_may_be_the_folder_above_or_come_from_the_environment(
    fake_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "root" / "mnist"
    inner.mkdir(parents=True)
    for path in [p for p in fake_mnist.iterdir() if p.is_file()]:
        path.rename(inner / path.name)
    monkeypatch.setenv(datasets.DATA_ROOT_VARIABLE, str(tmp_path / "root"))
    assert len(load("mnist").x_train) == 30


def test_mnist_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_ROOT_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=r"NM007.*mnist.*--data-root.*NMTOOL_DATA"):
        load("mnist")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda path, raw: path.unlink(), r"NM007.*train-images-idx3-ubyte: is missing"),
        (lambda path, raw: path.write_bytes(raw[:-1]), r"NM007.*train-images.*is not an IDX file"),
        (lambda path, raw: path.write_bytes(b""), r"NM007.*train-images.*is not an IDX file"),
        (
            lambda path, raw: path.write_bytes(raw[:3] + b"\x01" + raw[4:]),
            r"NM007.*is not an IDX file of 3-dimens",
        ),
        (
            lambda path, raw: path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1])),
            r"NM007.*not that of MNIST.*SHA-256",
        ),
    ],
)
def test_mnist_files_that_are_not_official(fake_mnist: Path, damage: object, match: str) -> None:
    path = fake_mnist / "train-images-idx3-ubyte"
    damage(path, path.read_bytes())  # type: ignore[operator]
    with pytest.raises(ConfigError, match=match):
        load("mnist", fake_mnist)


def test_mnist_truncated_archive(fake_mnist: Path) -> None:
    path = fake_mnist / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"NM007.*t10k-labels-idx1-ubyte.gz: cannot be read"):
        load("mnist", fake_mnist)


def test_mnist_of_this_machine() -> None:
    root = os.environ.get(datasets.DATA_ROOT_VARIABLE)
    if not root or not list(Path(root).glob("**/train-images-idx3-ubyte*")):
        pytest.skip(f"${datasets.DATA_ROOT_VARIABLE} names no folder with MNIST")
    data = load("mnist")
    assert (len(data.x_train), len(data.x_test)) == (60000, 10000)
    assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]


def test_npz_with_its_own_test_part(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float64).reshape(6, 2, 2) / 24 * 3 - 1
    y = np.array([0, 1, 2, 0, 1, 2])
    np.savez(
        tmp_path / "a.npz",
        x=x,
        y=y,
        x_test=x[:3],
        y_test=y[:3],
        bounds=[-1.0, 2.0],
        class_labels=["u", "v", "w"],
    )
    data = load(str(tmp_path / "a.npz"))
    np.testing.assert_allclose(data.x_train, x.astype(np.float32))
    assert data.spec == datasets.DataSpec("a", (2, 2), (-1.0, 2.0), ("u", "v", "w"))


def test_npz_bytes_are_scaled_and_a_fifth_is_held_out(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (50, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(50) % 5)
    data = load(str(tmp_path / "a.npz"))
    assert (len(data.x_train), len(data.x_test)) == (40, 10)
    assert np.bincount(data.y_test).tolist() == [2] * 5
    assert data.class_labels == ("0", "1", "2", "3", "4")
    np.testing.assert_array_equal(
        np.sort(np.concatenate([data.x_train, data.x_test]).ravel()),
        np.sort((x * np.float32(1 / 255)).ravel()),
    )


GOOD = {"x": np.full((10, 3), 0.5), "y": np.arange(10) % 2}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"y": None}, r"NM006.*lacks the array 'y'; it holds x"),
        ({"x": np.full((10, 3), 1.5)}, r"NM007.*spans 1.5 to 1.5, allowed is \(0.0, 1.0\).*bounds"),
        ({"x": np.full((10, 3), 3)}, r"NM007.*x is int64, allowed are uint8 and float"),
        ({"x": np.full(10, 0.5)}, r"NM007.*\[B, \*shape\]"),
        ({"y": np.arange(9) % 2}, r"NM007.*x holds 10 samples, y 9 labels"),
        ({"y": np.zeros((10, 2), int)}, r"NM007.*y is int64 \(10, 2\), must be integers"),
        ({"y": np.linspace(0, 1, 10)}, r"NM007.*y is float64"),
        ({"y": np.arange(10) % 2 * 10**9}, r"NM007.*y reaches 1000000000, allowed is 0 to 65535"),
        ({"y": np.arange(10) % 2 - 1}, r"NM007.*y_train\[\d+\] is -1, allowed is 0 to 0"),
        ({"class_labels": np.array(["only"])}, r"NM007.*is 1, allowed is 0 to 0"),
        ({"bounds": np.array([1.0, 0.0])}, r"NM007.*bounds is \[1.0, 0.0\]"),
        ({"x_test": GOOD["x"]}, r"NM007.*only one of x_test and y_test"),
        (
            {"x_test": np.full((2, 4), 0.5), "y_test": np.array([0, 1])},
            r"NM007.*training sample is \(3,\), a test sample \(4,\)",
        ),
        ({"y": np.arange(10)}, r"NM007.*cannot be split.*Store x_test and y_test"),
        ({"x": np.array([{}] * 10, object)}, r"NM006.*is not a readable .npz file"),
    ],
)
def test_npz_that_does_not_fit(tmp_path: Path, changes: dict, match: str) -> None:
    arrays = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ConfigError, match=match):
        load(str(tmp_path / "a.npz"))


def test_npz_that_is_missing_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"NM001.*gone.npz"):
        load(str(tmp_path / "gone.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ConfigError, match=r"NM006.*text.npz"):
        load(str(tmp_path / "text.npz"))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ConfigError, match=r"NM006.*one.npz"):
        load(str(tmp_path / "one.npz"))
