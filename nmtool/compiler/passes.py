"""What happens to the lowered populations, in order: latency per population, balance, one frozen program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nmtool.compiler.program import Connection, Population
from nmtool.errors import Diagnostic
from nmtool.target import TargetSpec


def latencies(
    order: Sequence[str], connections: Sequence[Connection], input_name: str, host_driven: frozenset[str]
) -> dict[str, int]:
    """Steps behind the input, per population: the longest path of synapse stages.

    A population that the host drives through its bias starts with the input. Connections with a delay in own time of at
    least one step may point backward in ``order`` (recurrence) and do not count.

    Args:
        order: names such that every zero-delay connection goes forward.
        connections: all chip connections.
        input_name: its latency is 0.
        host_driven: populations with a host layer.
    """
    place = {name: i for i, name in enumerate((input_name, *order))}
    result = {input_name: 0}
    for name in order:
        before = [c for c in connections if c.target == name and place[c.source] < place[name]]
        deepest = max((result[c.source] + 1 for c in before), default=0)
        result[name] = max(deepest, 0 if name in host_driven or not before else 1)
    return result


def balance(
    populations: Sequence[Population],
    connections: Sequence[Connection],
    latency: Mapping[str, int],
    spec: TargetSpec,
) -> tuple[tuple[Population, ...], tuple[Diagnostic, ...]]:
    """Give every population its latency; paths that differ in depth are held back by chip delays.

    Returns:
        the populations, and a finding per connection whose chip delay is impossible.
    """
    findings = []
    limit = int(spec.number("synapse.max_delay_steps"))
    for c in connections:
        lag = latency[c.target] - latency[c.source] - 1
        low, high = int(c.delay_steps.min()) + lag, c.max_delay + lag
        if low < 0:
            findings.append(
                Diagnostic(
                    "NM206",
                    c.name,
                    f"the loop through {c.source} and {c.target} takes {1 - lag} steps on the chip, the graph asks for "
                    f"{int(c.delay_steps.min())}",
                    f"Add a delay of {-low} step{'s' if low < -1 else ''} on the feedback path",
                )
            )
        if high > limit:
            findings.append(
                Diagnostic(
                    "NM210" if c.max_delay > limit else "NM206",
                    c.name,
                    f"needs a delay of {high} steps on the chip, "
                    f"{spec.name} allows {limit} ({spec.cite('synapse.max_delay_steps')})",
                    "Shorten the delay, or make the parallel branches more equal in depth",
                )
            )
    return tuple(replace(p, latency=latency[p.name]) for p in populations), tuple(findings)
