"""The float engine as a backend: NIR semantics in float32, what training computed, the top rung of the ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import Progress, RunOptions, RunResult, Trace
from nmtool.errors import ConfigError, ModelError, did_you_mean
from nmtool.fixedpoint.encode import rate_spikes, rate_thresholds
from nmtool.ir.graph import Graph
from nmtool.ir.reference import Engine, FloatRun

RATE_UNITS = 255
"""Input units of a rate coded program (:class:`nmtool.compiler.program.InputSpec`), so that both draw alike."""


class FloatBackend:
    """Runs a graph as it is, without quantisation.

    Args:
        graph: any graph that :mod:`nmtool.ir` accepts.
    """

    name = "float"

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._engine = Engine(graph)

    def run(self, x: NDArray[Any], options: RunOptions, progress: Progress | None = None) -> RunResult:
        """Run B samples, ``options.batch_size`` at a time, which never changes a result.

        Args:
            x: spikes ``[T, B, *shape]``; analog ``[B, *shape]`` for the encoders ``direct`` (a constant current) and
                ``rate`` (drawn from the counter-based stream that every backend uses).
            options: how to run; ``strict`` and ``deadline_s`` mean nothing here.
            progress: told about finished samples.

        Raises:
            ModelError: NM109 if x does not fit the model's input.
            ConfigError: NM005 if a population to record does not exist.
        """
        self._check_record(options)
        shape, model = self.graph.nodes[self.graph.input].out_shape, self.graph.model
        analog = x.ndim == len(shape) + 1
        axis = 0 if analog else 1
        n_samples = x.shape[axis] if x.ndim > axis else 0
        if not n_samples:
            raise ModelError("NM109", f"input {self.graph.input}", f"x has shape {list(x.shape)}: no samples")
        n_steps = len(x) if not analog else options.n_steps or model.n_steps
        parts = []
        for start in range(0, n_samples, options.batch_size):
            part = (
                x[start : start + options.batch_size] if analog else x[:, start : start + options.batch_size]
            )
            first = options.sample_offset + start
            if analog and model.encoder == "rate" and x.shape[1:] == shape:
                part = self._rate(part, n_steps, options.seed, first)
            parts.append(
                self._engine.run(
                    part,
                    n_steps=options.n_steps,
                    seed=options.seed,
                    noise=options.noise,
                    record=options.record,
                    sample_offset=first,
                )
            )
            if progress is not None:
                progress(min(start + options.batch_size, n_samples), n_samples)
        return self._result(parts, n_steps, options)

    def _rate(self, x: NDArray[Any], n_steps: int, seed: int, first: int) -> NDArray[np.uint8]:
        """Bernoulli spikes ``[T, B, *shape]``; sample ``i`` of the call is number ``first + i`` of the stream."""
        low, high = self.graph.model.bounds
        thresholds = rate_thresholds(x.reshape(len(x), -1) - low, (high - low) / RATE_UNITS, RATE_UNITS)
        spikes = rate_spikes(thresholds, seed, np.arange(first, first + len(x)), np.arange(n_steps))
        return spikes.reshape(n_steps, *x.shape)

    def _check_record(self, options: RunOptions) -> None:
        known = {n for n, node in self.graph.nodes.items() if node.neuron is not None}
        known |= {self.graph.input, "all"}
        for name in options.record:
            if name not in known:
                message = f"there is no population '{name}' to record"
                raise ConfigError("NM005", "--record", message, did_you_mean(name, known))

    def _result(self, parts: Sequence[FloatRun], n_steps: int, options: RunOptions) -> RunResult:
        return RunResult(
            backend=self.name,
            model_sha256=self.graph.sha256,
            n_steps=n_steps,
            dt_s=self.graph.model.dt_s,
            seed=options.seed,
            noise=options.noise,
            logits=np.concatenate([p.logits for p in parts]),
            spike_counts=_joined([p.counts for p in parts]),
            last_spikes=_joined([p.last_spikes for p in parts]),
            traces={name: _trace([p.traces[name] for p in parts]) for name in parts[0].traces},
            steps_density={n: np.sum([p.density[n] for p in parts], axis=0) for n in parts[0].density},
        )


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Samples of all parts, one after the other."""
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _trace(parts: Sequence[Any]) -> Trace:
    """Traces of all parts, joined along the samples (axis 1)."""
    spikes, i_syn, v_post = (
        None if values[0] is None else np.concatenate(values, axis=1) for values in zip(*parts, strict=True)
    )
    return Trace(np.zeros(0, np.uint8) if spikes is None else spikes, i_syn, v_post)
