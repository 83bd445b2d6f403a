"""The Lava backend: sends a program and its inputs to a worker that runs them as real Lava Processes.

A worker that hangs or fails is ended, its samples are tried again one by one, and those that fail alone are reported.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from numpy.typing import NDArray

from nmtool.backends.base import Progress, RunOptions, RunResult, check_options
from nmtool.backends.frames import PROTOCOL, Frame, field
from nmtool.backends.lava_limits import refuse_what_lava_cannot
from nmtool.backends.lava_samples import Collected, Entering, entering, packed
from nmtool.backends.worker_link import WorkerLink
from nmtool.compiler.program import Program
from nmtool.errors import BackendUnavailableError, SimulationError
from nmtool.lava_env import LavaEnv, require

START_S = 60.0
"""Longest wait for a worker that starts and imports Lava."""

SAMPLES_PER_REQUEST = 32
VALUES_PER_REQUEST = 1 << 25
"""Most values that one request holds in the input and in traces."""

GIVE_UP_AFTER = 3
"""Samples that fail alone before one has ever succeeded; then the rest is not tried."""


class Failure(NamedTuple):
    """Why a request could not be finished: NM402 or NM403, the Lava Process if it is known, and what was seen."""

    code: str
    block: str | None
    text: str

    def error(self) -> SimulationError:
        """As an exception."""
        return SimulationError(
            self.code, self.block or "Lava worker", self.text, "Run 'nmtool verify' on fewer samples"
        )


class LavaBackend:
    """Runs a program as real Lava Processes.

    Args:
        program: compiled for any target.
        env: where Lava is; None looks for it, see :func:`nmtool.lava_env.require`.
        link: a worker to use instead, which stays open; None starts one per run.
        counted: populations whose spikes are counted beside the output's; None counts all. Each costs one Lava
            Process, which is about a tenth of a small network's time.

    Raises:
        FindingsError: NM304 for everything that Lava cannot run.
        BackendUnavailableError: NM301 if there is no Lava.
    """

    name = "lava"

    def __init__(
        self,
        program: Program,
        env: LavaEnv | None = None,
        link: WorkerLink | None = None,
        counted: tuple[str, ...] | None = None,
    ) -> None:
        refuse_what_lava_cannot(program)
        self.program, self._link = program, link
        self._env = env or (require() if link is None else None)
        names = [p.name for p in program.populations]
        self._counted = [n for n in names if counted is None or n in counted or n == program.output]
        self._packed = packed(program)

    def run(self, x: NDArray[Any], options: RunOptions, progress: Progress | None = None) -> RunResult:
        """Run ``B`` samples; see :class:`nmtool.backends.base.Backend`.

        ``options.deadline_s`` is the longest time in which Lava makes no step. ``active_updates`` and ``overflow``
        are not known to Lava. A sample that failed has zeros everywhere and stands in ``failures``.

        Raises:
            ConfigError: NM004 if an option is outside what is allowed.
            ModelError: NM109 if ``x`` does not fit the program's input.
            BackendUnavailableError: NM301 if the worker cannot import Lava, NM304 if ``options.strict`` is set.
            SimulationError: NM402, NM403 if no sample could be finished; NM404 if the worker breaks the protocol.
        """
        check_options(options, [self.program.input.name, *(p.name for p in self.program.populations)])
        if options.strict:
            message = "Lava does not tell whether a register overflowed, which strict mode asks for"
            raise BackendUnavailableError("NM304", "lava", message, "Run strictly on the sim backend")
        source = entering(self.program, x, options)
        with contextlib.ExitStack() as stack:
            link = self._link or stack.enter_context(self._new_link())
            run = _Run(self, link, source, options, progress or (lambda done, total: None))
            run.all_samples()
        return run.collected.result()

    def _new_link(self) -> WorkerLink:
        env = self._env or require()
        return WorkerLink(env.worker_command, env.worker_environment)


class _Run:
    """One call of :meth:`LavaBackend.run`."""

    def __init__(
        self,
        backend: LavaBackend,
        link: WorkerLink,
        source: Entering,
        options: RunOptions,
        progress: Progress,
    ) -> None:
        self.program, self.counted, self.packed = backend.program, backend._counted, backend._packed
        self.link, self.source, self.options, self.progress = link, source, options, progress
        self.collected = Collected(self.program, self.counted, source, options)
        self.succeeded = False

    def all_samples(self) -> None:
        """Requests of several samples; where one fails, its samples one by one."""
        n, size = self.source.n_samples, self._samples_per_request()
        alone: list[Failure] = []
        for first in range(0, n, size):
            part = range(first, min(first + size, n))
            failure = self._request(part)
            singles = [] if failure is None else list(part)
            for sample in singles:
                failure = failure if len(part) == 1 else self._request(range(sample, sample + 1))
                if failure is not None:
                    alone.append(failure)
                    self.collected.fail(sample, failure.error(), failure.block)
                    if not self.succeeded and len(alone) >= min(GIVE_UP_AFTER, n):
                        raise failure.error()
            self.progress(part.stop, n)

    def _samples_per_request(self) -> int:
        traced = sum(p.n_neurons for p in self.program.populations if self.options.records(p.name))
        values = self.source.n_steps * (self.program.size(self.program.input.name) + 2 * traced)
        return max(1, min(self.options.batch_size, SAMPLES_PER_REQUEST, VALUES_PER_REQUEST // max(values, 1)))

    def _request(self, part: range) -> Failure | None:
        """Run some samples and keep what they gave, or say why not."""
        reached: dict[str, int] = {}

        def on_progress(frame: Frame) -> None:
            reached.update(field(frame, "reached", dict))
            self.progress(part.start + field(frame, "samples", int), self.source.n_samples)

        self._greet()
        header = {
            "n_steps": self.source.n_steps,
            "n_samples": len(part),
            "counted": self.counted,
            "traced": [p.name for p in self.program.populations if self.options.records(p.name)],
            "final": [self.program.output] if self.program.readout == "membrane" else [],
            "seed": self.options.seed,
            "noise": self.options.noise,
            "sample_offset": self.options.sample_offset + part.start,
        }
        arrays = {"program": self.packed, **self.source.part(part)}
        try:
            frame = self.link.ask(
                "run", arrays, deadline_s=self.options.deadline_s, on_progress=on_progress, **header
            )
        except SimulationError as e:
            if e.code == "NM404":
                raise
            return Failure(e.code, _stuck(reached), e.message)
        return self._answered(frame, part)

    def _answered(self, frame: Frame, part: range) -> Failure | None:
        if frame.kind == "result":
            self.collected.add(frame, part)
            self.succeeded = True
            return None
        if frame.kind != "failed":
            raise SimulationError("NM404", "Lava worker", f"answered 'run' with '{frame.kind}'")
        stage, text, block = field(frame, "stage", str), field(frame, "text", str), frame.header.get("block")
        where = block if isinstance(block, str) else None
        if stage != "run":
            code = "NM404" if stage == "protocol" else "NM403"
            raise SimulationError(code, where or "Lava worker", text, "Run 'nmtool doctor'")
        return Failure("NM403", where, text)

    def _greet(self) -> None:
        """Start a worker if there is none, and see that it is of this protocol and has Lava."""
        if self.link.running:
            return
        frame = self.link.ask("hello", deadline_s=max(START_S, self.options.deadline_s))
        if frame.kind != "hello":
            text = str(frame.header.get("text", frame.kind))
            raise BackendUnavailableError("NM301", "Lava worker", text, "Run 'nmtool lava status'")
        if (theirs := field(frame, "protocol", int)) != PROTOCOL:
            raise SimulationError("NM404", "Lava worker", f"speaks protocol {theirs}, this nmtool speaks {PROTOCOL}",
                                  "Install the same nmtool on both sides")  # fmt: skip


def _stuck(reached: dict[str, int]) -> str | None:
    """The first population that did not make the step that others made: Lava goes from step to step together."""
    late = [name for name, step in reached.items() if step < max(reached.values())]
    return late[0] if late else None
