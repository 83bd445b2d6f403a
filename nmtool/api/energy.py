"""Price a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmtool import provenance
from nmtool.api.models import AnyModel, open_model
from nmtool.api.pages import write_report
from nmtool.api.running import Run
from nmtool.errors import ConfigError

STEM = "energy"


def energy_report(
    model: AnyModel,
    done: Run,
    profiles: Sequence[str] | None = None,
    step_time_s: float | None = None,
    out: Path | str | None = None,
) -> dict[str, Any]:
    """Price a run.

    Args:
        model: what ran.
        done: its run on any backend.
        profiles: names of energy profiles; None takes all that the target and the library have.
        step_time_s: measured duration of a step, for static power; None takes the model's lower bound.
        out: a directory for ``energy.json``, a page and figures.

    Returns:
        record ``nmtool.energy-report/1``.

    Raises:
        ConfigError: NM004 if the run is of another model, NM005 for an unknown profile, NM002 for ``out``.
        EvaluationError: NM501 if a count is missing.
    """
    from nmtool.metrics.counting import EnergyOptions
    from nmtool.metrics.energy import energy_report as price

    opened = open_model(model)
    ran, program = done.result.model_sha256, opened.program
    if ran not in (program.sha256, program.graph_sha256):
        message = f"is of model {ran[:12]}, not of {program.sha256[:12]}"
        hint = "Name the model and the options that the run was made with"
        raise ConfigError("NM004", "the saved run", message, hint)
    options = EnergyOptions(str(done.record["inputs"]), "test", step_time_s)
    counted = price(program, done.result, opened.spec, done.labels, profiles, options)
    record = {**counted, **provenance.record(done.result.seed, program=program.sha256, run=ran)}
    if out is not None:
        write_report(record, Path(out), STEM)
    return record
