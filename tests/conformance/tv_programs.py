"""The vectors that programs can express, as programs: the same numbers for the slow simulator, the fast one and Lava.

The synapses lead into neurons without memory, so that u is 64 times the activation. Time is own time: the step that a
synapse costs on Lava is not seen.
"""

from dataclasses import dataclass

import numpy as np
from vectors import KERNEL

from nmtool.compiler.program import Connection, InputSpec, Population, Program

U_OF = 64


@dataclass(frozen=True)
class ProgramVector:
    """A program, its input ``[T, B = 1, N]``, and what is expected: ``{population: {quantity: [T][N]}}``."""

    name: str
    program: Program
    x: np.ndarray
    expected: dict[str, dict[str, list[list[int]]]]


def population(name: str, shape: tuple[int, ...], latency: int, **registers: int) -> Population:
    """Without registers: no memory in u or v, and a threshold that is out of reach."""
    values = {
        "decay_syn_q12": 4096,
        "decay_mem_q12": 4096,
        "v_th_man": 131071,
        "bias_man": 0,
        "bias_exp": 0,
        **registers,
    }
    return Population(
        name, shape, **{k: np.asarray(v, np.int32) for k, v in values.items()}, scale=1.0, latency=latency
    )


def program(
    n_in: int | tuple[int, ...], populations: list[Population], connections: list[Connection]
) -> Program:
    """Spikes in, the last population out."""
    shape = (n_in,) if isinstance(n_in, int) else n_in
    spec = InputSpec("in", shape, "spikes", 8)
    return Program(
        "tv", spec, tuple(populations), tuple(connections), None, populations[-1].name, "spike_count", 1e-3
    )


def into(weights: list[list[int]], source: str = "in", target: str = "p", **settings) -> Connection:
    """A dense connection."""
    return Connection(
        f"{source}->{target}", source, target, "dense", np.asarray(weights, np.int32), **settings
    )


def one(
    name: str, weights: list[list[int]], steps: list[list[int]], activation: list[list[int]], **settings
) -> ProgramVector:
    """Input through one dense connection; ``activation`` as ``[T][N]``."""
    w = np.asarray(weights)
    p = program(w.shape[1], [population("p", (len(w),), 1)], [into(weights, **settings)])
    return ProgramVector(
        name, p, inputs(steps), {"p": {"u": [[U_OF * a for a in row] for row in activation]}}
    )


def inputs(steps: list[list[int]]) -> np.ndarray:
    """``[T][N]`` to ``[T, 1, N]``, uint8 unless a payload needs more."""
    x = np.asarray(steps)[:, None]
    return x.astype(np.uint8 if x.min() >= 0 and x.max() <= 1 else np.int32)


def conv(
    name: str, x_shape: tuple[int, int], impulse: tuple[int, int], activation: list[int]
) -> ProgramVector:
    """An impulse at (x, y); Lava's kernel, flipped and transposed to (H, W) as torch holds it."""
    kernel = np.asarray(KERNEL, np.int32)[:, ::-1, ::-1].transpose(0, 3, 2, 1)
    w, h = x_shape
    c = Connection("in->p", "in", "p", "conv", kernel, in_shape=(1, h, w), out_shape=(1, h - 2, w - 2))
    x = np.zeros((1, 1, 1, h, w), np.uint8)
    x[0, 0, 0, impulse[1], impulse[0]] = 1
    p = program((1, h, w), [population("p", (1, h - 2, w - 2), 1)], [c])
    return ProgramVector(name, p, x, {"p": {"u": [[U_OF * a for a in activation]]}})


E1_E2 = [[1, 0], [0, 1]]
LEAKY = {"decay_mem_q12": 0}

PROGRAMS = [
    one("TV10", [[2, -4], [254, -256], [254, -256], [0, -2]], E1_E2, [[2, 254, 254, 0], [-4, -256, -256, -2]]),
    one("TV11", [[3, 0], [255, 255]], E1_E2, [[3, 255], [0, 255]], sign_mode="excitatory"),
    one("TV12", [[-3, 0], [-255, -255]], E1_E2, [[-3, -255], [0, -255]], sign_mode="inhibitory"),
    one("TV12 5 bits", [[0, 0], [-248, -248]], E1_E2, [[0, -248], [0, -248]], sign_mode="inhibitory", weight_bits=5),
    one("TV13 exponent -3", [[4, -4]], E1_E2, [[0], [-1]], weight_exp=-3),
    one("TV13 exponent 2", [[4, -4]], E1_E2, [[16], [-16]], weight_exp=2),
    one("TV14 graded", [[10, -6]], [[3, 1], [-2, 5]], [[24], [-50]], message_bits=8),
    one("TV14 binary", [[10, -6]], [[1, 0], [1, 1]], [[10], [4]]),
    one("TV15", [[10, -6]], [[1, 1], [0, 1], [0, 0], [0, 0]], [[10], [0], [-6], [-6]],
        delay_steps=np.asarray([[0, 2]], np.int32)),
    conv("TV16", (4, 4), (1, 2), [4, 7, 5, 8]),
    conv("TV16 centre", (5, 5), (2, 2), [1, 4, 7, 2, 5, 8, 3, 6, 9]),
    ProgramVector(
        "TV14b overflow",
        program(2, [population("p", (2,), 1)],
                [into([[254, 0], [0, 254]], weight_exp=4, message_bits=24, sign_mode="excitatory")]),
        inputs([[2**20, 0]]), {"p": {"u": [[-2130706432, 0]]}},
    ),
    ProgramVector(
        "TV16b conv wraps at 24 bits",
        program((1, 1, 1), [population("p", (1, 1, 1), 1)],
                [Connection("in->p", "in", "p", "conv", np.full((1, 1, 1, 1), 5, np.int32), message_bits=24,
                            sign_mode="excitatory", in_shape=(1, 1, 1), out_shape=(1, 1, 1))]),
        np.full((1, 1, 1, 1, 1), 2_000_000, np.int32), {"p": {"u": [[-416964608]]}},
    ),
    ProgramVector(
        "TV17 latency is removed",
        program(1, [population("a", (1,), 1, v_th_man=10), population("b", (1,), 2, v_th_man=10)],
                [into([[20]], target="a"), into([[20]], "a", "b")]),
        inputs([[1], [0], [0]]), {"a": {"spikes": [[1], [0], [0]]}, "b": {"spikes": [[1], [0], [0]]}},
    ),
    ProgramVector(
        "TV19 fan-in",
        program(2, [population("p", (1,), 1, v_th_man=100, **LEAKY)],
                [into([[7, 0]], sign_mode="excitatory"), Connection("second", "in", "p", "dense",
                 np.asarray([[0, -5]], np.int32), sign_mode="inhibitory")]),
        inputs([[1, 1], [0, 1], [1, 0]]), {"p": {"v": [[128], [-192], [256]]}},
    ),
    ProgramVector(
        "TV20 self loop",
        program(1, [population("p", (1,), 1, v_th_man=10, **LEAKY)],
                [into([[20]]), into([[12]], "p", "p", delay_steps=np.ones((), np.int32))]),
        inputs([[1], [0], [0], [0], [0]]), {"p": {"spikes": [[1]] * 5}},
    ),
    ProgramVector(
        "TV22 netx's default neuron",
        program(2, [population("p", (2,), 1, decay_syn_q12=0, v_th_man=131072)], [into([[254, -256], [20, -10]])]),
        inputs([[1, 0], [1, 0], [1, 1]]),
        {"p": {"u": [[16256, 1280], [32512, 2560], [32384, 3200]], "v": [[16256, 1280], [32512, 2560], [32384, 3200]],
               "spikes": [[0, 0]] * 3}},
    ),
]  # fmt: skip
