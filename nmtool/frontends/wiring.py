"""Who is wired to whom: what a traced forward computes, with sums of named nodes in the place of tensors.

A loop over time calls every node once per step. All calls of a node are the same node, as long as the wiring is the
same at every step; what a node takes from the step before has to come from a neuron.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nmtool.errors import Diagnostic
from nmtool.frontends.layers import NoCounterpartError
from nmtool.ir.order import Edge

INPUT, OUTPUT = "input", "output"


class Signal(NamedTuple):
    """A sum of what nodes give, each with the number of the call that gave it; None: the same at every step."""

    sources: tuple[tuple[str, int | None], ...] = ()

    @property
    def names(self) -> list[str]:
        """The nodes, in the order of the sum."""
        return list(dict.fromkeys(s for s, _ in self.sources))


class State(NamedTuple):
    """A membrane or a current of a neuron; ``owner`` is None for an argument of ``forward``."""

    owner: str | None = None


class Fired(NamedTuple):
    """What a neuron returns: spikes first, then states."""

    signal: Signal
    state: State


class Opaque(NamedTuple):
    """The shape of a tensor, or a part of it."""


class Item(NamedTuple):
    """A node to be: where it comes from.

    Attributes:
        path: of the module, or what the function is called.
        module: None for a function.
        kind: ``input``, ``output``, ``fc``, ``conv``, ``pool``, ``flatten``, ``norm``, a neuron class or ``w_rec``.
        args: of a function.
    """

    path: str
    module: Any
    kind: str
    args: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """What a node without a name of its own is called."""
        return "lif" if self.kind[:1].isupper() else self.kind


@dataclass
class Wiring:
    """Nodes and edges found so far.

    Attributes:
        items: by node name.
        edges: in the order in which they were found, which is the order of sums.
        late: edges that carry the step before.
        calls: per node the source names of every call.
        findings: what has no counterpart.
    """

    items: dict[str, Item] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    late: set[Edge] = field(default_factory=set)
    calls: dict[str, list[frozenset[str]]] = field(default_factory=dict)
    findings: list[Diagnostic] = field(default_factory=list)

    def name(self, item: Item) -> str:
        """The module's own name; where that is a number, a running number and what it is: ``01_fc``."""
        for name, known in self.items.items():
            if known.path == item.path:
                return name
        numbered = item.module is None or item.path.replace(".", "").isdecimal()
        place = sum(known.kind != "w_rec" for known in self.items.values())
        name = f"{place:02d}_{item.label}" if numbered else item.path
        if name in self.items:
            raise NoCounterpartError(f"would get the name '{name}' of another node", "Rename the module")
        return name

    def call(self, item: Item, signal: Signal, remembers: bool = False) -> tuple[str, Signal]:
        """A call of a node.

        Args:
            item: the node.
            signal: what it is given.
            remembers: whether it is a neuron, so that even a constant input gives something else at every step.

        Returns:
            its name and what it gives.

        Raises:
            NoCounterpartError: a source of another step than this one or the one before.
        """
        name = self.name(item)
        self.items[name] = item
        constant = not remembers and signal.sources != () and all(step is None for _, step in signal.sources)
        past = self.calls.setdefault(name, [])
        k = len(past)
        past.append(frozenset(signal.names))
        if len(signal.names) < len(signal.sources):
            raise NoCounterpartError("adds a signal to itself", "Double the weights instead")
        for source, step in signal.sources:
            self._connect((source, name), step, k)
        return name, Signal(((name, None if constant else k),))

    def _connect(self, edge: Edge, step: int | None, k: int) -> None:
        late = step is not None and step == k - 1
        if step is not None and step not in (k, k - 1):
            raise NoCounterpartError(
                f"takes what {edge[0]} gave {k - step} steps before",
                "A loop may look back one step, at neurons",
            )
        if edge not in self.edges:
            self.edges.append(edge)
            if late:
                self.late.add(edge)
        elif late != (edge in self.late):
            raise NoCounterpartError(
                f"takes what {edge[0]} gives now at one step, and what it gave before at another"
            )

    def differing(self) -> list[str]:
        """Nodes whose calls are wired differently, apart from what a first step cannot have from the step before."""
        out = []
        for name, calls in self.calls.items():
            first, rest = calls[0], set(calls[1:])
            late = {a for a, b in self.late if b == name}
            if len(rest) > 1 or any(first - r or not (r - first) <= late for r in rest):
                out.append(name)
        return out

    def misplaced(self, feedback: Collection[Edge]) -> list[Edge]:
        """Edges whose step is not the one that the graph gives them: late without a loop, or the other way round."""
        return [e for e in self.edges if (e in self.late) != (e in feedback)]


def signal(value: Any) -> Signal:
    """A value that is used as input of a node.

    Raises:
        NoCounterpartError: it is a state or something else that no edge carries.
    """
    if isinstance(value, Fired):
        return value.signal
    if not isinstance(value, Signal):
        what = "a membrane or current" if isinstance(value, State) else "something that is no layer's output"
        raise NoCounterpartError(f"is given {what}", "NIR edges carry what nodes give: spikes and their sums")
    return value


def item_of(value: Any, index: Any) -> Any:
    """``value[index]``: spikes or state of a neuron, one step of the input."""
    if isinstance(value, Opaque):
        return value
    if isinstance(value, Fired) and isinstance(index, int):
        return value.signal if index == 0 else value.state
    if isinstance(value, Signal) and value.names == [INPUT] and isinstance(index, int):
        return Signal(((INPUT, index),))
    raise NoCounterpartError("takes a part of a tensor", "Use layers, sums and flatten only")


def stacked(values: Sequence[Any]) -> Any:
    """Outputs of all steps, stacked: the node that gave them."""
    owners = {v.owner if isinstance(v, State) else tuple(signal(v).names) for v in values}
    if len(owners) != 1:
        raise NoCounterpartError("stacks what different layers give")
    return values[0]
