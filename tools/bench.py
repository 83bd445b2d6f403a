"""Speed as ratios: ours against what a user would use instead, both sides in one process.

    python tools/bench.py sim            tables
    python tools/bench.py sim --json     one JSON document; its "ratios" are what README quotes

A ratio above 1 means that nmtool is that many times faster; a memory ratio is ours over theirs. Other benchmarks
(train, attack, energy) register beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

BENCHMARKS = {"sim": "bench_sim"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--repeats", type=int, default=5, help="runs per side, the median counts (default 5)")
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error("--repeats must be 1 or more")
    record = importlib.import_module(BENCHMARKS[args.name]).measure(
        args.repeats, lambda text: print(text, file=sys.stderr)
    )
    if args.json:
        print(json.dumps(record, indent=1, allow_nan=False))
    else:
        for key, value in record["ratios"].items():
            print(f"{key:28s} {'-' if value is None else f'{value:10.1f}'}")
        for section in ("absolute", "limits", "linearity"):
            print(f"\n{section}\n{json.dumps(record[section], indent=1)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
