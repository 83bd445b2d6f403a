"""Test vectors TV1-TV22: small networks of bare Lava Processes and what lava-nc 0.10.0 was seen to compute.

``expected`` maps a reading to its values: ``l.u`` and ``l.v`` ``[neuron][step]`` after every step, a sink
``[neuron ...][step]``, ``d.weights`` the matrix after the run.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Vector:
    """One network in the form of ``bare_lava.run``, and its readings."""

    name: str
    processes: dict[str, list[Any]]
    links: list[list[str]]
    steps: int
    expected: dict[str, Any]
    read: list[str] = field(default_factory=list)

    @property
    def network(self) -> dict[str, Any]:
        """What the script is given."""
        return {"processes": self.processes, "links": self.links, "steps": self.steps, "read": self.read}


def neuron(
    name: str, registers: dict[str, Any], activation: list[list[int]], kind: str = "LIF", **expected: Any
) -> Vector:
    """A source straight into neurons; ``u``, ``v`` and ``s`` are expected ``[neuron][step]``."""
    n, steps = len(activation), len(activation[0])
    processes = {
        "src": ["Source", {"data": activation}],
        "l": [kind, {"shape": [n], **registers}],
        "s": ["Sink", {"shape": [n], "buffer": steps}],
    }
    names = {"u": "l.u", "v": "l.v", "s": "s"}
    wanted = {names[k]: v for k, v in expected.items()}
    return Vector(
        name,
        processes,
        [["src.s_out", "l.a_in"], ["l.s_out", "s.a_in"]],
        steps,
        wanted,
        [k for k in wanted if k != "s"],
    )


def synapses(
    name: str,
    kind: str,
    arguments: dict[str, Any],
    inputs: list[Any],
    out_shape: list[int],
    out: Any,
    weights: Any = None,
) -> Vector:
    """A source through synapses into a sink; ``out`` is expected ``[neuron ...][step]``."""
    first = inputs
    while isinstance(first[0], list):
        first = first[0]
    processes = {
        "src": ["Source", {"data": inputs}],
        "d": [kind, arguments],
        "s": ["Sink", {"shape": out_shape, "buffer": len(first)}],
    }
    expected = {"s": out} | ({} if weights is None else {"d.weights": weights})
    read = [] if weights is None else ["d.weights"]
    return Vector(
        name, processes, [["src.s_out", "d.s_in"], ["d.a_out", "s.a_in"]], len(first), expected, read
    )


E1_E2 = [[1, 0, 0], [0, 1, 0]]
KERNEL = [[[[1], [2], [3]], [[4], [5], [6]], [[7], [8], [9]]]]
NO_MEMORY = {"du": 4095, "dv": 4096}

NEURONS = [
    neuron("TV1 full trace", {"du": 1023, "dv": 512, "vth": 10}, [[5, 0, 3, 0, 0]],
           u=[[320, 240, 372, 279, 209]], v=[[320, 520, 0, 279, 453]], s=[[0, 0, 1, 0, 0]]),
    neuron("TV2 u decay with offset", {"du": 0, "dv": 0, "vth": 131071, "u": [4095, 4096, -4096, 8388607]},
           [[0, 0]] * 4,
           u=[[4094, 4093], [4095, 4094], [-4095, -4094], [8386559, 8384511]]),
    neuron("TV3 v rounding to zero", {"du": 4095, "dv": 1, "vth": 10, "v": [-1, -4097, 1, 4097]}, [[0, 0]] * 4,
           v=[[0, 0], [-4095, -4094], [0, 0], [0, 0]], s=[[0, 0], [0, 0], [0, 0], [1, 0]]),
    neuron("TV4 strict threshold", {"du": 4095, "dv": 0, "vth": 10}, [[10, 0], [11, 0], [10, 1]],
           v=[[640, 640], [0, 0], [640, 0]], s=[[0, 0], [1, 0], [0, 1]]),
    neuron("TV5 u wrap", {"du": 4095, "dv": 0, "vth": 131071},
           [[131072], [131073], [-131072], [-131071], [262144], [393217]],
           u=[[8388608], [-8388544], [8388608], [-8388544], [0], [8388672]], s=[[1], [0], [1], [0], [0], [1]]),
    neuron("TV5b int32 wrap of the input", {"du": 4095, "dv": 0, "vth": 131071}, [[2**25], [2**26], [2**26 + 1]],
           u=[[-2130706432], [0], [64]]),
    neuron("TV6 v clip", {"du": 4095, "dv": 0, "vth": 131071, "v": [8388000, -8388000]}, [[100, 0], [-100, 0]],
           v=[[0, 0], [-8388607, -8388607]], s=[[1, 0], [0, 0]]),
    neuron("TV7 bias", {**NO_MEMORY, "vth": 10, "bias_mant": [-3, 3, -3, 5], "bias_exp": [-1, -1, 2, 7]}, [[0]] * 4,
           v=[[-2], [1], [-12], [640]]),
    neuron("TV7 bias beyond 16 bits", {**NO_MEMORY, "vth": 10, "bias_mant": [40000]}, [[0]], v=[[-25536]]),
    neuron("TV8 LIFReset", {"du": 0, "dv": 0, "vth": 131071, "bias_mant": [1], "reset_interval": 4, "reset_offset": 2},
           [[1] * 7], "LIFReset", u=[[64, 64, 127, 190, 253, 64, 127]], v=[[65, 65, 193, 384, 638, 65, 193]]),
    neuron("TV9 TernaryLIF", {"du": 4095, "dv": 0, "vth_hi": 5, "vth_lo": -5}, [[6, -6, -6], [5, -5, -1]], "TernaryLIF",
           v=[[0, 0, 0], [320, 0, -64]], s=[[1, -1, -1], [0, 0, 0]]),
]  # fmt: skip

SYNAPSES = [
    synapses("TV10 mixed weights", "Dense", {"weights": [[3, -3], [255, -256], [300, -300], [1, -1]]}, E1_E2, [4],
             [[0, 2, -4], [0, 254, -256], [0, 254, -256], [0, 0, -2]], [[2, -4], [254, -256], [254, -256], [0, -2]]),
    synapses("TV11 excitatory weights", "Dense", {"weights": [[3, 0], [255, 300]]}, E1_E2, [2],
             [[0, 3, 0], [0, 255, 255]], [[3, 0], [255, 255]]),
    synapses("TV12 inhibitory weights", "Dense", {"weights": [[-3, 0], [-255, -300]]}, E1_E2, [2],
             [[0, -3, 0], [0, -255, -255]], [[-3, 0], [-255, -255]]),
    synapses("TV12 inhibitory, 5 bits", "Dense", {"weights": [[-3, 0], [-255, -300]], "num_weight_bits": 5}, E1_E2, [2],
             [[0, 0, 0], [0, -248, -248]]),
    synapses("TV13 weight exponent -3", "Dense", {"weights": [[5, -3]], "weight_exp": -3}, E1_E2, [1], [[0, 0, -1]]),
    synapses("TV13 weight exponent 2", "Dense", {"weights": [[5, -3]], "weight_exp": 2}, E1_E2, [1], [[0, 16, -16]]),
    synapses("TV14 graded", "Dense", {"weights": [[10, -6]], "num_message_bits": 8}, [[3, -2, 0], [1, 5, 0]], [1],
             [[0, 24, -50]]),
    synapses("TV14 binary", "Dense", {"weights": [[10, -6]]}, [[3, -2, 0], [0, 5, 0]], [1], [[0, 10, 4]]),
    synapses("TV14b overflow by exponent", "Dense", {"weights": [[254]], "num_message_bits": 24, "weight_exp": 4},
             [[2**20, 0]], [1], [[0, -33554432]]),
    synapses("TV14b overflow by payload", "Dense", {"weights": [[254]], "num_message_bits": 24}, [[2**24, 0]], [1],
             [[0, -33554432]]),
    synapses("TV15 delay", "DelayDense", {"weights": [[10, -6]], "delays": [[0, 2]]},
             [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], [1], [[0, 10, 0, -6, -6]]),
    synapses("TV16 conv orientation", "Conv", {"weight": KERNEL, "input_shape": [4, 4, 1]},
             [[[[int((x, y) == (1, 2)), 0]] for y in range(4)] for x in range(4)], [2, 2, 1],
             [[[[0, 4]], [[0, 5]]], [[[0, 7]], [[0, 8]]]]),
    synapses("TV16 conv, centre impulse", "Conv", {"weight": KERNEL, "input_shape": [5, 5, 1]},
             [[[[int((x, y) == (2, 2)), 0]] for y in range(5)] for x in range(5)], [3, 3, 1],
             [[[[0, 3 * x + y + 1]] for y in range(3)] for x in range(3)]),
    synapses("TV16b conv ignores weight_exp", "Conv",
             {"weight": [[[[5]]]], "input_shape": [1, 1, 1], "weight_exp": 3, "num_weight_bits": 2},
             [[[[1, 0]]]], [1, 1, 1], [[[[0, 5]]]]),
    synapses("TV16b conv wraps at 24 bits", "Conv",
             {"weight": [[[[5]]]], "input_shape": [1, 1, 1], "num_message_bits": 24},
             [[[[2000000, 0]]]], [1, 1, 1], [[[[0, -6777216]]]]),
]  # fmt: skip

NETWORKS = [
    synapses("TV17 one step through a synapse", "Dense", {"weights": [[1]]}, [[1, 0, 1]], [1], [[0, 1, 0]]),
    Vector(
        "TV17 latency of two layers",
        {
            "src": ["Source", {"data": [[1, 0, 0, 0]]}],
            "d0": ["Dense", {"weights": [[20]]}],
            "l0": ["LIF", {"shape": [1], **NO_MEMORY, "vth": 10}],
            "d1": ["Dense", {"weights": [[20]]}],
            "l1": ["LIF", {"shape": [1], **NO_MEMORY, "vth": 10}],
            "s0": ["Sink", {"shape": [1], "buffer": 4}],
            "s1": ["Sink", {"shape": [1], "buffer": 4}],
        },
        [["src.s_out", "d0.s_in"], ["d0.a_out", "l0.a_in"], ["l0.s_out", "d1.s_in"], ["d1.a_out", "l1.a_in"],
         ["l0.s_out", "s0.a_in"], ["l1.s_out", "s1.a_in"]],
        4,
        {"s0": [[0, 1, 0, 0]], "s1": [[0, 0, 1, 0]]},
    ),
    Vector(
        "TV18 ring buffers",
        {"src": ["Source", {"data": [[1, 2, 3]]}], "s": ["Sink", {"shape": [1], "buffer": 5}]},
        [["src.s_out", "s.a_in"]],
        7,
        {"s": [[3, 1, 3, 1, 2]]},
    ),
    Vector(
        "TV19 fan-in",
        {
            "a": ["Source", {"data": [[1, 0, 1, 0]]}],
            "b": ["Source", {"data": [[1, 1, 0, 0]]}],
            "da": ["Dense", {"weights": [[7]]}],
            "db": ["Dense", {"weights": [[-5]]}],
            "l": ["LIF", {"shape": [1], "du": 4095, "dv": 0, "vth": 100}],
        },
        [["a.s_out", "da.s_in"], ["b.s_out", "db.s_in"], ["da.a_out", "l.a_in"], ["db.a_out", "l.a_in"]],
        4,
        {"l.v": [[0, 128, -192, 256]]},
        ["l.v"],
    ),
    Vector(
        "TV20 self loop",
        {
            "src": ["Source", {"data": [[20, 0, 0, 0, 0, 0]]}],
            "l": ["LIF", {"shape": [1], "du": 4095, "dv": 0, "vth": 10}],
            "d": ["Dense", {"weights": [[12]]}],
            "s": ["Sink", {"shape": [1], "buffer": 6}],
        },
        [["src.s_out", "l.a_in"], ["l.s_out", "d.s_in"], ["d.a_out", "l.a_in"], ["l.s_out", "s.a_in"]],
        6,
        {"s": [[1, 1, 1, 1, 1, 1]]},
    ),
    *(
        Vector(
            f"TV21 fan-in before the synapse, {kind}",
            {
                "a": ["Source", {"data": [[1, 1, 0]]}],
                "b": ["Source", {"data": [[1, -1, 0]]}],
                "d": ["Dense", {"weights": [[7]], "num_message_bits": bits}],
                "s": ["Sink", {"shape": [1], "buffer": 3}],
            },
            [["a.s_out", "d.s_in"], ["b.s_out", "d.s_in"], ["d.a_out", "s.a_in"]],
            3,
            {"s": [out]},
        )
        for kind, bits, out in (("binary", 0, [0, 7, 0]), ("graded", 8, [0, 14, 0]))
    ),
    Vector(
        "TV22 netx's default neuron",
        {
            "src": ["Source", {"data": [[1, 1, 1, 1], [0, 0, 1, 1]]}],
            "d": ["OptimizedDense", {"weights": [[254, -256], [20, -10]]}],
            "l": ["LIF", {"shape": [2], "du": -1, "dv": 4096, "vth": 131072}],
            "s": ["Sink", {"shape": [2], "buffer": 4}],
        },
        [["src.s_out", "d.s_in"], ["d.a_out", "l.a_in"], ["l.s_out", "s.a_in"]],
        4,
        {"l.u": [[0, 16256, 32512, 32384], [0, 1280, 2560, 3200]],
         "l.v": [[0, 16256, 32512, 32384], [0, 1280, 2560, 3200]],
         "s": [[0, 0, 0, 0], [0, 0, 0, 0]]},
        ["l.u", "l.v"],
    ),
]  # fmt: skip

VECTORS = [*NEURONS, *SYNAPSES, *NETWORKS]
