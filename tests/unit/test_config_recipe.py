"""Recipes: what is read, what is refused and in which words, and that writing one back loses nothing."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from nmtool import resources
from nmtool.config import Recipe, explain, load_recipe, parse_recipe
from nmtool.errors import ConfigError, FindingsError

SHIPPED = [path.stem for path in resources.listing("models")]


def parse(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, "r.toml", overrides)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_complete(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert recipe.neuron.threshold == 1.0
    assert recipe.neuron.reset == "zero"


def test_the_recipes_of_the_issue_are_there() -> None:
    assert {"digits-vanilla", "digits-tgo", "mnist-tgo"} <= set(SHIPPED)
    tgo, vanilla = load_recipe("digits-tgo"), load_recipe("digits-vanilla")
    assert tgo.robust.tgo is not None
    assert (tgo.robust.tgo.lambda_max, tgo.robust.tgo.delta) == (0.6, 1.0)
    assert vanilla.robust.tgo is None
    # The baseline differs in the method alone.
    plain = tgo.neuron.model_copy(update={"noise_std": 0.0})
    assert (vanilla.network, vanilla.train, vanilla.neuron) == (tgo.network, tgo.train, plain)


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits-tgo").write_text("name = 'mine'")
    assert load_recipe("digits-tgo").name == "mine"
    assert load_recipe(tmp_path / "digits-tgo").name == "mine"


def test_defaults_and_lists() -> None:
    recipe = parse("network.hidden = [5, 6]\n[robust.tgo]\n")
    assert recipe.network.hidden == (5, 6)
    assert recipe.robust.tgo is not None
    assert recipe.robust.tgo.reduction == "mean"
    assert parse("").robust.tgo is None


def test_overrides() -> None:
    text = "[train]\nepochs = 3\n"
    recipe = parse(
        text,
        "train.epochs=7",
        "data.name=mnist",
        "network.hidden=[4]",
        "robust.tgo.delta=0.5",
        "train.lr=1",
        "name='x=y'",
    )
    assert (recipe.train.epochs, recipe.data.name, recipe.network.hidden) == (7, "mnist", (4,))
    assert recipe.robust.tgo is not None
    assert recipe.robust.tgo.delta == 0.5
    assert (recipe.train.lr, recipe.name) == (1.0, "x=y")


@pytest.mark.parametrize(
    ("text", "overrides", "match"),
    [
        ("[train]\nepoch = 3", (), r"NM003\] r.toml: train.epoch: .*Did you mean 'train.epochs'\?"),
        ("epochs = 3", (), r"NM003\] r.toml: epochs: .*Did you mean 'train.epochs'\?"),
        ("[neuron]\ndelta = 3", (), r"NM003\] r.toml: neuron.delta: .*Did you mean 'robust.tgo.delta'\?"),
        ("[robust.tog]\n", (), r"NM003\] r.toml: robust.tog: .*Did you mean 'robust.tgo'\?"),
        ("", ("train.epoch=3",), r"NM003\] r.toml: train.epoch: .*Did you mean 'train.epochs'\?"),
        ("zzz = 3", (), r"NM003\] r.toml: zzz: .*Known: data, "),
        (
            "[train]\nepochs = 0",
            (),
            r"NM004\] r.toml: train.epochs: is 0, but it must be greater than or equal to 1",
        ),
        ("[network]\nn_steps = 0", (), r"NM004\] r.toml: network.n_steps: is 0"),
        ("[train]\nbatch_size = -4", (), r"NM004\] r.toml: train.batch_size: is -4"),
        ("[train]\nepochs = 2.5", (), r"NM004\] r.toml: train.epochs: is 2.5, .*integer"),
        ("[train]\nepochs = true", (), r"NM004\] r.toml: train.epochs: is True, .*integer"),
        ("[train]\nlr = '0.1'", (), r"NM004\] r.toml: train.lr: is '0.1', .*number"),
        ("[train]\nlr = nan", (), r"NM004\] r.toml: train.lr: is nan, .*(finite|greater)"),
        ("[train]\nlr = inf", (), r"NM004\] r.toml: train.lr: is inf, .*finite"),
        (
            "[neuron]\nreset = 'hard'",
            (),
            r"NM004\] r.toml: neuron.reset: is 'hard', but it must be 'zero' or 'subtract'",
        ),
        ("[neuron]\nnoise_std = -1", (), r"NM004\] r.toml: neuron.noise_std: is -1"),
        ("[network]\nhidden = [3, 0]", (), r"NM004\] r.toml: network.hidden\[1\]: is 0"),
        ("network = 3", (), r"NM004\] r.toml: network: is 3"),
        ("[network]\nkind = 'conv'", (), r"NM004\] r.toml: network: channels must be empty if"),
        (
            "[network]\nnorm = 'batch'\n[train]\nbatch_size = 1",
            (),
            r"NM004\] r.toml: network.norm = 'batch' needs",
        ),
        ("seed = -1", (), r"NM004\] r.toml: seed: is -1"),
        ("[train\n", (), r"NM006\] r.toml: is not valid TOML.*line 1"),
        ("", ("train.epochs",), r"NM004\] --set train.epochs: has not the form a.b=value"),
        ("", ("=3",), r"NM004\] --set =3: has not the form"),
        ("seed = 3", ("seed.x=3",), r"NM004\] --set seed.x=3: seed is a value, not a table"),
    ],
)
def test_refused(text: str, overrides: tuple[str, ...], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as info:
        parse(text, *overrides)
    assert info.value.exit_code == 2


def test_all_findings_are_reported() -> None:
    with pytest.raises(FindingsError, match=r"NM004.*train.lr: is -1.*\n.*NM003.*train.epoch:") as info:
        parse("[train]\nlr = -1\nepoch = 3\n")
    assert sorted(d.code for d in info.value.findings) == ["NM003", "NM004"]
    assert info.value.exit_code == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"NM001.*gone.toml"):
        load_recipe(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match=r"NM001.*" + tmp_path.name):
        load_recipe(tmp_path)
    with pytest.raises(ConfigError, match=r"NM005.*digits-tgoo.*Did you mean 'digits-tgo'"):
        load_recipe("digits-tgoo")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe4'")
    with pytest.raises(ConfigError, match=r"NM006.*latin.toml.*not UTF-8 text \(byte 8\)"):
        load_recipe(tmp_path / "latin.toml")


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse("").train.epochs = 3  # type: ignore[misc]


def test_digest_depends_on_meaning_and_not_on_spelling() -> None:
    assert parse("[train]\nlr = 0.01\n").sha256 == parse("train = {lr = 1e-2}").sha256
    assert parse("[train]\nlr = 0.01\n").sha256 != parse("[train]\nlr = 0.02\n").sha256
    assert parse("").sha256 != parse("[robust.tgo]\n").sha256


def test_every_key_is_explained() -> None:
    keys = {key.path: key for key in explain(load_recipe("digits-tgo"))}
    assert all(key.description.endswith(".") and key.allowed for key in keys.values())
    assert keys["train.lr"].allowed == "float > 0"
    assert keys["neuron.beta"].allowed == "float >= 0, <= 1"
    assert keys["neuron.reset"].allowed == "zero | subtract"
    assert keys["network.hidden"].allowed == "list of int"
    assert keys["robust.tgo.delta"].value == 1.0
    assert {
        key.value for key in explain(load_recipe("digits-vanilla")) if key.path.startswith("robust.")
    } == {None}


def test_known_keys_are_those_of_the_effective_recipe() -> None:
    written = load_recipe("digits-tgo").dump_toml()
    for key in explain(load_recipe("digits-tgo")):
        assert f"{key.path.rpartition('.')[2]} = " in written
