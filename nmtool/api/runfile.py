"""A run on disk: predictions, counts and traces in one .npz without pickle, read again by ``energy-report --from``.

Keys: ``<layer>/spikes`` uint8 and ``<layer>/u``, ``<layer>/v`` (int32 registers, float32 from the float backend), all
``[T, B, *shape]`` in the layer's own time, for every recorded layer; ``layers`` and ``latency``: names of all layers
and the steps that were removed from each. Beside them ``logits``, ``predictions``, ``labels`` where they are known,
``run.counts/<layer>``, ``run.last/<layer>``, ``run.active/<layer>``, ``run.density/<layer>`` (see
:class:`nmtool.backends.base.RunResult`), and ``header``: the rest as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import RunResult, Trace
from nmtool.data.files import DAMAGED
from nmtool.errors import ConfigError
from nmtool.provenance import writing

SCHEMA = "nmtool.run-result/1"

_TABLES = {
    "run.counts": "spike_counts",
    "run.last": "last_spikes",
    "run.active": "active_updates",
    "run.density": "steps_density",
}
_SCALARS = ("backend", "model_sha256", "n_steps", "dt_s", "seed", "noise")

Arrays = dict[str, NDArray[Any]]


def save(
    result: RunResult, path: Path, record: Mapping[str, Any], labels: NDArray[np.int64] | None = None
) -> None:
    """Write a run.

    Args:
        result: the run.
        path: the ``.npz``; written aside and renamed.
        record: its JSON record, kept in the header.
        labels: int64 ``[B]`` of the samples, if known.

    Raises:
        ConfigError: NM002 if it cannot be written.
    """
    names = list(result.latency)
    arrays: Arrays = {
        "logits": result.logits,
        "predictions": result.predictions,
        "layers": np.array(names, dtype=np.str_),
        "latency": np.array([result.latency[n] for n in names], np.int64),
    }
    if labels is not None:
        arrays["labels"] = labels
    for prefix, attribute in _TABLES.items():
        arrays |= {f"{prefix}/{n}": a for n, a in (getattr(result, attribute) or {}).items()}
    for name, trace in result.traces.items():
        arrays |= {f"{name}/{k}": a for k, a in trace._asdict().items() if a is not None}
    header = {
        "schema": SCHEMA,
        **{k: getattr(result, k) for k in _SCALARS},
        "traced": list(result.traces),
        "has_active": result.active_updates is not None,
        "overflow": {n: dict(o) for n, o in result.overflow.items()},
        "failures": [dict(f) for f in result.failures],
        "record": dict(record),
    }
    arrays["header"] = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
    with writing(path) as part, part.open("wb") as f:
        np.savez_compressed(f, allow_pickle=False, **arrays)


def load(path: Path) -> tuple[RunResult, dict[str, Any], NDArray[np.int64] | None]:
    """Read what :func:`save` wrote: the run, its record and its labels.

    Raises:
        ConfigError: NM001 if there is no such file, NM006 if it is damaged or no run.
    """
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as z:
            arrays = {k: z[k] for k in z.files}
        header = json.loads(arrays["header"].tobytes().decode())
        if header["schema"] != SCHEMA:
            raise ValueError(f"schema is {header['schema']!r}, this version reads {SCHEMA!r}")
        return _result(header, arrays), dict(header["record"]), arrays.get("labels")
    except FileNotFoundError as e:
        raise ConfigError("NM001", str(path), "no such file", "Write one with nmtool run --out") from e
    except (OSError, *DAMAGED, AttributeError) as e:
        message = f"is not a saved run ({type(e).__name__}: {e})"
        raise ConfigError("NM006", str(path), message, "Write it again with nmtool run --out") from e


def _result(header: dict[str, Any], arrays: Arrays) -> RunResult:
    tables: dict[str, Any] = {
        attribute: {k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{prefix}/")}
        for prefix, attribute in _TABLES.items()
    }
    if not header["has_active"]:
        tables["active_updates"] = None
    names = [str(n) for n in arrays["layers"]]
    return RunResult(
        **{k: header[k] for k in _SCALARS},
        logits=arrays["logits"],
        latency=dict(zip(names, (int(n) for n in arrays["latency"]), strict=True)),
        traces={n: _trace(n, arrays) for n in header["traced"]},
        overflow=header["overflow"],
        failures=tuple(header["failures"]),
        **tables,
    )


def _trace(name: str, arrays: Arrays) -> Trace:
    return Trace(arrays[f"{name}/spikes"], arrays.get(f"{name}/u"), arrays.get(f"{name}/v"))
