"""Suites: float and deployed side by side, replay labelled, resumable, withheld when not to be believed."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nmtool.attacks import suite as suites
from nmtool.attacks.fgsm import FGSM
from nmtool.attacks.models import BlackBox, Differentiable
from nmtool.attacks.pgd import PGD
from nmtool.attacks.suite import Plan, Suite
from nmtool.errors import ConfigError

GEN = torch.Generator().manual_seed(1)
X = 0.2 + 0.6 * torch.rand(60, 8, generator=GEN)
W = torch.randn(4, 8, generator=GEN)
SMALL = Suite("small", (FGSM(), PGD(steps=5)), 10)
PLAN = Plan(SMALL, (0.05, 0.1), seed=3)


def network(
    name: str, weight: Tensor, forward: Callable[[Tensor, int], Tensor] | None = None
) -> Differentiable:
    return Differentiable(name, forward or (lambda x, s: (x - 0.5) @ weight.T), (0.0, 1.0), 4, False)


FLOAT, SIM = network("float", W), network("loihi1", torch.round(2 * W) / 2)
MODELS = {"float": FLOAT, "sim": SIM}
DATA = (X, FLOAT.logits(X, 0).argmax(1))


def test_record_of_two_networks() -> None:
    seen: list[tuple[int, int]] = []
    r = suites.run(MODELS, DATA, PLAN, lambda done, n: seen.append((done, n)))
    json.dumps(r, allow_nan=False)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    asked = {k: r[k] for k in ("schema", "suite", "eps", "seed", "n_samples", "norm")}
    assert asked == {
        "schema": "nmtool.robustness/1", "suite": "small", "eps": [0.05, 0.1], "seed": 3, "n_samples": 60,
        "norm": "linf",
    }  # fmt: skip
    about = {"name": "loihi1", "stochastic": False, "differentiable": True, "bounds": [0.0, 1.0]}
    assert r["models"]["sim"] == about
    assert r["clean"]["float"]["value"] == 1
    rows = [(a["attack"], a["eps"]) for a in r["attacks"]]
    assert rows == [("fgsm", 0.05), ("pgd-5", 0.05), ("fgsm", 0.1), ("pgd-5", 0.1)]
    for row in r["attacks"]:
        assert row["replay"]["label"] == "replay"
        assert (row["replay"]["of"], row["replay"]["on"]) == ("float", "sim")
        for entry in row["models"].values():
            assert entry["largest_change"] <= row["eps"] + 1e-6
            assert entry["loss_increased"] >= 0.95
    weak, strong = r["worst_case"]
    assert strong["float"]["value"] < weak["float"]["value"] < 1
    assert r["claim"]["status"] == "reported"
    assert [f["check"] for f in r["sanity"]["sim"]] == ["G1", "G9", "G11", "G12", "G13", "G16"]
    assert [f["check"] for f in r["sanity"]["float"]] == ["G1", "G9", "G11", "G12", "G13"]


def test_fgsm_on_a_linear_network_has_its_closed_form_accuracy() -> None:
    """Two classes: fooled where |margin| < eps * l1 norm of the difference of the rows."""
    w = torch.stack([0 * W[0], W[0]])
    shift = torch.tensor([0.0, -float((X @ W[0]).mean())])
    m = Differentiable("two", lambda x, s: x @ w.T + shift, (0.0, 1.0), 2, False)
    margin = (X @ W[0] + shift[1]).abs()
    r = suites.run({"float": m}, (X, m.logits(X, 0).argmax(1)), PLAN)
    for row in r["attacks"]:
        want = float((margin > row["eps"] * W[0].abs().sum()).double().mean())
        assert row["models"]["float"]["robust"]["value"] == pytest.approx(want)
        assert row["replay"] is None


def test_replay_on_a_network_that_hides_its_gradient_is_exposed() -> None:
    """The deployed network answers as the float one but has no gradient: direct attacks fail, the replay does not."""

    def hidden(x: Tensor, seed: int) -> Tensor:
        return FLOAT.logits(x, seed).detach() + 0 * x.sum(1, keepdim=True)

    masked = network("masked", W, hidden)
    r = suites.run({"float": FLOAT, "sim": masked}, DATA, PLAN)
    status = {f["check"]: f["status"] for f in r["sanity"]["sim"]}
    assert (status["G1"], status["G16"], status["G12"]) == ("red", "red", "red")
    assert r["claim"]["status"] == "withheld"
    assert "sim: G16 replay against direct attack" in r["claim"]["reasons"]
    assert r["worst_case"][1]["sim"]["value"] <= r["attacks"][3]["replay"]["robust"]["value"]


class Counting:
    """Counts how often it is attacked."""

    def __init__(self) -> None:
        self.gradients = 0

    def __call__(self, x: Tensor, seed: int) -> Tensor:
        self.gradients += x.requires_grad
        return FLOAT.logits(x, seed)


def interrupted(after: int) -> dict[str, Any]:
    """The state, as JSON gives it back, of an evaluation that was stopped after some attacks."""
    state: dict[str, Any] = {}

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="^$"):
        suites.run({"float": FLOAT}, DATA, PLAN, stop, state)
    return json.loads(json.dumps(state))


def test_an_interrupted_evaluation_goes_on_where_it_stopped() -> None:
    state = interrupted(3)
    assert set(state["units"]) == {"fgsm@0.05", "pgd-5@0.05", "fgsm@0.1"}
    counting = Counting()
    again = suites.run({"float": network("float", W, counting)}, DATA, PLAN, state=state)
    fresh = suites.run({"float": FLOAT}, DATA, PLAN)
    assert again == fresh
    assert counting.gradients <= 5 + 1


def test_the_result_does_not_depend_on_how_often_it_runs() -> None:
    state: dict[str, Any] = {}
    first = suites.run(MODELS, DATA, PLAN, state=state)
    assert suites.run(MODELS, DATA, PLAN, state=state) == first


@pytest.mark.parametrize(("plan", "key"), [
    (Plan(SMALL, (0.05, 0.1), seed=4), "seed"),
    (Plan(SMALL, (0.05,), seed=3), "eps"),
    (Plan(Suite("small", (FGSM(), PGD(steps=6)), 10), (0.05, 0.1), seed=3), "attacks"),
    (Plan(SMALL, (0.05, 0.1), seed=3, batch_size=10), "batch_size"),
])  # fmt: skip
def test_a_state_of_other_parameters_is_refused(plan: Plan, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"NM004\] saved state: was made with {key} = "):
        suites.run({"float": FLOAT}, DATA, plan, state=interrupted(1))


def test_a_state_of_other_data_or_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"NM004\] saved state: was made with data = "):
        suites.run({"float": FLOAT}, (X.flip(1), DATA[1]), PLAN, state=interrupted(1))
    with pytest.raises(ConfigError, match=r"NM004\] saved state: was made with clean = "):
        suites.run({"float": network("float", -W)}, DATA, PLAN, state=interrupted(1))


def damage(state: dict[str, Any], how: str) -> dict[str, Any]:
    s = copy.deepcopy(state)
    unit = s["units"]["fgsm@0.05"]
    right = unit["models"]["float"]["right"]
    changes: dict[str, Callable[[], object]] = {
        "schema": lambda: s.update(schema="x"),
        "parameters": lambda: s.pop("parameters"),
        "units": lambda: s.update(units=[]),
        "unit": lambda: s["units"].update({"fgsm@0.05": 3}),
        "model": lambda: unit["models"].pop("float"),
        "keys": lambda: unit.pop("replay"),
        "short": lambda: right.pop(),
        "range": lambda: right.__setitem__(0, 2.0),
        "type": lambda: right.__setitem__(0, "1"),
        "numbers": lambda: unit["models"]["float"].pop("loss_increased"),
        "replay": lambda: unit.update(replay={"on": "sim"}),
    }
    changes[how]()
    return s


DAMAGES = "schema parameters units unit model keys short range type numbers replay"


@pytest.mark.parametrize("how", DAMAGES.split())
def test_a_damaged_state_is_refused(how: str) -> None:
    with pytest.raises(ConfigError, match=r"NM006\] saved state: (has schema|entry 'fgsm@0\.05' is damaged)"):
        suites.run({"float": FLOAT}, DATA, PLAN, state=damage(interrupted(1), how))


def test_batches_change_nothing_where_nothing_is_random() -> None:
    attacks = Suite("small", (FGSM(), PGD(steps=5, random_start=False)), 10)
    whole, parts = (suites.run(MODELS, DATA, Plan(attacks, (0.05,), batch_size=n)) for n in (60, 7))
    for key in ("clean", "attacks", "worst_case"):
        assert whole[key] == parts[key]


def test_suites_need_attacks_of_different_names() -> None:
    for attacks in ((), (FGSM(), FGSM(draws=3))):
        with pytest.raises(ConfigError, match=r"NM004\] suite 'bad': has attacks \["):
            Suite("bad", attacks, 10)


def test_suites_by_name() -> None:
    assert [a.name for a in suites.suite("quick").attacks] == ["fgsm", "pgd-10"]
    standard = [a.name for a in suites.suite("standard").attacks]
    assert standard == ["fgsm", "pgd-40", "pgd-40-margin", "rfgsm", "mi-fgsm-10"]
    with pytest.raises(ConfigError, match=r"NM005\] suite 'quik': does not exist\. Did you mean 'quick'"):
        suites.suite("quik")


@pytest.mark.parametrize("kw", [{"eps": ()}, {"eps": (0.1, 0.0)}, {"eps": (0.1,), "batch_size": 0}])
def test_a_plan_without_budget_is_refused(kw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"NM004\] robustness: eps = "):
        Plan(SMALL, **kw)


@pytest.mark.parametrize("models", [{}, {"lava": FLOAT}, {"float": FLOAT, "board": SIM}])
def test_other_models_are_refused(models: dict[str, Differentiable]) -> None:
    with pytest.raises(ConfigError, match=r"NM004\] models: are \["):
        suites.run(models, DATA, PLAN)


def test_a_black_box_cannot_be_attacked_with_gradients() -> None:
    box = BlackBox("lava", lambda x, s: x @ W.T.numpy(), (0.0, 1.0), 4, False)
    with pytest.raises(ConfigError, match=r"NM004\] fgsm: needs gradients, and model 'lava' gives none"):
        suites.run({"sim": box}, DATA, PLAN)
