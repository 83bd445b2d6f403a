"""In which order nodes are computed, and which edges of a cycle carry the previous step.

Nothing here depends on the order of dicts or edges: names decide, numbers inside names by value.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterable

Edge = tuple[str, str]


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which ``fc2`` comes before ``fc10``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p)


def adjacency(edges: Iterable[Edge]) -> dict[str, list[str]]:
    """Targets by source, in natural order."""
    out: dict[str, list[str]] = {}
    for a, b in edges:
        out.setdefault(a, []).append(b)
    return {a: sorted(targets, key=natural) for a, targets in out.items()}


def reachable(start: str, edges: Iterable[Edge]) -> dict[str, int]:
    """Distance in edges from ``start`` of every node that can be reached."""
    after, distance, todo = adjacency(edges), {start: 0}, [start]
    for name in todo:
        for target in after.get(name, ()):
            if target not in distance:
                distance[target] = distance[name] + 1
                todo.append(target)
    return distance


def topological(names: Iterable[str], edges: Collection[Edge]) -> tuple[str, ...]:
    """Every node after its predecessors; among those that are ready, natural order. Nodes on cycles are left out."""
    after = adjacency(edges)
    waiting = dict.fromkeys(names, 0)
    for _, b in edges:
        waiting[b] += 1
    ready = [(natural(n), n) for n, k in waiting.items() if k == 0]
    heapq.heapify(ready)
    out = []
    while ready:
        _, name = heapq.heappop(ready)
        out.append(name)
        for target in after.get(name, ()):
            waiting[target] -= 1
            if waiting[target] == 0:
                heapq.heappush(ready, (natural(target), target))
    return tuple(out)


def cyclic_parts(names: Collection[str], edges: Collection[Edge]) -> list[set[str]]:
    """Strongly connected components that contain a cycle (Tarjan 1972, without recursion)."""
    after = adjacency(edges)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    parts = []
    for root in sorted(names, key=natural):
        if root in index:
            continue
        calls = [(root, iter(after.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while calls:
            name, targets = calls[-1]
            child = next(targets, None)
            if child is None:
                calls.pop()
                if calls:
                    low[calls[-1][0]] = min(low[calls[-1][0]], low[name])
                if low[name] == index[name]:
                    at = stack.index(name)
                    part = set(stack[at:])
                    del stack[at:]
                    on_stack -= part
                    if len(part) > 1 or name in after.get(name, ()):
                        parts.append(part)
            elif child not in index:
                index[child] = low[child] = len(index)
                stack.append(child)
                on_stack.add(child)
                calls.append((child, iter(after.get(child, ()))))
            elif child in on_stack:
                low[name] = min(low[name], index[child])
    return parts


def feedback(
    start: str, names: Collection[str], edges: Collection[Edge], neurons: Collection[str]
) -> tuple[tuple[Edge, ...], tuple[set[str], ...]]:
    """Edges that carry the previous step, so that without them there is no cycle.

    They always leave a neuron: what feeds back is the spike of the previous step, and a synapse on the way adds its
    bias from the first step on. In each cyclic part the node nearest to the input is where the loop closes.

    Args:
        start: the input node.
        names: all nodes.
        edges: all edges.
        neurons: nodes with a memory.

    Returns:
        the edges in natural order, and the parts that have a cycle without a neuron.
    """
    distance = reachable(start, edges)
    cut: set[Edge] = set()
    loops: list[set[str]] = []
    todo = cyclic_parts(names, edges)
    while todo:
        part = todo.pop()
        inside = [e for e in edges if e not in cut and e[0] in part and e[1] in part]
        entry = min(part, key=lambda n: (distance.get(n, len(names)), natural(n)))
        walked, back, closing = {entry}, [entry], set()
        for name in back:
            for edge in (e for e in inside if e[1] == name):
                if edge[0] in neurons:
                    closing.add(edge)
                elif edge[0] not in walked:
                    walked.add(edge[0])
                    back.append(edge[0])
                else:
                    loops.append(part)
                    break
        if part in loops:
            continue
        cut |= closing
        todo += cyclic_parts(part, [e for e in inside if e not in closing])
    ordered = sorted(cut, key=lambda e: (natural(e[0]), natural(e[1])))
    return tuple(ordered), tuple(loops)
