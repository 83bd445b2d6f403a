"""Data sets as arrays: digits from scikit-learn, MNIST from its official files, others from .npz files."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.data.files import read_npz
from nmtool.errors import ConfigError, did_you_mean

DATA_ROOT_VARIABLE = "NMTOOL_DATA"
SPLIT_SEED = 0
DIGITS_TEST = 400
NPZ_TEST_SHARE = 0.2
MAX_CLASSES = 65536

Split = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]
"""x_train, y_train, x_test, y_test."""

# SHA-256 of the decompressed official files.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class DataSpec:
    """What a network must know about its data.

    Attributes:
        name: of the data set.
        shape: of one sample.
        bounds: smallest and largest possible value.
        class_labels: one per class.
    """

    name: str
    shape: tuple[int, ...]
    bounds: tuple[float, float]
    class_labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples and labels, split into training and test.

    Attributes:
        name: as in :func:`load`.
        x_train, x_test: float32 ``[B, *shape]`` in ``bounds``.
        y_train, y_test: int64 ``[B]``, index into ``class_labels``.
        bounds: smallest and largest possible value.
        class_labels: one per class.

    Raises:
        ConfigError: NM007 if arrays are empty, do not fit each other, leave ``bounds``, or hold a label
            outside the classes. (Values that are not finite are reported by training, NM405.)
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    bounds: tuple[float, float] = (0.0, 1.0)
    class_labels: tuple[str, ...] = field(default=tuple("0123456789"))

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            self._check(part, getattr(self, f"x_{part}"), getattr(self, f"y_{part}"))

    def _check(self, part: str, x: NDArray[Any], y: NDArray[Any]) -> None:
        where, n_classes = f"data set {self.name}", len(self.class_labels)
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not x.size:
            raise ConfigError(
                "NM007", where, f"x_{part} {x.shape}, y_{part} {y.shape} must be [B, *shape], [B]"
            )
        if x.shape[1:] != self.x_train.shape[1:]:
            raise ConfigError(
                "NM007", where, f"a training sample is {self.x_train.shape[1:]}, a test sample {x.shape[1:]}"
            )
        if ((x < self.bounds[0]) | (x > self.bounds[1])).any():
            raise ConfigError(
                "NM007",
                where,
                f"x_{part} spans {x.min():g} to {x.max():g}, allowed is {self.bounds}",
                "Scale x, or store its range as 'bounds'",
            )
        if y.min() < 0 or y.max() >= n_classes:
            bad = int(np.flatnonzero((y < 0) | (y >= n_classes))[0])
            raise ConfigError("NM007", where, f"y_{part}[{bad}] is {y[bad]}, allowed is 0 to {n_classes - 1}")

    @property
    def spec(self) -> DataSpec:
        """What a network must know about these data."""
        return DataSpec(self.name, tuple(self.x_train.shape[1:]), self.bounds, self.class_labels)

    @cached_property
    def sha256(self) -> str:
        """Digest of all four arrays."""
        digest = hashlib.sha256()
        for a in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(np.ascontiguousarray(a).data)
        return digest.hexdigest()


def load(name: str, data_root: Path | None = None) -> DataSet:
    """A data set by name, or from an .npz file.

    Args:
        name: ``digits``, ``mnist``, or a path that ends in ``.npz``.
        data_root: folder that holds ``mnist/`` or the MNIST files themselves; default: ``$NMTOOL_DATA``.

    Raises:
        ConfigError: NM001 a file does not exist, NM005 unknown name, NM006 not an .npz file, NM007 files are
            missing or do not have their official layout.
    """
    if name.endswith(".npz"):
        return _npz(Path(name))
    if name not in LOADERS:
        raise ConfigError(
            "NM005",
            f"data set {name!r}",
            "no such data set",
            f"{did_you_mean(name, LOADERS)} or the path of an .npz file",
        )
    return LOADERS[name](data_root)


def _digits(_data_root: Path | None) -> DataSet:
    """8x8 digits, x / 16 in [0, 1], flat; 1397 training and 400 test samples, stratified."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return DataSet("digits", *_split(bunch.data / 16.0, bunch.target, DIGITS_TEST))


def _split(x: NDArray[Any], y: NDArray[Any], n_test: int | float) -> Split:
    """Stratified split with a fixed seed."""
    from sklearn.model_selection import train_test_split

    x_train, x_test, y_train, y_test = train_test_split(
        x.astype(np.float32), y.astype(np.int64), test_size=n_test, random_state=SPLIT_SEED, stratify=y
    )
    return x_train, y_train, x_test, y_test


def _mnist(data_root: Path | None) -> DataSet:
    """MNIST, x / 255 in [0, 1], ``(1, 28, 28)``."""
    named = data_root or os.environ.get(DATA_ROOT_VARIABLE)
    if not named:
        raise ConfigError(
            "NM007",
            "data set mnist",
            "no folder was named that holds its IDX files",
            f"Name it with --data-root or ${DATA_ROOT_VARIABLE}",
        )
    root = Path(named)
    folder = root / "mnist" if (root / "mnist").is_dir() else root
    parts = [_idx(folder, stem, digest) for stem, digest in MNIST_FILES.items()]
    x_train, y_train, x_test, y_test = parts
    scale = np.float32(1 / 255)
    return DataSet(
        "mnist",
        x_train[:, None] * scale,
        y_train.astype(np.int64),
        x_test[:, None] * scale,
        y_test.astype(np.int64),
    )


def _idx(folder: Path, stem: str, digest: str) -> NDArray[np.uint8]:
    """One IDX file of unsigned bytes (magic 0, 0, 8, rank; then big-endian sizes), plain or .gz."""
    path = next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)
    if path is None:
        raise ConfigError(
            "NM007", str(folder / stem), "is missing, also as .gz", "Put the official MNIST files there"
        )
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as e:
        raise ConfigError("NM007", str(path), f"cannot be read ({e})", "Fetch the file again") from e
    rank = 3 if "idx3" in stem else 1
    sizes = tuple(np.frombuffer(raw[4 : 4 + 4 * rank].ljust(4 * rank, b"\0"), ">u4").tolist())
    if raw[:4] != bytes((0, 0, 8, rank)) or len(raw) != 4 + 4 * rank + int(np.prod(sizes)):
        raise ConfigError(
            "NM007",
            str(path),
            f"is not an IDX file of {rank}-dimensional bytes ({len(raw)} bytes)",
            "Fetch the official file again",
        )
    if hashlib.sha256(raw).hexdigest() != digest:
        raise ConfigError(
            "NM007",
            str(path),
            "is an IDX file, but not that of MNIST (its SHA-256 differs)",
            "Fetch the official file again; other data go in an .npz file",
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _npz(path: Path) -> DataSet:
    """Arrays ``x`` and ``y``, optionally ``x_test``, ``y_test``, ``bounds`` (2 values) and ``class_labels``.

    uint8 samples are divided by 255. Without test arrays a stratified fifth is held out.
    """
    z = read_npz(path, ("x", "y"), ("x_test", "y_test", "bounds", "class_labels"))
    if ("x_test" in z) != ("y_test" in z):
        raise ConfigError("NM007", str(path), "has only one of x_test and y_test", "Store both or neither")
    x, y = _samples(path, "x", z), _labels(path, "y", z)
    bounds = z.get("bounds", np.array([0.0, 1.0])).reshape(-1)
    if bounds.shape != (2,) or bounds.dtype.kind not in "fiu" or not bounds[0] < bounds[1]:
        raise ConfigError("NM007", str(path), f"bounds is {bounds.tolist()}, must be [smallest, largest]")
    names = z.get("class_labels", np.arange(y.max(initial=0) + 1)).reshape(-1)
    split = (
        (x, y, _samples(path, "x_test", z), _labels(path, "y_test", z))
        if "x_test" in z
        else _hold_out(path, x, y)
    )
    return DataSet(
        path.stem, *split, bounds=(float(bounds[0]), float(bounds[1])), class_labels=tuple(map(str, names))
    )


def _samples(path: Path, key: str, z: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    x = z[key]
    if x.dtype == np.uint8:
        return x * np.float32(1 / 255)
    if x.dtype.kind != "f":
        raise ConfigError("NM007", str(path), f"{key} is {x.dtype}, allowed are uint8 and float")
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def _labels(path: Path, key: str, z: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    y = z[key]
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise ConfigError("NM007", str(path), f"{key} is {y.dtype} {y.shape}, must be integers [B]")
    if y.size and not 0 <= y.max() < MAX_CLASSES:
        raise ConfigError("NM007", str(path), f"{key} reaches {y.max()}, allowed is 0 to {MAX_CLASSES - 1}")
    return y.astype(np.int64)


def _hold_out(path: Path, x: NDArray[np.float32], y: NDArray[np.int64]) -> Split:
    """Hold out :data:`NPZ_TEST_SHARE`; a class too small for that is named."""
    if len(x) != len(y):
        raise ConfigError("NM007", str(path), f"x holds {len(x)} samples, y {len(y)} labels")
    try:
        return _split(x, y, NPZ_TEST_SHARE)
    except ValueError as e:
        raise ConfigError(
            "NM007",
            str(path),
            f"cannot be split into training and test ({e})",
            "Store x_test and y_test as well",
        ) from e


LOADERS: dict[str, Callable[[Path | None], DataSet]] = {"digits": _digits, "mnist": _mnist}
