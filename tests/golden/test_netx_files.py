"""``.net`` files in lava-dl's layouts, new and old, and what a Program makes of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from net_writer import (
    conv,
    conv_net,
    cuba,
    dense,
    dense_rec,
    old_net,
    old_neuron,
    weights,
    write_net,
)

from nmtool.backends.base import RunOptions, Trace
from nmtool.backends.sim import SimBackend
from nmtool.compiler.program import Connection, Program, check_consistent
from nmtool.frontends.netx import read_net
from nmtool.ir.hdf5 import Reader

PASSING = cuba(4096, 4096, 1)


Load = Callable[..., Program]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """``read_net`` with one HDF5 process for all tests."""
    with Reader() as reader:
        yield partial(read_net, reader=reader)


def lines(n: int) -> dict:
    """An input layer without neurons."""
    return {"type": "input", "shape": np.array([n])}


def trace(program: Program, x: np.ndarray, name: str = "") -> Trace:
    """One population of a run over all of ``x``, by default the output."""
    steps = len(x) if program.input.encoder == "spikes" else program.input.n_steps
    result = SimBackend(program).run(x, RunOptions(n_steps=steps, record=("all",)))
    return result.traces[name or program.output]


def effective(c: Connection) -> np.ndarray:
    """What Lava keeps of a dense connection's weights (clip, then truncate by sign class), with the exponent."""
    mixed, inhibitory = c.sign_mode == "mixed", c.sign_mode == "inhibitory"
    w = c.weights.astype(np.int64) * (-1 if inhibitory else 1)
    lost = 8 - c.weight_bits + mixed
    w = np.clip(w, -256 if mixed else 0, 255) >> lost << lost
    return w * (-1 if inhibitory else 1) * 2.0**c.weight_exp


def test_every_layer_kind_of_the_new_layout(load: Load, tmp_path: Path) -> None:
    program = load(write_net(tmp_path / "a.net", conv_net(), Ts=2, tSample=48))
    check_consistent(program)
    assert [p.name for p in program.populations] == ["input0", "conv1", "dense3", "dense_rec4", "dense5"]
    assert [p.shape for p in program.populations] == [(2, 5, 4), (3, 3, 2), (6,), (4,), (3,)]
    assert [p.latency for p in program.populations] == [0, 1, 2, 3, 4]
    assert [(c.source, c.target) for c in program.connections] == [
        ("input0", "conv1"),
        ("conv1", "dense3"),
        ("dense3", "dense_rec4"),
        ("dense_rec4", "dense_rec4"),
        ("dense_rec4", "dense5"),
    ]
    assert (program.output, program.readout) == ("dense5", "membrane")
    assert (program.input.n_steps, program.dt_s) == (24, 0.002)
    assert np.array_equal(program.population("conv1").bias_man[:, 1, 1], [-4, 0, 6])
    assert all(int(p.bias_exp) == 6 for p in program.populations)
    assert [c.max_delay for c in program.connections] == [0, 62, 0, 1, 0]
    assert all(
        np.all(program.chip_delay(c) == (c.delay_steps if c.source != c.target else 0))
        for c in program.connections
    )


def test_old_files_give_the_same_program(load: Load, tmp_path: Path) -> None:
    old = old_net()
    new = [dict(layer) for layer in old]
    for layer in new:
        if "neuron/type" in layer:
            kept = {
                k: v
                for k, v in layer.items()
                if k.split("/")[-1] not in ("theta", "scaleRho", "tauRho", "wgtExp")
            }
            layer.clear()
            layer.update(kept, **{"neuron/type": "CUBA", "neuron/gradedSpike": False})
    new[0] |= {"weight": np.float32([40]), "bias": np.float32([36])}
    new[1] |= {"weight": old[1]["weight"][..., 0], "bias": np.float32([-4, 0, 6])}
    new[2] |= {"shape": np.array([18, 1, 1])}
    new[3] |= {"shape": np.array([6])}
    new[4] |= {"shape": np.array([1]), "weight": old[4]["weight"].reshape(1, 6)}
    del new[4]["bias"]
    a, b = (load(write_net(tmp_path / f"{n}.net", net)) for n, net in (("old", old), ("new", new)))
    assert a.graph_sha256 != b.graph_sha256
    assert replace(a, graph_sha256="").sha256 == replace(b, graph_sha256="").sha256


def test_tv22_dense_without_neurons(load: Load, tmp_path: Path) -> None:
    """Executed on lava-nc 0.10.0 with lava-dl 0.6.0's loader."""
    net = [lines(2), dense(np.float32([[254, -256], [20, -10]]), {})]
    x = np.array([[1, 0], [1, 0], [1, 1]], np.uint8)[:, None]
    program = load(write_net(tmp_path / "tv22.net", net))
    expected = [[16256, 1280], [32512, 2560], [32384, 3200]]
    assert program.readout == "membrane"
    out = trace(program, x)
    assert out.u[:, 0].tolist() == expected
    assert out.v[:, 0].tolist() == expected
    assert not out.spikes.any()


@pytest.mark.parametrize(
    ("w", "grid"),
    [
        ([[0, 255], [3, 1]], (0, 8, "excitatory")),
        ([[0, -255], [-3, -1]], (0, 8, "inhibitory")),
        ([[-128, -3], [-1, -1]], (0, 8, "inhibitory")),
        ([[0, 0], [0, 0]], (0, 8, "excitatory")),
        ([[254, -256], [2, 0]], (0, 8, "mixed")),
        ([[-256, -4], [-2, 0]], (0, 8, "mixed")),
        ([[127, -128], [1, -1]], (-1, 8, "mixed")),
        ([[128, -1], [0, 0]], (0, 9, "mixed")),
        ([[-129, 1], [0, 0]], (0, 9, "mixed")),
    ],
)
def test_weights_arrive_as_they_are(
    load: Load, tmp_path: Path, w: list[list[int]], grid: tuple[int, int, str]
) -> None:
    program = load(write_net(tmp_path / "w.net", [lines(2), dense(np.float32(w), PASSING)]))
    (c,) = program.connections
    assert (c.weight_exp, c.weight_bits, c.sign_mode) == grid
    assert np.array_equal(effective(c), w)
    assert any("9 bits" in note for note in program.info["notes"]) == (c.weight_bits == 9)
    x = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
    assert np.array_equal(trace(program, x[:, None]).u[:, 0], 64 * x @ np.array(w).T)


@pytest.mark.parametrize(
    ("delay", "matrix"),
    [
        (np.float32(3), [[3, 3, 3], [3, 3, 3]]),
        (np.float32([1, 4]), [[1, 1, 1], [4, 4, 4]]),
        (np.float32([1, 4, 2]), [[1, 4, 2], [1, 4, 2]]),
        (np.float32([[1, 4, 2], [0, 62, 5]]), [[1, 4, 2], [0, 62, 5]]),
        (np.zeros(2, np.float32), [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_delays_of_rows_columns_and_synapses(
    load: Load, tmp_path: Path, delay: np.ndarray, matrix: list[list[int]]
) -> None:
    w = np.float32([[2, 4, 8], [16, 32, 64]])
    program = load(write_net(tmp_path / "d.net", [lines(3), dense(w, PASSING, delay=delay)]))
    assert np.array_equal(np.broadcast_to(program.connections[0].delay_steps, w.shape), matrix)
    x = np.zeros((64, 1, 3), np.uint8)
    x[0] = 1
    expected = np.zeros((64, 2))
    for (i, j), d in np.ndenumerate(np.array(matrix)):
        expected[d, i] += 64 * w[i, j]
    assert np.array_equal(trace(program, x).u[:, 0], expected)


def test_a_vector_that_fits_rows_and_columns_is_the_rows(load: Load, tmp_path: Path) -> None:
    net = [lines(2), dense(weights((2, 2)), delay=np.float32([0, 7]))]
    assert load(write_net(tmp_path / "s.net", net)).connections[0].delay_steps.tolist() == [
        [0, 0],
        [7, 7],
    ]


def test_recurrence_takes_one_step(load: Load, tmp_path: Path) -> None:
    """TV20 with an input in front: one spike keeps a loop of weight 12 over threshold 10 going."""
    net = [lines(1), dense_rec(np.float32([[20]]), np.float32([[12]]), cuba(4096, 0, 10))]
    program = load(write_net(tmp_path / "r.net", net))
    assert trace(program, np.array([0, 1, 0, 0, 0], np.uint8).reshape(5, 1, 1)).spikes.ravel().tolist() == [
        0,
        1,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("c_in", "groups", "stride", "padding", "dilation"),
    [(2, 1, (1, 1), (0, 0), (1, 1)), (4, 2, (2, 1), (1, 2), (1, 1)), (3, 3, (1, 2), (2, 0), (2, 1))],
)
def test_conv_is_torchs(
    load: Load, tmp_path: Path, c_in: int, groups: int, stride: tuple, padding: tuple, dilation: tuple
) -> None:
    w = weights((6, c_in // groups, 3, 2), 3)
    x = np.random.default_rng(4).integers(0, 2, (5, 2, c_in, 9, 8)).astype(np.uint8)
    y = (
        torch.nn.functional.conv2d(
            torch.tensor(x.reshape(10, c_in, 9, 8), dtype=torch.float64),
            torch.tensor(w, dtype=torch.float64),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        .numpy()
        .reshape(5, 2, 6, -1)
    )
    h, v = (np.array([9, 8]) + 2 * np.array(padding) - np.array(dilation) * [2, 1] - 1) // np.array(
        stride
    ) + 1
    how = {
        "stride": np.array(stride),
        "padding": np.array(padding),
        "dilation": np.array(dilation),
        "groups": groups,
    }
    head = {"type": "input", "shape": np.array([c_in, 9, 8])}
    net = [head, conv((6, h, v), w, PASSING, inChannels=c_in, **how)]
    out = trace(load(write_net(tmp_path / "c.net", net)), x)
    assert np.array_equal(out.u.reshape(5, 2, 6, -1), 64 * y)


def test_one_number_stands_for_both_axes(load: Load, tmp_path: Path) -> None:
    head = {"type": "input", "shape": np.array([1, 7, 7])}
    net = [head, conv((2, 3, 3), weights((2, 1, 3, 3)), stride=2, padding=0, dilation=1, kernelSize=3)]
    assert load(write_net(tmp_path / "n.net", net)).connections[0].stride == (2, 2)


def test_flatten_is_in_c_h_w_order(load: Load, tmp_path: Path) -> None:
    net = [
        {"type": "input", "shape": np.array([2, 3, 2])},
        {"type": "flatten", "shape": np.array([12, 1, 1])},
        dense(2 * np.arange(12, dtype=np.float32)[None], PASSING),
    ]
    program = load(write_net(tmp_path / "f.net", net))
    assert program.input.shape == (2, 3, 2)
    x = np.eye(12, dtype=np.uint8).reshape(12, 1, 2, 3, 2)
    assert trace(program, x).u.ravel().tolist() == [128 * i for i in range(12)]


def test_bias_and_decays_per_channel(load: Load, tmp_path: Path) -> None:
    neuron = cuba(np.array([4096, 0]), np.array([0, 4096]), 131071)
    kernel = np.zeros((2, 1, 1, 1), np.float32)
    net = [
        {"type": "input", "shape": np.array([1, 1, 3])},
        conv((2, 1, 3), kernel, neuron, bias=np.float32([2, -4])),
    ]
    program = load(write_net(tmp_path / "b.net", net))
    assert program.input.shape == (1, 1, 3)
    out = trace(program, np.zeros((3, 1, 1, 1, 3), np.uint8))
    assert out.v[:, 0, :, 0, 0].tolist() == [[128, -256], [256, -256], [384, -256]]


@pytest.mark.parametrize("weight", [40, -40])
@pytest.mark.parametrize("lo_hi", [(-1.0, 1.0), (0.0, 1.0), (-0.42, 2.82)])
def test_an_image_enters_through_the_bias(
    load: Load, tmp_path: Path, weight: int, lo_hi: tuple[float, float]
) -> None:
    lo, hi = lo_hi
    head = {
        "type": "input",
        "shape": np.array([1, 2, 4]),
        "weight": np.float32([weight]),
        "bias": np.float32([36]),
    }
    program = load(write_net(tmp_path / "i.net", [head | cuba(4096, 4096, 131071)]), 2, input_range=lo_hi)
    assert (program.input.shape, program.input.encoder) == ((1, 2, 4), "direct")
    x = np.linspace(0, 1, 8, dtype=np.float32).reshape(1, 1, 2, 4)
    exact = weight * (lo + (hi - lo) * x.astype(np.float64)) + 36
    got = trace(program, x).v[1] / 64
    assert np.abs(got - exact).max() <= 0.5 + 2 / 256
    assert any(f"{lo:g} .. {hi:g}" in note for note in program.info["notes"])


def test_input_weight_and_bias_have_lava_dls_defaults(load: Load, tmp_path: Path) -> None:
    net = [{"type": "input", "shape": np.array([3])} | cuba(4096, 4096, 131071)]
    program = load(write_net(tmp_path / "i.net", net), 1)
    assert (trace(program, np.float32([[0, 0.5, 1]])).v.ravel() // 64).tolist() == [-64, 0, 64]


def test_files_without_an_input_layer(load: Load, tmp_path: Path) -> None:
    program = load(write_net(tmp_path / "r.net", [dense_rec(weights((4, 7)), weights((4, 4)))]))
    assert (program.input.shape, program.input.encoder, program.input.n_steps) == ((7,), "spikes", 16)
    assert program.readout == "spike_count"


def test_singleton_axes_of_an_input_vanish_before_dense(load: Load, tmp_path: Path) -> None:
    head = {"type": "input", "shape": np.array([1, 1, 9])}
    flat = {"type": "flatten", "shape": np.array([9, 1, 1])}
    last = dense(weights((2, 9)), old_neuron(), shape=np.array([2, 1, 1]))
    assert load(write_net(tmp_path / "a.net", [head, flat, last])).input.shape == (9,)
    assert load(write_net(tmp_path / "b.net", [head, last])).input.shape == (9,)


def test_num_layers_stops_before_what_cannot_be_read(load: Load, tmp_path: Path) -> None:
    net = [lines(4), dense(weights((4, 4))), {"type": "average", "shape": np.array([2, 1, 1])}]
    path = write_net(tmp_path / "a.net", net)
    program = load(path, num_layers=2)
    assert (program.output, program.info["layers"], program.info["layers_in_file"]) == ("dense1", 2, 3)


def test_what_is_not_part_of_the_format_is_noted(load: Load, tmp_path: Path) -> None:
    net = [lines(4), dense(weights((4, 4)), comment="by hand", **{"neuron/extra": 3})]
    notes = load(write_net(tmp_path / "a.net", net)).info["notes"]
    assert notes == ["layer/1: ignored, not part of the format: comment, neuron/extra"]


def test_the_file_is_closed(tmp_path: Path) -> None:
    path = write_net(tmp_path / "a.net", conv_net())
    read_net(path)
    with h5py.File(path, "w") as f:
        f["other"] = 1
    path.unlink()
