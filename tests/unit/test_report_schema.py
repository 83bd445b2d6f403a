"""Records on disk: what is accepted, what a faulty one gets, and that nothing is left half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from energy_samples import SUMMARY, VERIFY, energy_record, robustness_record

from nmtool.errors import ConfigError
from nmtool.report import schema, tables


@pytest.mark.parametrize(
    "record", [VERIFY, SUMMARY, energy_record(), robustness_record()], ids=lambda r: r["schema"]
)
def test_round_trip(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "new" / "record.json"
    schema.save(record, path)
    assert schema.load(path) == record


def test_every_schema_has_tables_and_a_check() -> None:
    assert set(tables._KINDS) == set(schema.SCHEMAS)


def test_an_invalid_record_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "verify.json"
    schema.save(VERIFY, path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"NM004.*verify.json: layers: Field required"):
        schema.save({k: v for k, v in VERIFY.items() if k != "layers"}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["verify.json"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "NM006.*is not valid JSON"),
        ("{", "NM006.*is not valid JSON"),
        ('{"a": NaN}', "NM006.*NaN is not JSON"),
        ("[" * 100_000, "NM006.*is not valid JSON"),
        ("[1]", "NM004.*is a list, not a record"),
        ("3", "NM004.*is a number, not a record"),
        ("null", "NM004.*is nothing, not a record"),
        ("{}", "NM004.*has no schema"),
        (
            '{"schema": "nmtool.verify/2"}',
            r"NM004.*has schema \"nmtool.verify/2\". Did you mean 'nmtool.verify/1'",
        ),
        ('{"schema": []}', "NM004.*has schema"),
        ('{"schema": "nmtool.verify/1"}', r"NM004.*x.json: reference: Field required \(and 4 more\)"),
        (
            json.dumps({**VERIFY, "prediction_agreement": "much"}),
            "NM004.*prediction_agreement: .*valid number",
        ),
        (json.dumps(VERIFY).replace("0.96", "1e999"), "NM004.*layers.1.agreement"),
    ],
)
def test_faulty_records_are_named(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=error):
        schema.load(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NM001.*cannot be read"):
        schema.load(tmp_path / "nothing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="NM006.*is not valid JSON"):
        schema.load(tmp_path / "bytes.json")
