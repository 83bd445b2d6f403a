"""The integer simulator: a program in NumPy and compiled kernels, equal to Lava and the chip bit for bit."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nmtool.backends.base import Progress, RunOptions, RunResult, check_options
from nmtool.compiler.program import Program

if TYPE_CHECKING:
    from nmtool.backends.sim_block import Job
    from nmtool.backends.sim_plan import Plan

CHUNK_BYTES = 7 << 20
"""Working set of one block and chunk, per thread: about what stays in the outer caches."""

CHUNK_STEPS = 64
MIN_ROWS, MAX_ROWS = 4, 4096


@dataclass(frozen=True)
class Blocking:
    """How a run is cut up; it decides speed and memory, never a bit of the result.

    Attributes:
        samples, steps: most samples and steps computed together; None chooses by memory.
        threads: blocks computed at the same time; None takes the cores that this process may use.
        count: False leaves out all counts but the output's, to measure what counting costs.
    """

    samples: int | None = None
    steps: int | None = None
    threads: int | None = None
    count: bool = True


class SimBackend:
    """Runs a program on this machine's processor.

    Args:
        program: compiled for any target.
        blocking: how runs are cut up.

    Raises:
        ModelError: NM110, on the first run, if the program's parts do not fit.
    """

    name = "sim"

    def __init__(self, program: Program, blocking: Blocking | None = None) -> None:
        self.program, self.blocking = program, blocking or Blocking()
        self._plan: Plan | None = None
        self._lock = threading.Lock()

    def run(self, x: NDArray[Any], options: RunOptions, progress: Progress | None = None) -> RunResult:
        """Run ``B`` samples; see :class:`nmtool.backends.base.Backend`.

        Raises:
            ModelError: NM109 if ``x`` does not fit the program's input.
            ConfigError: NM004 if an option is outside what is allowed.
            SimulationError: NM401 if a state overflowed and ``options.strict`` is set.
        """
        from nmtool.backends.sim_block import Job
        from nmtool.backends.sim_input import feed
        from nmtool.backends.sim_result import Collector

        check_options(options, [self.program.input.name, *(p.name for p in self.program.populations)])
        plan = self.plan()
        source = feed(self.program, x, options)
        samples, steps = self._sizes(plan, source.n_samples, source.n_steps, options.batch_size)
        collector = Collector(plan, source, options, self.blocking.count)
        self._run_blocks(Job(plan, source, options, steps, collector), samples, progress)
        if options.strict:
            collector.refuse_overflow()
        return collector.result()

    def plan(self) -> Plan:
        """The program prepared for simulation, once."""
        from nmtool.backends.sim_plan import prepare

        with self._lock:
            if self._plan is None:
                self._plan = prepare(self.program)
            return self._plan

    def _threads(self) -> int:
        if self.blocking.threads is not None:
            return self.blocking.threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return max(1, min(cores, int(asked))) if asked.isdigit() else cores

    def _sizes(self, plan: Plan, n_samples: int, n_steps: int, batch_size: int) -> tuple[int, int]:
        """Samples per block and steps per chunk."""
        from nmtool.fixedpoint.scan import COUNTED_STEPS

        sizes = [layout.size for layout in plan.layouts.values()]
        largest = max(p.n_neurons for p in self.program.populations)
        rows = int(np.clip(CHUNK_BYTES // (4 * largest + sum(sizes)), MIN_ROWS, MAX_ROWS))
        most = max(1, rows // min(n_steps, CHUNK_STEPS)) if not plan.stepwise else n_samples
        most = min(self.blocking.samples or most, batch_size)
        # as many blocks for every thread
        threads = self._threads()
        blocks = -(-n_samples // max(most * threads, 1)) * threads
        samples = max(1, -(-n_samples // max(blocks, 1)))
        return samples, min(self.blocking.steps or max(1, rows // samples), n_steps, COUNTED_STEPS)

    def _run_blocks(self, job: Job, size: int, progress: Progress | None) -> None:
        """Every block once, several at a time."""
        from nmtool.backends.sim_block import Block

        n = job.feed.n_samples
        parts = [range(first, min(first + size, n)) for first in range(0, n, size)]
        threads = min(self._threads(), len(parts))
        idle: queue.SimpleQueue[Block] = queue.SimpleQueue()
        done = 0

        def work(part: range) -> int:
            if len(part) < size:
                Block(job, len(part)).run(part)
                return len(part)
            try:
                block = idle.get_nowait()
            except queue.Empty:
                block = Block(job, size)
            block.run(part)
            idle.put(block)
            return size

        with contextlib.ExitStack() as stack:
            results: Iterator[int] = map(work, parts)
            if threads > 1:
                stack.enter_context(_one_torch_thread_each(job.plan.needs_torch))
                pool = stack.enter_context(ThreadPoolExecutor(threads))
                stack.callback(pool.shutdown, cancel_futures=True)
                results = pool.map(work, parts)
            for k in results:
                done += k
                if progress is not None:
                    progress(done, n)


@contextlib.contextmanager
def _one_torch_thread_each(needed: bool) -> Iterator[None]:
    """Several blocks run at once, so that PyTorch's own threads would only get in each other's way."""
    if not needed and "torch" not in sys.modules:
        yield
        return
    from nmtool.fixedpoint.kernels import torch_threads

    with torch_threads(1):
        yield
