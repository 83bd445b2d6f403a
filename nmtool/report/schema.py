"""Records on disk: read, checked against their schema, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from nmtool import provenance
from nmtool.errors import ConfigError, did_you_mean
from nmtool.report.records import RECORDS

SCHEMAS = tuple(RECORDS)


def validate(record: Any, where: str) -> dict[str, Any]:
    """The record itself, if it has everything that tables, figures and re-pricing read.

    Args:
        record: a JSON document.
        where: its file, for messages.

    Raises:
        ConfigError: NM004 if it is no record, of an unknown schema, or lacks something.
    """
    if not isinstance(record, dict):
        raise ConfigError(
            "NM004", where, f"is {_kind(record)}, not a record", "Name a .json file that nmtool wrote"
        )
    schema = record.get("schema")
    if not isinstance(schema, str) or schema not in RECORDS:
        found = "has no schema" if schema is None else f"has schema {json.dumps(schema)[:60]}"
        raise ConfigError("NM004", where, found, did_you_mean(str(schema), SCHEMAS))
    model: type[BaseModel] = RECORDS[schema]
    try:
        model.model_validate(record)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f" (and {e.error_count() - 1} more)" if e.error_count() > 1 else ""
        raise ConfigError("NM004", f"{where}: {key}", f"{first['msg']}{more}", "Make the record again") from e
    return record


def load(path: Path) -> dict[str, Any]:
    """Read and check a record.

    Raises:
        ConfigError: NM001 if there is no such file, NM006 if it is not JSON, NM004 as :func:`validate`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError("NM001", str(path), f"cannot be read ({e.strerror or e})") from e
    except UnicodeDecodeError as e:
        raise ConfigError("NM006", str(path), f"is not valid JSON ({e})") from e
    try:
        record = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise ConfigError("NM006", str(path), f"is not valid JSON ({e})") from e
    return validate(record, str(path))


def save(record: Mapping[str, Any], path: Path) -> None:
    """Check a record and write it.

    Raises:
        ConfigError: NM002 if it cannot be written, NM004 as :func:`validate`.
    """
    provenance.write_json(path, validate(dict(record), str(path)))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
