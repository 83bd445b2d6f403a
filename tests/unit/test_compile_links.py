"""Folding linear nodes into one stage, against torch computing them one by one."""

import nir
import numpy as np
import pytest
import torch
from graphs import DT_S, chain, lif
from torch.nn import functional

from nmtool.compiler.links import constants, links
from nmtool.errors import TargetError

RNG = np.random.default_rng(3)
PAIR = np.array([2, 2])


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape)


def pool(kind: type, k: int = 2, stride: int | None = None, padding: int = 0) -> nir.NIRNode:
    return kind(np.array([k, k]), np.array([stride or k] * 2), np.array([padding] * 2))


def flatten(*shape: int) -> nir.Flatten:
    return nir.Flatten({"input": np.array(shape)}, start_dim=0)


def torch_op(op: nir.NIRNode, x: torch.Tensor) -> torch.Tensor:
    as_tensor = torch.as_tensor
    match op:
        case nir.Conv2d():
            return functional.conv2d(
                x, as_tensor(op.weight), as_tensor(op.bias), op.stride, op.padding, op.dilation, op.groups
            )
        case nir.Conv1d():
            return functional.conv1d(
                x, as_tensor(op.weight), as_tensor(op.bias), op.stride, op.padding, op.dilation, op.groups
            )
        case nir.AvgPool2d() | nir.SumPool2d():
            k = tuple(int(v) for v in op.kernel_size)
            y = functional.avg_pool2d(
                x, k, tuple(int(v) for v in op.stride), tuple(int(v) for v in op.padding)
            )
            return y * (k[0] * k[1] if isinstance(op, nir.SumPool2d) else 1)
        case nir.Flatten():
            return x.flatten(1)
        case nir.Scale():
            return x * as_tensor(op.scale)
        case nir.Affine():
            return functional.linear(x, as_tensor(op.weight), as_tensor(op.bias))
        case nir.Linear():
            return functional.linear(x, as_tensor(op.weight))
    raise AssertionError(op)


CASES = {
    "pool, conv": (
        (3, 8, 8),
        [pool(nir.AvgPool2d), nir.Conv2d((4, 4), weights(5, 3, 3, 3), 1, 1, 1, 1, weights(5))],
        "conv",
    ),
    "pool, strided conv": (
        (2, 8, 8),
        [pool(nir.SumPool2d), nir.Conv2d((4, 4), weights(5, 2, 2, 2), 2, 0, 1, 1, weights(5))],
        "conv",
    ),
    "pool, dilated conv": (
        (2, 8, 8),
        [pool(nir.SumPool2d), nir.Conv2d((4, 4), weights(2, 2, 2, 2), 1, 0, 2, 1, weights(2))],
        None,
    ),
    "overlapping pool, conv": (
        (2, 8, 8),
        [pool(nir.AvgPool2d, 3, 1), nir.Conv2d((6, 6), weights(2, 2, 3, 3), 1, 0, 1, 1, weights(2))],
        None,
    ),
    "pool with a remainder, linear": (
        (2, 5, 5),
        [pool(nir.SumPool2d), flatten(2, 2, 2), nir.Affine(weights(3, 8), weights(3))],
        "dense",
    ),
    "pool, flatten, linear": (
        (2, 4, 4),
        [pool(nir.AvgPool2d), flatten(2, 2, 2), nir.Affine(weights(3, 8), weights(3))],
        "dense",
    ),
    "grouped conv": (
        (4, 5, 5),
        [nir.Conv2d((5, 5), weights(6, 2, 3, 2), (2, 1), (1, 0), 1, 2, weights(6))],
        "conv",
    ),
    "conv, conv": (
        (2, 5, 5),
        [
            nir.Conv2d((5, 5), weights(3, 2, 3, 3), 1, 1, 1, 1, weights(3)),
            nir.Conv2d((5, 5), weights(2, 3, 3, 3), 1, 0, 1, 1, weights(2)),
        ],
        None,
    ),
    "conv, pool": (
        (2, 6, 6),
        [nir.Conv2d((6, 6), weights(3, 2, 3, 3), 1, 1, 1, 1, weights(3)), pool(nir.AvgPool2d)],
        None,
    ),
    "linear, linear": (
        (7,),
        [nir.Affine(weights(5, 7), weights(5)), nir.Affine(weights(4, 5), weights(4))],
        "dense",
    ),
    "scale, linear": ((7,), [nir.Scale(weights(7)), nir.Affine(weights(4, 7), weights(4))], "dense"),
    "uniform scale, linear": ((7,), [nir.Scale(np.full(7, 0.5)), nir.Linear(weights(4, 7))], "dense"),
    "nothing": ((6,), [], "sparse"),
    "pool only": ((2, 4, 4), [pool(nir.SumPool2d)], "conv"),
    "conv1d": ((2, 9), [nir.Conv1d(9, weights(3, 2, 3), 2, 1, 1, 1, weights(3))], "conv"),
}


@pytest.mark.parametrize("case", CASES)
def test_folded_link_equals_the_nodes_one_by_one(case: str) -> None:
    shape, ops, kind = CASES[case]
    x = torch.as_tensor(RNG.normal(0, 1, (4, *shape)))
    y = x
    zero = torch.zeros((1, *shape), dtype=torch.float64)
    for op in ops:
        y, zero = torch_op(op, y), torch_op(op, zero)
    graph = chain(shape, *ops, lif(tuple(y.shape[1:])))
    (link,) = links(graph)
    bias = constants(graph)[link.target]
    got = (link.matrix() @ x.reshape(4, -1).numpy().T).T.reshape(y.shape) + bias
    assert np.abs(got - y.numpy()).max() < 1e-12
    assert np.abs(bias - zero[0].numpy()).max() < 1e-12
    if kind is not None:
        assert link.kind == kind


def test_weights_of_a_pooled_kernel_stay_those_of_its_node() -> None:
    """Integers chosen for the node's own weights expand to the stage's weights."""
    shape, ops, _ = CASES["pool, conv"]
    (link,) = links(chain(shape, *ops, lif((5, 4, 4))))
    assert link.node == "n1"
    assert link.base.shape == (5, 3, 3, 3)
    assert np.array_equal(link.expand(np.ones((5, 3, 3, 3), np.int32)), np.ones((5, 3, 6, 6), np.int32))


@pytest.mark.parametrize("after", [False, True])
def test_delays_per_neuron_become_delays_per_synapse(after: bool) -> None:
    steps = np.array([0, 3, 1, 2.0])
    delay = nir.Delay(steps * DT_S)
    ops = [nir.Linear(weights(4, 4)), delay] if after else [delay, nir.Linear(weights(4, 4))]
    (link,) = links(chain((4,), *ops, lif((4,))))
    expected = np.tile(steps, (4, 1)).T if after else np.tile(steps, (4, 1))
    assert np.array_equal(link.delay_steps, expected)


def test_uniform_delays_add_up() -> None:
    ops = [nir.Delay(np.full(4, 2 * DT_S)), nir.Linear(weights(3, 4)), nir.Delay(np.full(3, DT_S))]
    (link,) = links(chain((4,), *ops, lif((3,))))
    assert link.delay_steps.shape == ()
    assert link.delay_steps == 3


def test_a_delay_between_steps_is_refused() -> None:
    graph = chain((4,), nir.Delay(np.full(4, 2.5 * DT_S)), lif((4,)))
    with pytest.raises(TargetError, match="NM210.*n0.*not a multiple of the step"):
        links(graph)


def test_recurrence_acts_one_step_later() -> None:
    graph = chain(
        (3,),
        nir.Linear(weights(4, 3)),
        lif((4,)),
        extra=(("n1", "rec"), ("rec", "n1")),
        rec=nir.Linear(weights(4, 4)),
    )
    by_source = {k.source: int(k.delay_steps) for k in links(graph)}
    assert by_source == {"in": 0, "n1": 1}


def test_parallel_branches_are_two_links() -> None:
    graph = chain(
        (3,),
        nir.Linear(weights(4, 3)),
        lif((4,)),
        nir.Linear(weights(4, 4)),
        lif((4,)),
        extra=(("n1", "n3"),),
    )
    found = [(k.source, k.target, k.kind) for k in links(graph) if k.target == "n3"]
    assert sorted(found) == [("n1", "n3", "dense"), ("n1", "n3", "sparse")]
