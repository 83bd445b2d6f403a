"""Damaged target files: whatever stands in them, the answer is a target or a coded error."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from nmtool import resources
from nmtool.errors import CODES, NmtoolError
from nmtool.target import load_profiles, load_target

WHOLE = resources.find("targets", "loihi1").read_text(encoding="utf-8")
LIBRARY = (resources.find("targets", "loihi1").parent / "energy" / "generic.toml").read_text(encoding="utf-8")
SNIPPETS = ["", "{", "}", "[", "]", "[[chip]]\n", "=", '"', "nan", "-inf", "true", "1e400", "9" * 30, "0x1f", "{ value = 1 }", "\x00", "ü",
            'extends = "loihi1"\n', "energy = 1\n", "1979-05-27", "schema", "null", "[chip.cores]\n", "''' "]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 40))
        put = draw(st.sampled_from(SNIPPETS) | st.text(max_size=6))
        text = text[:at] + put + text[at + cut :]
    content = text.encode("utf-8")
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content


def read(content: bytes, reader: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.toml"
        path.write_bytes(content)
        try:
            reader(path)  # type: ignore[operator]
        except NmtoolError as e:
            assert e.code in CODES
            assert e.exit_code in (2, 3, 5)
            assert e.where


@settings(max_examples=3000, deadline=None)
@given(damaged(WHOLE))
def test_damaged_target(content: bytes) -> None:
    read(content, load_target)


@settings(max_examples=30000, deadline=None)
@given(damaged(LIBRARY))
def test_damaged_profiles(content: bytes) -> None:
    read(content, load_profiles)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes(content: bytes) -> None:
    read(content, load_target)
