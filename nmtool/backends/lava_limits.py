"""What Lava's Processes can hold, as small predicates; all findings of a program are reported at once. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nmtool.compiler.program import Connection, Population, Program
from nmtool.errors import Diagnostic, raise_errors

MAX_DELAY = 63
MAX_SHIFT = 31
INT16 = np.iinfo(np.int16)
INT8_MAX = int(np.iinfo(np.int8).max)
CONV_HALF = 1 << 23


def refuse_what_lava_cannot(program: Program) -> None:
    """Raise for everything in the program that Lava 0.10.0 could not run as it stands.

    Raises:
        FindingsError: NM304, one finding per connection or population and rule.
    """
    raise_errors([*_populations(program), *_connections(program)])


def conv_fits(c: Connection) -> bool:
    """Whether Lava's Conv can hold the geometry: it keeps sizes in int8, and their products too."""
    spans = [d * (k - 1) + 1 for d, k in zip(c.dilation, c.weights.shape[2:], strict=True)]
    return max(*spans, *c.stride, *(2 * p for p in c.padding), c.groups) <= INT8_MAX


def _populations(program: Program) -> Iterator[Diagnostic]:
    for p in program.populations:
        yield from _bias_is_int16(program, p)


def _connections(program: Program) -> Iterator[Diagnostic]:
    for c in program.connections:
        yield from _delay_is_0_to_63(program, c)
        yield from _shift_is_small(c)
        yield from _pairs_are_unique(c)
        yield from _conv_is_plain(program, c)


def _bias_is_int16(program: Program, p: Population) -> Iterator[Diagnostic]:
    low, high = int(p.bias_man.min()), int(p.bias_man.max())
    if program.host is not None and program.host.connection.target == p.name:
        low, high = min(low, program.host.man_min), max(high, program.host.man_max)
    if low < INT16.min or high > INT16.max:
        yield Diagnostic("NM304", p.name, f"bias mantissas span {low} to {high}, Lava keeps {INT16.min} to {INT16.max}",
                         "Use a larger bias exponent")  # fmt: skip


def _delay_is_0_to_63(program: Program, c: Connection) -> Iterator[Diagnostic]:
    delay = program.chip_delay(c)
    if delay.size and not 0 <= delay.min() <= delay.max() <= MAX_DELAY:
        yield Diagnostic("NM304", c.name, f"delays beside the synapse's own step span {delay.min()} to {delay.max()}, "
                         f"Lava has 0 to {MAX_DELAY}", "Shorten the delay, or balance the paths")  # fmt: skip


def _shift_is_small(c: Connection) -> Iterator[Diagnostic]:
    if abs(c.weight_exp) > MAX_SHIFT:
        yield Diagnostic("NM304", c.name, f"weight exponent {c.weight_exp}, Lava shifts by at most {MAX_SHIFT}",
                         "Rescale the weights")  # fmt: skip


def _pairs_are_unique(c: Connection) -> Iterator[Diagnostic]:
    if c.kind == "sparse" and c.indices is not None and c.indices.size:
        pairs, counts = np.unique(c.indices, axis=1, return_counts=True)
        if counts.max() > 1:
            target, source = pairs[:, int(np.argmax(counts))]
            yield Diagnostic("NM304", c.name, f"{counts.max()} synapses from line {source} to neuron {target}, "
                             "Lava's Sparse has one per pair", "Put them into connections of their own")  # fmt: skip


def _conv_is_plain(program: Program, c: Connection) -> Iterator[Diagnostic]:
    if c.kind != "conv":
        return
    if c.weight_exp != 0 or c.delay_steps.ndim:
        yield Diagnostic("NM304", c.name, f"weight exponent {c.weight_exp} and delays of shape {c.delay_steps.shape}, "
                         "Lava's Conv has neither", "Use exponent 0 and one delay for all")  # fmt: skip
    if not conv_fits(c) and c.message_bits:
        largest = int(np.abs(c.weights.astype(np.int64)).reshape(c.weights.shape[0], -1).sum(axis=1).max())
        payload = (
            program.input.x_max if program.input.encoder == "direct" else 1 << min(c.message_bits, MAX_SHIFT)
        )
        if largest * payload >= CONV_HALF:
            geometry = (
                f"kernel {c.weights.shape[2:]}, stride {c.stride}, padding {c.padding}, dilation {c.dilation}"
            )
            yield Diagnostic("NM304", c.name, f"{geometry} or groups {c.groups} go beyond the 8 bits of Lava's Conv, "
                             "and the sums beyond 24 bits", "Use fewer groups or a smaller kernel")  # fmt: skip
