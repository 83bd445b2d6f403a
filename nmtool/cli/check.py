"""``nmtool check``: does a network fit a chip?"""

from __future__ import annotations

from nmtool.cli import options as o
from nmtool.cli.show import utilisation
from nmtool.cli.ui import Ui
from nmtool.cli.verbs import verb
from nmtool.errors import EXIT_NO, EXIT_OK


@verb("check", "nmtool check runs/demo --target loihi", "nmtool check net.nir --target ./my-chip.toml --json")
def check(
    ui: Ui,
    model: o.Model,
    target: o.Target = None,
    weight_bits: o.WeightBits = 8,
    allow: o.Allow = None,
    compiling: o.Compile = None,
    reading: o.Read = None,
) -> int:
    """Hold a network against the design rules of a chip. Ends with 1 if one is violated; writes nothing."""
    from nmtool import api

    record = api.check(o.opened(model, o.Choices(target, weight_bits, allow, compiling, reading)))
    found = [api.finding_text(d) for d in record["findings"]]
    verdict = f"{record['target']}: {'fits' if record['passed'] else 'does not fit'}"
    ui.result(record, *found, verdict, *utilisation(record))
    return EXIT_OK if record["passed"] else EXIT_NO
