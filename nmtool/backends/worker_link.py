"""A worker process that speaks frames: started when needed, asked with a deadline, ended with everything it started.

Lava starts one OS process per Process. They share the worker's process group, so that ending the group ends them all.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from nmtool.backends.frames import Frame, read_frame, write_frame
from nmtool.errors import NmtoolError, SimulationError

STDERR_LINES = 30
GRACE_S = 2.0
GOODBYE_S = 5.0
TICK_S = 0.2

Answer = Frame | NmtoolError | None


class WorkerLink:
    """One worker at a time behind a command, local or ``("ssh", host, "nmtool-worker")``.

    Args:
        command: what starts the worker.
        environment: variables set for it beside the inherited ones.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.command = tuple(command)
        self.environment = dict(environment or {})
        self._worker: _Worker | None = None

    def __enter__(self) -> WorkerLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether a worker is there."""
        return self._worker is not None

    def ask(
        self,
        kind: str,
        arrays: Mapping[str, NDArray[Any]] | None = None,
        *,
        deadline_s: float,
        on_progress: Callable[[Frame], None] | None = None,
        **header: Any,
    ) -> Frame:
        """Send a request and wait for its answer.

        Args:
            kind: which request.
            arrays: its arrays.
            deadline_s: longest silence. A worker that makes progress says so (``progress`` frames).
            on_progress: told about those.
            header: what else stands in the request.

        Raises:
            SimulationError: NM402 if the worker was silent for too long, NM403 if it could not be started or ended,
                NM404 if its answer does not follow the protocol. It has been ended then, and the next request
                starts a new one.
        """
        if self._worker is None:
            self._worker = _Worker(self.command, self.environment)
        try:
            self._worker.send(kind, arrays or {}, header)
            while True:
                frame = self._worker.receive(deadline_s)
                if frame.kind != "progress":
                    break
                if on_progress is not None:
                    on_progress(frame)
        except BaseException:
            self.kill()
            raise
        if frame.kind in ("failed", "bye"):
            self.kill()
        return frame

    def stop(self) -> None:
        """Ask the worker to end, and end it if it does not."""
        if self._worker is not None:
            with contextlib.suppress(SimulationError):
                self.ask("shutdown", deadline_s=GOODBYE_S)
        self.kill()

    def kill(self) -> None:
        """End the worker and everything it started."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Worker:
    """The OS process, with threads that read what it says."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        try:
            self.process = subprocess.Popen(  # noqa: S603  (a list, no shell)
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except OSError as e:
            hint = "Run 'nmtool lava status'"
            raise SimulationError(
                "NM403", command[0], f"the worker cannot be started ({e.strerror or e})", hint
            ) from e
        self.answers: queue.Queue[Answer] = queue.Queue()
        self.last_words: deque[str] = deque(maxlen=STDERR_LINES)
        self.threads = [
            threading.Thread(target=f, daemon=True) for f in (self._read_frames, self._read_stderr)
        ]
        for thread in self.threads:
            thread.start()

    def _read_frames(self) -> None:
        try:
            while (frame := read_frame(self.process.stdout)) is not None:  # type: ignore[arg-type]
                self.answers.put(frame)
        except SimulationError as e:
            self.answers.put(e)
        self.answers.put(None)

    def _read_stderr(self) -> None:
        for line in self.process.stderr or ():
            self.last_words.append(line.decode(errors="replace").rstrip())

    def send(self, kind: str, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
        """Write in the background: a worker that reads nothing must not hold the client beyond its deadline."""

        def write() -> None:
            with contextlib.suppress(OSError, ValueError):
                write_frame(self.process.stdin, kind, arrays, **header)  # type: ignore[arg-type]

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        self.threads.append(writer)

    def receive(self, deadline_s: float) -> Frame:
        """The next frame."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                answer = self.answers.get(timeout=max(min(TICK_S, end - time.monotonic()), 0.001))
            except queue.Empty:
                if time.monotonic() >= end:
                    raise self._silent(deadline_s) from None
                if self.process.poll() is not None and self.answers.empty():
                    raise self._gone() from None
                continue
            if isinstance(answer, Frame):
                return answer
            raise answer if isinstance(answer, NmtoolError) else self._gone()

    def _silent(self, deadline_s: float) -> SimulationError:
        return SimulationError(
            "NM402",
            "Lava worker",
            f"no answer for {deadline_s:g} s; it was stopped",
            "Allow more time with --deadline",
        )

    def _gone(self) -> SimulationError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        words = " | ".join(list(self.last_words)[-4:]) or "it said nothing"
        code = self.process.returncode
        return SimulationError(
            "NM403", "Lava worker", f"it ended with exit code {code}: {words}", "Run 'nmtool lava status'"
        )

    def end(self) -> None:
        """SIGTERM first: Python's resource tracker ignores it and then frees the shared memory of the others."""
        self._signal(signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end and self._signal(0):
            self.process.poll()
            time.sleep(0.01)
        self._signal(signal.SIGKILL)
        self.process.wait()
        for thread in self.threads:
            thread.join(GRACE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _signal(self, number: int) -> bool:
        """Whether the group is still there."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True
