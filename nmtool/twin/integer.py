"""The compiled network as a differentiable module: forward equal to the integer simulator, backward by a surrogate.

Time is each population's own (see :mod:`nmtool.compiler.program`). Populations outside a loop are computed for all
steps at once; the members of a loop go step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmtool.compiler.program import Connection, Population, Program
from nmtool.fixedpoint.noise import NoiseSpec
from nmtool.fixedpoint.ops import V_MAX
from nmtool.surrogate import BackwardRule, Surrogate, rule
from nmtool.twin import philox
from nmtool.twin.entry import HostBias, check_input, enter, largest_message
from nmtool.twin.fixed import Bounds, IntegerCell
from nmtool.twin.neuron import Course, Stimulus, run_cell
from nmtool.twin.options import TwinOptions, TwinRun
from nmtool.twin.schedule import groups
from nmtool.twin.synapses import EXACT_FLOAT32, Synapses, exact_sum

GAUSSIAN_REACH = 10


class _Run(NamedTuple):
    """What is shared by all populations of one run."""

    options: TwinOptions
    rule: BackwardRule
    n_steps: int
    samples: Tensor
    trains: dict[str, Tensor]
    host_bias: Tensor | None


class IntegerTwin(nn.Module):
    """A program that can be differentiated; spikes, u and v equal the integer simulator's to the bit.

    Gradients: surrogate on (V - threshold) in units of the threshold; straight through the roundings of the input, the
    host layer, decays and shifts, and through wraps and saturation.

    Args:
        program: what is compiled for the target.
        surrogate: rule for spikes, width in thresholds; :func:`nmtool.surrogate.override` replaces it.

    Raises:
        BackendUnavailableError: NM304 if a sum could leave what float64 holds exactly.
    """

    def __init__(self, program: Program, surrogate: Surrogate | None = None) -> None:
        super().__init__()
        self.program, self.surrogate = program, surrogate or Surrogate("triangle", 1.0)
        self.host = HostBias(program, program.host) if program.host else None
        self.synapses = tuple(_synapses(program, c) for c in program.connections)
        self.cells = {p.name: IntegerCell(p, self._bounds(p)) for p in program.populations}
        self.parts = nn.ModuleList([*self.synapses, *self.cells.values()])
        self.groups = groups(list(self.cells), [(c.source, c.target) for c in program.connections])

    @property
    def stochastic(self) -> bool:
        """Whether two seeds can give two results."""
        return self.program.input.encoder == "rate" or any(p.noise for p in self.program.populations)

    @property
    def n_classes(self) -> int:
        """K."""
        return self.program.size(self.program.output)

    def forward(
        self, x: Tensor, seed: int = 0, sample_offset: int | Tensor = 0, noise: bool = True
    ) -> Tensor:
        """Logits ``[B, K]``; see :meth:`run`."""
        return self.run(x, TwinOptions(seed, sample_offset, noise)).logits

    def run(self, x: Tensor, options: TwinOptions | None = None) -> TwinRun:
        """Run a batch.

        Args:
            x: analog ``[B, *shape]``, or spikes ``[T, B, *shape]``, as the program's input says; any float or uint8.
            options: how.

        Raises:
            ModelError: NM109 if ``x`` does not fit the input.
        """
        options = options or TwinOptions()
        p = self.program
        n_samples = check_input(x, p)
        samples = options.samples(n_samples, x.device)
        n_steps = x.shape[0] if p.input.encoder == "spikes" else options.n_steps or p.input.n_steps
        train = enter(x, p.input, (n_steps, options.seed, samples))
        bias = self.host(train[0]) if self.host is not None else None
        run = _Run(options, rule(self.surrogate), n_steps, samples, {p.input.name: train}, bias)
        courses: dict[str, Course] = {}
        for group in self.groups:
            courses |= self._stepwise(group, run) if self._loops(group) else self._at_once(group[0], run)
        return self._result(courses, options)

    def _loops(self, group: tuple[str, ...]) -> bool:
        return len(group) > 1 or any(c.source == c.target == group[0] for c in self.program.connections)

    def _at_once(self, name: str, run: _Run) -> dict[str, Course]:
        cell = self.cells[name]
        drive = self._drive(name, run, ())
        state = cell.rest(drive.shape[1], drive.shape[2])
        course = run_cell(cell, run.rule, self._stimulus(name, run, drive), state)
        run.trains[name] = course.spikes
        return {name: course}

    def _stepwise(self, group: tuple[str, ...], run: _Run) -> dict[str, Course]:
        """Members of a loop: what comes from outside at once, what comes from inside step by step."""
        stimuli = {n: self._stimulus(n, run, self._drive(n, run, group)) for n in group}
        states = {n: self.cells[n].rest(s.drive.shape[1], s.drive.shape[2]) for n, s in stimuli.items()}
        past: dict[str, list[Course]] = {n: [] for n in group}
        for t in range(run.n_steps):
            for n in group:
                inner = [
                    syn.arrive(past[syn.connection.source][t - d].spikes, d)
                    for syn in self.synapses
                    if syn.connection.target == n and syn.connection.source in group
                    for d in syn.delays
                    if d <= t
                ]
                now = _at(stimuli[n], t, inner)
                course = run_cell(self.cells[n], run.rule, now, states[n])
                states[n] = course.end
                past[n].append(course)
        courses = {n: Course.joined(past[n]) for n in group}
        run.trains.update({n: c.spikes for n, c in courses.items()})
        return courses

    def _drive(self, name: str, run: _Run, group: tuple[str, ...]) -> Tensor:
        """Weighted sum from all sources outside ``group``, ``[T, B, N]``."""
        parts = [
            syn(run.trains[syn.connection.source], run.n_steps)
            for syn in self.synapses
            if syn.connection.target == name and syn.connection.source not in group
        ]
        if parts:
            return sum(parts[1:], parts[0])
        silent = torch.zeros(1, len(run.samples), self.program.size(name), device=run.samples.device)
        return silent.expand(run.n_steps, -1, -1)

    def _stimulus(self, name: str, run: _Run, drive: Tensor) -> Stimulus:
        p, host = self.program.population(name), self.program.host
        bias = run.host_bias if host is not None and host.connection.target == name else None
        noise: dict[str, Tensor] = {}
        if p.noise is not None and run.options.noise:
            shape = (run.n_steps, p.n_neurons)
            drawn = philox.noise(p.noise, run.options.seed, run.samples, self.program.index(name), shape)
            noise["noise_v" if p.noise.at == "membrane" else "noise_u"] = drawn
        return Stimulus(drive, bias, record=run.options.records(name), **noise)

    def _result(self, courses: Mapping[str, Course], options: TwinOptions) -> TwinRun:
        p = self.program
        out = courses[p.output]
        if p.readout == "spike_count":
            logits = out.spikes.double().sum(0)
        else:
            last = out.potential[-1].double().clamp(-V_MAX, V_MAX) * (1 - out.spikes[-1].detach())
            logits = last * p.population(p.output).scale
        return TwinRun.of(logits, courses, {n: p.population(n).shape for n in courses}, options)

    def _bounds(self, population: Population) -> Bounds:
        """What can reach a population at most; sums that together leave float32 are moved to float64."""
        host = self.program.host
        into = [s for s in self.synapses if s.connection.target == population.name]
        drive = exact_sum(population.name, sum(s.bound for s in into))
        if drive >= EXACT_FLOAT32:
            for s in into:
                s.dtype = torch.float64
        bias = int(abs(population.params.bias).max())
        if host is not None and host.connection.target == population.name:
            shift = max(int(population.bias_exp.max()), 0)
            bias = max(abs(host.man_min), abs(host.man_max)) << shift
        loud = _largest_noise(population.noise) if population.noise else 0
        on_membrane = population.noise is not None and population.noise.at == "membrane"
        return Bounds(drive, bias, 0 if on_membrane else loud, loud if on_membrane else 0)


def _synapses(program: Program, c: Connection) -> Synapses:
    """A connection with the largest value that its source can send."""
    return Synapses(c, (program.size(c.target), program.size(c.source)), largest_message(program, c))


def _largest_noise(spec: NoiseSpec) -> int:
    """Largest magnitude of one noise integer; for the Gaussian ten standard deviations."""
    widest = 127 + 64 * abs(spec.mantissa_offset)
    reach = GAUSSIAN_REACH if spec.model == "gaussian" else 1
    return int(widest * 2.0 ** (spec.exponent - 7) * spec.draws * reach) + 1


def _at(stimulus: Stimulus, t: int, inner: list[Tensor]) -> Stimulus:
    """Step ``t`` alone, with what arrives from inside the loop."""
    noise_u, noise_v = (None if x is None else x[t : t + 1] for x in (stimulus.noise_u, stimulus.noise_v))
    return Stimulus(sum(inner, stimulus.drive[t : t + 1]), stimulus.bias, noise_u, noise_v, stimulus.record)
