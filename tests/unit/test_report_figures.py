"""Figures and pages: they show the record's numbers, stand alone, and are the same each time."""

from __future__ import annotations

import html.parser
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from energy_samples import SUMMARY, VERIFY, energy_record, robustness_record

from nmtool.errors import ConfigError, EvaluationError
from nmtool.report import html as page
from nmtool.report import plots


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_energy_bars_are_the_records_numbers() -> None:
    record = energy_record()
    axis = plots.energy_by_layer(record).axes[0]
    widths = [[bar.get_width() for bar in bars] for bars in axis.containers]
    parts = [x["breakdown_pj"]["loihi1-davies2018"] for x in record["layers"]]
    shown = [k for k in parts[0] if any(p[k] for p in parts)]
    assert widths == [pytest.approx([p[k] / 1e3 for p in parts]) for k in shown]
    assert np.sum(widths) * 1e3 == pytest.approx(1969.2)
    ends = [sorted(w.get_xdata()) for w in axis.lines]
    assert ends == [
        pytest.approx([x["energy_pj"]["loihi1-davies2018"][b] / 1e3 for b in ("low", "high")])
        for x in record["layers"]
    ]
    assert "[nJ]" in axis.get_xlabel()
    assert "1.97 nJ" in axis.get_title(loc="left")


def test_unknown_parts_are_named_and_not_drawn() -> None:
    record = energy_record()
    for layer in record["layers"]:
        layer["breakdown_pj"]["loihi1-davies2018"]["neuron"] = None
    axis = plots.energy_by_layer(record).axes[0]
    assert "not drawn: neuron" in axis.get_xlabel()
    assert {c.get_label() for c in axis.containers} == {"synapse", "message"}


def test_robust_accuracy_has_a_panel_per_attack_and_dashed_replay() -> None:
    record = robustness_record()
    figure = plots.robust_accuracy(record)
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert titles == ["fgsm", "pgd40", "worst of all attacks"]
    lines = {x.get_label(): x for x in figure.axes[1].lines}
    assert set(lines) == {"float", "deployed", "replay on deployed"}
    assert lines["replay on deployed"].get_linestyle() == "--"
    assert list(lines["float"].get_xdata()) == [0.0, 0.1, 0.2]
    assert list(lines["float"].get_ydata()) == pytest.approx(
        [
            100 * record["clean"]["float"]["value"],
            *(100 * r["models"]["float"]["robust"]["value"] for r in record["attacks"][2:]),
        ]
    )


def test_membrane_window_share() -> None:
    layer = plots.Membrane("fc1", np.array([[0.0, 0.4, 0.9], [1.4, 3.0, np.nan]]), 1.0, (0.5, 1.5))
    axis = plots.membrane_distribution([layer, layer]).axes[0]
    assert axis.get_title(loc="left") == "fc1: 40.00 % in the window"
    assert [x.get_xdata()[0] for x in axis.lines] == [1.0]
    assert sum(p.get_height() for p in axis.patches if p.get_width() < 0.2) == pytest.approx(100, abs=21)


def test_membrane_without_a_value_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="NM501.*fc1: has no finite membrane potential"):
        plots.membrane_distribution([plots.Membrane("fc1", np.array([np.nan]), 1.0, (0.0, 2.0))])


def test_constant_potentials_can_be_drawn() -> None:
    flat = plots.Membrane("fc1", np.zeros(9), 0.0, (0.0, 0.0))
    assert plots.png(plots.membrane_distribution([flat]))


@pytest.mark.parametrize(
    ("dt_s", "label", "last"), [(None, "step", 3.0), (1e-3, "time [ms]", 3.0), (2e-3, "time [ms]", 6.0)]
)
def test_raster_has_a_dot_per_spike(dt_s: float | None, label: str, last: float) -> None:
    spikes = np.zeros((4, 2, 3), np.uint8)
    spikes[3, 1, 2] = spikes[0, 0, 1] = 1
    axis = plots.spike_raster({"fc1": spikes}, dt_s).axes[0]
    dots = np.asarray(axis.collections[0].get_offsets())
    assert sorted(map(tuple, dots.tolist())) == [(0.0, 1.0), (last, 5.0)]
    assert axis.get_xlabel() == label
    assert "2 spikes, density 8.33 %" in axis.get_title(loc="left")


def test_files_are_png_and_repeat_byte_for_byte(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        plots.save(plots.energy_by_layer(energy_record()), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert size(paths[0].read_bytes())[0] == round(7.2 * plots.DPI)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="NM002.*cannot be written"):
        plots.save(plots.energy_by_layer(energy_record()), tmp_path / "file" / "c.png")


class Reader(html.parser.HTMLParser):
    """Collects what would be loaded from elsewhere, and checks that tags close."""

    void = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("record", "figures"),
    [(energy_record(), 1), (robustness_record(), 1), (VERIFY, 0), (SUMMARY, 0)],
    ids=lambda x: str(x)[:30],
)
def test_pages_stand_alone(record: dict[str, Any], figures: int) -> None:
    text = page.page(record)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.links) == figures
    assert all(link.startswith("data:image/png;base64,") for link in reader.links)
    assert record["schema"] in text


def test_page_shows_all_pairs_and_escapes() -> None:
    other = {**VERIFY, "reference": "sim", "other": "<lava> & co"}
    text = page.page({**VERIFY, "further": [other]}, {"a <caption>": b"png"})
    assert "sim against float" in text
    assert "&lt;lava&gt; &amp; co against sim" in text
    assert "<lava>" not in text
    assert "a &lt;caption&gt;" in text


def test_page_is_written_whole(tmp_path: Path) -> None:
    page.save(robustness_record(), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    assert "nmtool robustness-report &lt;x&gt;" in text
    assert not re.search(r"https?://", text)


def test_matplotlib_waits_until_a_figure_is_drawn() -> None:
    code = (
        "import sys, nmtool.report.plots, nmtool.report.text, nmtool.report.html, nmtool.metrics.energy\n"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'jinja2', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
