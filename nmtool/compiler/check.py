"""Design rules: small named predicates over a program; all of them run and every finding is reported.

Each rule is named after what must hold, reads its limit from the target and quotes the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nmtool.compiler.place import Placement
from nmtool.compiler.program import Program
from nmtool.errors import Diagnostic
from nmtool.fixedpoint.ops import DECAY_UNITY
from nmtool.ir.graph import Graph
from nmtool.target import TargetSpec

Findings = Iterator[Diagnostic]
MAX_DECAY_ERROR = 0.05


def _outside(
    spec: TargetSpec,
    where: str,
    what: str,
    values: np.ndarray,
    keys: tuple[str, str],
    code: str = "NM201",
    hint: str = "",
) -> Findings:
    low, high = (spec.number(k) for k in keys)
    bad = values[(values < low) | (values > high)]
    if bad.size:
        key = keys[0] if bad.flat[0] < low else keys[1]
        yield Diagnostic(
            code,
            where,
            f"{what} is {int(bad.flat[0])}, {spec.name} allows {low:g} to {high:g} ({spec.cite(key)})",
            hint,
        )


def resets_are_supported(graph: Graph, spec: TargetSpec) -> Findings:
    """A reset that the chip does not have changes every result, so it is never replaced silently."""
    allowed = spec.choice("neuron.resets")
    for node in graph.nodes.values():
        if node.neuron is not None and node.neuron.spiking and node.neuron.reset not in allowed:
            yield Diagnostic(
                "NM204",
                node.name,
                f"reset '{node.neuron.reset}' is not available, {spec.name} allows "
                f"{', '.join(allowed)} ({spec.cite('neuron.resets')})",
                "Use neurons that reset to zero",
            )
        if node.neuron is not None and node.neuron.reset_delay and node.neuron.reset == "zero":
            yield Diagnostic(
                "NM204",
                node.name,
                "a delayed reset to zero also discards the input of the next step, which the chip does not do",
                "Retrain with reset_delay=False",
            )


def states_rest_at_zero(graph: Graph, spec: TargetSpec) -> Findings:
    """The chip's state starts at zero and is reset to zero."""
    for node in graph.nodes.values():
        if node.neuron is not None and node.neuron.spiking and np.any(node.neuron.v_reset):
            yield Diagnostic(
                "NM204",
                node.name,
                f"resets to {float(np.max(np.abs(node.neuron.v_reset))):g}, {spec.name} resets to 0 and starts there "
                f"({spec.cite('neuron.resets')})",
                "Shift threshold, leak and reset so that the reset is 0",
            )


def thresholds_fit(program: Program, spec: TargetSpec) -> Findings:
    """Threshold mantissas within their bits."""
    for p in program.populations:
        yield from _outside(
            spec,
            p.name,
            "threshold mantissa",
            p.v_th_man,
            ("neuron.v_th_man_min", "neuron.v_th_man_max"),
            hint="Use more weight bits or a smaller threshold relative to the largest weight",
        )


def decays_fit(program: Program, spec: TargetSpec) -> Findings:
    """Decay registers are 12 bits; the current's register is one less than what it does."""
    for p in program.populations:
        for what, values in (
            ("current decay register", p.decay_syn_q12 - 1),
            ("membrane decay register", p.decay_mem_q12),
        ):
            low, high = 0, spec.number("neuron.decay_max_q12")
            bad = values[(values < low) | (values > high)]
            if bad.size:
                yield Diagnostic(
                    "NM201",
                    p.name,
                    f"{what} is {int(bad.flat[0])}, {spec.name} allows 0 to {high:g} "
                    f"({spec.cite('neuron.decay_max_q12')})",
                    "Choose another time constant",
                )


def biases_fit(program: Program, spec: TargetSpec) -> Findings:
    """Bias mantissa and exponent."""
    for p in program.populations:
        yield from _outside(
            spec,
            p.name,
            "bias mantissa",
            p.bias_man,
            ("neuron.bias_man_min", "neuron.bias_man_max"),
            hint="Use a smaller bias",
        )
        yield from _outside(
            spec, p.name, "bias exponent", p.bias_exp, ("neuron.bias_exp_min", "neuron.bias_exp_max")
        )


def refractory_periods_fit(program: Program, spec: TargetSpec) -> Findings:
    """Refractory period in steps."""
    for p in program.populations:
        yield from _outside(
            spec,
            p.name,
            "refractory period",
            np.asarray([p.refractory_steps]),
            ("neuron.refractory_min", "neuron.refractory_max"),
        )


def noise_is_producible(program: Program, spec: TargetSpec) -> Findings:
    """Exponent, offset, place and generator of the noise."""
    for p in program.populations:
        if p.noise is None:
            continue
        if not spec.has("noise.exp_max"):
            yield Diagnostic(
                "NM208",
                p.name,
                f"{spec.name} publishes no noise generator",
                "Drop the noise with --allow no-noise",
            )
            continue
        yield from _outside(
            spec,
            p.name,
            "noise exponent",
            np.asarray([p.noise.exponent]),
            ("noise.exp_min", "noise.exp_max"),
            "NM208",
        )
        yield from _outside(
            spec,
            p.name,
            "noise mantissa offset",
            np.asarray([p.noise.mantissa_offset]),
            ("noise.man_offset_min", "noise.man_offset_max"),
            "NM208",
        )
        for key, value in (("noise.models", p.noise.model), ("noise.targets", p.noise.at)):
            if value not in spec.choice(key):
                yield Diagnostic(
                    "NM208",
                    p.name,
                    f"'{value}' noise runs in simulation only, {spec.name} has "
                    f"{', '.join(spec.choice(key))} ({spec.cite(key)})",
                    "Compile with the chip's own noise before deploying",
                    "warning",
                )


def weights_fit(program: Program, spec: TargetSpec) -> Findings:
    """Mantissas on the grid of their sign mode, exponents in range."""
    limits = {
        "mixed": ("synapse.mixed_min", "synapse.mixed_max"),
        "excitatory": (None, "synapse.excitatory_max"),
        "inhibitory": ("synapse.inhibitory_min", None),
    }
    for c in program.connections:
        low_key, high_key = limits[c.sign_mode]
        low = spec.number(low_key) if low_key else 0
        high = spec.number(high_key) if high_key else 0
        if c.weights.size and (c.weights.min() < low or c.weights.max() > high):
            yield Diagnostic(
                "NM202",
                c.name,
                f"weights span {c.weights.min()} to {c.weights.max()}, {spec.name} allows {low:g} to {high:g} for "
                f"{c.sign_mode} signs ({spec.cite(low_key or high_key or '')})",
                "Export again with fewer bits",
            )
        step = 1 << max(8 - c.weight_bits + (c.sign_mode == "mixed"), 0)
        if (c.weights % step).any():
            yield Diagnostic(
                "NM202",
                c.name,
                f"weights are no multiples of {step}, which {c.weight_bits} bits with {c.sign_mode} signs need",
                "Export again",
            )
        if c.kind != "conv":
            yield from _outside(
                spec,
                c.name,
                "weight exponent",
                np.asarray([c.weight_exp]),
                ("synapse.exp_min", "synapse.exp_max"),
                "NM202",
            )


def weight_bits_are_offered(program: Program, spec: TargetSpec) -> Findings:
    """The weight-bits field has no code for every width."""
    allowed = {int(b) for b in spec.choice("synapse.weight_bits_allowed")}
    for c in program.connections:
        if c.weight_bits not in allowed:
            yield Diagnostic(
                "NM202",
                c.name,
                f"weights of {c.weight_bits} bits, {spec.name} allows {sorted(allowed)} "
                f"({spec.cite('synapse.weight_bits_allowed')})",
                "Choose another --weight-bits",
            )


def weights_survive(program: Program, spec: TargetSpec) -> Findings:
    """A layer that rounds to nothing is a wrong scale, not a network."""
    for c in program.connections:
        if c.weights.size and not c.weights.any():
            yield Diagnostic(
                "NM251",
                c.name,
                "every weight is zero on the chip's grid",
                "Check the weights; use more bits",
                "warning",
            )


def messages_fit(program: Program, spec: TargetSpec) -> Findings:
    """Graded spikes only where the target has them."""
    for c in program.connections:
        if c.message_bits and not spec.flag("input.graded"):
            yield Diagnostic(
                "NM205",
                c.name,
                f"graded spikes of {c.message_bits} bits are not available ({spec.cite('input.graded')})",
                "Use binary spikes",
            )
        elif c.message_bits and c.message_bits > spec.number("input.max_payload_bits"):
            yield Diagnostic(
                "NM205",
                c.name,
                f"payload of {c.message_bits} bits, {spec.name} allows {spec.number('input.max_payload_bits'):g} "
                f"({spec.cite('input.max_payload_bits')})",
                "Export with fewer bits: --compile input_bits=...",
            )


PROGRAM_RULES: tuple[Callable[[Program, TargetSpec], Findings], ...] = (
    thresholds_fit,
    decays_fit,
    biases_fit,
    refractory_periods_fit,
    noise_is_producible,
    weights_fit,
    weight_bits_are_offered,
    weights_survive,
    messages_fit,
)


def check_graph(graph: Graph, spec: TargetSpec) -> tuple[Diagnostic, ...]:
    """Rules that must hold before integers are chosen."""
    return (*resets_are_supported(graph, spec), *states_rest_at_zero(graph, spec))


def check_decays(graph: Graph, program: Program) -> tuple[Diagnostic, ...]:
    """A decay is a multiple of 1/4096 per step: slow ones are far from what the graph says."""
    findings = []
    for p in program.populations:
        neuron = graph.nodes[p.name].neuron
        if neuron is None:
            continue
        pairs = [("membrane", neuron.beta_mem, p.decay_mem_q12)]
        pairs += [("current", neuron.beta_syn, p.decay_syn_q12)] if neuron.beta_syn is not None else []
        for what, beta, lost in pairs:
            wanted, real = 1 - np.asarray(beta), np.broadcast_to(lost / DECAY_UNITY, np.shape(beta))
            off = np.abs(real - wanted) / np.maximum(wanted, 1 / DECAY_UNITY**2) * (wanted > 0)
            if off.max(initial=0) > MAX_DECAY_ERROR:
                i = int(np.argmax(off))
                findings.append(
                    Diagnostic(
                        "NM251",
                        p.name,
                        f"the {what} should lose {wanted.flat[i]:.3g} per step, "
                        f"the register realises {real.flat[i]:.3g}",
                        "Use a longer step or a shorter time constant",
                        "warning",
                    )
                )
    return tuple(findings)


def check_program(program: Program, spec: TargetSpec) -> tuple[Diagnostic, ...]:
    """Register rules, all findings."""
    return tuple(d for rule in PROGRAM_RULES for d in rule(program, spec))


def profiles_fit(program: Program, placement: Placement, spec: TargetSpec) -> Findings:
    """A core holds a limited number of different decay sets and of different thresholds."""
    for p in program.populations:
        sets = {
            "core.max_compartment_profiles": (p.decay_syn_q12, p.decay_mem_q12),
            "core.max_threshold_profiles": (p.v_th_man,),
        }
        for key, registers in sets.items():
            if not spec.has(key) or all(r.ndim == 0 for r in registers):
                continue
            table = np.stack([np.broadcast_to(r, p.shape).reshape(-1) for r in registers])
            for core in (c for c in placement.cores if c.population == p.name):
                held = np.concatenate([table[:, start:stop] for start, stop in core.neurons], axis=1)
                if (n := len(np.unique(held, axis=1).T)) >= spec.number(key):
                    yield Diagnostic(
                        "NM203",
                        p.name,
                        f"has {n} different settings on core {core.core}, {spec.name} allows fewer than "
                        f"{spec.number(key):g} ({spec.cite(key)})",
                        "Share time constants or thresholds between neurons",
                    )


def check_placement(program: Program, placement: Placement, spec: TargetSpec) -> tuple[Diagnostic, ...]:
    """Budgets per core and chip that splitting could not satisfy."""
    findings = list(profiles_fit(program, placement, spec))
    for row in placement.cores:
        for use in row.uses:
            if use.used > use.limit:
                findings.append(
                    Diagnostic(
                        "NM203",
                        row.population,
                        f"needs {use.used} {use.name} on core {row.core}, "
                        f"{spec.name} allows {use.limit} ({spec.cite(use.key)})",
                        "Split the layer or reduce its fan-in",
                    )
                )
    if placement.n_chips > 1:
        findings.append(
            Diagnostic(
                "NM209",
                "program",
                f"needs {placement.n_cores} cores, "
                f"one chip has {spec.number('chip.cores'):g} ({spec.cite('chip.cores')})",
                f"It takes {placement.n_chips} chips; traffic between chips is counted and not priced",
                "warning",
            )
        )
    return tuple(dict.fromkeys(findings))
