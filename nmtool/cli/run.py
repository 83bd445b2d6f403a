"""``nmtool run``: a model on one backend."""

from __future__ import annotations

from nmtool.cli import options as o
from nmtool.cli.show import run_summary
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb
from nmtool.errors import ConfigError


@verb(
    "run",
    "nmtool run runs/demo --backend sim --data digits",
    "nmtool run net.nir --spikes in.npz --record all --out traces.npz",
    "nmtool run runs/demo/loihi1 --backend lava -n 20 --json",
)
def run(
    ui: Ui,
    model: o.Model,
    backend: o.Backend = "sim",
    target: o.Target = None,
    data: o.Data = None,
    spikes: o.Spikes = None,
    n: o.Count = None,
    data_root: o.DataRoot = None,
    seed: o.Seed = 0,
    steps: o.Steps = None,
    noise: o.Noise = True,
    strict: o.Strict = False,
    batch: o.BatchSize = 256,
    record: o.Record = None,
    out: o.Out = None,
    weight_bits: o.WeightBits = 8,
    allow: o.Allow = None,
    compiling: o.Compile = None,
    reading: o.Read = None,
) -> None:
    """Run a network: predictions, spike counts, traces on request."""
    from nmtool import api

    if record and out is None:
        raise ConfigError(
            "NM004", "--record", "traces go into a file, and none is named", "Add --out traces.npz"
        )
    done = api.run(
        o.opened(model, o.Choices(target, weight_bits, allow, compiling, reading)),
        backend,
        api.Inputs(data, spikes, n, data_root),
        api.RunOptions(steps, seed, noise, tuple(record or ()), batch, strict=strict),
        out,
        ui.watch,
    )
    o.warn_about_run(ui, done.record)
    ui.result(done.record, *run_summary(done.record), *([f"written to {out}"] if out else []))
