"""Damaged recipes, data files and checkpoints: the answer is a value or a coded error, whatever the bytes."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool.config import Recipe, load_recipe, parse_recipe
from nmtool.data.datasets import MNIST_FILES, DataSet, load
from nmtool.data.encode import spikes_file
from nmtool.errors import CODES, NmtoolError
from nmtool.train.checkpoint import load_run
from nmtool.train.loop import train

WHOLE = load_recipe("digits-tgo").dump_toml()
SNIPPETS = [
    *(
        "",
        "[",
        "]",
        "[[train]]\n",
        "=",
        '"',
        "nan",
        "-inf",
        "true",
        "0",
        "-1",
        "1e400",
        "9" * 30,
        "[robust.tgo]\n",
    ),
    *("''' ", "{ lr = 1 }", "\x00", "1979-05-27", "[train]\n", "train.lr = 1\n", "\\u12", "é"),
]


@st.composite
def cut_and_pasted(draw: st.DrawFn) -> bytes:
    text = WHOLE
    for _ in range(draw(st.integers(1, 3))):
        at, cut = draw(st.integers(0, len(text))), draw(st.integers(0, 30))
        text = text[:at] + draw(st.sampled_from(SNIPPETS) | st.text(max_size=6)) + text[at + cut :]
    content = text.encode("utf-8")
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[float, bytes, bool]]:
    """Places (0 to 1), bytes to put there, and whether the rest is cut off."""
    one = st.tuples(
        st.floats(0, 1), st.binary(min_size=1, max_size=8), st.integers(0, 9).map(lambda n: n == 0)
    )
    return draw(st.lists(one, min_size=1, max_size=4))


def applied(content: bytes, changes: list[tuple[float, bytes, bool]]) -> bytes:
    for place, new, cut in changes:
        at = int(place * len(content))
        content = content[:at] + new + (b"" if cut else content[at + len(new) :])
    return content


def coded(read: Callable[[], object]) -> object | None:
    try:
        return read()
    except NmtoolError as e:
        error = e
    assert error.code in CODES
    assert error.exit_code in (2, 3)
    assert error.where
    return None


def with_file(name: str, content: bytes, read: Callable[[Path], object]) -> object | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return coded(lambda: read(path))


@settings(max_examples=300, deadline=None)
@given(cut_and_pasted())
def test_damaged_recipe(content: bytes) -> None:
    result = with_file("r.toml", content, load_recipe)
    assert result is None or isinstance(result, Recipe)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_override(text: str) -> None:
    coded(lambda: parse_recipe(WHOLE, "r.toml", (text, f"train.lr={text}", f"{text}=1")))


@settings(max_examples=300, deadline=None)
@given(
    name=st.text(min_size=1, max_size=20),
    summary=st.text(max_size=40),
    seed=st.integers(0, 2**63 - 1),
    hidden=st.lists(st.integers(1, 65536), max_size=4),
    numbers=st.tuples(*[st.floats(1e-300, 1e300) for _ in range(3)]),
    tgo=st.none()
    | st.fixed_dictionaries({"lambda_max": st.floats(0, 1e9), "v": st.sampled_from(["noisy", "clean"])}),
)
def test_writing_and_reading_back_is_the_identity(
    name: str,
    summary: str,
    seed: int,
    hidden: list[int],
    numbers: tuple[float, float, float],
    tgo: dict | None,
) -> None:
    recipe = Recipe.model_validate(
        {
            "name": name,
            "summary": summary,
            "seed": seed,
            "network": {"hidden": hidden, "dt_s": numbers[0]},
            "neuron": {"threshold": numbers[1], "width": numbers[2]},
            "robust": {} if tgo is None else {"tgo": tgo},
        }
    )
    again = parse_recipe(recipe.dump_toml(), "again.toml")
    assert again == recipe
    assert again.sha256 == recipe.sha256


@cache
def npz(kind: str) -> bytes:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        if kind == "spikes":
            spikes = (rng.random((4, 6, 5)) < 0.3).astype(np.uint8)
            np.savez(path, spikes=spikes, labels=np.arange(6), dt_s=np.float64(0.001))
        else:
            np.savez(path, x=rng.random((20, 5)), y=np.arange(20) % 2, class_labels=np.array(["a", "b"]))
        return path.read_bytes()


@settings(max_examples=300, deadline=None)
@given(edits())
def test_damaged_spike_file(changes: list[tuple[float, bytes, bool]]) -> None:
    with_file("s.npz", applied(npz("spikes"), changes), spikes_file)


@settings(max_examples=300, deadline=None)
@given(edits())
def test_damaged_data_file(changes: list[tuple[float, bytes, bool]]) -> None:
    with_file("d.npz", applied(npz("data"), changes), lambda path: load(str(path)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.sampled_from(sorted(MNIST_FILES)), st.sampled_from(["", ".gz"]))
def test_damaged_mnist_file(content: bytes, stem: str, suffix: str) -> None:
    assert with_file(f"{stem}{suffix}", content, lambda path: load("mnist", path.parent)) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("run")
    x, y = np.random.default_rng(0).random((8, 3)).astype(np.float32), np.arange(8) % 2
    data = DataSet("tiny", x, y, x, y, class_labels=("a", "b"))
    train(
        parse_recipe("network.hidden = [2]\nnetwork.n_steps = 2\ntrain.epochs = 1", "tiny.toml"), data, folder
    )
    return (folder / "checkpoint.pt").read_bytes(), (folder / "recipe.toml").read_bytes()


@settings(max_examples=300, deadline=None)
@given(changes=edits())
def test_damaged_checkpoint(run: tuple[bytes, bytes], changes: list[tuple[float, bytes, bool]]) -> None:
    def read(path: Path) -> object:
        (path.parent / "recipe.toml").write_bytes(run[1])
        return load_run(path.parent)

    with_file("checkpoint.pt", applied(run[0], changes), read)
