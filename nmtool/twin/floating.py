"""The float graph as a differentiable module: the difference equations of the float engine, backward by a surrogate."""

from __future__ import annotations

import nir
import numpy as np
import torch
from torch import Tensor, nn

from nmtool.errors import ModelError
from nmtool.fixedpoint.encode import INPUT_BLOCK
from nmtool.ir.graph import Graph, Node
from nmtool.surrogate import Surrogate, rule
from nmtool.twin import philox
from nmtool.twin.maps import Delay, Map
from nmtool.twin.neuron import CellState, Course, Stimulus, run_cell
from nmtool.twin.options import TwinOptions, TwinRun
from nmtool.twin.real import FloatCell
from nmtool.twin.schedule import groups


class FloatTwin(nn.Module):
    """A graph that can be differentiated. Spikes equal the float engine's, up to the order of sums in loops.

    Nodes outside loops are computed for all steps at once, and once where the input stays the same.

    Args:
        graph: any graph.
        surrogate: rule for spikes, width in thresholds; :func:`nmtool.surrogate.override` replaces it.
        dtype: of states and signals.
        sums: of weighted sums, see :class:`nmtool.twin.maps.Map`.
    """

    def __init__(
        self,
        graph: Graph,
        surrogate: Surrogate | None = None,
        dtype: torch.dtype = torch.float32,
        sums: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.graph, self.dtype = graph, dtype
        self.surrogate = surrogate or Surrogate("triangle", 1.0)
        self.cells = {n: FloatCell(v.neuron, dtype) for n, v in graph.nodes.items() if v.neuron is not None}
        self.delays = {
            n: Delay(v, graph.model.dt_s) for n, v in graph.nodes.items() if isinstance(v.op, nir.Delay)
        }
        plain = [n for n in graph.order() if n not in {graph.input, *self.cells, *self.delays}]
        self.maps = {n: Map(graph.nodes[n], sums) for n in plain}
        self.parts = nn.ModuleList([*self.cells.values(), *self.delays.values(), *self.maps.values()])
        self.groups = groups(graph.order(), graph.edges)

    @property
    def stochastic(self) -> bool:
        """Whether two seeds can give two results."""
        return self.graph.model.encoder == "rate" or any(c.neuron.noise_std > 0 for c in self.cells.values())

    @property
    def n_classes(self) -> int:
        """K."""
        return int(np.prod(self.graph.nodes[self.graph.output].out_shape))

    def forward(
        self, x: Tensor, seed: int = 0, sample_offset: int | Tensor = 0, noise: bool = True
    ) -> Tensor:
        """Logits ``[B, K]``; see :meth:`run`."""
        return self.run(x, TwinOptions(seed, sample_offset, noise)).logits

    def run(self, x: Tensor, options: TwinOptions | None = None) -> TwinRun:
        """Run a batch.

        Args:
            x: analog ``[B, *shape]`` (encoders ``direct`` and ``rate``), or ``[T, B, *shape]``.
            options: how. The noise is Gaussian from a generator of ``options.seed``.

        Raises:
            ModelError: NM109 if ``x`` does not fit the input.
        """
        run = _Run(self, options or TwinOptions(), x)
        for group in self.groups:
            if group == (self.graph.input,):
                continue
            if len(group) > 1 or (group[0], group[0]) in self.graph.edges:
                run.loop(group)
            else:
                run.node(self.graph.nodes[group[0]])
        return run.result()


class _Run:
    """Values of one run: per node ``[T, B, *shape]``, or ``[1, B, *shape]`` where they stay the same."""

    def __init__(self, twin: FloatTwin, options: TwinOptions, x: Tensor) -> None:
        self.twin, self.graph, self.options = twin, twin.graph, options
        self.rule = rule(twin.surrogate)
        self.generator = torch.Generator(x.device).manual_seed(options.seed)
        self.values, self.n_steps = {twin.graph.input: self._entered(x)}, self._length(x)
        self.courses: dict[str, Course] = {}

    def _length(self, x: Tensor) -> int:
        if x.ndim == len(self.graph.nodes[self.graph.input].out_shape) + 2:
            return len(x)
        return self.options.n_steps or self.graph.model.n_steps

    def _entered(self, x: Tensor) -> Tensor:
        """The input as ``[T, B, *shape]`` or ``[1, B, *shape]``."""
        shape, encoder = self.graph.nodes[self.graph.input].out_shape, self.graph.model.encoder
        series = x.ndim == len(shape) + 2 and tuple(x.shape[2:]) == shape
        single = x.ndim == len(shape) + 1 and tuple(x.shape[1:]) == shape
        if not x.numel() or not (series or (single and encoder != "spikes")):
            axes = ", ".join(str(n) for n in shape)
            want = f"[T, B, {axes}]" if encoder == "spikes" else f"[B, {axes}] or [T, B, {axes}]"
            raise ModelError(
                "NM109", f"input {self.graph.input}", f"x has shape {list(x.shape)}, must be {want}"
            )
        if single and encoder == "rate":
            return self._bernoulli(x)
        return x.to(self.twin.dtype) if series else x.to(self.twin.dtype)[None]

    def _bernoulli(self, x: Tensor) -> Tensor:
        """Spikes of the rate encoder, differentiated as their probability."""
        share = x.double().clamp(0, 1).flatten(1)[None]
        shape = (self._length(x), share.shape[-1])
        words = philox.words(self.options.seed, self.options.samples(len(x), x.device), INPUT_BLOCK, shape)
        fired = (words < torch.floor(share.detach() * 2.0**32)).double()
        spikes = share + (fired - share.detach())
        return spikes.unflatten(-1, x.shape[1:]).to(self.twin.dtype)

    def node(self, node: Node) -> None:
        """One node outside any loop."""
        total = _total([self.values[a] for a in self.graph.predecessors(node.name)])
        if node.name in self.twin.cells:
            drive = total.expand(self.n_steps, *total.shape[1:]).flatten(2)
            self._finish(node, self._cell(node, self._stimulus(node, drive), None))
        elif node.name in self.twin.delays:
            self.values[node.name] = self.twin.delays[node.name](total, self.n_steps)
        else:
            self.values[node.name] = self.twin.maps[node.name](total)

    def loop(self, group: tuple[str, ...]) -> None:
        """Nodes of a loop, step by step; a feedback edge carries the value of the step before."""
        nodes = [self.graph.nodes[n] for n in self.graph.order() if n in group]
        late = set(self.graph.feedback_edges)
        past: dict[str, list[Tensor]] = {n: [] for n in group}
        inputs: dict[str, list[Tensor]] = {n: [] for n in group}
        courses: dict[str, list[Course]] = {n: [] for n in group}
        draws = {n.name: self._noise(n) for n in nodes if n.name in self.twin.cells}
        for t in range(self.n_steps):
            for node in nodes:
                arriving = [
                    self._source((a, node.name), past, late, t) for a in self.graph.predecessors(node.name)
                ]
                total = _total([a for a in arriving if a is not None] or [self._silence(node)])
                inputs[node.name].append(total)
                if node.name in self.twin.cells:
                    noise = draws[node.name]
                    record = self._records(node.name)
                    now = Stimulus(
                        total.flatten(2), None, None, None if noise is None else noise[t : t + 1], record
                    )
                    before = courses[node.name][-1].end if courses[node.name] else None
                    courses[node.name].append(self._cell(node, now, before))
                    past[node.name].append(self._signal(node, courses[node.name][-1]))
                elif node.name in self.twin.delays:
                    past[node.name].append(self.twin.delays[node.name].at(inputs[node.name]))
                else:
                    past[node.name].append(self.twin.maps[node.name](total))
        for node in nodes:
            self.values[node.name] = torch.cat(past[node.name])
            if courses[node.name]:
                self.courses[node.name] = Course.joined(courses[node.name])

    def _source(
        self, edge: tuple[str, str], past: dict[str, list[Tensor]], late: set[tuple[str, str]], t: int
    ) -> Tensor | None:
        """What an edge carries at step ``t``, ``[1, B, *shape]``; None before there is anything."""
        source = edge[0]
        if source in past:
            lag = 1 if edge in late else 0
            return past[source][t - lag] if t >= lag else None
        value = self.values[source]
        return value if value.shape[0] == 1 else value[t : t + 1]

    def _silence(self, node: Node) -> Tensor:
        x = self.values[self.graph.input]
        return torch.zeros(1, x.shape[1], *node.in_shape, dtype=self.twin.dtype, device=x.device)

    def _cell(self, node: Node, stimulus: Stimulus, state: CellState | None) -> Course:
        cell = self.twin.cells[node.name]
        start = cell.rest(stimulus.drive.shape[1], stimulus.drive.shape[2]) if state is None else state
        return run_cell(cell, self.rule, stimulus, start)

    def _stimulus(self, node: Node, drive: Tensor) -> Stimulus:
        return Stimulus(drive, noise_v=self._noise(node), record=self._records(node.name))

    def _records(self, name: str) -> bool:
        read = self.graph.model.readout == "membrane" and name == self.graph.readout_source()
        return read or self.options.records(name)

    def _noise(self, node: Node) -> Tensor | None:
        std = node.neuron.noise_std if node.neuron is not None else 0.0
        if std == 0 or not self.options.noise:
            return None
        x = self.values[self.graph.input]
        shape = (self.n_steps, x.shape[1], int(np.prod(node.out_shape)))
        return std * torch.randn(shape, generator=self.generator, device=x.device, dtype=self.twin.dtype)

    def _signal(self, node: Node, course: Course) -> Tensor:
        spiking = node.neuron is not None and node.neuron.spiking
        return (course.spikes if spiking else course.potential).unflatten(-1, node.out_shape)

    def _finish(self, node: Node, course: Course) -> None:
        self.courses[node.name] = course
        self.values[node.name] = self._signal(node, course)

    def result(self) -> TwinRun:
        """The run, with the readout that the model asks for."""
        shapes = {n: self.graph.nodes[n].out_shape for n in self.courses}
        return TwinRun.of(self._logits(), self.courses, shapes, self.options)

    def _logits(self) -> Tensor:
        source = self.graph.readout_source()
        course = self.courses.get(source)
        if self.graph.model.readout == "membrane" and course is not None and course.v is not None:
            zeroed = self.twin.cells[source].neuron.reset == "zero"
            last = course.potential[-1] * (1 - course.spikes[-1].detach()) if zeroed else course.potential[-1]
            return (last + (course.v[-1] - last.detach())).double()
        if course is not None and self.twin.cells[source].neuron.spiking:
            return course.spikes.double().sum(0)
        out = self.values[self.graph.output].double()
        return (out * self.n_steps if out.shape[0] == 1 else out).sum(0).flatten(1)


def _total(signals: list[Tensor]) -> Tensor:
    return sum(signals[1:], signals[0])
