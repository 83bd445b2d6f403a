"""The worker: takes programs as frames on stdin, runs them as real Lava Processes, answers on stdout.

It is the only program of nmtool that needs Lava, and so Python 3.10; beside Lava it needs NumPy alone. Requests:

    hello                 -> hello      versions
    run   program, input  -> progress*  then result, or failed
    shutdown              -> bye

A ProcessModel that raises would make Lava's own ``run`` wait for ever. So the worker starts the run without waiting,
watches the OS processes, and answers ``failed`` with the block's name. A worker never survives a failed run.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import platform
import re
import select
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from nmtool import __version__
from nmtool.backends.frames import PROTOCOL, Frame, array, field, read_frame, write_frame
from nmtool.compiler.program import Program, load
from nmtool.errors import NmtoolError, SimulationError

if TYPE_CHECKING:
    from nmtool.backends.lava_worker.network import Job, Network

POLL_S = 0.01
REPORT_S = 0.5
LAST_WORDS_S = 2.0

SLOTS = 4
"""Messages that a channel holds, instead of Lava's 64: shared memory is scarce in containers."""


class RunFailedError(Exception):
    """A ProcessModel raised or its OS process ended; ``block`` is the Lava Process's name."""

    def __init__(self, block: str, text: str) -> None:
        super().__init__(f"{block}: {text}")
        self.block, self.text = block, text


def serve() -> None:
    """Serve until the stream ends. Whatever Lava prints goes to stderr; stdout carries frames alone."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        while (frame := _request(out)) is not None and _answer(frame, out):
            pass
    sys.stderr.flush()
    # Lava joins its OS processes when its objects are collected, which may wait for ever after a failure.
    os._exit(0)


def _request(out: BinaryIO) -> Frame | None:
    """The next request; None at the end of the stream, or where it cannot be understood any more."""
    try:
        return read_frame(sys.stdin.buffer)
    except SimulationError as e:
        write_frame(out, "failed", stage="protocol", block=None, text=str(e))
        return None


def _answer(frame: Frame, out: BinaryIO) -> bool:
    """Handle one request; False if the worker must end."""
    try:
        if frame.kind == "hello":
            write_frame(out, "hello", protocol=PROTOCOL, versions=versions())
        elif frame.kind == "run":
            write_frame(out, "result", run(frame, out))
        elif frame.kind == "shutdown":
            write_frame(out, "bye")
            return False
        else:
            raise SimulationError("NM404", "worker", f"unknown request '{frame.kind}'")
    except RunFailedError as e:
        write_frame(out, "failed", stage="run", block=e.block, text=e.text)
        return False
    except Exception as e:
        traceback.print_exc()
        block, text = (
            (e.where, e.message) if isinstance(e, NmtoolError) else (None, f"{type(e).__name__}: {e}")
        )
        write_frame(out, "failed", stage="build", block=block, text=text)
        return False
    return True


def versions() -> dict[str, str]:
    """What the answers of this worker depend on; an ImportError if Lava does not work here."""
    importlib.import_module("nmtool.backends.lava_worker.network")
    packages = {name: metadata.version(name) for name in ("lava-nc", "numpy", "scipy")}
    return {"nmtool": __version__, "python": platform.python_version(), **packages}


def run(frame: Frame, out: BinaryIO) -> dict[str, NDArray[Any]]:
    """Build the network, run it, and return its records by ``<population>/<what>``.

    Raises:
        SimulationError: NM404 if the request is not complete, NM403 if the program cannot be built.
        RunFailedError: a ProcessModel raised.
    """
    from nmtool.backends.lava_worker.network import build

    job = _job(frame)
    network = build(job)
    report = _Report(out, network, job)
    for head in network.heads():
        _execute(head, job.n_lava_steps, report)
    arrays: dict[str, NDArray[Any]] = {}
    for name in job.counted:
        record = network.records[name]
        arrays |= {
            f"{name}/counts": record.counts,
            f"{name}/last": record.last,
            f"{name}/density": record.density,
        }
        if name in job.traced:
            arrays[f"{name}/spikes"] = record.spikes
    for name, state in network.states.items():
        arrays |= {f"{name}/u": state[0], f"{name}/v": state[1]}
    _forget()
    return arrays


def _job(frame: Frame) -> Job:
    """The request as the builder takes it."""
    from nmtool.backends.lava_worker.network import Job

    program = _program(frame.arrays.get("program", np.zeros(0, np.uint8)))
    t, b = field(frame, "n_steps", int), field(frame, "n_samples", int)
    spikes = bias = None
    if "spikes" in frame.arrays:
        code = "u1" if frame.arrays["spikes"].dtype.itemsize == 1 else "i4"
        spikes = array(frame, "spikes", code, (t, b, program.size(program.input.name)))
    if "bias" in frame.arrays and program.host is not None:
        bias = array(frame, "bias", "i4", (b, program.size(program.host.connection.target)))
    counted, traced, final = (_names(frame, key, program) for key in ("counted", "traced", "final"))
    return Job(
        program=program,
        n_steps=t,
        n_samples=b,
        spikes=spikes,
        bias=bias,
        counted=counted,
        traced=traced,
        final=final,
        seed=field(frame, "seed", int),
        noise=field(frame, "noise", bool),
        sample_offset=field(frame, "sample_offset", int),
    )


def _names(frame: Frame, key: str, program: Program) -> tuple[str, ...]:
    names = tuple(field(frame, key, list))
    if unknown := set(names) - {p.name for p in program.populations}:
        raise SimulationError(
            "NM404", "worker", f"{key} names {sorted(unknown)}, which are no populations of the program"
        )
    return names


def _program(data: NDArray[np.uint8]) -> Program:
    with tempfile.TemporaryDirectory(prefix="nmtool-worker-") as folder:
        path = Path(folder) / "program.npz"
        path.write_bytes(data.tobytes())
        return load(path)


class _Report:
    """Tells the client how far every population is, but only when something has moved."""

    def __init__(self, out: BinaryIO, network: Network, job: Job) -> None:
        self.out, self.network, self.job = out, network, job
        self.due, self.sent = 0.0, -1

    def __call__(self) -> None:
        """Send ``progress`` if it is time and a step was made."""
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + REPORT_S
        reached = {name: int(record.reached[0]) for name, record in self.network.records.items()}
        if sum(reached.values()) > self.sent:
            self.sent = sum(reached.values())
            slowest = min(
                (reached[p.name] - p.latency) // self.job.clock(p).interval
                for p in self.job.program.populations
                if p.name in reached
            )
            write_frame(self.out, "progress", samples=max(slowest, 0), reached=reached)


def _execute(head: Any, n_steps: int, report: Callable[[], None]) -> None:
    """Run the connected part of ``head``, watching it."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    steps = RunSteps(num_steps=n_steps, blocking=False)
    head.run(steps, Loihi2SimCfg(select_tag="fixed_pt"), {"pypy_channel_size": SLOTS})
    try:
        report()
        _watch(head.runtime, report)
    except BaseException:
        _kill(head.runtime)
        raise
    head.wait()
    head.stop()


def _watch(runtime: Any, report: Callable[[], None]) -> None:
    """Return when the run is done; raise if a ProcessModel raised, its OS process ended, or the client left."""
    from lava.magma.runtime.mgmt_token_enums import MGMT_RESPONSE, enum_equal

    port = runtime.service_to_runtime[0]
    while not port.probe():
        _check_actors(runtime)
        if _client_left():
            raise RunFailedError("worker", "the client went away during a run")
        report()
        time.sleep(POLL_S)
    if enum_equal(port.peek(), MGMT_RESPONSE.DONE):
        return
    end = time.monotonic() + LAST_WORDS_S
    while time.monotonic() < end:
        _check_actors(runtime)
        time.sleep(POLL_S)
    raise RunFailedError("lava", "the runtime reported an error without saying which")


def _client_left() -> bool:
    """Whether the request stream has ended; a request that waits there is none of a run's business."""
    incoming = cast("io.BufferedReader", sys.stdin.buffer)
    return bool(select.select([incoming], [], [], 0)[0]) and not incoming.peek(1)


def _check_actors(runtime: Any) -> None:
    """Raise for the first OS process that raised or ended."""
    names = [process.name for process in runtime._executable.proc_builders] + ["runtime service"]
    for name, actor in zip(names, runtime._messaging_infrastructure.actors, strict=True):
        if actor.exception:
            error, trace = actor.exception
            raise RunFailedError(name, f"{type(error).__name__}: {error}{_place(trace)}")
        if not actor.is_alive():
            raise RunFailedError(name, f"its OS process ended with exit code {actor.exitcode}")


def _place(trace: str) -> str:
    """Where a ProcessModel raised, from its traceback."""
    frames = re.findall(r'File ".*?([^/"]+)", line (\d+), in (\S+)', trace)
    return f" (in {frames[-1][2]}, {frames[-1][0]} line {frames[-1][1]})" if frames else ""


def _kill(runtime: Any) -> None:
    """End the OS processes of a run that failed, also the one that holds the shared memory."""
    for actor in runtime._messaging_infrastructure.actors:
        if actor.is_alive():
            actor.kill()
    runtime._messaging_infrastructure.smm._manager.shutdown()


def _forget() -> None:
    """Empty Lava's process-wide lists, which would keep every network that this worker ever built."""
    from lava.magma.core.process.process import ProcessServer
    from lava.magma.core.process.variable import VarServer

    ProcessServer().processes.clear()
    VarServer().vars.clear()
    logging.getLogger().handlers.clear()
