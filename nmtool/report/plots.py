"""Figures: membrane potentials, robust accuracy, energy by layer, spikes. Colours can be told apart by everyone.

Every function returns a figure and touches no global state; :func:`save` writes it. matplotlib is imported when the
first figure is drawn.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmtool.errors import EvaluationError
from nmtool.provenance import writing
from nmtool.report.energy_tables import headline_profile
from nmtool.report.units import energy, energy_unit, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#6E6E6E",
)  # fmt: skip
"""Okabe and Ito's palette, and a grey for what is not data."""

MODEL_COLOURS = {"float": BLUE, "sim": VERMILLION}
PART_COLOURS = {
    "synapse": BLUE,
    "neuron": ORANGE,
    "message": GREEN,
    "spike": PURPLE,
    "graded": SKY,
    "mac": SKY,
}
DPI = 160
PANEL = (3.6, 2.7)
"""Inches of one small panel."""

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#333333",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Membrane:
    """Potentials of one layer before the threshold test.

    Attributes:
        name: of the layer.
        v_pre: any shape, in the unit of ``v_th``.
        v_th: threshold.
        window: lowest and highest potential at which the surrogate gradient is not zero.
    """

    name: str
    v_pre: NDArray[Any]
    v_th: float
    window: tuple[float, float]


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _panels(n: int, columns: int = 3, size: tuple[float, float] = PANEL) -> tuple[Figure, list[Axes]]:
    """A figure of ``n`` panels, row by row."""
    from matplotlib.figure import Figure

    wide = min(n, columns)
    tall = -(-n // wide)
    figure = Figure(figsize=(size[0] * wide, size[1] * tall))
    axes = list(np.atleast_1d(figure.subplots(tall, wide, squeeze=False)).ravel())
    for spare in axes[n:]:
        spare.set_axis_off()
    return figure, axes[:n]


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend above all panels, every label once."""
    found = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(found.values(), found.keys(), loc="outside upper right", ncols=len(found), fontsize=8)


def membrane_distribution(layers: Sequence[Membrane]) -> Figure:
    """Histogram of the potentials of each layer, with its threshold and the window of the surrogate gradient.

    Raises:
        EvaluationError: NM501 if a layer has no finite potential.
    """
    with _style():
        figure, axes = _panels(len(layers))
        for axis, layer in zip(axes, layers, strict=True):
            _membrane(axis, layer)
        axes[0].set_ylabel("share of potentials per bin [%]")
        figure.supxlabel("membrane potential before the threshold test", fontsize=9)
        _legend(figure, axes)
        return figure


def _membrane(axis: Axes, layer: Membrane) -> None:
    v = np.asarray(layer.v_pre, np.float64).ravel()
    v = v[np.isfinite(v)]
    if not v.size:
        message = "has no finite membrane potential to draw"
        raise EvaluationError("NM501", layer.name, message, "Record the layer's potentials")
    low, high = np.percentile(v, (0.2, 99.8))
    low, high = min(low, layer.window[0]), max(high, layer.window[1])
    margin = 0.05 * (high - low) or 1.0
    edges = np.linspace(low - margin, high + margin, 61)
    axis.axvspan(*layer.window, color=ORANGE, alpha=0.18, lw=0, label="surrogate window")
    axis.hist(
        v,
        edges.tolist(),
        weights=np.full(v.size, 100 / v.size),
        color=BLUE,
        alpha=0.85,
        lw=0,
        label="potentials",
    )
    axis.axvline(layer.v_th, color=VERMILLION, lw=1.6, label="threshold")
    inside = float(((v >= layer.window[0]) & (v <= layer.window[1])).mean())
    axis.set_title(f"{layer.name}: {percent(inside)} in the window")
    axis.set_xlim(edges[0], edges[-1])
    axis.grid(visible=False, axis="x")


def robust_accuracy(record: Mapping[str, Any]) -> Figure:
    """Accuracy against budget: one panel per attack and one for the worst of all; replay dashed. Bands are 95 %.

    Args:
        record: ``nmtool.robustness/1``.
    """
    attacks = list(dict.fromkeys(row["attack"] for row in record["attacks"]))
    with _style():
        figure, axes = _panels(len(attacks) + 1)
        for axis, attack in zip(axes, attacks, strict=False):
            rows = sorted(
                (r for r in record["attacks"] if r["attack"] == attack), key=lambda r: float(r["eps"])
            )
            for model, clean in record["clean"].items():
                points = [(r["eps"], r["models"][model]["robust"]) for r in rows if model in r["models"]]
                _curve(axis, [(0.0, clean), *points], model)
            replayed = [(r["eps"], r["replay"]["robust"]) for r in rows if r["replay"]]
            if replayed:
                x, y = [p[0] for p in replayed], [100 * p[1]["value"] for p in replayed]
                marks: dict[str, Any] = {"marker": "o", "ms": 4, "mfc": "white"}
                axis.plot(x, y, "--", color=VERMILLION, lw=1.2, label="replay on deployed", **marks)
            axis.set_title(attack)
        worst = sorted(record["worst_case"], key=lambda r: float(r["eps"]))
        for model, clean in record["clean"].items():
            _curve(axes[-1], [(0.0, clean), *((r["eps"], r[model]) for r in worst if model in r)], model)
        axes[-1].set_title("worst of all attacks")
        largest = max((float(r["eps"]) for r in record["attacks"]), default=1.0) or 1.0
        for axis in axes:
            axis.set_ylim(0, 102)
            axis.set_xlim(-0.02 * largest, 1.02 * largest)
        axes[0].set_ylabel("accuracy [%]")
        figure.supxlabel("largest change per input, eps", fontsize=9)
        _legend(figure, axes)
        return figure


def _curve(axis: Axes, points: Sequence[tuple[float, Mapping[str, float]]], model: str) -> None:
    colour = MODEL_COLOURS.get(model, GREEN)
    x = [p[0] for p in points]
    low, value, high = ([100 * p[1][k] for p in points] for k in ("low", "value", "high"))
    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    name = {"sim": "deployed"}.get(model, model)
    axis.plot(x, value, "-", color=colour, lw=1.8, marker="o", ms=4, label=name)


def energy_by_layer(record: Mapping[str, Any]) -> Figure:
    """Stacked bars per layer, nominal energy by what causes it, with a whisker from low to high.

    Args:
        record: ``nmtool.energy-report/1``.

    Raises:
        EvaluationError: NM501 if no profile prices the record.
    """
    profile = headline_profile(record)
    layers = record["layers"]
    if profile is None or not layers:
        raise EvaluationError(
            "NM501", "energy by layer", "the record has no priced layer", "Name a --profile"
        )
    size, unit = energy_unit(max((x["energy_pj"][profile]["high"] or 0.0) for x in layers))
    with _style():
        figure, (axis,) = _panels(1, size=(7.2, 1.3 + 0.36 * len(layers)))
        rows = np.arange(len(layers))
        left = np.zeros(len(layers))
        for part in dict.fromkeys(k for x in layers for k in x["breakdown_pj"][profile]):
            width = np.array([(x["breakdown_pj"][profile].get(part) or 0.0) / size for x in layers])
            if width.any():
                axis.barh(rows, width, 0.62, left, color=PART_COLOURS.get(part, GREY), label=part, lw=0)
                left += width
        _whiskers(axis, [x["energy_pj"][profile] for x in layers], size)
        axis.set_yticks(rows, [x["name"] for x in layers])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_xlim(left=0)
        missing = sorted({k for x in layers for k, v in x["breakdown_pj"][profile].items() if v is None})
        unknown = f"; unknown and not drawn: {', '.join(missing)}" if missing else ""
        axis.set_xlabel(f"energy per inference [{unit}], whisker: low to high{unknown}")
        total = record["energy"][profile]["per_inference_pj"]["nominal"]
        axis.set_title(
            f"Energy by layer, {energy(total)} in all ({profile}, {record['energy'][profile]['evidence']})"
        )
        _legend(figure, [axis])
        return figure


def _whiskers(axis: Axes, bounds: Sequence[Mapping[str, float | None]], size: float) -> None:
    for row, b in enumerate(bounds):
        low, high = b["low"], b["high"]
        if low is not None and high is not None:
            axis.plot([low / size, high / size], [row, row], color="#222222", lw=1.1, marker="|", ms=7)


def spike_raster(spikes: Mapping[str, NDArray[Any]], dt_s: float | None = None) -> Figure:
    """Spikes of one sample: one panel per population under each other, a dot per spike.

    Args:
        spikes: per population ``[T, *shape]``.
        dt_s: seconds per step; without it the axis counts steps.
    """
    with _style():
        from matplotlib.ticker import MaxNLocator

        figure, axes = _panels(len(spikes), columns=1, size=(7.2, 1.7))
        colours = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
        for i, (axis, (name, s)) in enumerate(zip(axes, spikes.items(), strict=True)):
            flat = np.asarray(s).reshape(len(s), -1)
            step, neuron = np.nonzero(flat)
            x = step * 1e3 * dt_s if dt_s else step
            dot = float(np.clip(2000 / max(flat.shape[1], 1), 1.0, 14.0))
            axis.scatter(x, neuron, s=dot, color=colours[i % len(colours)], lw=0, marker="s", rasterized=True)
            axis.set_ylim(flat.shape[1] - 0.5, -0.5)
            axis.set_xlim(*(np.array((-0.5, len(flat) - 0.5)) * (1e3 * dt_s if dt_s else 1)))
            axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.tick_params(labelbottom=axis is axes[-1])
            axis.set_ylabel("neuron")
            axis.set_title(f"{name}: {step.size} spikes, density {percent(step.size / max(flat.size, 1))}")
        axes[-1].set_xlabel("time [ms]" if dt_s else "step")
        return figure


def figures(record: Mapping[str, Any]) -> dict[str, Figure]:
    """Every figure that a record alone can be drawn as, by name; what it has no numbers for is left out."""
    drawn: dict[str, Figure] = {}
    for name, draw in _FIGURES.get(str(record.get("schema")), {}).items():
        with contextlib.suppress(EvaluationError):
            drawn[name] = draw(record)
    return drawn


_FIGURES: dict[str, dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    "nmtool.energy-report/1": {"energy_by_layer": energy_by_layer},
    "nmtool.robustness/1": {"robust_accuracy": robust_accuracy},
}


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        ConfigError: NM002 if it cannot be written.
    """
    content = png(figure)
    with writing(path) as part:
        part.write_bytes(content)
