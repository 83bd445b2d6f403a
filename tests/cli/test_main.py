"""The frame around every verb: version, help, usage errors, exit codes, streams, and what a bug looks like."""

import json
import warnings
from pathlib import Path

import pytest
import typer

import nmtool
from nmtool import cli
from nmtool.cli.ui import Ui, table
from nmtool.cli.verbs import attach, verb
from nmtool.errors import ConfigError, ModelError, SimulationError


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """An empty command line behind ``cli.main``; a second verb keeps typer from dropping the verb's name."""
    fresh = typer.Typer()
    attach(fresh, verb("other")(lambda ui: None))
    monkeypatch.setattr(cli, "app", fresh)
    return fresh


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr() == (f"nmtool {nmtool.__version__}\n", "")


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert [v for v in VERBS if f" {v.split()[0]} " not in out] == []
    assert err == ""


VERBS = [
    "demo",
    "train",
    "export",
    "check",
    "run",
    "verify",
    "robustness-report",
    "energy-report",
    "targets list",
    "targets show",
    "models list",
    "models show",
    "lava install",
    "lava status",
    "doctor",
    "explain",
]


@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_verb_ends_with_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    out, _ = capsys.readouterr()
    examples = [line.strip() for line in out.partition("Examples:")[2].splitlines() if line.strip()]
    assert 2 <= len(examples) <= 3
    monkeypatch.setattr("nmtool.cli.verbs._run", lambda body, ui, options, debug: 0)
    for example in examples:
        assert example.startswith(f"nmtool {name}")
        assert cli.main(example.split()[1:]) == 0, example


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "error[NM004] nmtool: No such command 'trian'. Did you mean 'train'?"),
        (["explain"], "error[NM004] nmtool explain: Missing argument 'CODE'."),
        (["explain", "NM203", "--jsn"], "error[NM004] nmtool explain: No such option: --jsn"),
        (["run", "x.nir", "--n", "0"], "error[NM004] nmtool run: Invalid value for '--n' / '-n':"),
        (["run", "x.nir", "--seed", "a"], "error[NM004] nmtool run: Invalid value for '--seed':"),
    ],
)
def test_usage_errors_end_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert err.rstrip().endswith("--help'.")


@pytest.mark.parametrize("words", [[], ["targets"], ["models"], ["lava"]])
def test_a_group_alone_shows_its_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert "Usage: nmtool" in out + err
    assert "error" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("NM004", "a", "b"), 2),
        (ModelError("NM101", "a", "b"), 3),
        (SimulationError("NM402", "a", "b"), 5),
    ],
)
def test_a_coded_error_is_its_text_and_its_exit_code(
    app: typer.Typer, error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @verb("fail")
    def fail(ui: Ui) -> None:
        raise error

    attach(app, fail)

    assert cli.main(["fail"]) == code
    assert capsys.readouterr() == ("", f"{error}\n")


def test_a_bug_ends_with_70_and_leaves_its_traceback_in_a_file(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    @verb("fail")
    def fail(ui: Ui) -> None:
        raise KeyError("lost")

    attach(app, fail)

    assert cli.main(["fail"]) == 70
    out, err = capsys.readouterr()
    (written,) = tmp_path.iterdir()
    assert out == ""
    assert "this is a bug in nmtool" in err
    assert "KeyError: 'lost'" in err
    assert str(written) in err
    assert "Traceback" not in err
    assert 'raise KeyError("lost")' in written.read_text()


def test_debug_shows_the_traceback_of_a_bug(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    @verb("fail")
    def fail(ui: Ui) -> None:
        raise KeyError("lost")

    attach(app, fail)

    assert cli.main(["fail", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_with_130(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @verb("wait")
    def wait(ui: Ui) -> None:
        raise KeyboardInterrupt

    attach(app, wait)

    assert cli.main(["wait"]) == 130
    assert capsys.readouterr().out == ""


def test_streams_without_a_terminal(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    @verb("work")
    def work(ui: Ui) -> int:
        ui.watch("counting")(1, 2)
        ui.note("done counting")
        ui.warn("warning[NM251] fc: coarse.")
        warnings.warn("from a library", stacklevel=1)
        ui.result({"answer": 42}, "the answer is 42", table("", ("a", "b"), [("x", 1), ("long", 22)]))
        return 1

    attach(app, work)

    assert cli.main(["work"]) == 1
    out, err = capsys.readouterr()
    assert out == "the answer is 42\na      b\nx      1\nlong  22\n"
    assert err == "warning[NM251] fc: coarse.\n"

    assert cli.main(["work", "--json", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"answer": 42}
    assert err == ""


def test_verbose_says_more_also_without_a_terminal(
    app: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    @verb("work")
    def work(ui: Ui) -> None:
        ui.watch("counting")(1, 2)
        ui.note("done counting")

    attach(app, work)

    assert cli.main(["work", "-v"]) == 0
    assert capsys.readouterr() == ("", "counting\ndone counting\n")


def test_options_of_a_verb_reach_it_by_type(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    seen = {}

    @verb("take")
    def take(ui: Ui, n: int, path: Path = Path("here"), flag: bool = False) -> None:
        seen.update(n=n, path=path, flag=flag)

    attach(app, take)

    assert cli.main(["take", "3", "--path", "there", "--flag", "-q"]) == 0
    assert seen == {"n": 3, "path": Path("there"), "flag": True}
