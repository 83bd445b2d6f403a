"""Where two runs of one program first differ: population, step, sample, neuron and value."""

from collections.abc import Iterator

import numpy as np
from generator import Case
from oracle import History, simulate, stimulus

from nmtool.backends.base import RunOptions, RunResult


def options(case: Case, **changed) -> RunOptions:
    """How a generated case is run: everything recorded."""
    n_steps = None if case.program.input.encoder == "spikes" else case.n_steps
    settings = {
        "n_steps": n_steps,
        "seed": case.seed,
        "record": ("all",),
        "sample_offset": case.sample_offset,
    }
    return RunOptions(**{**settings, **changed})


def expected(case: Case) -> dict[str, History]:
    """The slow simulator's answer."""
    entering = stimulus(case.program, case.x, case.n_steps, case.seed, case.sample_offset)
    return simulate(case.program, entering, case.seed, sample_offset=case.sample_offset)


def differences(case: Case, want: dict[str, History], result: RunResult) -> list[str]:
    """One line per population and quantity that differs; empty if every bit agrees."""
    return [*_traces(case, want, result), *_summaries(case, want, result)]


def _traces(case: Case, want: dict[str, History], result: RunResult) -> Iterator[str]:
    for p in case.program.populations:
        for key in ("spikes", "u", "v"):
            found = np.asarray(getattr(result.traces[p.name], key))
            wanted = getattr(want[p.name], key).reshape(found.shape)
            bad = np.argwhere(found != wanted)
            if len(bad):
                at = tuple(bad[0])
                yield (
                    f"{p.name}.{key}: {len(bad)} of {wanted.size} differ, first at step {at[0]}, sample {at[1]}, "
                    f"neuron {at[2:]}: {wanted[at]} expected, {found[at]} found"
                )


def _summaries(case: Case, want: dict[str, History], result: RunResult) -> Iterator[str]:
    program = case.program
    for p in program.populations:
        spikes = want[p.name].spikes
        for key, found, wanted in (
            ("spike_counts", result.spike_counts[p.name], spikes.sum(axis=0)),
            ("last_spikes", result.last_spikes[p.name], spikes[-1]),
            ("steps_density", result.steps_density[p.name], spikes.sum(axis=(1, 2))),
        ):
            if not np.array_equal(found.reshape(wanted.shape), wanted):
                yield f"{p.name}: {key} differ"
    output = want[program.output]
    logits = output.v[-1] if program.readout == "membrane" else output.spikes.sum(axis=0)
    if not np.array_equal(result.logits, logits):
        yield "logits differ"
    if result.backend == "sim":
        overflow = {
            name: {k: n for k, n in (("u_wrapped", h.wrapped), ("v_clipped", h.clipped)) if n}
            for name, h in want.items()
        }
        if result.overflow != {name: counts for name, counts in overflow.items() if counts}:
            yield f"overflow: {overflow} expected, {result.overflow} found"
    if result.failures:
        yield f"failures: {result.failures}"
