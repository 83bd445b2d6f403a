"""Files written safely, and where a result came from: versions, seeds, hashes, command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from nmtool import __version__
from nmtool.errors import ConfigError

PACKAGES = ("numpy", "torch", "snntorch", "nir", "numba", "h5py", "scikit-learn")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed over it when the block ends well, and removed otherwise.

    Raises:
        ConfigError: NM002 if the folder or file cannot be written; what was there before stays.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        yield part
        part.chmod(0o644)
        part.replace(path)
    except OSError as e:
        raise ConfigError(
            "NM002",
            str(path),
            f"cannot be written ({e.strerror or e})",
            "Choose a folder that you may write to, with --out",
        ) from e
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def claim_folder(path: Path) -> None:
    """Make a folder for results, before the work that fills it.

    Raises:
        ConfigError: NM002 if it cannot be made or nothing can be written into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        message = f"cannot be written ({e.strerror or e})"
        raise ConfigError(
            "NM002", str(path), message, "Choose a folder that you may write to, with --out"
        ) from e


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """One JSON document, indented, NaN refused, written aside and renamed."""
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    with writing(path) as part:
        part.write_text(text, encoding="utf-8")


def sha256_file(path: Path) -> str:
    """Digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Versions of nmtool, Python and what it computes with; no host name, no user name, no path."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "nmtool": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions,
    }


def record(seed: int | None = None, **hashes: str) -> dict[str, Any]:
    """What stands in every result: command, time, versions, seed and the digests of the inputs."""
    return {
        "command": shlex.join(["nmtool", *sys.argv[1:]]),
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": environment(),
        "seed": seed,
        "sha256": hashes,
    }
