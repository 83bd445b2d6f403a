"""Finding and making the Lava environment, with interpreters that are small scripts."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nmtool import lava_env
from nmtool.errors import BackendUnavailableError

TOLD = {"python": [3, 10, 13], "lava": "0.10.0", "lava_dl": None}


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No Lava anywhere, and folders of our own in its places."""
    monkeypatch.delenv("NMTOOL_LAVA_PYTHON", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(lava_env, "_here", lambda: None)
    return tmp_path


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def telling(path: Path, **changed) -> Path:
    """An interpreter that reports these versions, whatever it is asked."""
    return script(path, f"echo '{json.dumps({**TOLD, **changed})}'")


def fake_310(path: Path, venv: str = "", pip: str = "", imports: str = "") -> Path:
    """A Python 3.10 whose ``venv`` makes an environment with a Python like itself; each step may fail."""
    return script(
        path,
        f"""
case "$*" in
  *"-m venv"*) {venv or ":"}; mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"-m pip download"*) {pip or ":"}
    for a; do test "$before" = --dest && into="$a"; before="$a"; done
    cp "$FAKE_WHEEL" "$into/lava_dl-0.6.0-py3-none-any.whl" ;;
  *"-m pip"*) {pip or ":"}; echo "$*" >> "{path.parent}/pip.log" ;;
  *"import lava"*) {imports or ":"} ;;
  *) echo '{json.dumps(TOLD)}' ;;
esac""",
    )


def installed(folder: Path) -> Path:
    """A complete environment."""
    telling(folder / "bin" / "python")
    (folder / lava_env.MARKER).write_text(
        json.dumps({"python": "3.10.13", "lava": "0.10.0", "lava_dl": None})
    )
    return folder


def test_without_lava_nothing_is_found_and_status_says_where_it_looked(nowhere):
    assert lava_env.find() is None
    status = lava_env.status()
    assert status["installed"] is False
    assert str(nowhere / "prefix") in status["reason"]
    assert str(nowhere / "data") in status["reason"]
    with pytest.raises(BackendUnavailableError, match=r"NM301.*nmtool lava install"):
        lava_env.require()


def test_the_variable_wins_over_the_installation_and_that_over_the_users(nowhere, monkeypatch):
    users = installed(nowhere / "data" / "nmtool" / "lava")
    assert lava_env.require().python == users / "bin" / "python"
    ours = installed(nowhere / "prefix" / "share" / "nmtool" / "lava")
    assert lava_env.require().python == ours / "bin" / "python"
    named = telling(nowhere / "named", lava="0.10.1")
    monkeypatch.setenv("NMTOOL_LAVA_PYTHON", str(named))
    env = lava_env.require()
    assert (env.python, env.origin, env.versions["lava"]) == (named, "$NMTOOL_LAVA_PYTHON", "0.10.1")
    assert lava_env.status()["interpreter"] == str(named)


@pytest.mark.parametrize("case", ["missing", "fails", "babbles", "without lava"])
def test_a_variable_that_names_something_else_is_an_error_and_not_passed_over(case, nowhere, monkeypatch):
    installed(nowhere / "data" / "nmtool" / "lava")
    path = nowhere / "named"
    if case == "fails":
        script(path, "exit 127")
    elif case == "babbles":
        script(path, "echo Python 3")
    elif case == "without lava":
        telling(path, lava=None)
    monkeypatch.setenv("NMTOOL_LAVA_PYTHON", str(path))
    match = "without lava-nc" if case == "without lava" else "is no Python"
    with pytest.raises(BackendUnavailableError, match=rf"NM301.*NMTOOL_LAVA_PYTHON.*{match}"):
        lava_env.find()
    assert lava_env.status()["installed"] is False
    assert match in lava_env.status()["reason"]


@pytest.mark.parametrize("damage", ["no marker", "empty marker", "marker of another kind", "no interpreter"])
def test_an_incomplete_environment_is_not_believed(damage, nowhere):
    folder = installed(nowhere / "data" / "nmtool" / "lava")
    marker = folder / lava_env.MARKER
    if damage == "no marker":
        marker.unlink()
    elif damage == "no interpreter":
        (folder / "bin" / "python").unlink()
    else:
        marker.write_text("" if damage == "empty marker" else "[1]")
    assert lava_env.find() is None


def test_install_makes_the_environment_once_and_is_then_quiet(nowhere):
    python = fake_310(nowhere / "py" / "python3.10")
    said: list[str] = []
    env = lava_env.install(str(python), progress=said.append)
    assert env.python == nowhere / "prefix" / "share" / "nmtool" / "lava" / "bin" / "python"
    assert env == lava_env.require()
    assert len(said) == 1
    assert "lava-nc==0.10.0" in said[0]
    assert "install --quiet" in (python.parent / "pip.log").read_text()
    assert lava_env.install(str(nowhere / "not even there"), progress=said.append) == env
    assert len(said) == 1


@pytest.mark.parametrize(
    ("step", "match"),
    [("venv", "venv: failed with exit code 9: no ensurepip"), ("pip", "pip: failed with exit code 9: no ensurepip"),
     ("imports", "import lava: failed with exit code 9: no ensurepip")],
)  # fmt: skip
def test_an_installation_that_fails_says_why_and_leaves_nothing(step, match, nowhere):
    python = fake_310(nowhere / "py" / "python3.10", **{step: "echo no ensurepip; exit 9"})
    with pytest.raises(BackendUnavailableError, match=f"NM305.*{match}"):
        lava_env.install(str(python))
    assert lava_env.find() is None
    left = [p.name for p in (nowhere / "prefix" / "share" / "nmtool").iterdir()]
    assert left == [".lava.lock"]


def test_what_an_interrupted_installation_left_is_cleared(nowhere):
    place = nowhere / "prefix" / "share" / "nmtool"
    for name in ("lava.part", "lava"):
        (place / name / "bin").mkdir(parents=True)
        (place / name / "old").touch()
    env = lava_env.install(str(fake_310(nowhere / "py" / "python3.10")))
    assert env == lava_env.require()
    assert sorted(p.name for p in place.iterdir()) == [".lava.lock", "lava"]
    assert not (place / "lava" / "old").exists()


def test_an_installation_that_cannot_write_beside_nmtool_goes_to_the_users_folder(nowhere, monkeypatch):
    monkeypatch.setattr(os, "access", lambda p, mode: "prefix" not in str(p))
    (nowhere / "prefix").mkdir()
    env = lava_env.install(str(fake_310(nowhere / "py" / "python3.10")))
    assert env.python.is_relative_to(nowhere / "data" / "nmtool")
    monkeypatch.setattr(os, "access", lambda p, mode: False)
    (nowhere / "data" / "nmtool" / "lava" / lava_env.MARKER).unlink()
    with pytest.raises(BackendUnavailableError, match=r"NM305.*can be written.*XDG_DATA_HOME"):
        lava_env.install(str(nowhere / "py" / "python3.10"))


def test_lava_dl_is_not_installed_into_an_environment_of_somebody_else(nowhere, monkeypatch):
    monkeypatch.setenv("NMTOOL_LAVA_PYTHON", str(telling(nowhere / "named")))
    with pytest.raises(BackendUnavailableError, match=r"NM305.*has no lava-dl"):
        lava_env.install(with_lava_dl=True)


def only_on_path(monkeypatch, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_pythons_are_tried_in_order_until_one_runs(nowhere, monkeypatch):
    tools = nowhere / "tools"
    only_on_path(monkeypatch, tools)
    pyenv = telling(nowhere / "root" / "bin" / "python3.10")
    script(tools / "pyenv", f"test \"$1 $2\" = 'prefix 3.10' && echo {nowhere / 'root'}")
    script(tools / "python3.10", "echo 'pyenv: python3.10: command not found' >&2; exit 127")
    assert lava_env.find_python() == pyenv
    telling(tools / "python3.10")
    assert lava_env.find_python() == tools / "python3.10"
    uvs = telling(nowhere / "uv" / "python3.10")
    script(tools / "uv", f"test \"$*\" = 'python find 3.10' && echo {uvs}")
    assert lava_env.find_python() == uvs
    telling(uvs, python=[3, 12, 1])
    assert lava_env.find_python() == tools / "python3.10"


def test_no_python_310_is_nm302_and_says_how_to_get_one(nowhere, monkeypatch):
    only_on_path(monkeypatch, nowhere / "tools")
    for name in ("uv", "pyenv", "python3.10"):
        script(nowhere / "tools" / name, "exit 1")
    with pytest.raises(BackendUnavailableError, match=r"NM302.*uv python install 3\.10"):
        lava_env.install()
    assert not (nowhere / "prefix").exists()


@pytest.mark.parametrize(
    ("made", "match"),
    [(None, "does not run"), ({"python": [3, 12, 1]}, "is Python 3.12.1")],
    ids=["missing", "another"],
)
def test_a_named_python_that_is_no_310_is_nm302(made, match, nowhere):
    path = nowhere / "named"
    if made:
        telling(path, **made)
    with pytest.raises(BackendUnavailableError, match=f"NM302.*{match}; Lava needs Python 3.10"):
        lava_env.find_python(str(path))


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(f"{lava_env.RECORDINGS_IN_WHEEL}dense/in.npy", b"data")
        z.writestr("lava/lib/dl/netx/hdf5.py", b"not wanted")
    return path


def test_recordings_are_taken_out_of_the_wheel_once(nowhere):
    path = wheel(nowhere / "lava_dl.whl")
    folder = lava_env.install_recordings(path)
    assert (folder / "dense" / "in.npy").read_bytes() == b"data"
    assert folder == lava_env.find_recordings()
    assert not list(nowhere.rglob("hdf5.py"))
    path.unlink()
    assert lava_env.install_recordings(path) == folder


def test_recordings_are_fetched_without_what_lava_dl_depends_on(nowhere, monkeypatch):
    python = fake_310(nowhere / "py" / "python3.10", pip='case "$*" in *--no-deps*) ;; *) exit 8 ;; esac')
    monkeypatch.setenv("NMTOOL_LAVA_PYTHON", str(python))
    monkeypatch.setenv("FAKE_WHEEL", str(wheel(nowhere / "lava_dl.whl")))
    said: list[str] = []
    folder = lava_env.install_recordings(progress=said.append)
    assert (folder / "dense" / "in.npy").is_file()
    assert "lava-dl==0.6.0" in said[0]


def test_a_damaged_wheel_leaves_no_recordings(nowhere):
    path = nowhere / "lava_dl.whl"
    path.write_bytes(b"PK\x03\x04 half")
    with pytest.raises(BackendUnavailableError, match=r"NM305.*is no readable wheel"):
        lava_env.install_recordings(path)
    assert lava_env.find_recordings() is None


def test_the_worker_starts_from_this_package_and_sees_nothing_else_of_ours():
    python, isolated, flag, code, package = lava_env.LavaEnv(Path(sys.executable), "", {}).worker_command
    look = "import nmtool.backends.frames as f; print(f.__file__); print(sys.path)"
    code = code.replace("from nmtool.backends.lava_worker import main\nmain()", look)
    environment = {**os.environ, "PYTHONPATH": "/elsewhere"}
    command = [python, isolated, flag, code, package]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    where, path = done.stdout.splitlines()
    assert Path(where) == Path(lava_env.__file__).parent / "backends" / "frames.py"
    assert "/elsewhere" not in path
