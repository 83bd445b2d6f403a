"""Damaged records: what passes the check can be drawn, everything else is a coded error."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from energy_samples import SUMMARY, VERIFY, energy_record, robustness_record
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from nmtool.errors import CODES, EvaluationError, NmtoolError
from nmtool.metrics.energy import reprice
from nmtool.report import html as page
from nmtool.report import schema, text
from nmtool.target import load_target

RECORDS = {r["schema"]: r for r in (energy_record(), robustness_record(), VERIFY, SUMMARY)}
NUMBERS = st.integers() | st.floats(allow_nan=False) | st.sampled_from([0, -1, 10**400, 1e308])
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.just([]) | st.just({})


def paths(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON document, outermost first."""
    below: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    deeper = [p for k, v in below for p in paths(v, (*at, k))]
    return [at, *deeper] if at else deeper


def mutate(record: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    out = copy.deepcopy(record)
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(paths(out)))
        node: Any = out
        for key in above:
            node = node[key]
        if isinstance(node, dict) and data.draw(st.booleans()) and len(out) > 1:
            del node[last]
        else:
            node[last] = data.draw(LEAVES)
    return out


def refused(record: Any) -> NmtoolError | None:
    """What the check says against a record."""
    try:
        schema.validate(record, "record.json")
    except NmtoolError as e:
        return e
    return None


def outcome(path: Path) -> str:
    """The code that a file is refused with, or ``read``."""
    try:
        schema.load(path)
    except NmtoolError as e:
        return e.code
    return "read"


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_passes_the_check_can_be_drawn(name: str, data: st.DataObject) -> None:
    record = mutate(RECORDS[name], data)
    error = refused(record)
    if error is not None:
        assert error.code in CODES
        return
    Console(file=io.StringIO(), width=120).print(text.render(record))
    if record["schema"] == "nmtool.energy-report/1":
        with contextlib.suppress(EvaluationError):
            reprice(record, load_target("loihi1"))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(("nmtool.energy-report/1", "nmtool.robustness/1")), st.data())
def test_what_passes_the_check_makes_a_page(name: str, data: st.DataObject) -> None:
    record = mutate(RECORDS[name], data)
    if refused(record) is None:
        assert page.page(record).rstrip().endswith("</html>")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(RECORDS)), st.data())
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    content = json.dumps(RECORDS[name]).encode()
    at = data.draw(st.integers(0, len(content)))
    content = content[:at] + data.draw(st.binary(max_size=4)) + content[at + data.draw(st.integers(0, 30)) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.json"
        path.write_bytes(content)
        assert outcome(path) in ("read", *CODES)
