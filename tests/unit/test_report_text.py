"""Tables in the terminal: what they say, and that they fit."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from energy_samples import SUMMARY, VERIFY, energy_record, robustness_record
from rich.console import Console

from nmtool.errors import ConfigError
from nmtool.report import text
from nmtool.report.units import digits, energy, energy_range, percent, time, whole


def drawn(record: dict[str, Any], width: int = 140) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False).print(text.render(record))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def line(of: str, starting: str) -> list[str]:
    """Cells of the first line that starts with this text."""
    found = next(x for x in of.splitlines() if x.startswith(starting))
    return re.split(r" {2,}", found.strip())


def test_energy_report_shows_the_vector() -> None:
    shown = drawn(energy_record())
    assert line(shown, "energy per inference") == [
        "energy per inference",
        "1.97 nJ",
        "(low to high 1.61 – 3.40 nJ)",
    ]
    assert line(shown, "hid") == [
        "hid",
        "dense",
        "4",
        "4",
        "25.00 %",
        "3",
        "20",
        "76.92 %",
        "0.472",
        "0.914",
        "0.00850",
        "1.39",
        "1.19",
        "1.45",
    ]
    assert line(shown, "network")[1:6] == ["6", "22.22 %", "4", "26", "0.614"]
    assert line(shown, "loihi1-davies2018")[:6] == [
        "loihi1-davies2018",
        "chip-dynamic",
        "simulated",
        "1.68 nJ",
        "1.97 nJ",
        "2.09 nJ",
    ]
    assert line(shown, "MACs of the dense")[-1] == "24"
    assert "A model, not a measurement" in shown
    assert "the host, its memory and its links" in shown
    assert "NM503 number of samples is 1" in shown


def test_robustness_report_names_replay_and_the_withheld_claim() -> None:
    record = robustness_record()
    shown = drawn(record)
    clean = record["clean"]["float"]["value"]
    assert line(shown, "no attack")[1].startswith(f"{100 * clean:.2f} %")
    rows = [x for x in shown.splitlines() if x.startswith("pgd40")]
    assert [re.split(r" {2,}", x)[1] for x in rows] == ["0.1", "0.2"]
    assert "The robustness claim is withheld" in shown
    assert "sim: G16 replay against direct attack" in shown
    assert "no measure of its robustness" in shown
    assert shown.index("G16") < shown.rindex("G1 ")


def test_verify_names_the_first_difference() -> None:
    shown = drawn(VERIFY)
    assert "sim against float: predictions agree on 75.00 % of 8 samples" in shown
    assert line(shown, "fc2") == ["fc2", "96.00 %", "–", "–", "3.50", "step 2, sample 1, neuron [4]"]
    assert "fc2: float has spike = 1, v = 0, sim has spike = 0, v = 639" in shown
    assert "NM401 fc2: 3 times v clipped in sim" in shown


def test_summary_puts_float_beside_deployed() -> None:
    shown = drawn(SUMMARY)
    assert line(shown, "accuracy ") == ["accuracy", "97.50 %", "97.00 %"]
    assert line(shown, "accuracy under pgd40") == [
        "accuracy under pgd40 at eps 0.1",
        "52.00 %",
        "–",
        "60.00 %",
    ]
    assert line(shown, "energy per inference")[-2:] == ["2.50 µJ", "(low to high 2.00 – 3.00 µJ)"]
    assert "the robustness claim is withheld" in shown
    assert line(shown, "SynOps per inference")[-1] == "51.2 k"


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize(
    "record", [energy_record(), robustness_record(), VERIFY, SUMMARY], ids=lambda r: r["schema"]
)
def test_nothing_is_wider_than_the_terminal(record: dict[str, Any], width: int) -> None:
    shown = drawn(record, width)
    assert max(len(x) for x in shown.splitlines()) <= width
    if record["schema"].startswith("nmtool.energy"):
        assert {"hid", "1.39"} <= set(line(shown, "hid"))


def test_unknown_schema_is_refused() -> None:
    with pytest.raises(ConfigError, match="NM004.*schema: is 'x'"):
        text.render({"schema": "x"})


def test_units() -> None:
    assert [energy(x) for x in (None, 0, 13.6, 1969.2, 3.27e9, 5e13)] == [
        "–",
        "0 pJ",
        "13.6 pJ",
        "1.97 nJ",
        "3.27 mJ",
        "50.0 J",
    ]
    assert energy_range({"low": 1679.2, "nominal": None, "high": 2085.2}) == "1.68 – 2.09 nJ"
    assert energy_range({"low": None, "nominal": None, "high": 2.0}) == "–"
    assert [whole(x) for x in (None, 26, 9999, 114_330_000, 152_770, 2.5e9, 0.25)] == [
        "–",
        "26",
        "9999",
        "114 M",
        "153 k",
        "2.5 G",
        "0.250",
    ]
    assert [digits(x) for x in (0, 0.2222, 12.34, 1669.4, 1.2e-5, 3e7)] == [
        "0",
        "0.222",
        "12.3",
        "1669",
        "1.20e-05",
        "3e+07",
    ]
    assert [time(x) for x in (None, 187.2, 3.68e6)] == ["–", "187 ns", "3.68 ms"]
    assert percent(None) == "–"
    assert [percent(x) for x in (0, 1e-6, 0.9825, 0.99996, 1)] == [
        "0 %",
        "< 0.01 %",
        "98.25 %",
        "> 99.99 %",
        "100 %",
    ]
