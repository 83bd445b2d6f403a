"""The integer simulator against real Lava and against snnTorch's float forward of the same network."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_nets as nets
import numpy as np
import torch

from nmtool import lava_env, provenance
from nmtool.backends.base import RunOptions
from nmtool.backends.sim import Blocking, SimBackend
from nmtool.metrics.synops import count

Say = Callable[[str], None]
BATCH = {"mlp": 256, "vgg11": 32, "wrn16": 16}
LAVA_SAMPLES = 16


def measure(repeats: int, say: Say) -> dict[str, Any]:
    """Everything that ``bench.py sim`` reports."""
    ratios: dict[str, float | None] = {}
    absolute: dict[str, Any] = {}
    limits = machine(repeats)
    for make in (nets.mlp, nets.vgg11, nets.wrn16):
        net = make()
        say(f"{net.name}: simulator against snnTorch")
        row = against_snntorch(net, BATCH[net.name], repeats)
        row["share_of_int8_gemm"] = row["dense_macs_per_s"] / limits["int8_gemm_macs_per_s"]
        ratios[f"{net.name}_vs_snntorch"] = row["snntorch_s"] / row["sim_s"]
        ratios[f"{net.name}_memory_vs_snntorch"] = row["sim_peak_mib"] / row["snntorch_peak_mib"]
        absolute[net.name] = row
    say("mlp: simulator against Lava")
    lava = lava_s_per_sample_step(repeats)
    absolute["lava_s_per_sample_step"] = lava
    ratios["mlp_vs_lava"] = None if lava is None else lava / absolute["mlp"]["s_per_sample_step"]
    say("cost over T and batch")
    return {
        "schema": "nmtool.bench/1",
        "benchmark": "sim",
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "ratios": ratios,
        "absolute": absolute,
        "limits": limits,
        "linearity": linearity(repeats),
        **provenance.record(0),
    }


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Median wall time in seconds after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_mib(net: str, side: str) -> float:
    """Memory that one run needs beyond the loaded network and its input, in a process of its own."""
    call = [sys.executable, __file__, net, side]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def one_run(name: str, side: str) -> float:
    """Peak resident memory of one warm run in MiB beyond what was held before it."""
    net = next(n for n in (nets.mlp(), nets.vgg11(), nets.wrn16()) if n.name == name)
    program, x = nets.build(net), nets.sample(net, BATCH[name])
    backend, floating, tensor = SimBackend(program), nets.FloatNet(net, program), torch.as_tensor(x).float()
    few = x[:1] if net.direct else x[:, :1]
    backend.run(few, RunOptions())
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    gc.collect()
    clear.write_text("5")
    before = _status_kib(status, "VmRSS")
    with torch.no_grad():
        backend.run(x, RunOptions(batch_size=BATCH[name])) if side == "sim" else floating(tensor)
    return (_status_kib(status, "VmHWM") - before) / 1024


def _status_kib(status: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))


def against_snntorch(net: nets.Net, batch: int, repeats: int) -> dict[str, Any]:
    """Both sides on the same inputs. The float side keeps gradients off."""
    program = nets.build(net)
    x = nets.sample(net, batch)
    backend, options = SimBackend(program), RunOptions(batch_size=batch)
    floating, tensor = nets.FloatNet(net, program), torch.as_tensor(x).float()
    with torch.no_grad():
        sim_s = timed(lambda: backend.run(x, options), repeats)
        snn_s = timed(lambda: floating(tensor), repeats)
    bare = SimBackend(program, Blocking(count=False))
    pairs = [
        (timed(lambda: backend.run(x, options), 3), timed(lambda: bare.run(x, options), 3))
        for _ in range(repeats)
    ]
    result = backend.run(x, options)
    count_s = timed(lambda: count(program, result), repeats)
    stored = sum(int(v.sum()) for layer in count(program, result).layers for v in layer.stored.values())
    sizes = sum(int(np.prod(s)) for n, s in net.shapes.items() if n != net.input)
    spikes = sum(int(v.sum()) for n, v in result.spike_counts.items() if n != net.input)
    macs = dense_macs(program) * batch * net.n_steps
    return {
        "batch": batch,
        "n_steps": net.n_steps,
        "sim_s": sim_s,
        "snntorch_s": snn_s,
        "s_per_sample_step": sim_s / (batch * net.n_steps),
        "spike_density": spikes / (sizes * batch * net.n_steps),
        "synops_per_s": stored / sim_s,
        "dense_macs_per_s": macs / sim_s,
        "counting_share": statistics.median(a / b for a, b in pairs) - 1,
        "synops_after_the_run_s": count_s,
        "sim_peak_mib": peak_mib(net.name, "sim"),
        "snntorch_peak_mib": peak_mib(net.name, "snntorch"),
    }


def dense_macs(program: Any) -> int:
    """Synapses of all chip connections, padding left out: what a dense step multiplies."""
    from nmtool.metrics.synops import fan_out

    return sum(int(fan_out(c, program.size(c.source)).stored.sum()) for c in program.connections)


def lava_s_per_sample_step(repeats: int) -> float | None:
    """Lava's CPU simulation of the MLP, output counted only; start-up of the network taken out by two lengths."""
    env = lava_env.find()
    if env is None:
        return None
    from nmtool.backends.lava import LavaBackend
    from nmtool.backends.worker_link import WorkerLink

    net = nets.mlp()
    program = nets.build(net)
    x = nets.sample(net, LAVA_SAMPLES)
    with WorkerLink(env.worker_command, env.worker_environment) as link:
        backend = LavaBackend(program, link=link, counted=())
        few = timed(lambda: backend.run(x[:, :1], RunOptions()), repeats)
        many = timed(lambda: backend.run(x, RunOptions()), repeats)
    return (many - few) / ((LAVA_SAMPLES - 1) * net.n_steps)


def machine(repeats: int) -> dict[str, float]:
    """What this machine can do at most: matrix products and copying."""
    n = 1024
    a, b = (torch.randint(-8, 8, (n, n), dtype=torch.int8) for _ in range(2))
    fa, fb = a.float(), b.float()
    block = np.ones(32 << 20, np.uint8)
    target = np.empty_like(block)
    return {
        "int8_gemm_macs_per_s": n**3 / timed(lambda: torch._int_mm(a, b), repeats),
        "float32_gemm_macs_per_s": n**3 / timed(lambda: fa @ fb, repeats),
        "copy_bytes_per_s": 2 * block.nbytes / timed(lambda: np.copyto(target, block), repeats),
    }


def linearity(repeats: int) -> dict[str, list[list[float]]]:
    """Seconds over T at batch 64, and over batch at T 64, for the MLP."""
    program = nets.build(nets.mlp())
    backend = SimBackend(program)
    whole = nets.sample(nets.mlp(), 512)
    over_t, over_batch = [], []
    for steps in (16, 32, 64, 128, 256, 512):
        x = np.concatenate([whole[:, :64]] * -(-steps // len(whole)))[:steps]
        over_t.append([steps, timed(lambda x=x: backend.run(x, RunOptions()), repeats)])
    for batch in (16, 32, 64, 128, 256, 512):
        x = np.ascontiguousarray(whole[:, :batch])
        over_batch.append(
            [batch, timed(lambda x=x, b=batch: backend.run(x, RunOptions(batch_size=b)), repeats)]
        )
    return {"seconds_over_steps": over_t, "seconds_over_batch": over_batch}


if __name__ == "__main__":
    print(one_run(*sys.argv[1:]))
