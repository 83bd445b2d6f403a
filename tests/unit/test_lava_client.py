"""The client side of Lava, against workers that are ours: what a silent, broken, lying or failing worker gets."""

import os
import sys
import textwrap
import time

import numpy as np
import pytest

from nmtool.backends.base import RunOptions
from nmtool.backends.lava import LavaBackend
from nmtool.backends.worker_link import WorkerLink
from nmtool.compiler.program import Connection, InputSpec, Population, Program
from nmtool.errors import BackendUnavailableError, ConfigError, FindingsError, ModelError, SimulationError

N_IN, N_OUT, STEPS = 3, 2, 4

PREAMBLE = """
import os, subprocess, sys, time
import numpy as np
from nmtool.backends.frames import read_frame, write_frame, PROTOCOL
out = sys.stdout.buffer

def hello():
    assert read_frame(sys.stdin.buffer).kind == "hello"
    write_frame(out, "hello", protocol=PROTOCOL, versions={})

def result(frame, **changed):
    h = frame.header
    t, b = h["n_steps"], h["n_samples"]
    index = np.arange(b) + h["sample_offset"]
    arrays = {}
    for name in h["counted"]:
        arrays[name + "/counts"] = np.repeat(index[:, None], 2, axis=1).astype(np.int64)
        arrays[name + "/last"] = np.ones((b, 2), np.uint8)
        arrays[name + "/density"] = np.full(t, b, np.int64)
    for name in h["traced"]:
        arrays[name + "/spikes"] = np.broadcast_to(index[:, None] % 2, (t, b, 2)).astype(np.uint8)
        arrays[name + "/u"] = arrays[name + "/v"] = np.broadcast_to(index[:, None], (t, b, 2)).astype(np.int32)
    write_frame(out, "result", {**arrays, **changed})

def requests():
    hello()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        if frame.kind == "shutdown":
            write_frame(out, "bye")
            return
        yield frame
"""


def worker(body: str) -> WorkerLink:
    """A worker made of the preamble and ``body``."""
    return WorkerLink([sys.executable, "-c", PREAMBLE + textwrap.dedent(body)])


def register(value: int = 0) -> np.ndarray:
    return np.asarray(value, np.int32)


def population(name: str = "out", **changed) -> Population:
    registers = {"decay_syn_q12": register(4096), "decay_mem_q12": register(), "v_th_man": register(10),
                 "bias_man": register(), "bias_exp": register()}  # fmt: skip
    return Population(name, (N_OUT,), **{**registers, "scale": 1.0, "latency": 1, **changed})


def program(readout: str = "spike_count", **changed) -> Program:
    weights = np.full((N_OUT, N_IN), 2, np.int32)
    c = Connection(
        **{"name": "in->out", "source": "in", "target": "out", "kind": "dense", "weights": weights, **changed}
    )
    return Program(
        "t", InputSpec("in", (N_IN,), "spikes", STEPS), (population(),), (c,), None, "out", readout, 1e-3
    )


def x(n_samples: int) -> np.ndarray:
    return np.ones((STEPS, n_samples, N_IN), np.uint8)


def run(body: str, n_samples: int = 3, readout: str = "spike_count", **options):
    with worker(body) as link:
        return LavaBackend(program(readout), link=link).run(
            x(n_samples), RunOptions(**{"deadline_s": 20.0, **options})
        )


GOOD = """
for frame in requests():
    result(frame)
"""


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended but was not collected by its adopter does not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_answers_of_several_requests_are_put_together_in_order():
    seen = []
    with worker(GOOD) as link:
        backend = LavaBackend(program(), link=link)
        options = RunOptions(batch_size=3, sample_offset=10, record=("all",))
        result = backend.run(x(8), options, lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(result.spike_counts["out"][:, 0], np.arange(10, 18))
    np.testing.assert_array_equal(result.logits, result.spike_counts["out"])
    np.testing.assert_array_equal(result.traces["out"].u[0, :, 1], np.arange(10, 18))
    np.testing.assert_array_equal(result.traces["out"].spikes[-1, :, 1], np.arange(10, 18) % 2)
    np.testing.assert_array_equal(result.traces["in"].spikes, x(8))
    np.testing.assert_array_equal(result.spike_counts["in"], np.full((8, N_IN), STEPS))
    np.testing.assert_array_equal(result.steps_density["out"], np.full(STEPS, 8))
    assert seen == [(3, 8), (6, 8), (8, 8)]
    assert (result.backend, result.n_steps, result.failures, result.active_updates) == (
        "lava",
        STEPS,
        (),
        None,
    )


def test_one_link_serves_many_runs():
    with worker(GOOD) as link:
        backend = LavaBackend(program(), link=link)
        runs = [backend.run(x(2), RunOptions(sample_offset=i)) for i in range(3)]
    assert [int(r.logits[0, 0]) for r in runs] == [0, 1, 2]


def test_what_the_worker_prints_on_stderr_does_not_hold_it_up():
    result = run("""
    for frame in requests():
        sys.stderr.write("x" * 1_000_000)
        result(frame)
    """)
    assert not result.failures


def test_progress_is_passed_on():
    seen = []
    body = """
    for frame in requests():
        for n in (0, 1, 2):
            write_frame(out, "progress", samples=n, reached={"out": n})
        result(frame)
    """
    with worker(body) as link:
        LavaBackend(program(), link=link).run(x(3), RunOptions(), lambda done, total: seen.append(done))
    assert seen == [0, 1, 2, 3]


ANSWER = "for frame in requests(): "
LIES = {
    "text": ("hello(); print('Segmentation fault ' * 9, flush=True); time.sleep(60)", "begins with"),
    "half a frame": ("hello(); out.write(b'NMF1' + b'1' * 9); out.flush()", "ended after"),
    "another kind": (ANSWER + "write_frame(out, 'hello')", "answered 'run' with 'hello'"),
    "missing array": (ANSWER + "write_frame(out, 'result')", "nothing for 'out/counts'"),
    "wrong shape": (ANSWER + "result(frame, **{'out/last': np.zeros((1, 1), np.uint8)})", "expected uint8"),
    "wrong type": (ANSWER + "result(frame, **{'out/counts': np.zeros((3, 2))})", "expected int64"),
    "no text": (ANSWER + "write_frame(out, 'failed', stage='run')", "text = None"),
    "complaint": (ANSWER + "write_frame(out, 'failed', stage='protocol', text='odd')", "odd"),
    "no numbers": (ANSWER + "write_frame(out, 'progress', samples='all')", "reached = None"),
    "another version": (
        "read_frame(sys.stdin.buffer); write_frame(out, 'hello', protocol=99)",
        "speaks protocol 99",
    ),
}


@pytest.mark.parametrize(("body", "match"), LIES.values(), ids=LIES)
def test_an_answer_that_breaks_the_protocol_is_nm404(body, match):
    with pytest.raises(SimulationError, match=match) as e:
        run(body)
    assert e.value.code == "NM404"


def test_a_worker_without_lava_is_nm301():
    with pytest.raises(BackendUnavailableError, match=r"NM301.*No module named 'lava'"):
        run(
            "read_frame(sys.stdin.buffer); write_frame(out, 'failed', stage='build', text=\"No module named 'lava'\")"
        )


def test_a_program_that_cannot_be_built_ends_the_run_at_once():
    with pytest.raises(SimulationError, match=r"NM403.*in->out: weight 3 would become 2"):
        run(
            ANSWER
            + "write_frame(out, 'failed', stage='build', block='in->out', text='weight 3 would become 2')"
        )


def test_a_command_that_does_not_exist_is_nm403():
    with (
        pytest.raises(SimulationError, match=r"NM403.*cannot be started"),
        WorkerLink(["/nonexistent/worker"]) as link,
    ):
        link.ask("hello", deadline_s=1)


def test_a_worker_that_ends_says_its_last_words():
    with pytest.raises(SimulationError, match=r"NM403.*exit code 3: out of memory"):
        run("hello(); sys.stderr.write('out of memory\\n'); sys.stderr.flush(); sys.exit(3)", 1)


def test_a_silent_worker_is_stopped_at_its_deadline_with_all_that_it_started(tmp_path):
    note = tmp_path / "pids"
    body = f"""
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", deaf])
    open({str(note)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
    hello()
    time.sleep(600)
    """
    began = time.monotonic()
    with worker(body) as link:
        link.ask("hello", deadline_s=20)
        with pytest.raises(SimulationError, match=r"NM402.*no answer for 1 s"):
            link.ask("run", deadline_s=1)
    assert time.monotonic() - began < 30
    pids = [int(p) for p in note.read_text().split()]
    assert len(pids) == 2
    assert not any(alive(p) for p in pids)


def test_a_worker_that_reads_nothing_is_stopped_at_its_deadline():
    with worker("hello(); time.sleep(600)") as link:
        link.ask("hello", deadline_s=20)
        with pytest.raises(SimulationError, match="NM402"):
            link.ask("run", {"program": np.zeros(1 << 22, np.uint8)}, deadline_s=1)


def test_progress_restarts_the_deadline():
    result = run(
        """
        for frame in requests():
            for n in range(6):
                write_frame(out, "progress", samples=0, reached={"out": n})
                time.sleep(0.5)
            result(frame)
        """,
        deadline_s=2.0,
    )
    assert not result.failures


def test_one_bad_sample_is_reported_and_the_rest_goes_on():
    result = run(
        """
        for frame in requests():
            first, n = frame.header["sample_offset"], frame.header["n_samples"]
            if first <= 4 < first + n:
                write_frame(out, "failed", stage="run", block="out", text="OverflowError: too big")
                break
            result(frame)
        """,
        n_samples=7,
        batch_size=3,
    )
    assert [(f["sample"], f["block"]) for f in result.failures] == [(4, "out")]
    assert "error[NM403] out: OverflowError: too big" in result.failures[0]["error"]
    np.testing.assert_array_equal(result.logits[:, 0], [0, 1, 2, 3, 0, 5, 6])
    np.testing.assert_array_equal(result.last_spikes["out"][:, 0], [1, 1, 1, 1, 0, 1, 1])


def test_a_sample_that_hangs_names_the_population_that_did_not_move():
    result = run(
        """
        for frame in requests():
            if frame.header["sample_offset"] == 1:
                write_frame(out, "progress", samples=0, reached={"early": 5, "out": 4})
                time.sleep(600)
            result(frame)
        """,
        batch_size=1,
        deadline_s=1.0,
    )
    assert [(f["sample"], f["block"]) for f in result.failures] == [(1, "out")]
    assert "NM402" in result.failures[0]["error"]
    np.testing.assert_array_equal(result.logits[:, 0], [0, 0, 2])


def test_when_nothing_ever_works_it_gives_up(tmp_path):
    tried = tmp_path / "tried"
    body = f"""
    for frame in requests():
        open({str(tried)!r}, "a").write(f"{{frame.header['n_samples']}} ")
        write_frame(out, "failed", stage="run", block="out", text="boom")
        break
    """
    with pytest.raises(SimulationError, match=r"NM403.*out: boom"):
        run(body, n_samples=20)
    assert tried.read_text().split() == ["20", "1", "1", "1"]


def test_the_membrane_after_the_last_step_is_read_out():
    result = run(
        """
        for frame in requests():
            assert frame.header["final"] == ["out"]
            v = np.arange(2 * frame.header["n_samples"], dtype=np.int32).reshape(1, -1, 2) - 3
            result(frame, **{"out/v": v})
        """,
        readout="membrane",
    )
    np.testing.assert_array_equal(result.logits, [[-3, -2], [-1, 0], [1, 2]])


def test_input_of_another_shape_is_refused_before_a_worker_starts():
    link = WorkerLink(["/nonexistent/worker"])
    with pytest.raises(ModelError, match="NM109"):
        LavaBackend(program(), link=link).run(np.ones((STEPS, 1, N_IN + 1), np.uint8), RunOptions())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"record": ("outt",)}, r"'outt' is no population of this model\. Did you mean 'out'"),
     ({"n_steps": 0}, "n_steps: is 0, allowed is 1 or more"), ({"batch_size": 0}, "batch_size: is 0"),
     ({"sample_offset": -1}, "sample_offset: is -1")],
    ids=["record", "n_steps", "batch_size", "sample_offset"],
)  # fmt: skip
def test_options_without_meaning_are_refused(wrong, match):
    with pytest.raises(ConfigError, match=f"NM004.*{match}"):
        LavaBackend(program(), link=WorkerLink([])).run(x(1), RunOptions(**wrong))


def test_strictness_is_refused_because_lava_cannot_tell():
    with pytest.raises(BackendUnavailableError, match=r"NM304.*overflowed.*sim backend"):
        LavaBackend(program(), link=WorkerLink([])).run(x(1), RunOptions(strict=True))


def test_without_lava_and_without_a_worker_there_is_no_backend(monkeypatch, tmp_path):
    monkeypatch.delenv("NMTOOL_LAVA_PYTHON", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr("nmtool.lava_env._here", lambda: None)
    with pytest.raises(BackendUnavailableError, match=r"NM301.*nmtool lava install"):
        LavaBackend(program())


def sparse(**changed) -> dict:
    indices = np.asarray([[0, 0], [1, 1]], np.int32)
    return {"kind": "sparse", "weights": np.asarray([2, 4], np.int32), "indices": indices, **changed}


def conv(**changed) -> dict:
    return {
        "kind": "conv",
        "weights": np.full((1, 1, 1, 1), 2, np.int32),
        "in_shape": (1, 1, 3),
        "out_shape": (1, 1, 2),
        **changed,
    }


LIMITS = {
    "delay": ({"delay_steps": np.asarray(64, np.int32)}, "span 64 to 64, Lava has 0 to 63"),
    "negative delay": ({"delay_steps": np.asarray(-1, np.int32)}, "span -1 to -1"),
    "exponent": ({"weight_exp": 40}, "weight exponent 40"),
    "twice the same pair": (sparse(), "2 synapses from line 1 to neuron 0"),
    "conv with exponent": (conv(weight_exp=1), "weight exponent 1 and delays"),
    "conv beyond 8 bits with payload": (
        conv(padding=(0, 70), weights=np.full((1, 1, 1, 1), 256, np.int32), message_bits=16), "padding \\(0, 70\\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_what_lava_cannot_hold_is_refused_by_name(case):
    changed, match = LIMITS[case]
    with pytest.raises(FindingsError, match=f"NM304.*in->out: .*{match}"):
        LavaBackend(program(**changed), link=WorkerLink([]))


def test_all_limits_are_reported_at_once():
    p = program(delay_steps=np.asarray(64, np.int32), weight_exp=40)
    p = Program(**{**p.__dict__, "populations": (population(bias_man=register(40000)),)})
    with pytest.raises(FindingsError, match="NM304") as e:
        LavaBackend(p, link=WorkerLink([]))
    assert [d.where for d in e.value.findings] == ["out", "in->out", "in->out"]
    assert "bias mantissas span 40000 to 40000, Lava keeps -32768 to 32767" in str(e.value)


def test_a_stopped_link_leaves_no_process():
    with worker(GOOD) as link:
        LavaBackend(program(), link=link).run(x(1), RunOptions())
        pid = link._worker.process.pid
        assert alive(pid)
    assert not alive(pid)
    assert not link.running
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)
