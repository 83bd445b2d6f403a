"""TV1-TV22 on nmtool's own integer rules: the readable step, the slow simulator and the fast one."""

import numpy as np
import pytest
from oracle import simulate, stimulus
from tv_programs import PROGRAMS
from vectors import NEURONS

from nmtool.backends.base import RunOptions
from nmtool.backends.sim import SimBackend
from nmtool.fixedpoint.neuron import NeuronParams, State, step, zero_state

STEPPED = [v for v in NEURONS if v.processes["l"][0] != "TernaryLIF" and "beyond 16 bits" not in v.name]


@pytest.mark.parametrize("vector", STEPPED, ids=lambda v: v.name)
def test_the_readable_step_gives_the_vector(vector):
    _, registers = vector.processes["l"]
    activation = np.asarray(vector.processes["src"][1]["data"], np.int64)
    n = len(activation)

    def register(name: str, default: int = 0) -> np.ndarray:
        return np.asarray(registers.get(name, default), np.int64)

    params = NeuronParams(
        register("du") + 1, register("dv"), register("vth"), register("bias_mant"), register("bias_exp")
    )
    state = State(*(np.broadcast_to(register(k), (1, n)) for k in ("u", "v")), np.zeros((1, n), np.int64))
    seen: dict[str, list] = {"l.u": [], "l.v": [], "s": []}
    for t in range(activation.shape[1]):
        if (
            "reset_interval" in registers
            and (t + 1 - registers["reset_offset"]) % registers["reset_interval"] == 0
        ):
            state = zero_state(1, n)
        result = step(params, state, activation[None, :, t])
        state = result.state
        for key, values in (("l.u", state.u), ("l.v", state.v), ("s", result.spikes)):
            seen[key].append(values[0])
    for name, wanted in vector.expected.items():
        np.testing.assert_array_equal(np.transpose(seen[name]), wanted, err_msg=f"{vector.name}: {name}")


@pytest.mark.parametrize("vector", PROGRAMS, ids=lambda v: v.name)
def test_the_slow_simulator_gives_the_vector(vector):
    history = simulate(vector.program, stimulus(vector.program, vector.x, len(vector.x), 0, 0))
    for name, quantities in vector.expected.items():
        for key, wanted in quantities.items():
            np.testing.assert_array_equal(getattr(history[name], key)[:, 0], wanted, err_msg=f"{name}.{key}")


@pytest.mark.parametrize("vector", PROGRAMS, ids=lambda v: v.name)
def test_the_simulator_gives_the_vector(vector):
    result = SimBackend(vector.program).run(vector.x, RunOptions(record=("all",)))
    for name, quantities in vector.expected.items():
        for key, wanted in quantities.items():
            found = np.asarray(getattr(result.traces[name], key)).reshape(len(wanted), -1)
            np.testing.assert_array_equal(found, wanted, err_msg=f"{name}.{key}")
