"""Training runs: that they learn, what they write, and that a kill, bad data or a foreign checkpoint costs nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nmtool.config import Recipe, load_recipe, parse_recipe
from nmtool.data.datasets import DataSet
from nmtool.errors import ConfigError, SimulationError
from nmtool.train import loop
from nmtool.train.checkpoint import load_run
from nmtool.train.loop import evaluate, train

TEXT = """
name = "small"
[network]
hidden = [24]
n_steps = 6
[neuron]
noise_std = 0.2
[train]
epochs = 4
batch_size = 16
lr = 0.02
[robust.tgo]
"""


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(TEXT, "small.toml", overrides)


@pytest.fixture(scope="module")
def data() -> DataSet:
    """Three noisy prototypes in 16 dimensions."""
    rng = np.random.default_rng(0)
    prototypes = rng.random((3, 16))

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(n) % 3
        x = np.clip(prototypes[y] + 0.1 * rng.standard_normal((n, 16)), 0, 1)
        return x.astype(np.float32), y.astype(np.int64)

    return DataSet("blobs", *draw(150), *draw(60), class_labels=("a", "b", "c"))


def weights(net: torch.nn.Module) -> list[torch.Tensor]:
    return list(net.state_dict().values())


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))


def test_a_run_learns_and_records_itself(data: DataSet, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    result = train(recipe(), data, tmp_path, lambda done, n, row: told.append((done, n)))
    assert result.accuracy >= 0.95
    assert result.accuracy_noise_off >= 0.95
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["task_loss"] < 0.5 * rows[0]["task_loss"]
    assert rows[0]["tgo.weight"] == 0
    assert rows[2]["tgo.weight"] == pytest.approx(0.3)
    assert rows[2]["loss"] == pytest.approx(rows[2]["task_loss"] + 0.3 * rows[2]["tgo"], rel=1e-5)
    assert rows[2]["tgo"] == pytest.approx(rows[2]["tgo.lif1"] + rows[2]["tgo.lif2"], rel=1e-5)
    assert [row["lr"] for row in rows] == pytest.approx([0.02, 0.017071068, 0.01, 0.002928932])
    for layer in rows[-1]["layers"].values():
        assert 0 < layer["firing_rate"] < 1
        # The triangle's density is zero exactly outside its window.
        assert layer["in_window"] + layer["no_gradient"] == pytest.approx(1, abs=1e-3)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["accuracy"] == {"noise_on": result.accuracy, "noise_off": result.accuracy_noise_off}
    assert record["sha256"]["recipe"] == recipe().sha256
    assert record["sha256"]["data"] == data.sha256
    loaded, net = load_run(tmp_path)
    assert loaded == recipe()
    assert same(net, result.net)
    assert evaluate(net, data.x_test, data.y_test, seed=loaded.seed) == result.accuracy


def test_the_constraint_drives_potentials_off_the_threshold(data: DataSet, tmp_path: Path) -> None:
    def in_window(strength: float) -> float:
        options = (f"robust.tgo.lambda_max={strength}", "train.epochs=12", "neuron.noise_std=0")
        history = train(recipe(*options), data, tmp_path / str(strength)).history
        return float(np.mean([layer["in_window"] for layer in history[-1]["layers"].values()]))

    assert in_window(5.0) < 0.8 * in_window(0.0)


class Killed(Exception):
    """Stands for the process going away."""


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, norm: str
) -> None:
    wanted = recipe(f"train.optimizer={optimizer}", f"network.norm={norm}")
    whole = train(wanted, data, tmp_path / "whole")
    step, calls = loop._step, []

    def dies_in_the_third_epoch(*args: object) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 25:
            raise Killed("killed")
        return step(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", dies_in_the_third_epoch)
        with pytest.raises(Killed, match="killed"):
            train(wanted, data, tmp_path / "cut")
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "cut" / "run.json").exists()
    resumed = train(wanted, data, tmp_path / "cut", resume=True)
    assert same(resumed.net, whole.net)
    drop = ("epoch_s",)
    assert [{k: v for k, v in row.items() if k not in drop} for row in resumed.history] == [
        {k: v for k, v in row.items() if k not in drop} for row in whole.history
    ]
    again = train(wanted, data, tmp_path / "cut", resume=True)
    assert same(again.net, whole.net)


def test_seeds_decide(data: DataSet, tmp_path: Path) -> None:
    first = train(recipe("train.epochs=1"), data, tmp_path / "a").net
    assert same(first, train(recipe("train.epochs=1"), data, tmp_path / "b").net)
    assert not same(first, train(recipe("train.epochs=1", "seed=1"), data, tmp_path / "c").net)


def test_the_number_of_threads_is_put_back(data: DataSet, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        seen: list[int] = []
        train(recipe("train.epochs=1"), data, tmp_path, lambda *_: seen.append(torch.get_num_threads()))
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_data_that_are_not_finite_stop_it_before_anything_is_written(data: DataSet, tmp_path: Path) -> None:
    x = data.x_train.copy()
    x[17, 3] = np.nan
    broken = DataSet("blobs", x, data.y_train, data.x_test, data.y_test, class_labels=data.class_labels)
    with pytest.raises(SimulationError, match=r"NM405.*blobs.*x_train\[17\].*1 samples"):
        train(recipe(), broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_divergence_names_step_and_layer_and_keeps_the_last_good_checkpoint(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe("train.epochs=1"), data, tmp_path)
    good = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(
        SimulationError, match=r"NM405\] (fc|lif|loss).*not finite at epoch 1, step \d+.*train.lr"
    ):
        train(recipe("train.optimizer=sgd", "train.lr=1e38", "network.readout=membrane"), data, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    assert (tmp_path / "run.json").is_file()


def test_a_nan_weight_is_found_although_the_loss_stays_finite(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poison(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            super().step()
            with torch.no_grad():
                self.param_groups[0]["params"][2][0, 0] = torch.nan

    monkeypatch.setattr(torch.optim, "SGD", Poison)
    with pytest.raises(
        SimulationError, match=r"NM405\] fc2: has weights that are not finite at epoch 1, step 1"
    ):
        train(recipe("train.optimizer=sgd"), data, tmp_path)


def test_a_checkpoint_of_another_recipe_or_other_data_is_refused(data: DataSet, tmp_path: Path) -> None:
    train(recipe("train.epochs=1"), data, tmp_path)
    with pytest.raises(ConfigError, match=r"NM009.*train.lr is 0.02 there and 0.03 here"):
        train(recipe("train.epochs=1", "train.lr=0.03"), data, tmp_path, resume=True)
    other = DataSet(
        "blobs",
        data.x_train[::-1],
        data.y_train[::-1],
        data.x_test,
        data.y_test,
        class_labels=data.class_labels,
    )
    with pytest.raises(ConfigError, match=r"NM009.*other training data"):
        train(recipe("train.epochs=1"), other, tmp_path, resume=True)


def test_a_new_run_replaces_the_old_one_only_when_its_first_epoch_is_safe(
    data: DataSet, tmp_path: Path
) -> None:
    train(recipe("train.epochs=1"), data, tmp_path)
    (tmp_path / "model.nir").write_bytes(b"exported from the old weights")

    def stop(*_: object) -> None:
        raise Killed("killed")

    with pytest.raises(Killed, match="killed"):
        train(recipe("train.epochs=2", "seed=3"), data, tmp_path, stop)
    assert not (tmp_path / "run.json").exists()
    assert not (tmp_path / "model.nir").exists()
    assert load_recipe(tmp_path / "recipe.toml").seed == 3


def test_missing_and_damaged_runs(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"NM008.*holds no checkpoint.pt"):
        train(recipe(), data, tmp_path, resume=True)
    with pytest.raises(ConfigError, match=r"NM008.*holds no recipe.toml"):
        load_run(tmp_path)
    train(recipe("train.epochs=1"), data, tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(ConfigError, match=r"NM008.*holds no checkpoint.pt"):
        load_run(tmp_path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"NM009.*no readable checkpoint"):
        load_run(tmp_path)
    state = {"schema": "nmtool.checkpoint/0"}
    torch.save(state, path)
    with pytest.raises(ConfigError, match=r"NM009.*schema is not 'nmtool.checkpoint/1'"):
        load_run(tmp_path)


def test_weights_of_another_shape_are_refused(data: DataSet, tmp_path: Path) -> None:
    train(recipe("train.epochs=1"), data, tmp_path)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["net"]["layers.fc1.weight"] = torch.zeros(3, 3)
    torch.save(state, path)
    with pytest.raises(ConfigError, match=r"NM009.*does not fit its recipe.*fc1.weight"):
        load_run(tmp_path)


def test_code_in_a_checkpoint_is_not_run(data: DataSet, tmp_path: Path) -> None:
    train(recipe("train.epochs=1"), data, tmp_path)

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "owned",))  # type: ignore[return-value]

    torch.save({"schema": Payload()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="NM009"):
        load_run(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_bad_device(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NM004.*device 'abacus'"):
        train(recipe(), data, tmp_path, device="abacus")


def test_unwritable_folder(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="NM002"):
        train(recipe("train.epochs=1"), data, tmp_path / "file")
