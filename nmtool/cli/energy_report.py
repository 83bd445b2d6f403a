"""``nmtool energy-report``: what an inference costs, counted and priced."""

from __future__ import annotations

from nmtool.cli import options as o
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb


@verb(
    "energy-report",
    "nmtool energy-report runs/demo --target loihi",
    "nmtool energy-report runs/demo --from run.npz --profile loihi1-sanafe",
    "nmtool energy-report net.nir --spikes in.npz --out out --json",
)
def energy_report(
    ui: Ui,
    model: o.Model,
    backend: o.Backend = "sim",
    target: o.Target = None,
    saved: o.SavedRun = None,
    profiles: o.Profiles = None,
    step_time_s: o.StepTime = None,
    data: o.Data = None,
    spikes: o.Spikes = None,
    n: o.Count = None,
    data_root: o.DataRoot = None,
    seed: o.Seed = 0,
    steps: o.Steps = None,
    noise: o.Noise = True,
    batch: o.BatchSize = 256,
    out: o.Out = None,
    weight_bits: o.WeightBits = 8,
    allow: o.Allow = None,
    compiling: o.Compile = None,
    reading: o.Read = None,
) -> None:
    """Count events of a run and price them: a model, not a measurement. --out DIR gets energy.json and a page."""
    from nmtool import api
    from nmtool.report.text import render

    opened = o.opened(model, o.Choices(target, weight_bits, allow, compiling, reading))
    if saved is None:
        inputs = api.Inputs(data, spikes, n, data_root)
        options = api.RunOptions(steps, seed, noise, batch_size=batch)
        done = api.run(opened, backend, inputs, options, watch=ui.watch)
    else:
        done = api.load_run(saved)
    o.warn_about_run(ui, done.record)
    record = api.energy_report(opened, done, profiles, step_time_s, out)
    ui.result(record, render(record))
