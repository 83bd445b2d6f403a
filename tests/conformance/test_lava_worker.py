"""The worker on its own: how it starts, what it answers to nonsense, and that it ends when its client goes away."""

import io
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from tv_programs import inputs, into, population, program

import nmtool
from nmtool.backends.frames import read_frame, write_frame
from nmtool.backends.lava_samples import packed
from nmtool.backends.worker_link import WorkerLink

pytestmark = pytest.mark.lava


def request(steps: int, without: tuple[str, ...] = (), **changed) -> bytes:
    """A complete run request, or one that is not."""
    p = program(2, [population("p", (3,), 1, v_th_man=3)], [into([[20, 0], [0, 20], [8, 8]])])
    arrays = {"program": packed(p), "spikes": np.repeat(inputs([[1, 0]]), steps, axis=0)}
    header = {"n_steps": steps, "n_samples": 1, "counted": ["p"], "traced": [], "final": [], "seed": 0,
              "noise": True, "sample_offset": 0, **changed}  # fmt: skip
    stream = io.BytesIO()
    write_frame(stream, "run", {k: v for k, v in arrays.items() if k not in without}, **header)
    return stream.getvalue()


def started(env) -> subprocess.Popen:
    return subprocess.Popen(
        env.worker_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True, env={**os.environ, **env.worker_environment},
    )  # fmt: skip


def answer(worker: subprocess.Popen):
    """The next frame that is not about progress."""
    frame = read_frame(worker.stdout)
    while frame is not None and frame.kind == "progress":
        frame = read_frame(worker.stdout)
    return frame


def told(env, said: bytes):
    """What a fresh worker answers, that hears ``said`` and then the end of the stream."""
    worker = started(env)
    out, _ = worker.communicate(said, timeout=120)
    stream = io.BytesIO(out)
    frame = read_frame(stream)
    assert read_frame(stream) is None
    return frame


def test_it_starts_as_a_module_too(lava_env):
    command = (str(lava_env.python), "-m", "nmtool.backends.lava_worker")
    with WorkerLink(command, {"PYTHONPATH": str(Path(nmtool.__file__).parents[1])}) as link:
        versions = link.ask("hello", deadline_s=60).header["versions"]
    assert versions["lava-nc"] == "0.10.0"
    assert versions["python"].startswith("3.10.")
    assert versions["nmtool"] == nmtool.__version__


def test_requests_are_answered_in_order_and_the_end_of_the_stream_ends_it(lava_env):
    worker = started(lava_env)
    worker.stdin.write(request(5) + request(9))
    worker.stdin.flush()
    first, second = answer(worker), answer(worker)
    np.testing.assert_array_equal(first.arrays["p/counts"], [[5, 0, 5]])
    np.testing.assert_array_equal(second.arrays["p/density"], [2] * 9)
    worker.stdin.close()
    assert read_frame(worker.stdout) is None
    assert worker.wait(30) == 0
    worker.stdout.close()


@pytest.mark.parametrize(
    ("said", "stage", "match"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" + b" " * 20, "protocol", "begins with"),
        (request(5)[:-3], "protocol", "the stream ended after"),
        (request(5, n_steps="many"), "build", "n_steps = 'many', expected int"),
        (request(5, n_samples=2), "build", "for 'spikes', expected uint8"),
        (request(5, without=("program",)), "build", "not a readable program"),
        (request(5, counted=["q"]), "build", "counted names ['q']"),
    ],
    ids=["text", "cut off", "wrong field", "wrong shape", "no program", "unknown population"],
)
def test_a_request_that_is_none_is_answered_with_what_is_wrong(said, stage, match, lava_env):
    frame = told(lava_env, said)
    assert frame.kind == "failed"
    assert frame.header["stage"] == stage
    assert match in frame.header["text"]


def test_a_damaged_program_is_refused(lava_env):
    frame = told(lava_env, with_program(np.frombuffer(b"PK\x03\x04 not a program", np.uint8)))
    assert (frame.kind, frame.header["stage"]) == ("failed", "build")
    assert "not a readable program" in frame.header["text"]


def with_program(data: np.ndarray) -> bytes:
    frame = read_frame(io.BytesIO(request(5)))
    stream = io.BytesIO()
    write_frame(stream, frame.header.pop("kind"), {**frame.arrays, "program": data}, **frame.header)
    return stream.getvalue()


def test_it_ends_with_all_its_processes_when_the_client_goes_away_during_a_run(lava_env):
    worker = started(lava_env)
    try:
        worker.stdin.write(request(200_000))
        worker.stdin.flush()
        assert read_frame(worker.stdout).kind == "progress"
        worker.stdin.close()
        assert "the client went away" in answer(worker).header["text"]
        worker.wait(30)
        end = time.monotonic() + 30
        while time.monotonic() < end and still_there(worker.pid):
            time.sleep(0.1)
        assert not still_there(worker.pid)
    finally:
        if still_there(worker.pid):
            os.killpg(worker.pid, 9)
        worker.stdout.close()


def still_there(group: int) -> bool:
    """Whether a process of the group runs; what ended and waits to be collected does not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            return True
    return False
