"""Runs generated networks on the slow simulator, the fast one and real Lava, and compares every spike, u and v.

    python tools/conformance.py --networks 1000

Prints one JSON document; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "conformance"))

from compare import differences, expected, options
from generator import Case, case
from oracle import History

from nmtool import lava_env
from nmtool.backends.lava import LavaBackend
from nmtool.backends.sim import SimBackend
from nmtool.backends.worker_link import WorkerLink
from nmtool.errors import NmtoolError
from nmtool.provenance import environment


class Summary:
    """What was compared so far."""

    def __init__(self) -> None:
        self.features: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.differing: list[dict[str, Any]] = []

    def add(self, c: Case, want: dict[str, History]) -> None:
        """Count a network's size and what happens in it."""
        self.features.update(c.features)
        self.totals["networks"] += 1
        self.totals["populations"] += len(c.program.populations)
        self.totals["connections"] += len(c.program.connections)
        for h in want.values():
            self.totals["values_compared"] += 3 * h.spikes.size
            self.totals["spikes"] += int(h.spikes.sum())
            self.totals["u_wrapped"] += h.wrapped
            self.totals["v_clipped"] += h.clipped

    def compare(
        self, seed: int, c: Case, want: dict[str, History], backend: SimBackend | LavaBackend
    ) -> None:
        """Run a backend and note where it differs."""
        began = time.monotonic()
        try:
            found = differences(c, want, backend.run(c.x, options(c)))
        except NmtoolError as e:
            found = [str(e)]
        self.seconds[backend.name] += time.monotonic() - began
        if found:
            self.differing.append(
                {"seed": seed, "backend": backend.name, "differences": found, "features": sorted(c.features)}
            )


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first one (default 0)")
    parser.add_argument("--no-lava", action="store_true", help="compare the two simulators only")
    arguments = parser.parse_args()
    summary = Summary()
    env = None if arguments.no_lava else lava_env.require()
    link = WorkerLink(env.worker_command, env.worker_environment) if env else None
    try:
        for i in range(arguments.networks):
            seed = arguments.first_seed + i
            c = case(seed)
            want = expected(c)
            summary.add(c, want)
            summary.compare(seed, c, want, SimBackend(c.program))
            if link is not None:
                summary.compare(seed, c, want, LavaBackend(c.program, link=link))
            if sys.stderr.isatty():
                print(
                    f"\r{i + 1}/{arguments.networks}, {len(summary.differing)} differ",
                    end="",
                    file=sys.stderr,
                )
    finally:
        if link is not None:
            link.stop()
    document = {
        "first_seed": arguments.first_seed,
        **summary.totals,
        "differing": summary.differing,
        "seconds": {k: round(v, 1) for k, v in summary.seconds.items()},
        "features": dict(sorted(summary.features.items())),
        "lava": env.versions if env else None,
        "environment": environment(),
    }
    print(json.dumps(document, indent=1))
    return 1 if summary.differing else 0


if __name__ == "__main__":
    sys.exit(main())
