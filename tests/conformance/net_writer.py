"""Writes lava-dl ``.net`` files for tests, data set by data set, in the layout of lava-dl 0.6.0 and older."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Layer = dict[str, Any]


def write_net(path: Path, layers: Sequence[Mapping[str, Any]], **simulation: int) -> Path:
    """Every entry of a layer becomes a data set; a ``type`` is S10 of shape (1,), a ``neuron/type`` a string."""
    with h5py.File(path, "w") as f:
        for i, layer in enumerate(layers):
            group = f.create_group(f"layer/{i}")
            for key, value in layer.items():
                if key == "type":
                    group.create_dataset(key, (1,), "S10", [value.encode("ascii")])
                else:
                    group.create_dataset(key, data=value)
        for key, number in simulation.items():
            f.create_dataset(f"simulation/{key}", data=number)
    return path


def cuba(i_decay: int = 1024, v_decay: int = 512, threshold: int = 80, **more: Any) -> Layer:
    """Neuron data sets as lava-dl 0.6.0 writes them."""
    values = {"type": "CUBA", "iDecay": i_decay, "vDecay": v_decay, "vThMant": threshold, "refDelay": 1}
    return {f"neuron/{k}": v for k, v in (values | {"gradedSpike": False} | more).items()}


def old_neuron(i_decay: int = 1024, v_decay: int = 512, threshold: int = 80) -> Layer:
    """Neuron data sets of older files."""
    values = cuba(
        i_decay, v_decay, threshold, type="LOIHI", scaleRho=0.5, tauRho=0.1, theta=threshold * 64, wgtExp=0
    )
    return {k: v for k, v in values.items() if k != "neuron/gradedSpike"}


def weights(shape: tuple[int, ...], seed: int = 0, low: int = -256, high: int = 254, step: int = 2) -> Any:
    """Random float32 weights on lava-dl's grid."""
    rng = np.random.default_rng(seed)
    return (rng.integers(low // step, high // step + 1, shape) * step).astype(np.float32)


def dense(w: Any, neuron: Layer | None = None, **more: Any) -> Layer:
    """A ``dense`` layer; ``neuron={}`` leaves the neurons out."""
    n_out, n_in = w.shape
    head = {
        "type": "dense",
        "shape": np.array([n_out]),
        "inFeatures": n_in,
        "outFeatures": n_out,
        "weight": w,
    }
    return head | (cuba() if neuron is None else neuron) | more


def dense_rec(w: Any, w_rec: Any, neuron: Layer | None = None, **more: Any) -> Layer:
    """A ``dense_rec`` layer."""
    return dense(w, neuron) | {"type": "dense_rec", "weight_rec": w_rec} | more


def conv(shape: tuple[int, int, int], w: Any, neuron: Layer | None = None, **more: Any) -> Layer:
    """A ``conv`` layer of stride, padding, dilation and groups 1, 0, 1, 1 unless given in ``more``."""
    head = {
        "type": "conv",
        "shape": np.array(shape),
        "inChannels": w.shape[1],
        "outChannels": w.shape[0],
        "kernelSize": np.array(w.shape[2:4]),
        "stride": np.array([1, 1]),
        "padding": np.array([0, 0]),
        "dilation": np.array([1, 1]),
        "groups": 1,
        "weight": w,
    }
    return head | (cuba() if neuron is None else neuron) | more


def conv_net() -> list[Layer]:
    """Input neurons, conv, flatten, dense with delays, dense_rec, dense without neurons: every kind that is read."""
    drive = {
        "type": "input",
        "shape": np.array([2, 5, 4]),
        "weight": np.float32([40]),
        "bias": np.float32([36]),
    }
    kernel = weights((3, 2, 3, 3), 1, -20, 20)
    return [
        drive | cuba(4096, 1024, 25),
        conv((3, 3, 2), kernel, bias=np.float32([-4, 0, 6])),
        {"type": "flatten", "shape": np.array([18, 1, 1])},
        dense(weights((6, 18), 2), bias=weights((6,), 3, -8, 8), delay=np.float32([0, 1, 5, 0, 62, 2])),
        dense_rec(weights((4, 6), 4), weights((4, 4), 5)),
        dense(weights((3, 4), 6), {}),
    ]


def old_net() -> list[Layer]:
    """The same kinds as older files hold them: other shapes, other types, a trailing axis, a row stored flat."""
    drive = {"type": "input", "shape": np.array([2, 5, 4]), "weight": np.float32(40), "bias": np.float32(36)}
    kernel = weights((3, 2, 3, 3), 1, -20, 20)[..., None]
    first, last = weights((6, 18), 2), weights((1, 6), 7)
    return [
        drive | old_neuron(4096, 1024, 25),
        conv((3, 3, 2), kernel, old_neuron(), bias=np.array([-4.0, 0, 6])),
        {"type": "flatten", "shape": np.array([1, 1, 18])},
        dense(first, old_neuron(), shape=np.array([6, 1, 1])),
        dense(last, old_neuron(), shape=np.array([1, 1, 1]), weight=last.reshape(-1), bias=np.array([0.0])),
    ]
