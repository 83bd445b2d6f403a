"""What bad input gets, end to end: a coded error, its exit code, no traceback, and nothing written."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmtool import cli


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Iterator:
    """Runs a command line that must fail; returns its exit code and message after checking that it left nothing."""

    def call(*words: object) -> tuple[int, str]:
        before = listing(here)
        code = cli.main([str(w) for w in words])
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert listing(here) == before
        return code, err

    return call


def test_a_misspelt_key_of_a_recipe(refused, here: Path) -> None:
    (here / "mine.toml").write_text("[train]\nepoch = 3\n[neuron]\nbeta = 7.0\n")
    code, err = refused("train", "mine.toml")
    assert code == 2
    assert "error[NM003] mine.toml: train.epoch: no such key in a recipe. Did you mean 'train.epochs'?" in err
    assert "error[NM004] mine.toml: neuron.beta: is 7.0" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "train.epoch=3"], "error[NM003] digits-tgo.toml: train.epoch: no such key"),
        (["--set", "train.epochs=0"], "error[NM004] digits-tgo.toml: train.epochs: is 0, but"),
        (["--set", "train"], "error[NM004] --set train: has not the form a.b=value"),
        (
            ["--set", "data.name=mnits"],
            "error[NM005] data set 'mnits': no such data set. Did you mean 'mnist'?",
        ),
    ],
)
def test_a_bad_override(refused, words: list[str], message: str) -> None:
    code, err = refused("train", "digits-tgo", *words)
    assert code == 2
    assert err.startswith(message)


@pytest.mark.parametrize(
    ("verb", "name", "message"),
    [
        (
            "train",
            "digit-tgo",
            "error[NM005] digit-tgo: no recipe of that name. Did you mean 'digits-tgo'?\n",
        ),
        ("train", "nowhere/x.toml", "error[NM001] nowhere/x.toml: no such file."),
        ("targets show", "loihi3", "error[NM005] loihi3: no target of that name. Did you mean 'loihi"),
        ("models show", "digit", "error[NM005] digit: no recipe of that name."),
        ("explain", "XY203", "error[NM005] XY203: no such code."),
    ],
)
def test_a_name_that_does_not_exist(refused, verb: str, name: str, message: str) -> None:
    code, err = refused(*verb.split(), name)
    assert code == 2
    assert err.startswith(message)


@pytest.mark.parametrize("verb", ["export", "check", "run", "verify", "robustness-report", "energy-report"])
def test_a_target_that_does_not_exist(refused, nir_file: Path, verb: str) -> None:
    code, err = refused(verb, nir_file, "--target", "loihy")
    assert (code, err) == (2, "error[NM005] loihy: no target of that name. Did you mean 'loihi'?\n")


@pytest.mark.parametrize("verb", ["export", "check", "run", "verify", "robustness-report", "energy-report"])
@pytest.mark.parametrize("damage", ["truncated", "random", "empty", "other", "text"])
def test_a_file_that_is_no_network(refused, here: Path, nir_file: Path, verb: str, damage: str) -> None:
    path = here / "bad.nir"
    whole = nir_file.read_bytes()
    if damage == "other":
        with h5py.File(path, "w") as f:
            f["weights"] = np.arange(3)
    else:
        path.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "random": np.random.default_rng(1).bytes(4000),
                "empty": b"",
                "text": b"not a network\n",
            }[damage]
        )
    code, err = refused(verb, path)
    assert code == 3
    assert err.startswith(f"error[NM101] {path}: ")


def test_a_model_that_is_not_there(refused, here: Path) -> None:
    code, err = refused("run", "net.nir")
    assert code == 2
    assert err.startswith("error[NM001] net.nir: no such file or directory.")
    (here / "empty").mkdir()
    code, err = refused("export", "empty")
    assert code == 2
    assert err.startswith("error[NM008] empty: has neither model.nir nor program.npz (it holds nothing).")


def test_a_run_directory_without_a_checkpoint(refused, here: Path, run_dir: Path) -> None:
    run = here / "run"
    run.mkdir()
    (run / "recipe.toml").write_bytes((run_dir / "recipe.toml").read_bytes())
    code, err = refused("train", run / "recipe.toml", "--out", run, "--resume")
    assert code == 2
    assert err.startswith(f"error[NM008] {run}")
    code, err = refused("export", run)
    assert code == 2
    assert err.startswith(
        f"error[NM008] {run}: has neither model.nir nor program.npz (it holds recipe.toml)."
    )


def test_an_unfinished_run_says_how_to_go_on(refused, here: Path, run_dir: Path) -> None:
    run = here / "run"
    run.mkdir()
    for name in ("recipe.toml", "checkpoint.pt"):
        (run / name).write_bytes((run_dir / name).read_bytes())
    code, err = refused("check", run)
    assert code == 2
    assert f"'nmtool train {run / 'recipe.toml'} --out {run} --resume'" in err


def test_a_damaged_checkpoint(refused, here: Path, run_dir: Path) -> None:
    run = here / "run"
    run.mkdir()
    (run / "recipe.toml").write_bytes((run_dir / "recipe.toml").read_bytes())
    (run / "checkpoint.pt").write_bytes((run_dir / "checkpoint.pt").read_bytes()[:500])
    code, err = refused("train", run / "recipe.toml", "--out", run, "--resume")
    assert code == 2
    assert err.startswith(f"error[NM009] {run}")


@pytest.mark.parametrize(
    ("arrays", "code", "message"),
    [
        ({"spikes": np.zeros((4, 2, 63), np.uint8)}, 3, "error[NM109] in.npz: a sample is (63,) per step"),
        ({"spikes": np.zeros((4, 64), np.uint8)}, 3, "error[NM109] in.npz: spikes is uint8 (4, 64), must be"),
        ({"spikes": np.zeros((4, 2, 64))}, 3, "error[NM109] in.npz: spikes is float64"),
        ({"spikes": np.zeros((4, 2, 64), np.uint8), "dt_s": np.array(2e-3)}, 3, "error[NM109] in.npz: has a step of"),
        ({"spike": np.zeros((4, 2, 64), np.uint8)}, 2, "error[NM006] in.npz: lacks the array 'spikes'"),
    ],
)  # fmt: skip
def test_a_spike_file_that_does_not_fit(
    refused, here: Path, spiking_file: Path, arrays: dict, code: int, message: str
) -> None:
    np.savez(here / "in.npz", **arrays)
    found, err = refused("run", spiking_file, "--spikes", "in.npz")
    assert found == code
    assert err.startswith(message)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["--spikes", "in.npz", "--data", "digits"],
            2,
            "error[NM004] --data, --spikes: are two sources of input.",
        ),
        (["--spikes", "in.npz"], 3, "error[NM109] in.npz: holds spikes, but the model takes analog values"),
        (["--spikes", "none.npz"], 2, "error[NM001] none.npz: cannot be read"),
        (["--data", "mnits"], 2, "error[NM005] data set 'mnits': no such data set. Did you mean 'mnist'?"),
        (["--backend", "simm"], 2, "error[NM005] simm: no such backend. Did you mean 'sim'?"),
        (["--record", "all"], 2, "error[NM004] --record: traces go into a file, and none is named."),
        (["--record", "lif9", "--out", "t.npz"], 2, "error[NM004] record: 'lif9' is no population"),
        (["--allow", "noise"], 2, "error[NM005] allow: no lossy step is called 'noise'"),
    ],
)
def test_options_that_contradict(
    refused, here: Path, nir_file: Path, words: list[str], code: int, message: str
) -> None:
    np.savez(here / "in.npz", spikes=np.zeros((4, 2, 64), np.uint8))
    found, err = refused("run", nir_file, *words)
    assert found == code
    assert err.startswith(message)


def test_a_network_of_spikes_needs_them_named(refused, spiking_file: Path) -> None:
    code, err = refused("run", spiking_file)
    assert code == 2
    assert err.startswith("error[NM004] input: the model does not say what it was trained on.")
    code, err = refused("run", spiking_file, "--data", "digits")
    assert code == 3
    assert err.startswith("error[NM109] input: takes spikes, but digits holds analog values.")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits-tgo", "--out", "{}"],
        ["export", "{model}", "--out", "{}"],
        ["run", "{model}", "-n", "2", "--out", "{}.npz"],
        ["verify", "{model}", "-n", "2", "--out", "{}.json"],
        ["robustness-report", "{model}", "-n", "2", "--suite", "quick", "--eps", "0.1", "--out", "{}"],
        ["energy-report", "{model}", "-n", "2", "--out", "{}"],
        ["demo", "--quick", "--out", "{}"],
    ],
    ids=lambda words: words[0],
)
def test_an_output_that_cannot_be_written(refused, here: Path, nir_file: Path, words: list[str]) -> None:
    """A file where a folder should be: refused for every user, root too."""
    (here / "file").write_text("mine")
    target = here / "file" / "out"
    code, err = refused(*(w.replace("{model}", str(nir_file)).replace("{}", str(target)) for w in words))
    assert code == 2
    assert err.startswith(f"error[NM002] {here / 'file'}")
    assert ": cannot be written (" in err
    assert err.endswith("Choose a folder that you may write to, with --out.\n")


def test_an_export_for_another_target(refused, exported: Path) -> None:
    code, err = refused("run", exported, "--target", "loihi2")
    assert code == 2
    assert err.startswith(f"error[NM004] {exported}: was exported for loihi1, not for loihi2.")
    code, err = refused("export", exported)
    assert code == 2
    assert err.startswith(f"error[NM004] {exported}: is an export already.")


def test_a_damaged_program(refused, here: Path, exported: Path) -> None:
    broken = here / "loihi1"
    broken.mkdir()
    (broken / "model.nir").write_bytes((exported / "model.nir").read_bytes())
    (broken / "program.npz").write_bytes((exported / "program.npz").read_bytes()[:300])
    code, err = refused("run", broken)
    assert code == 3
    assert err.startswith(f"error[NM110] {broken / 'program.npz'}: not a readable program")


def test_a_saved_run_of_another_model(
    refused, here: Path, nir_file: Path, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(nir_file), "-n", "3", "--out", "run.npz"]) == 0
    capsys.readouterr()
    code, err = refused("energy-report", run_dir, "--from", "run.npz")
    assert code == 2
    assert err.startswith("error[NM004] the saved run: is of model ")
    (here / "junk.npz").write_bytes(b"junk")
    code, err = refused("energy-report", nir_file, "--from", "junk.npz")
    assert code == 2
    assert err.startswith("error[NM006] junk.npz: is not a saved run (")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backends", "sim"], "error[NM004] --backends: is 'sim', needs two or more different ones."),
        (
            ["--backends", "sim,sim"],
            "error[NM004] --backends: is 'sim, sim', needs two or more different ones.",
        ),
        (["--backends", "sim,laav"], "error[NM005] laav: no such backend. Did you mean 'lava'?"),
    ],
)
def test_backends_that_cannot_be_compared(refused, nir_file: Path, words: list[str], message: str) -> None:
    code, err = refused("verify", nir_file, *words)
    assert code == 2
    assert err.startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eps", "a"], "error[NM004] --eps: is 'a', not a number."),
        (["--eps", "8/0"], "error[NM004] --eps: is '8/0', not a number."),
        (["--eps", "0"], "error[NM004] robustness: eps = [0.0]"),
        (["--suite", "quik"], "error[NM005] suite 'quik': does not exist. Did you mean 'quick'?"),
        (["--backend", "lava"], "error[NM005] lava: cannot be attacked."),
        (["--resume"], "error[NM004] --resume: needs the folder to go on in."),
    ],
)
def test_attacks_that_cannot_be_made(refused, nir_file: Path, words: list[str], message: str) -> None:
    code, err = refused("robustness-report", nir_file, "-n", "2", *words)
    assert code == 2
    assert err.startswith(message)


def test_no_traceback_in_a_process_of_its_own(here: Path) -> None:
    (here / "bad.nir").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    words = [
        sys.executable,
        "-c",
        "import sys; from nmtool.cli import main; sys.exit(main())",
        "check",
        "bad.nir",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=here)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error[NM101] bad.nir: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--compile", "sing_split=true"],
            "error[NM003] --compile: there is no key 'sing_split'. Did you mean 'sign_split'?",
        ),
        (["--compile", "input_bits=many"], "error[NM004] --compile input_bits: is 'many'"),
        (["--compile", "input_bits=99"], "error[NM004] input_bits: is 99, allowed are 1 to 16"),
        (
            ["--read", "scheme=eulr"],
            "error[NM005] scheme: there is no discretisation 'eulr'. Did you mean 'euler'?",
        ),
        (["--read", "layers=0"], "error[NM004] layers: is 0"),
        (["--read", "dt_s=-1"], "error[NM004] dt_s: is -1"),
    ],
)
def test_choices_about_reading_and_compiling(refused, nir_file: Path, words: list[str], message: str) -> None:
    code, err = refused("check", nir_file, *words)
    assert code == 2
    assert message in err
