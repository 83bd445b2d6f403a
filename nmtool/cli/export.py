"""``nmtool export``: a network compiled for a target."""

from __future__ import annotations

from nmtool.cli import options as o
from nmtool.cli.show import quantisation, utilisation
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb


@verb(
    "export",
    "nmtool export runs/demo --target loihi",
    "nmtool export net.nir --target loihi2 --out out/loihi2 --weight-bits 6",
)
def export(
    ui: Ui,
    model: o.Model,
    target: o.Target = None,
    out: o.Out = None,
    weight_bits: o.WeightBits = 8,
    allow: o.Allow = None,
    compiling: o.Compile = None,
    reading: o.Read = None,
) -> None:
    """Quantise and compile a network for a chip: model.nir, program.npz and export.json."""
    from nmtool import api

    done = api.export(o.opened(model, o.Choices(target, weight_bits, allow, compiling, reading)), out)
    for finding in done.record["findings"]:
        ui.warn(api.finding_text(finding))
    document = {"folder": str(done.folder), **done.record}
    ui.result(document, f"{done.folder}\n", *quantisation(document), *utilisation(document))
