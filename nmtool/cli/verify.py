"""``nmtool verify``: where two backends differ on the same network and inputs."""

from __future__ import annotations

from typing import Annotated

import typer

from nmtool.cli import options as o
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb
from nmtool.errors import EXIT_NO, EXIT_OK


@verb(
    "verify",
    "nmtool verify runs/demo --backends float,sim --target loihi",
    "nmtool verify runs/demo --backends sim,lava -n 10",
    "nmtool verify net.nir --spikes in.npz --out verify.json",
)
def verify(
    ui: Ui,
    model: o.Model,
    backends: Annotated[
        str,
        typer.Option("--backends", "-b", metavar="A,B,...", help="Each is compared with the one before it."),
    ] = "float,sim",
    target: o.Target = None,
    data: o.Data = None,
    spikes: o.Spikes = None,
    n: o.Count = None,
    data_root: o.DataRoot = None,
    seed: o.Seed = 0,
    steps: o.Steps = None,
    noise: o.Noise = False,
    batch: o.BatchSize = 256,
    out: o.Out = None,
    weight_bits: o.WeightBits = 8,
    allow: o.Allow = None,
    compiling: o.Compile = None,
    reading: o.Read = None,
) -> int:
    """Compare backends layer by layer and name the first difference. Ends with 1 if integers differ."""
    from nmtool import api
    from nmtool.report.text import render

    record = api.verify(
        o.opened(model, o.Choices(target, weight_bits, allow, compiling, reading)),
        [b.strip() for b in backends.split(",")],
        api.Inputs(data, spikes, n, data_root),
        api.RunOptions(steps, seed, noise, batch_size=batch),
        out,
        ui.watch,
    )
    ui.result(record, *(render(pair) for pair in (record, *record["further"])))
    return EXIT_OK if record["integers_equal"] else EXIT_NO
