"""Where targets and recipes are found, in which order, and what an unknown name says."""

from pathlib import Path

import pytest

from nmtool import resources
from nmtool.errors import BackendUnavailableError, ConfigError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of targets, named by the environment."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("NMTOOL_TARGETS", str(folder))
    return folder


def test_what_ships_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NMTOOL_TARGETS", raising=False)
    names = [p.stem for p in resources.listing("targets")]
    assert names == sorted(names)
    assert {"loihi", "loihi1", "loihi2"} <= set(names)
    assert resources.find("targets", "loihi1").read_text().startswith("#")
    assert "digits-tgo" in [p.stem for p in resources.listing("models")]


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loihi1").write_text("mine")
    assert resources.find("targets", "loihi1") == Path("loihi1")


def test_the_environment_wins_over_what_ships(own: Path) -> None:
    (own / "loihi1.toml").write_text("mine")
    (own / "zebra.toml").write_text("mine")
    assert resources.find("targets", "loihi1") == own / "loihi1.toml"
    names = [p.stem for p in resources.listing("targets")]
    assert names == sorted(names)
    assert names.count("loihi1") == 1
    assert {"zebra", "loihi2"} <= set(names)


def test_an_environment_variable_that_names_no_folder(own: Path) -> None:
    own.rmdir()
    with pytest.raises(ConfigError, match=r"NM001.*own: is no folder, but \$NMTOOL_TARGETS names it"):
        resources.find("targets", "loihi")


def test_an_installed_package_has_its_data_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a wheel ``_data`` is there; beside a checkout it is not, and the repository's folder serves."""
    monkeypatch.delenv("NMTOOL_TARGETS", raising=False)
    package = tmp_path / "site" / "nmtool"
    for folder in (package / "_data" / "targets", tmp_path / "site" / "targets"):
        folder.mkdir(parents=True)
        (folder / "a.toml").write_text(folder.parent.name)
    monkeypatch.setattr("importlib.resources.files", lambda name: package)
    assert resources.folders("targets") == [package / "_data" / "targets", tmp_path / "site" / "targets"]
    assert resources.find("targets", "a").read_text() == "_data"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("targets", "loihi11", r"error\[NM005\] loihi11: no target of that name. Did you mean 'loihi1'\?$"),
        ("targets", "speck", r"error\[NM005\] speck: no target of that name. Known: loihi, loihi1"),
        (
            "models",
            "digit-tgo",
            r"error\[NM005\] digit-tgo: no recipe of that name. Did you mean 'digits-tgo'\?$",
        ),
        (
            "targets",
            "my/loihi9.toml",
            r"error\[NM001\] my/loihi9.toml: no such file. Did you mean 'loihi\d?'\?$",
        ),
        (
            "models",
            "nowhere/digits-tgo.toml",
            r"error\[NM001\] .*no such file. 'digits-tgo' ships with nmtool",
        ),
    ],
)
def test_an_unknown_name_says_the_nearest(kind: resources.Kind, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resources.find(kind, name)


def test_packages_that_are_there_and_not() -> None:
    assert resources.have("numpy")
    assert not resources.have("no_such_package_of_nmtool")
    assert resources.version("numpy") is not None
    assert resources.version("no-such-distribution-of-nmtool") is None
    assert resources.require("json", "a test", "").loads("1") == 1
    with pytest.raises(BackendUnavailableError, match=r"NM303.*a test needs it, but it cannot be imported"):
        resources.require("no_such_package_of_nmtool", "a test", "Install it")
