"""Generated networks: the simulator and real Lava agree with the slow simulator on every spike, every u and every v."""

import numpy as np
import pytest
from compare import differences, expected, options
from generator import case, coverage

from nmtool.backends.lava import LavaBackend
from nmtool.backends.sim import SimBackend

ON_LAVA = range(100)
ON_SIM = range(100, 300)


@pytest.mark.lava
@pytest.mark.parametrize("seed", ON_LAVA)
def test_lava_and_the_simulator_agree_on_every_bit(seed, lava_link):
    c = case(seed)
    want = expected(c)
    assert differences(c, want, LavaBackend(c.program, link=lava_link).run(c.x, options(c))) == []
    assert differences(c, want, SimBackend(c.program).run(c.x, options(c))) == []


@pytest.mark.parametrize("first", ON_SIM[::20])
def test_the_simulator_agrees_with_the_slow_one(first):
    for seed in range(first, first + 20):
        c = case(seed)
        assert differences(c, expected(c), SimBackend(c.program).run(c.x, options(c))) == [], f"seed {seed}"


def test_the_generated_networks_reach_every_construct_and_every_limit():
    cases = [case(seed) for seed in ON_LAVA]
    found = coverage(cases)
    rare = {name: found[name] for name in CONSTRUCTS if found[name] < 4}
    assert not rare
    histories = [expected(c) for c in cases]
    firing = [max(h.spikes.mean() for h in history.values()) for history in histories]
    assert np.mean([0.02 < rate < 0.98 for rate in firing]) > 0.5
    assert sum(any(h.wrapped for h in history.values()) for history in histories) >= 8
    assert sum(any(h.clipped for h in history.values()) for history in histories) >= 8


CONSTRUCTS = (
    """
1-D conv, 2-D conv, conv dilation, conv groups, conv padding, conv stride, recurrent conv, conv balanced by delay
dense, sparse, mixed, excitatory, inhibitory, few bits, extreme weights, weight exponent
several inputs, self loop, feedback, balanced by delay, slack, no input
delay dense, delay sparse, delay conv, uniform delay, longest delay
input spikes, input graded, input rate, input direct, host layer, graded input, graded spikes of 1
per-neuron decay_syn, per-neuron decay_mem, per-neuron v_th, per-neuron bias
no current decay, no membrane decay, full current decay, full membrane decay
largest threshold, threshold 0, most negative bias, largest bias, bias shifted right
refractory, noise at membrane, noise at current, noise uniform8, noise irwin_hall, noise gaussian
""".replace("\n", ", ")
    .strip(", ")
    .split(", ")
)
