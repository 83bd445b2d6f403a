"""Shapes and kernels against PyTorch, where NIR's own inference is wrong too."""

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from nmtool.ir.graph import Node
from nmtool.ir.maps import as_map
from nmtool.ir.parse import build_node
from nmtool.ir.shapes import ShapeError, flattened, out_shape


def apply(op: object, x: np.ndarray) -> np.ndarray:
    shape = x.shape[1:]
    return as_map(Node("n", op, None, shape, out_shape(op, shape)))(x)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, object]:
    two = st.integers(1, 3), st.integers(1, 3)
    groups = draw(st.sampled_from([1, 2]))
    return {
        "channels": (groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))),
        "size": (draw(st.integers(5, 9)), draw(st.integers(5, 9))),
        "kernel": draw(st.tuples(*two)),
        "stride": draw(st.tuples(*two)),
        "padding": draw(st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.just("valid"))),
        "dilation": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "groups": groups,
        "seed": draw(st.integers(0, 99)),
    }


@settings(deadline=None)
@given(convolutions())
def test_conv2d(c: dict) -> None:
    rng = np.random.default_rng(c["seed"])
    c_in, c_out = c["channels"]
    w = rng.integers(-4, 5, (c_out, c_in // c["groups"], *c["kernel"])) / 4
    b = rng.integers(-4, 5, c_out) / 4
    padding = c["padding"] if isinstance(c["padding"], str) else np.array(c["padding"])
    fields = {"weight": w, "bias": b, "padding": padding, "groups": np.array(c["groups"])}
    op = build_node("Conv2d", fields | {k: np.array(c[k]) for k in ("stride", "dilation")})
    x = rng.integers(0, 2, (3, c_in, *c["size"])).astype(np.float32)
    with torch.no_grad():
        wanted = functional.conv2d(
            torch.tensor(x), torch.tensor(w).float(), torch.tensor(b).float(),
            *(c[k] for k in ("stride", "padding", "dilation", "groups")),
        )  # fmt: skip
    np.testing.assert_array_equal(apply(op, x), wanted.numpy())


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d"])
def test_padding_same_also_for_even_kernels(kind: str, kernel: int) -> None:
    rng = np.random.default_rng(kernel)
    sizes = (6,) if kind == "Conv1d" else (6, 7)
    w = rng.integers(-4, 5, (2, 3, *(kernel,) * len(sizes))) / 4
    one = np.ones(1, int)
    op = build_node(kind, {"weight": w, "padding": "same", "stride": one, "dilation": one, "groups": one})
    x = rng.integers(0, 2, (2, 3, *sizes)).astype(np.float32)
    torch_conv = functional.conv1d if kind == "Conv1d" else functional.conv2d
    before, after = (kernel - 1) // 2, kernel // 2  # PyTorch's rule for padding="same"
    padded = functional.pad(torch.tensor(x), (before, after) * len(sizes))
    wanted = torch_conv(padded, torch.tensor(w).float())
    np.testing.assert_array_equal(apply(op, x), wanted.numpy())


def test_what_nir_infers_wrongly() -> None:
    kernel = build_node("Conv2d", _conv(np.ones((2, 1, 3, 5))))
    assert out_shape(kernel, (1, 8, 8)) == (2, 6, 4)
    grouped = build_node("Conv2d", _conv(np.ones((2, 1, 1, 1)), groups=2))
    assert out_shape(grouped, (2, 8, 8)) == (2, 8, 8)
    own = nir.Conv2d((8, 8), np.ones((2, 1, 3, 5)), 1, 0, 1, 1, np.zeros(2)).output_type["output"]
    assert own.tolist() == [2, 6, 6], "nir has been corrected; nmtool need not work around it any more"


def _conv(weight: np.ndarray, groups: int = 1) -> dict[str, object]:
    one = np.ones(1, int)
    return {"weight": weight, "stride": one, "padding": 0 * one, "dilation": one, "groups": groups * one}


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.booleans())
def test_pooling(kernel: int, stride: int, padding: int, average: bool) -> None:
    padding = min(padding, kernel // 2)
    size = (np.array([kernel, kernel]), np.array([stride, stride]), np.array([padding, padding]))
    x = np.random.default_rng(0).integers(0, 2, (2, 3, 7, 8)).astype(np.float32)
    wanted = functional.avg_pool2d(torch.tensor(x), kernel, stride, padding).numpy()
    if average:
        np.testing.assert_array_equal(apply(nir.AvgPool2d(*size), x), wanted)
    else:
        np.testing.assert_allclose(apply(nir.SumPool2d(*size), x), wanted * kernel**2, rtol=1e-6)


def test_linear_with_leading_axes() -> None:
    w = np.arange(24.0).reshape(2, 3, 4)
    x = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    wanted = np.einsum("coi,bci->bco", w, x)
    np.testing.assert_array_equal(apply(nir.Linear(w), x), wanted)


@pytest.mark.parametrize(("start", "end"), [(0, -1), (1, -1), (0, 1), (1, 2), (-2, -1)])
def test_flatten_is_pytorchs_without_the_batch(start: int, end: int) -> None:
    batch = nn.Flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end)
    wanted = tuple(batch(torch.zeros(1, 2, 3, 4)).shape[1:])
    assert out_shape(nir.Flatten(None, start, end), (2, 3, 4)) == wanted


def test_flatten_that_counts_the_batch() -> None:
    op = nir.Flatten(None, 1, -1)
    assert flattened(op, (2, 3, 4), [nir.Linear(np.ones((5, 24)))]) == (24,)
    assert flattened(op, (2, 3, 4), [nir.Linear(np.ones((2, 5, 12)))]) == (2, 12)
    assert flattened(op, (2, 3, 4), []) == (2, 12)


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        (nir.Linear(np.ones((3, 4))), (5,), r"weight \[3, 4\] takes inputs of shape \[4\], gets \[5\]"),
        (nir.Affine(np.ones((3, 4)), np.ones(4)), (4,), r"bias has shape \[4\], must be \[3\]"),
        (nir.Scale(np.ones(3)), (4,), r"parameters of shape \[3\], its input has shape \[4\]"),
        (nir.Flatten(None, 1, -1), (4,), "flattens axes 1 to -1"),
        (nir.SumPool2d(*(np.array([5, 5]),) * 2, np.array([0, 0])), (1, 4, 9), "window of 5 is wider than the 4"),
        (nir.SumPool2d(*(np.array([2, 2]),) * 2, np.array([0, 0])), (4, 4), r"takes \[channels, height, width\]"),
        (nir.Output(np.array([3])), (4,), r"declares shape \[3\], gets \[4\]"),
        (build_node("Conv2d", _conv(np.ones((2, 3, 3, 3)))), (1, 8, 8), r"takes \[3, height, width\], gets \[1"),
    ],
)  # fmt: skip
def test_what_does_not_fit(op: object, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        out_shape(op, shape)


def test_no_node_gives_more_than_memory_holds() -> None:
    with pytest.raises(ShapeError, match="more than 67108864 values"):
        out_shape(nir.Flatten(None, 0, -1), (1 << 14, 1 << 14))
