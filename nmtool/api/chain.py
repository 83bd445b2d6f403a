"""The whole chain on handwritten digits: every step is a call that the command line offers by itself as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmtool import provenance
from nmtool.api.compiling import export
from nmtool.api.energy import energy_report
from nmtool.api.inputs import Inputs, load_inputs
from nmtool.api.models import Model, open_model
from nmtool.api.progress import Watch, silent
from nmtool.api.robustness import AttackOptions, robustness_report
from nmtool.api.running import NOISE_OFF, run, verify
from nmtool.api.training import train

if TYPE_CHECKING:
    from nmtool.report.plots import Membrane

RECIPE = "digits-tgo"
SUMMARY, VERIFY_RECORD, MEMBRANES = "summary.json", "verify.json", "membrane_distribution.png"
QUICK_EPOCHS, QUICK_SAMPLES, QUICK_EPS = 6, 60, (0.1,)
DRAWN_SAMPLES = 256


@dataclass(frozen=True)
class Demo:
    """What the demo made: its folder, the summary (``nmtool.summary/1``) and the names of the files."""

    folder: Path
    summary: Mapping[str, Any]
    files: tuple[str, ...]


def demo(
    out: Path | str = "runs/demo",
    target: str = "loihi",
    quick: bool = False,
    seed: int | None = None,
    watch: Watch = silent,
) -> Demo:
    """Train on digits, export, run, verify, attack and price.

    Args:
        out: run directory.
        target: the chip.
        quick: a short training and few samples: shows that everything works, its numbers mean little.
        seed: of training; None takes the recipe's.
        watch: progress.

    Raises:
        ConfigError: NM002 if ``out`` cannot be written, NM005 if there is no such target.
        NmtoolError: what a step says that fails.
    """
    from nmtool.report import plots, schema
    from nmtool.target import load_target

    load_target(target)  # before the work, not after it
    overrides = [f"train.epochs={QUICK_EPOCHS}"] if quick else []
    overrides += [] if seed is None else [f"seed={seed}"]
    inputs = Inputs(n=QUICK_SAMPLES if quick else None)
    attack = AttackOptions(eps=QUICK_EPS if quick else None)

    trained = train(RECIPE, out, overrides, watch=watch)
    folder = trained.folder
    model = open_model(folder, target)
    exported = export(model)
    floating, deployed = (run(model, name, inputs, watch=watch) for name in ("float", "sim"))
    agreement = verify(model, ("float", "sim"), inputs, NOISE_OFF, folder / VERIFY_RECORD, watch)
    robustness = robustness_report(model, "sim", inputs, attack, folder, watch)
    energy = energy_report(model, deployed, out=folder)

    summary = {
        "schema": "nmtool.summary/1",
        "target": model.spec.name,
        "inputs": deployed.record["inputs"],
        "n_samples": deployed.record["n_samples"],
        "accuracy": {"float": floating.record["accuracy"], "sim": deployed.record["accuracy"]},
        "robust": _robust(robustness),
        "verify": {k: agreement[k] for k in ("agreement", "prediction_agreement")},
        "synops_per_inference": energy["counts"]["per_inference"]["synops_stored"]["mean"],
        "spike_density": energy["counts"]["density"]["net"],
        "energy_pj": energy["estimate"]["per_inference_pj"],
        "seei": energy["seei"]["value"],
        **provenance.record(trained.record["seed"], **trained.record["sha256"], program=model.program.sha256),
    }
    schema.save(summary, folder / SUMMARY)
    plots.save(plots.membrane_distribution(_membranes(folder, inputs, model)), folder / MEMBRANES)
    files = sorted(p.name for p in folder.iterdir() if p.suffix in (".nir", ".json", ".png", ".html"))
    return Demo(folder, summary, (f"{exported.folder.name}/", *files))


def _robust(record: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy under each attack at the middle budget; ``replay``: the float network's examples on the deployed one."""
    eps = sorted(record["eps"])[len(record["eps"]) // 2]
    rows = [row for row in record["attacks"] if row["eps"] == eps]
    found: dict[str, Any] = {"eps": eps, "n_samples": record["n_samples"], "claim": record["claim"]["status"]}
    for name in ("float", "sim"):
        found[name] = {row["attack"]: row["models"][name]["robust"]["value"] for row in rows}
    found["replay"] = {row["attack"]: row["replay"]["robust"]["value"] for row in rows}
    return found


def _membranes(folder: Path, inputs: Inputs, model: Model) -> list[Membrane]:
    """Potentials of the trained network, layer by layer, with its noise."""
    from nmtool.report.plots import Membrane
    from nmtool.train.potentials import potentials

    x = load_inputs(inputs, model.interface).x[:DRAWN_SAMPLES]
    return [
        Membrane(p.name, p.v_pre, p.v_th, (p.v_th - p.half_window, p.v_th + p.half_window))
        for p in potentials(folder, x)
    ]
