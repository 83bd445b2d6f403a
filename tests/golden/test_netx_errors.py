"""``.net`` files that are refused: the code, and the data set, value and limit that the message names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from net_writer import conv_net, cuba, dense, weights, write_net

from nmtool.errors import ConfigError, FindingsError, ModelError
from nmtool.frontends.netx import read_net
from nmtool.ir.hdf5 import Reader

MISSING = object()
INPUT, CONV, FLATTEN, DELAYED, RECURRENT, LAST = range(6)

CASES: list[tuple[int, dict[str, Any], str, str]] = [
    (
        CONV,
        {"type": "pool"},
        "NM102",
        r"layer/1: type 'pool' cannot be run.*supported: input, flatten, dense",
    ),
    (CONV, {"type": "convT"}, "NM102", r"'convT'.*--read layers=1"),
    (CONV, {"type": "warp"}, "NM102", "'warp'"),
    (LAST, {"type": "input"}, "NM105", r"layer/5: is an input layer; only layer/0 can be one"),
    (CONV, {"type": MISSING}, "NM106", r"layer/1/type: is missing"),
    (
        DELAYED,
        {"neuron/type": "SDNN"},
        "NM103",
        r"layer/3/neuron/type: 'dense' has 'SDNN' neurons; supported: CUBA, LOIHI",
    ),
    (DELAYED, {"neuron/type": "RF"}, "NM103", "'RF'"),
    (DELAYED, {"neuron/type": 3}, "NM103", r"neuron/type: holds int64 .* expected one text"),
    (
        DELAYED,
        {"weight/imag": 1.0, "weight": MISSING},
        "NM103",
        r"layer/3/weight: 'dense' has complex weights",
    ),
    (DELAYED, {"weight": MISSING}, "NM106", r"layer/3/weight: is missing"),
    (DELAYED, {"weight": "none"}, "NM103", r"layer/3/weight: holds the text 'none', expected numbers"),
    (
        DELAYED,
        {"weight": np.full((6, 18), np.nan)},
        "NM108",
        r"layer/3/weight: holds values that are not finite",
    ),
    (DELAYED, {"weight": np.full((6, 18), 0.5)}, "NM103", r"layer/3/weight: holds 0.5, expected integers"),
    (
        DELAYED,
        {"weight": np.full((6, 18), 256)},
        "NM202",
        r"layer/3/weight: holds 256 .. 256; a synapse holds 0 .. 255",
    ),
    (DELAYED, {"weight": weights((6, 18)) * 2}, "NM202", r"layer/3/weight: holds -\d+ .. \d+;"),
    (
        DELAYED,
        {"weight": weights((18, 6))},
        "NM104",
        r"layer/3/weight: has shape \(18, 6\), expected \(6, 18\)",
    ),
    (DELAYED, {"weight": np.zeros((0, 18))}, "NM106", r"layer/3/weight: is empty"),
    (
        DELAYED,
        {"weight": np.zeros((6, 18), complex)},
        "NM103",
        r"layer/3/weight: holds an array of complex128",
    ),
    (DELAYED, {"inFeatures": 17}, "NM104", r"layer/3/inFeatures: is 17, .* have 18"),
    (DELAYED, {"shape": np.array([5])}, "NM104", r"layer/3/weight: has shape \(6, 18\), expected \(5, 18\)"),
    (
        DELAYED,
        {"shape": np.array([2, 3])},
        "NM104",
        r"layer/3/shape: is \[2, 3\], expected \[n\] or \[C, H, W\]",
    ),
    (DELAYED, {"shape": np.array([0])}, "NM103", r"layer/3/shape: holds 0, allowed is 1 .. "),
    (DELAYED, {"delay": np.float32([63] * 6)}, "NM103", r"layer/3/delay: holds 63, allowed is 0 .. 62"),
    (DELAYED, {"delay": np.float32([-1] * 6)}, "NM103", r"layer/3/delay: holds -1, allowed is 0 .. 62"),
    (
        DELAYED,
        {"delay": np.ones(5)},
        "NM104",
        r"layer/3/delay: has shape \(5,\), expected .* \(6,\), \(18,\)",
    ),
    (DELAYED, {"bias": np.ones(5)}, "NM104", r"layer/3/bias: has shape \(5,\), expected one value or \(6,\)"),
    (
        DELAYED,
        {"bias": np.float32([40000] * 6)},
        "NM103",
        r"layer/3/bias: holds 40000, allowed is -32768 .. 32767",
    ),
    (DELAYED, {"neuron/iDecay": 4097}, "NM103", r"layer/3/neuron/iDecay: holds 4097, allowed is 0 .. 4096"),
    (DELAYED, {"neuron/vDecay": MISSING}, "NM106", r"layer/3/neuron/vDecay: is missing"),
    (DELAYED, {"neuron/vThMant": 1 << 18}, "NM103", r"neuron/vThMant: holds 262144, allowed is 0 .. 262143"),
    (
        DELAYED,
        {"neuron/refDelay": 2},
        "NM103",
        r"neuron/refDelay: is 2, supported is 1: Lava's LIF has no refractory",
    ),
    (DELAYED, {"neuron/refDelay": [1, 1]}, "NM104", r"neuron/refDelay: has shape \(2,\), expected one value"),
    (DELAYED, {"neuron/gradedSpike": True}, "NM103", r"neuron/gradedSpike: is 1, supported is 0"),
    (DELAYED, {"neuron/weight_exp": 2}, "NM103", r"neuron/weight_exp: is 2, supported is 0: netx drops it"),
    (
        RECURRENT,
        {"delay": np.float32([0, 1, 0, 0])},
        "NM103",
        r"layer/4/delay: is not zero in a dense_rec layer",
    ),
    (RECURRENT, {"weight_rec": MISSING}, "NM106", r"layer/4/weight_rec: is missing"),
    (
        RECURRENT,
        {"weight_rec": weights((4, 5))},
        "NM104",
        r"weight_rec: has shape \(4, 5\), expected \(4, 4\)",
    ),
    (CONV, {"weight": weights((3, 2, 3))}, "NM104", r"layer/1/weight: has shape \(3, 2, 3\)"),
    (
        CONV,
        {"weight": weights((3, 1, 3, 3))},
        "NM104",
        r"layer/1/weight: .*expected \(C_out, 2 / groups, kH, kW\)",
    ),
    (CONV, {"groups": 2}, "NM104", r"layer/1/weight: .*groups is 2"),
    (CONV, {"groups": MISSING}, "NM106", r"layer/1/groups: is missing"),
    (CONV, {"stride": np.array([0, 1])}, "NM103", r"layer/1/stride: holds 0, allowed is 1 .. "),
    (CONV, {"stride": np.array([1, 1, 1])}, "NM104", r"layer/1/stride: holds 3 values, expected \(H, W\)"),
    (CONV, {"kernelSize": np.array([3, 2])}, "NM104", r"layer/1/kernelSize: is \(3, 2\), but weight"),
    (
        CONV,
        {"shape": np.array([3, 2, 3])},
        "NM104",
        r"layer/1/shape: is \(3, 2, 3\), .* make \(3, 3, 2\) of \(2, 5, 4\)",
    ),
    (CONV, {"outChannels": 4}, "NM104", r"layer/1/outChannels: is 4"),
    (
        CONV,
        {"delay": np.float32([0, 1, 0])},
        "NM103",
        r"layer/1/delay: is not zero in a conv layer; netx drops it",
    ),
    (
        CONV,
        {f"neuron/{k}": MISSING for k in ("type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike")},
        "NM106",
        r"layer/1/neuron: is missing; only a dense layer may have no neurons",
    ),
    (
        FLATTEN,
        {"shape": np.array([17, 1, 1])},
        "NM104",
        r"layer/2/shape: is \(17, 1, 1\), but 'conv1' has shape",
    ),
    (INPUT, {"weight": np.float32([0])}, "NM103", r"layer/0/weight: is 0, so that the input has no effect"),
    (INPUT, {"shape": np.array([4096, 4096, 2])}, "NM104", r"layer/0/shape: .*16777216 neurons at most"),
]


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as r:
        yield r


@pytest.mark.parametrize(
    ("index", "changes", "code", "message"),
    CASES,
    ids=[f"{c[2]}-{c[0]}-{'-'.join(c[1])}"[:60] for c in CASES],
)
def test_what_is_wrong_is_named(
    reader: Reader, tmp_path: Path, index: int, changes: dict[str, Any], code: str, message: str
) -> None:
    net = conv_net()
    net[index] |= changes
    net[index] = {k: v for k, v in net[index].items() if v is not MISSING}
    path = write_net(tmp_path / "a.net", net)
    with pytest.raises((ModelError, FindingsError), match=message) as e:
        read_net(path, reader=reader)
    assert e.value.code == code
    assert str(path) in e.value.where
    assert e.value.exit_code == 3


def test_all_layers_that_cannot_be_read_are_named(reader: Reader, tmp_path: Path) -> None:
    net = conv_net()
    net[CONV]["type"], net[RECURRENT]["neuron/type"] = "unpool", "ALIF"
    with pytest.raises(FindingsError, match="unpool") as e:
        read_net(write_net(tmp_path / "a.net", net), reader=reader)
    assert [d.code for d in e.value.findings] == ["NM102", "NM103"]


@pytest.mark.parametrize(
    ("net", "code", "message"),
    [
        (
            [conv_net()[INPUT], conv_net()[CONV], conv_net()[DELAYED]],
            "NM104",
            "layer/2: is dense, .*A flatten layer",
        ),
        (
            [{"type": "input", "shape": np.array([40])}, conv_net()[CONV]],
            "NM104",
            r"is a conv, .*expected \(C, H, W\)",
        ),
        (
            [conv_net()[CONV]],
            "NM106",
            "layer/0: is the first layer and a 'conv': the shape of its input is unknown",
        ),
        ([{"type": "input", "shape": np.array([40])}], "NM105", "has no neurons in its first 1 layers"),
        ([{"type": "input", "shape": np.array([4])}, dense(weights((2, 5)))], "NM104", r"expected \(2, 4\)"),
    ],
)
def test_layers_that_do_not_fit(
    reader: Reader, tmp_path: Path, net: list[dict[str, Any]], code: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as e:
        read_net(write_net(tmp_path / "a.net", net), reader=reader)
    assert e.value.code == code


def test_missing_layer(reader: Reader, tmp_path: Path) -> None:
    path = write_net(tmp_path / "a.net", conv_net())
    with h5py.File(path, "a") as f:
        del f["layer/2"]
    with pytest.raises(ModelError, match="NM106.*layer: lacks 2 and has 5"):
        read_net(path, reader=reader)


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("layer", 3, "NM101"),
        ("layer/0", 3, "NM101"),
        ("layer/0/neuron", MISSING, "NM106"),
        ("other", 3, "NM101"),
    ],
)
def test_hdf5_of_something_else(reader: Reader, tmp_path: Path, key: str, value: Any, code: str) -> None:
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as f:
        if value is MISSING:
            f.create_group(key)
        else:
            f[key] = value
    with pytest.raises(ModelError, match=code):
        read_net(path, reader=reader)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_not_hdf5(reader: Reader, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.net"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="NM101"):
        read_net(path, reader=reader)


def test_truncated(reader: Reader, tmp_path: Path) -> None:
    path = write_net(tmp_path / "a.net", conv_net())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="NM101"):
        read_net(path, reader=reader)


def test_no_such_file(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NM001"):
        read_net(tmp_path / "a.net", reader=reader)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"num_layers": 0}, r"num_layers is 0, allowed is 1 .. 6"),
        ({"num_layers": 7}, r"num_layers is 7, allowed is 1 .. 6"),
        ({"n_steps": 0}, r"n_steps: is 0"),
        ({"input_range": (1.0, 1.0)}, r"input_range: is \(1.0, 1.0\)"),
        ({"input_range": (0.0, float("nan"))}, r"input_range: is \(0.0, nan\)"),
        (
            {"input_range": (0.0, 1e6)},
            r"input_range: .*makes biases of 36 .. 40000036 .*Lava stores -32768 .. 32767",
        ),
    ],
)
def test_choices_out_of_range(reader: Reader, tmp_path: Path, choice: dict[str, Any], message: str) -> None:
    path = write_net(tmp_path / "a.net", conv_net())
    with pytest.raises(ConfigError, match=message) as e:
        read_net(path, reader=reader, **choice)
    assert e.value.code == "NM004"


def test_thresholds_of_a_vector_have_to_fit(reader: Reader, tmp_path: Path) -> None:
    net = [{"type": "input", "shape": np.array([4])}, dense(weights((2, 4)), cuba(1, 1, np.array([1, 2, 3])))]
    with pytest.raises(ModelError, match=r"NM104.*neuron/vThMant: has shape \(3,\)"):
        read_net(write_net(tmp_path / "a.net", net), reader=reader)
