"""The whole chain: what the demo writes, and that its numbers are those of the single commands."""

import json
from pathlib import Path

import pytest

from nmtool import cli
from nmtool.api import chain

SUMMARY_KEYS = {
    *("accuracy", "robust", "verify", "synops_per_inference", "spike_density", "energy_pj", "seei"),
    *("environment", "command", "seed"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "run"
    assert cli.main(["demo", "--quick", "--out", str(folder)]) == 0
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_files(demo: Path) -> None:
    names = {p.name for p in demo.iterdir()}
    assert {"model.nir", "loihi1", "verify.json", "robustness.json", "energy.json", "summary.json"} <= names
    figures = {n for n in names if n.endswith(".png")}
    assert figures == {"membrane_distribution.png", "robust_accuracy.png", "energy_by_layer.png"}
    assert all((demo / n).read_bytes().startswith(b"\x89PNG") for n in figures)
    assert {p.name for p in (demo / "loihi1").iterdir()} == {"model.nir", "program.npz", "export.json"}


def test_summary(demo: Path) -> None:
    summary = read(demo / "summary.json")
    assert summary["schema"] == "nmtool.summary/1"
    assert set(summary) >= SUMMARY_KEYS
    assert set(summary["robust"]["float"]) == set(summary["robust"]["sim"]) == {"fgsm", "pgd-10"}
    assert abs(summary["accuracy"]["float"] - summary["accuracy"]["sim"]) < 0.1
    assert 0.9 < summary["verify"]["agreement"] <= 1
    assert summary["energy_pj"]["nominal"] > 0
    for name in ("fgsm", "pgd-10"):
        assert summary["robust"]["sim"][name] <= summary["accuracy"]["sim"] + 0.05


def test_the_chain_by_hand_gives_the_same_numbers(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    n = str(chain.QUICK_SAMPLES)

    def call(line: str) -> dict:
        assert cli.main(line.replace("N", n).split()) == 0
        return json.loads(capsys.readouterr().out)

    call(f"train digits-tgo --set train.epochs={chain.QUICK_EPOCHS} --out hand --json")
    call("export hand --target loihi --json -q")
    by_hand = {
        "float": call("run hand/model.nir --backend float --data digits -n N --json")["accuracy"],
        "sim": call("run hand/model.nir --target loihi --backend sim --data digits -n N --json")["accuracy"],
    }
    call("verify hand -n N --out hand/verify.json --json")
    call("robustness-report hand --eps 0.1 -n N --out hand --json")
    call("energy-report hand/loihi1 -n N --out hand --json -q")
    summary = read(demo / "summary.json")
    assert by_hand == summary["accuracy"]
    for name, keys in (
        ("verify.json", ("agreement", "layers", "prediction_agreement")),
        ("robustness.json", ("clean", "attacks", "worst_case", "sanity", "claim")),
        ("energy.json", ("counts", "events", "layers", "energy", "estimate", "seei")),
    ):
        ours, theirs = read(demo / name), read(tmp_path / "hand" / name)
        assert {k: ours[k] for k in keys} == {k: theirs[k] for k in keys}


def test_one_table_and_what_was_written(
    tmp_path: Path, demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nmtool.cli.ui import Ui
    from nmtool.report.text import render

    Ui().result({}, render(read(demo / "summary.json")))
    out = capsys.readouterr().out
    assert "accuracy under pgd-10" in out
    assert "energy per inference" in out
