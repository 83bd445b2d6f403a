"""Intervals, worst cases and the record of an evaluation."""

import json

import numpy as np
import pytest

from nmtool.errors import EvaluationError
from nmtool.metrics.robustness import rate, record, wilson, worst, worst_case


@pytest.mark.parametrize(("right", "n", "low", "high"), [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
])  # fmt: skip
def test_wilson_equals_newcombe_1998_table_1(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


def test_interval_of_all_right_is_open_below_only() -> None:
    r = rate([1.0] * 50)
    assert (r["value"], r["high"], r["n"]) == (1.0, 1.0, 50)
    assert r["low"] == pytest.approx(50 / (50 + 1.959964**2))


@pytest.mark.parametrize("outcomes", [[], [0.5, 1.1], [-0.1], [np.nan], [[1.0]]])
def test_outcomes_that_are_no_shares_are_refused(outcomes: list[float]) -> None:
    with pytest.raises(EvaluationError, match=r"NM501\] robust accuracy: outcomes of shape"):
        rate(outcomes)


def test_worst_is_per_sample() -> None:
    assert worst([[1, 0, 0.5], [0, 1, 0.75]]).tolist() == [0, 0, 0.5]


Outcomes = dict[str, list[float]]


def unit(attack: str, eps: float, models: Outcomes, replay: list[float] | None = None) -> dict[str, object]:
    entries = {n: {"right": r, "zero_gradient": 0.0} for n, r in models.items()}
    again = {"label": "replay", "of": "float", "on": "sim", "right": replay} if replay else None
    return {"attack": attack, "eps": eps, "models": entries, "replay": again}


UNITS = [
    unit("fgsm", 0.1, {"float": [1, 1, 0, 1], "sim": [1, 1, 1, 0]}, [1, 0, 1, 1]),
    unit("pgd-10", 0.1, {"float": [1, 0, 1, 1], "sim": [1, 1, 1, 1]}, [1, 1, 1, 1]),
    unit("fgsm", 0.2, {"float": [0, 0, 0, 0], "sim": [0, 0, 0, 1]}),
]
CLEAN = {"float": [1.0, 1, 1, 1], "sim": [0.0, 1, 1, 1]}


def test_worst_case_is_over_attacks_the_clean_input_and_replayed_examples() -> None:
    got = worst_case(0.1, CLEAN, UNITS)
    assert (got["eps"], got["float"]["value"], got["sim"]["value"]) == (0.1, 0.5, 0.25)


def test_record_holds_rates_and_no_outcomes() -> None:
    r = record({"suite": "quick"}, CLEAN, UNITS, {"float": [], "sim": []})
    assert (r["schema"], r["suite"]) == ("nmtool.robustness/1", "quick")
    assert r["clean"]["sim"] == rate(CLEAN["sim"])
    assert [(a["attack"], a["eps"]) for a in r["attacks"]] == [("fgsm", 0.1), ("pgd-10", 0.1), ("fgsm", 0.2)]
    assert r["attacks"][0]["models"]["sim"] == {"robust": rate([1, 1, 1, 0]), "zero_gradient": 0.0}
    assert r["attacks"][0]["replay"] == {
        "label": "replay",
        "of": "float",
        "on": "sim",
        "robust": rate([1, 0, 1, 1]),
    }
    assert r["attacks"][2]["replay"] is None
    assert [w["eps"] for w in r["worst_case"]] == [0.1, 0.2]
    assert r["claim"] == {"status": "reported", "reasons": []}
    assert "right" not in json.dumps(r, allow_nan=False)


@pytest.mark.parametrize(
    ("status", "claim"), [("pass", "reported"), ("amber", "reported"), ("red", "withheld")]
)
def test_a_red_finding_withholds_the_claim(status: str, claim: str) -> None:
    found = {"check": "G1", "title": "inputs without gradient", "status": status, "measured": {}, "rule": ""}
    r = record({}, CLEAN, UNITS, {"float": [], "sim": [found]})
    assert r["claim"]["status"] == claim
    assert r["claim"]["reasons"] == (["sim: G1 inputs without gradient"] if status == "red" else [])
