"""Order of computation: which populations can run over all steps at once, and which must go step by step together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import TopologicalSorter


def groups(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Strongly connected groups, sources first; within a group the order of ``names``.

    Args:
        names: nodes.
        edges: (source, target); ends that are not in ``names`` are passed over.
    """
    after: dict[str, set[str]] = {n: set() for n in names}
    for source, target in edges:
        if source in after and target in after:
            after[source].add(target)
    reach = {n: _reachable(n, after) for n in names}
    group = {n: tuple(m for m in names if m == n or (m in reach[n] and n in reach[m])) for n in names}
    sorter: TopologicalSorter[tuple[str, ...]] = TopologicalSorter({g: set() for g in group.values()})
    for source, targets in after.items():
        for target in targets:
            if group[source] != group[target]:
                sorter.add(group[target], group[source])
    return list(sorter.static_order())


def _reachable(start: str, after: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = list(after[start])
    while stack:
        n = stack.pop()
        if n not in seen:
            seen.add(n)
            stack.extend(after[n])
    return seen
