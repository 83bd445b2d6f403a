"""Every verb on a small network: what stands on stdout, what is written, and what it ends with."""

import json
from pathlib import Path

import numpy as np
import pytest
from net_writer import cuba, dense, weights, write_net

from nmtool import api, cli
from nmtool.compiler import program as programs
from nmtool.data import datasets

Call = tuple[int, str, str]


@pytest.fixture
def nmtool(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Call:
        code = cli.main([str(w) for w in words])
        return code, *capsys.readouterr()

    return call


def document(call: Call) -> dict:
    """The one JSON document of a call that went well."""
    code, out, err = call
    assert (code, err) == (0, "")
    return json.loads(out)


def test_targets_list(nmtool) -> None:
    code, out, err = nmtool("targets", "list")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert names[0] == "target"
    assert {"loihi", "loihi1", "loihi2"} <= set(names)
    listed = document(nmtool("targets", "list", "--json"))["targets"]
    assert [t["name"] for t in listed] == names[1:]


def test_targets_show_follows_the_alias_and_cites(nmtool) -> None:
    shown = document(nmtool("targets", "show", "loihi", "--json"))
    assert (shown["name"], shown["asked_for"]) == ("loihi1", "loihi")
    numbers = {n["key"]: n for n in shown["numbers"]}
    assert numbers["core.max_in_axons"]["value"] == 4096
    assert all(n["source"] for n in shown["numbers"])
    code, out, _ = nmtool("targets", "show", "loihi")
    assert code == 0
    assert "core.max_in_axons" in out
    assert "Energy profile loihi1-davies2018" in out


def test_a_target_without_prices_says_so(nmtool) -> None:
    assert "No energy per event is published for loihi2." in nmtool("targets", "show", "loihi2")[1]


def test_models(nmtool) -> None:
    listed = document(nmtool("models", "list", "--json"))["models"]
    assert "digits-tgo" in [m["name"] for m in listed]
    keys = {k["path"]: k for k in document(nmtool("models", "show", "digits-tgo", "--json"))["keys"]}
    assert all(k["description"] for k in keys.values())
    changed = document(nmtool("models", "show", "digits-tgo", "--set", "train.epochs=3", "--json"))["keys"]
    assert {k["path"]: k["value"] for k in changed}["train.epochs"] == 3
    assert keys["train.epochs"]["value"] != 3
    code, out, _ = nmtool("models", "show", "digits-tgo")
    assert code == 0
    assert "train.epochs" in out


def test_explain(nmtool) -> None:
    code, out, err = nmtool("explain", "nm203")
    assert (code, err) == (0, "")
    assert out == "NM203  A core's budget is exceeded.\n       An error of this kind ends with exit code 3.\n"
    assert document(nmtool("explain", "NM402", "--json"))["exit_code"] == 5


def test_doctor(nmtool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NMTOOL_DATA", raising=False)
    report = document(nmtool("doctor", "--json"))
    checks = {c["name"]: c for c in report["checks"]}
    assert report["healthy"]
    assert {"Python", "numpy", "torch", "numba", "torch threads", "Lava", "targets", "models"} <= set(checks)
    assert checks["data set digits"]["found"] == "1397 + 400 samples"
    assert (checks["data set mnist"]["ok"], checks["data set mnist"]["remedy"][:23]) == (
        False,
        "Name it with --data-roo",
    )


def test_doctor_ends_with_1_if_something_is_missing(nmtool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmtool.cli.doctor.NEEDED", ("numpy", "no-such-distribution"))
    code, out, _ = nmtool("doctor")
    assert code == 1
    (line,) = [line for line in out.splitlines() if "no-such-distribution" in line]
    assert line.split() == [
        "missing",
        "no-such-distribution",
        "Install",
        "it:",
        "pip",
        "install",
        "no-such-distribution",
    ]


def test_train_writes_a_run_directory(nmtool, run_dir: Path) -> None:
    record = document(
        nmtool("train", "digits-tgo", "--out", "run", "--json", *_set("train.epochs=1", "network.hidden=[4]"))
    )
    assert {p.name for p in Path("run").iterdir()} == {
        "recipe.toml", "checkpoint.pt", "metrics.jsonl", "model.nir", "run.json",
    }  # fmt: skip
    assert record["folder"] == "run"
    assert record["accuracy"] == json.loads(Path("run/run.json").read_text())["accuracy"]
    code, out, err = nmtool("train", "run/recipe.toml", "--out", "run", "--resume")
    assert (code, err) == (0, "")
    assert out.startswith("run: 1 epochs, test accuracy ")


def test_a_new_training_takes_away_the_old_network(
    nmtool, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first epoch and the end a run directory must not hold the network of other weights."""
    Path("run").mkdir()
    Path("run/model.nir").write_bytes((run_dir / "model.nir").read_bytes())
    monkeypatch.setattr("nmtool.frontends.snntorch.save", lambda *args: None)
    assert (
        nmtool("train", "digits-tgo", "--out", "run", *_set("train.epochs=1", "network.hidden=[4]"))[0] == 0
    )
    assert not Path("run/model.nir").exists()


def _when_and_how(record: dict) -> dict:
    return {k: record[k] for k in ("command", "created_utc")}


def _set(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def test_export(nmtool, nir_file: Path) -> None:
    code, out, _ = nmtool("export", nir_file, "--target", "loihi", "--out", "chip")
    assert code == 0
    assert out.startswith("chip\n")
    assert "2 of 128 cores on 1 chip\n" in out
    assert {p.name for p in Path("chip").iterdir()} == {"model.nir", "program.npz", "export.json"}
    record = json.loads(Path("chip/export.json").read_text())
    program = programs.load(Path("chip/program.npz"))
    assert record["sha256"]["program"] == program.sha256
    assert record["target"] == program.target == "loihi1"
    assert [r["used"] for r in record["utilisation"] if r["budget"] == "compartments"] == [12, 10]


def test_export_goes_beside_the_model(nmtool, nir_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.nir"
    own.write_bytes(nir_file.read_bytes())
    assert document(nmtool("export", own, "--json", "-q"))["folder"] == str(tmp_path / "loihi1")


def test_export_in_fewer_bits_is_another_program(nmtool, nir_file: Path) -> None:
    digests = {
        bits: document(
            nmtool("export", nir_file, "--weight-bits", bits, "--out", f"b{bits}", "--json", "-q")
        )["sha256"]
        for bits in (8, 4)
    }
    assert digests[8]["program"] != digests[4]["program"]
    assert digests[8]["model"] == digests[4]["model"]


def test_a_sign_split_has_two_stages_per_layer(nmtool, nir_file: Path) -> None:
    code, _, _ = nmtool("export", nir_file, "--compile", "sign_split=true", "--out", "split")
    assert code == 0
    modes = [c.sign_mode for c in programs.load(Path("split/program.npz")).connections]
    assert modes == ["excitatory", "inhibitory"]


def test_summed_noise_is_said_to_run_in_simulation_only(nmtool, nir_file: Path) -> None:
    words = ("--compile", "noise_model=irwin_hall", "--compile", "noise_draws=4", "--out", "summed")
    code, _, err = nmtool("export", nir_file, *words)
    assert code == 0
    assert "warning[NM208] lif1: 'irwin_hall' noise runs in simulation only" in err
    assert programs.load(Path("summed/program.npz")).populations[0].noise.draws == 4


def test_another_step_is_another_network(nmtool, nir_file: Path) -> None:
    code, _, _ = nmtool("export", nir_file, "--read", "dt_s=0.5e-3", "--out", "finer")
    assert code == 0
    assert nmtool("export", nir_file, "--out", "own")[0] == 0
    finer, own = (programs.load(Path(f"{folder}/program.npz")) for folder in ("finer", "own"))
    assert (finer.dt_s, own.dt_s) == (0.5e-3, 1e-3)
    assert finer.populations[0].decay_mem_q12 < own.populations[0].decay_mem_q12


def test_check_writes_nothing(nmtool, nir_file: Path) -> None:
    code, out, _ = nmtool("check", nir_file)
    assert code == 0
    assert "loihi1: fits\n" in out
    assert list(Path().iterdir()) == []


def test_check_ends_with_1_and_names_the_rule(nmtool, nir_file: Path) -> None:
    Path("tiny.toml").write_text(
        'schema = "nmtool.target/1"\nextends = "loihi1"\n[core]\nmax_in_axons = { value = 8, source = "a test" }\n'
    )
    code, out, _ = nmtool("check", nir_file, "--target", "tiny.toml")
    assert code == 1
    assert "error[NM203]" in out
    assert "tiny.toml: core.max_in_axons" in out
    assert "tiny: does not fit\n" in out
    code, out, _ = nmtool("check", nir_file, "--target", "tiny.toml", "--json")
    record = json.loads(out)
    assert (code, record["passed"], record["findings"][0]["code"]) == (1, False, "NM203")
    code, out, err = nmtool("export", nir_file, "--target", "tiny.toml")
    assert (code, out) == (3, "")
    assert err.startswith("error[NM203]")
    assert [p.name for p in Path().iterdir()] == ["tiny.toml"]


def test_run_agrees_with_the_library(nmtool, nir_file: Path) -> None:
    record = document(nmtool("run", nir_file, "-n", "30", "--seed", "5", "--json"))
    same = api.run(nir_file, "sim", api.Inputs(n=30), api.RunOptions(seed=5))
    assert record["predictions"] == same.result.predictions.tolist()
    assert record["accuracy"] == float((same.result.predictions == same.labels).mean())
    assert (record["n_samples"], record["n_steps"], record["noise"], record["seed"]) == (30, 4, True, 5)
    other = document(nmtool("run", nir_file, "-n", "30", "--seed", "6", "--json"))
    assert other["spikes"] != record["spikes"]
    quiet = [
        document(nmtool("run", nir_file, "-n", "30", "--no-noise", "--seed", s, "--json"))["spikes"]
        for s in (5, 6)
    ]
    assert quiet[0] == quiet[1]


def test_run_says_what_it_ran(nmtool, nir_file: Path) -> None:
    code, out, err = nmtool("run", nir_file, "-n", "5", "--data", "digits", "--backend", "float")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "digits: 5 samples, 4 steps, backend float, noise on, seed 0"
    assert lines[1].startswith("accuracy ")
    assert lines[2].split() == ["population", "spikes", "density"]


def test_batches_change_nothing(nmtool, exported: Path) -> None:
    records = [document(nmtool("run", exported, "-n", "40", "--batch", b, "--json")) for b in (1, 7, 40)]
    assert len({json.dumps([r["predictions"], r["spikes"]]) for r in records}) == 1


def test_run_directory_export_and_file_are_one_model(nmtool, run_dir: Path) -> None:
    assert nmtool("export", run_dir, "--out", "chip", "-q")[0] == 0
    forms = (run_dir, run_dir / "model.nir", "chip")
    records = [document(nmtool("run", form, "-n", "50", "--json")) for form in forms]
    assert len({json.dumps([r["predictions"], r["spikes"]]) for r in records}) == 1


def test_traces(nmtool, nir_file: Path) -> None:
    code, out, _ = nmtool("run", nir_file, "-n", "6", "--record", "all", "--out", "t.npz")
    assert code == 0
    assert out.endswith("written to t.npz\n")
    with np.load("t.npz", allow_pickle=False) as z:
        for layer, n in (("lif1", 12), ("lif2", 10)):
            assert z[f"{layer}/spikes"].dtype == np.uint8
            assert z[f"{layer}/u"].dtype == z[f"{layer}/v"].dtype == np.int32
            assert z[f"{layer}/spikes"].shape == z[f"{layer}/v"].shape == (4, 6, n)
        assert np.array_equal(z["lif2/spikes"].sum(axis=0), z["logits"])
        assert set(z["layers"].tolist()) >= {"lif1", "lif2"}
        assert z["latency"].shape == z["layers"].shape


def test_spikes_from_a_file(nmtool, spiking_file: Path) -> None:
    spikes = np.random.default_rng(2).integers(0, 2, (7, 3, 64), dtype=np.uint8)
    np.savez("in.npz", spikes=spikes, labels=np.array([1, 2, 3]), dt_s=np.array(1e-3))
    record = document(nmtool("run", spiking_file, "--spikes", "in.npz", "--json"))
    assert (record["n_samples"], record["n_steps"]) == (3, 7)
    assert record["accuracy"] is not None
    code, _, err = nmtool("run", spiking_file, "--spikes", "in.npz", "--steps", "5")
    assert code == 3
    assert err == "error[NM109] --steps: is 5, but in.npz holds 7 steps. Leave --steps away.\n"


def test_verify(nmtool, nir_file: Path) -> None:
    code, out, err = nmtool("verify", nir_file, "-n", "40", "--out", "verify.json")
    assert (code, err) == (0, "")
    assert "sim against float" in out
    record = json.loads(Path("verify.json").read_text())
    assert (record["reference"], record["other"], record["noise"]) == ("float", "sim", False)
    assert [layer["name"] for layer in record["layers"]] == ["lif1", "lif2"]
    assert 0.95 < record["agreement"] <= 1
    assert record == document(nmtool("verify", nir_file, "-n", "40", "--json")) | _when_and_how(record)


def test_verify_ends_with_1_if_integers_differ(
    nmtool, nir_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second integer backend with one spike changed."""
    from nmtool.api import running
    from nmtool.backends.sim import SimBackend

    class Wrong(SimBackend):
        name = "lava"

        def run(self, x, options, progress=None):
            result = super().run(x, options, progress)
            result.traces["lif2"].spikes[2, 1, 7] ^= 1
            return result

    make = running.backend
    monkeypatch.setattr(
        running, "backend", lambda m, name: Wrong(m.program) if name == "lava" else make(m, name)
    )
    code, out, _ = nmtool("verify", nir_file, "-n", "4", "--backends", "float,sim,lava")
    assert code == 1
    assert "step 2, sample 1, neuron [7]" in out


@pytest.mark.lava
def test_verify_against_real_lava(nmtool, nir_file: Path, lava_env: object) -> None:
    record = document(nmtool("verify", nir_file, "-n", "3", "--backends", "sim,lava", "--noise", "--json"))
    assert record["integers_equal"]
    assert record["agreement"] == 1


def test_robustness_report(nmtool, nir_file: Path) -> None:
    words = ("robustness-report", nir_file, "-n", "20", "--suite", "quick", "--eps", "0.1", "--eps", "8/255")
    code, out, err = nmtool(*words, "--out", "rob")
    assert (code, err) == (0, "")
    assert "pgd-10" in out
    assert {p.name for p in Path("rob").iterdir()} == {
        "robustness.json",
        "robustness.html",
        "robust_accuracy.png",
    }
    record = json.loads(Path("rob/robustness.json").read_text())
    assert sorted(record["eps"]) == [8 / 255, 0.1]
    assert set(record["clean"]) == {"float", "sim"}
    assert all(row["models"]["sim"]["largest_change"] <= row["eps"] + 1e-6 for row in record["attacks"])
    float_only = document(nmtool(*words, "--backend", "float", "--json"))
    assert set(float_only["clean"]) == {"float"}


def test_an_interrupted_attack_goes_on(nmtool, nir_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("robustness-report", nir_file, "-n", "10", "--suite", "quick", "--eps", "0.1", "--out", "rob")
    from nmtool.attacks import suite

    whole = document(nmtool(*words, "--json"))
    unit, calls = suite._unit, []

    def second_fails(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return unit(*args)

    monkeypatch.setattr(suite, "_unit", second_fails)
    assert nmtool(*words)[0] == 130
    assert Path("rob/robustness.state.json").is_file()
    monkeypatch.setattr(suite, "_unit", lambda *args: calls.append(args) or unit(*args))
    resumed = document(nmtool(*words, "--resume", "--json"))
    assert len(calls) == 3, "the first attack was not repeated"
    assert resumed["attacks"] == whole["attacks"]
    assert not Path("rob/robustness.state.json").exists()
    code, _, err = nmtool(*words, "--resume")
    assert code == 2
    assert err == "error[NM008] rob: holds no robustness.state.json to go on from. Leave --resume away.\n"


def test_energy_report(nmtool, nir_file: Path) -> None:
    code, out, _ = nmtool("energy-report", nir_file, "-n", "100", "--out", "en")
    assert code == 0
    assert "A model, not a measurement" in out
    assert {p.name for p in Path("en").iterdir()} == {"energy.json", "energy.html", "energy_by_layer.png"}
    record = json.loads(Path("en/energy.json").read_text())
    assert record["estimate"]["per_inference_pj"]["nominal"] > 0
    assert record["counts"]["per_inference"]["host_macs"] == 64 * 12


def test_payloads_of_a_graded_input_are_counted(nmtool, nir_file: Path) -> None:
    """On a target with graded spikes pixels enter as messages: one per non-zero pixel and step."""
    words = (nir_file, "--target", "loihi2", "--allow", "no-noise", "-n", "100")
    record = document(nmtool("energy-report", *words, "--json", "-q"))
    pixels = datasets.load("digits").x_test[:100]
    first = next(layer for layer in record["layers"] if layer["name"] == "lif1")
    assert first["synops_stored"]["mean"] == pytest.approx((pixels > 0).sum() / 100 * 4 * 12)


def test_a_saved_run_is_priced_like_a_fresh_one(nmtool, nir_file: Path) -> None:
    assert nmtool("run", nir_file, "-n", "100", "--out", "run.npz")[0] == 0
    fresh = document(nmtool("energy-report", nir_file, "-n", "100", "--json", "-q"))
    priced = document(nmtool("energy-report", nir_file, "--from", "run.npz", "--json", "-q"))
    assert priced == fresh | _when_and_how(priced)
    one = document(
        nmtool("energy-report", nir_file, "--from", "run.npz", "-p", "loihi1-sanafe", "--json", "-q")
    )
    assert list(one["energy"]) == ["loihi1-sanafe"]
    code, _, err = nmtool("energy-report", nir_file, "--from", "run.npz", "-p", "loihi1-sanaf")
    assert code == 2
    assert err.startswith(
        "error[NM005] loihi1-sanaf: no energy profile of that name. Did you mean 'loihi1-sanafe'?"
    )


def test_an_overflow_is_a_warning_and_an_error_if_strict(nmtool, nir_file: Path, monkeypatch) -> None:
    """The record says so; stderr too, once per population."""
    from nmtool.cli import options
    from nmtool.cli.ui import Ui

    record = {
        "overflow": {"lif1": {"u_wrapped": 3, "v_clipped": 2}},
        "failures": [{"sample": 4, "error": "it hung"}],
    }
    seen: list[str] = []
    monkeypatch.setattr(Ui, "warn", lambda self, text: seen.append(text))
    options.warn_about_run(Ui(), record)
    assert seen == [
        "warning[NM401] lif1: 3 times u wrapped, 2 times v clipped, as the chip does. "
        "Use --strict to make this an error.",
        "warning[NM403] sample 4: not finished, counted as zeros (it hung).",
    ]


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    """A lava-dl file: 6 inputs, 5 and 3 neurons."""
    layers = [dense(weights((5, 6), seed=1), cuba()), dense(weights((3, 5), seed=2), cuba())]
    return write_net(tmp_path / "small.net", layers)


def test_a_net_file_runs_without_a_graph(nmtool, net_file: Path) -> None:
    spikes = np.random.default_rng(4).integers(0, 2, (9, 2, 6), dtype=np.uint8)
    np.savez("in.npz", spikes=spikes)
    record = document(nmtool("run", net_file, "--spikes", "in.npz", "--json"))
    assert (record["n_samples"], record["n_steps"], record["accuracy"]) == (2, 9, None)
    assert nmtool("check", net_file)[0] == 0
    assert nmtool("export", net_file, "--out", "chip")[0] == 0
    assert {p.name for p in Path("chip").iterdir()} == {"program.npz", "export.json"}
    again = document(nmtool("run", "chip", "--spikes", "in.npz", "--json"))
    assert again["predictions"] == record["predictions"]
    assert again["spikes"] == record["spikes"]


def test_a_net_file_has_no_float_network(nmtool, net_file: Path) -> None:
    np.savez("in.npz", spikes=np.ones((9, 2, 6), np.uint8))
    code, out, err = nmtool("verify", net_file, "--spikes", "in.npz")
    assert (code, out) == (3, "")
    assert err.startswith(f"error[NM107] {net_file}: comes from lava-dl")
    code, _, err = nmtool("run", net_file, "--data", "digits")
    assert code == 3
    assert err.startswith("error[NM109] input: takes spikes, but digits holds analog values.")
