"""Damaged target files: whatever stands in them, the answer is a target or a coded error."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool import resources
from nmtool.errors import CODES, NmtoolError
from nmtool.target import load_profiles, load_target

SHIPPED = resources.find("targets", "loihi1")
WHOLE = SHIPPED.read_text(encoding="utf-8")
LIBRARY = (SHIPPED.parent / "energy" / "generic.toml").read_text(encoding="utf-8")
SNIPPETS = (
    *(
        "",
        "{",
        "}",
        "[",
        "]",
        "[[chip]]\n",
        "=",
        '"',
        "nan",
        "-inf",
        "true",
        "1e400",
        "9" * 30,
        "0x1f",
        "schema",
    ),
    *(
        "{ value = 1 }",
        "\x00",
        "ü",
        'extends = "loihi1"\n',
        "energy = 1\n",
        "1979-05-27",
        "[chip.cores]\n",
        "''' ",
    ),
)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 40))
        put = draw(st.sampled_from(SNIPPETS) | st.text(max_size=6))
        text = text[:at] + put + text[at + cut :]
    content = text.encode("utf-8")
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content


def refused(content: bytes, reader: Callable[[Path], object]) -> NmtoolError | None:
    """What the reader says against a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.toml"
        path.write_bytes(content)
        try:
            reader(path)
        except NmtoolError as e:
            return e
    return None


def read(content: bytes, reader: Callable[[Path], object]) -> None:
    """Read, or be refused in the way that the contract names."""
    error = refused(content, reader)
    if error is not None:
        assert error.code in CODES
        assert error.exit_code in (2, 5)
        assert "t.toml" in str(error)


@settings(max_examples=300, deadline=None)
@given(damaged(WHOLE))
def test_damaged_target(content: bytes) -> None:
    read(content, load_target)


@settings(max_examples=200, deadline=None)
@given(damaged(LIBRARY))
def test_damaged_profiles(content: bytes) -> None:
    read(content, load_profiles)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes(content: bytes) -> None:
    read(content, load_target)
