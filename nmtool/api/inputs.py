"""What to run a model on: samples of a data set or a spike file, held against what the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmtool.api.models import Interface
from nmtool.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Inputs:
    """What to run a model on.

    Attributes:
        data: test samples of this data set; None takes the one that the model was trained on.
        spikes: a spike file instead.
        n: only the first so many samples.
        data_root: folder of the data sets that do not ship with nmtool.
    """

    data: str | None = None
    spikes: Path | None = None
    n: int | None = None
    data_root: Path | None = None


@dataclass(frozen=True)
class Batch:
    """Inputs as a backend takes them.

    Attributes:
        x: float32 ``[B, *shape]`` for an analog input, else uint8 ``[T, B, *shape]``.
        labels: int64 ``[B]``, or None.
        origin: what they are, for records.
        n_steps: of a spike file, else None.
    """

    x: NDArray[Any]
    labels: NDArray[np.int64] | None
    origin: str
    n_steps: int | None = None


def load_inputs(wanted: Inputs, model: Interface) -> Batch:
    """Read the inputs and hold them against what the model takes.

    Raises:
        ConfigError: NM001, NM005, NM006, NM007 from the readers; NM004 if data and spikes are both named, or neither
            is and the model does not say what it was trained on.
        ModelError: NM109 if the inputs do not fit the model.
    """
    if wanted.spikes is not None and wanted.data is not None:
        raise ConfigError("NM004", "--data, --spikes", "are two sources of input", "Name one of them")
    if wanted.spikes is not None:
        return _from_spikes(wanted.spikes, wanted.n, model)
    name = wanted.data or model.data
    if not name:
        raise ConfigError(
            "NM004", model.name, "the model does not say what it was trained on", "Name --data or --spikes"
        )
    return _from_data(name, wanted, model)


def _from_spikes(path: Path, n: int | None, model: Interface) -> Batch:
    from nmtool.data.encode import spikes_file

    found = spikes_file(path)
    if model.encoder != "spikes":
        message = f"holds spikes, but the model takes analog values ({model.encoder})"
        raise ModelError("NM109", str(path), message, "Name a data set with --data")
    shape = found.spikes.shape[2:]
    if shape != model.shape:
        message = f"a sample is {shape} per step, the model takes {model.shape} at '{model.name}'"
        raise ModelError("NM109", str(path), message, "Write spikes as uint8 [T, B, *shape]")
    if found.dt_s is not None and not np.isclose(found.dt_s, model.dt_s, rtol=1e-6, atol=0):
        message = f"has a step of {found.dt_s:g} s, the model one of {model.dt_s:g} s"
        raise ModelError("NM109", str(path), message, "Bin the events again with the model's step")
    labels = None if found.labels is None else found.labels[:n]
    return Batch(found.spikes[:, :n], labels, str(path), len(found.spikes))


def _from_data(name: str, wanted: Inputs, model: Interface) -> Batch:
    from nmtool.data import datasets

    data = datasets.load(name, wanted.data_root)
    if model.encoder == "spikes":
        message = f"takes spikes, but {data.name} holds analog values"
        raise ModelError("NM109", model.name, message, "Name a spike file with --spikes")
    x = data.x_test[: wanted.n]
    if x.shape[1:] != model.shape:
        if int(np.prod(x.shape[1:])) != int(np.prod(model.shape)):
            message = f"takes {model.shape}, a sample of {data.name} is {x.shape[1:]}"
            raise ModelError("NM109", model.name, message, "Name the data set that the model was trained on")
        x = x.reshape(len(x), *model.shape)
    if data.bounds != model.bounds:
        message = f"takes values in {model.bounds}, those of {data.name} are in {data.bounds}"
        raise ModelError("NM109", model.name, message, "Scale the data, or name another data set")
    return Batch(x, data.y_test[: wanted.n], data.name)
