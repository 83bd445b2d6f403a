"""The integer primitives against Python's unbounded integers, written another way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmtool.fixedpoint import ops
from nmtool.fixedpoint.neuron import NeuronParams, State, step

INT32 = st.integers(-(2**31), 2**31 - 1)
ANY = st.integers(-(2**40), 2**40)


@given(ANY, st.integers(0, 40))
def test_shift_toward_zero_is_truncated_division(x: int, bits: int) -> None:
    expected = abs(x) // 2**bits * (1 if x >= 0 else -1)
    assert ops.shift_toward_zero(x, bits) == expected


@given(st.integers(-(2**20), 2**20), st.integers(-20, 20))
def test_exponent_shifts_left_or_floors(x: int, e: int) -> None:
    assert ops.shift_left_or_floor(x, e) == (x * 2**e if e >= 0 else x // 2**-e)


@given(ANY)
def test_wrap_int32_is_arithmetic_modulo(x: int) -> None:
    assert ops.wrap_int32(x) == (x + 2**31) % 2**32 - 2**31


@given(ANY)
def test_wrap_24_is_arithmetic_modulo(x: int) -> None:
    assert ops.wrap_24(x) == (x + 2**23) % 2**24 - 2**23


@given(st.integers(-(2**24), 2**24))
def test_wrap_u_keeps_plus_two_to_the_23(x: int) -> None:
    wrapped = int(ops.wrap_u_once(x))
    assert (wrapped - x) % 2**24 == 0
    if abs(x) < 2**24:
        assert -(2**23) < wrapped <= 2**23


@given(INT32, st.integers(0, 4096))
def test_decay_never_grows_and_reaches_zero(x: int, lost: int) -> None:
    y = int(ops.decay(x, lost))
    assert abs(y) == abs(x) * (4096 - lost) // 4096
    assert y == 0 or (y > 0) == (x > 0)
    assert lost == 0 or x == 0 or abs(y) < abs(x)


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="same_kind"):
        ops.shift_toward_zero(np.array([1.5]), 1)


@given(
    st.lists(st.integers(-400_000, 400_000), min_size=1, max_size=12),
    st.integers(0, 4096),
    st.integers(0, 4096),
    st.integers(-10, 131071),
    st.integers(-4096, 4095),
    st.integers(-3, 7),
    st.integers(1, 5),
)
def test_step_equals_an_independent_scalar_model(
    drive: list[int], du: int, dv: int, vth: int, man: int, exp: int, refractory: int
) -> None:
    params = NeuronParams(*(np.int64(v) for v in (du, dv, vth, man, exp)), refractory)  # type: ignore[arg-type]
    state = State(*(np.zeros((1, 1), np.int64) for _ in range(3)))
    u = v = dead = 0
    for a in drive:
        got = step(params, state, np.array([[a]]))
        state = got.state
        u = abs(u) * (4096 - du) // 4096 * (-1 if u < 0 else 1) + 64 * a
        if u > 2**23:
            u -= 2**24
        elif u <= -(2**23):
            u += 2**24
        bias = man * 2**exp if exp >= 0 else man // 2**-exp
        v = abs(v) * (4096 - dv) // 4096 * (-1 if v < 0 else 1) + u + bias
        v = max(-(2**23) + 1, min(2**23 - 1, v))
        v = 0 if dead else v
        fired = v > vth * 64
        v = 0 if fired else v
        dead = max((refractory if fired else dead) - 1, 0)
        assert (int(state.u[0, 0]), int(state.v[0, 0]), int(got.spikes[0, 0])) == (u, v, int(fired))
