"""The flat ``nmtool.*`` metadata of a ``.nir`` file: what NIR cannot say, and exact values beside rounded ones.

Metadata never changes a result silently. What NIR says too is compared with it, and a contradiction is an error;
what only metadata say is used; what is missing although the schema is there is a warning that names the default.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from nmtool.errors import Diagnostic, did_you_mean
from nmtool.ir.semantics import F64, Encoder, ModelSemantics, NeuronSemantics, Readout, Reset

SCHEMA = "nmtool.nir/1"
PREFIX = "nmtool."

EXACT = ("beta_mem", "gain_mem", "beta_syn", "gain_syn", "leak", "v_th", "v_reset")
"""Arrays of :class:`NeuronSemantics` that NIR holds as well, through time constants and in float32."""

NEURON_KEYS = (*EXACT, "reset", "reset_delay", "noise_std")
WEIGHT_KEYS = ("w_int", "w_scale", "w_bits")
MODEL_KEYS = ("schema", "dt_s", "encoder", "n_steps", "readout", "bounds", "class_labels", "data")

TOLERANCE = 1e-5
"""Float32 time constants give decays and gains back to about 1e-7; a difference above this was not rounding."""

Finder = Callable[[str, str, str], None]


def encode_model(model: ModelSemantics) -> dict[str, Any]:
    """Graph metadata."""
    return {
        "nmtool.schema": SCHEMA,
        "nmtool.dt_s": float(model.dt_s),
        "nmtool.encoder": model.encoder,
        "nmtool.n_steps": int(model.n_steps),
        "nmtool.readout": model.readout,
        "nmtool.bounds": np.array(model.bounds, np.float64),
        "nmtool.class_labels": json.dumps(list(model.class_labels)),
        "nmtool.data": model.data,
    }


def encode_neuron(neuron: NeuronSemantics) -> dict[str, Any]:
    """Metadata of a neuron node: one number where all neurons agree, else one per neuron, float64."""
    out: dict[str, Any] = {}
    for name in EXACT:
        value = getattr(neuron, name)
        if value is not None:
            flat = np.asarray(value, np.float64).ravel()
            same = flat.size and (flat == flat[0]).all()
            out[PREFIX + name] = float(flat[0]) if same else np.array(value, np.float64)
    out["nmtool.reset"] = neuron.reset
    out["nmtool.reset_delay"] = bool(neuron.reset_delay)
    out["nmtool.noise_std"] = float(neuron.noise_std)
    return out


def unknown_keys(where: str, metadata: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Diagnostic]:
    """A warning for every ``nmtool.*`` key that means nothing here; other keys are not ours."""
    for key in sorted(k for k in metadata if k.startswith(PREFIX)):
        if key.removeprefix(PREFIX) not in known:
            hint = did_you_mean(key, (PREFIX + k for k in known))
            yield Diagnostic("NM151", where, f"metadata '{key}' is unknown and ignored", hint, "warning")


def decode_model(metadata: Mapping[str, Any], dt_s: float) -> tuple[ModelSemantics, list[Diagnostic]]:
    """Graph metadata with ``dt_s`` as resolved.

    Returns:
        what is known (defaults elsewhere), and findings: NM103 for values that are not allowed, a warning NM106 where
        the schema is there but a key is missing.
    """
    found = list(unknown_keys("metadata of the graph", metadata, MODEL_KEYS))
    model = ModelSemantics(dt_s=dt_s)
    schema = metadata.get("nmtool.schema")
    if schema is not None and not (isinstance(schema, str) and schema == SCHEMA):
        found.append(_bad("schema", schema, f"'{SCHEMA}'", "Update nmtool, or write the file again"))
    values: dict[str, Any] = {}
    for key, (check, allowed) in _MODEL_VALUES.items():
        if PREFIX + key in metadata:
            try:
                values[key] = check(metadata[PREFIX + key])
            except (ValueError, TypeError, AttributeError):
                found.append(_bad(key, metadata[PREFIX + key], allowed))
    missing = [k for k in ("encoder", "n_steps", "readout") if PREFIX + k not in metadata]
    if schema is not None and missing:
        names = ", ".join(f"nmtool.{k} (read as {getattr(model, k)})" for k in missing)
        message = f"lacks {names}, although the schema promises it"
        found.append(Diagnostic("NM106", "metadata of the graph", message, "Export again", "warning"))
    return replace(model, **values), found


def decode_neuron(
    where: str, neuron: NeuronSemantics, metadata: Mapping[str, Any], same_dt: bool
) -> tuple[NeuronSemantics, list[Diagnostic]]:
    """Exact values and the reset of one neuron node.

    Args:
        where: the node, for findings.
        neuron: what NIR's own fields say.
        metadata: of the node.
        same_dt: whether the step is the recorded one. If not, recorded decays mean nothing and are left out.

    Returns:
        the neuron, and findings: NM103 not allowed, NM106 contradictory (error) or missing (warning).
    """
    found = list(unknown_keys(where, metadata, NEURON_KEYS))
    if not any(PREFIX + k in metadata for k in NEURON_KEYS):
        return neuron, found
    values: dict[str, Any] = {}
    timeless = ("v_th", "v_reset")
    for name in EXACT:
        if PREFIX + name in metadata and (same_dt or name in timeless):
            exact, problem = _exact(name, metadata[PREFIX + name], getattr(neuron, name))
            if problem:
                hint = "Delete the nmtool.* metadata if another tool changed the node, or export again"
                found.append(Diagnostic("NM106", where, problem, hint))
            values[name] = exact
    for key, (check, allowed) in _NEURON_VALUES.items():
        if PREFIX + key in metadata:
            try:
                values[key] = check(metadata[PREFIX + key])
            except (ValueError, TypeError, AttributeError):
                found.append(_bad(key, metadata[PREFIX + key], allowed, where=where))
        elif key == "reset" and neuron.spiking:
            message = f"metadata lack nmtool.reset; read as '{neuron.reset}', which is what NIR means"
            found.append(Diagnostic("NM106", where, message, "Export again", "warning"))
    if values.get("reset") == "subtract" and np.any(neuron.v_reset):
        message = "nmtool.reset is 'subtract', but v_reset is not 0, which only a reset to a value has"
        found.append(Diagnostic("NM106", where, message, "Set v_reset to 0"))
    return replace(neuron, **{k: v for k, v in values.items() if v is not None}), found


def check_weights(where: str, op: Any) -> Iterator[Diagnostic]:
    """Recorded integers beside quantised weights; the weights are what counts."""
    metadata = op.metadata
    yield from unknown_keys(where, metadata, WEIGHT_KEYS)
    integers, scale = metadata.get("nmtool.w_int"), metadata.get("nmtool.w_scale")
    if integers is None or scale is None:
        return
    w = np.asarray(op.weight, np.float64)
    numeric = np.asarray(integers).dtype.kind in "iuf" and isinstance(scale, int | float)
    fits = numeric and np.shape(integers) == w.shape
    if not fits or not np.allclose(np.asarray(integers) * float(scale), w, rtol=1e-6, atol=0):
        message = "recorded integers (nmtool.w_int, nmtool.w_scale) differ from the weights, which are used"
        yield Diagnostic("NM151", where, message, "Export again", "warning")


def _exact(name: str, value: Any, rounded: F64 | None) -> tuple[F64 | None, str]:
    """The recorded array in the node's shape, or a sentence about why it cannot be used."""
    if rounded is None:
        return None, f"nmtool.{name} is recorded, but the node has no synaptic current"
    a = np.asarray(value)
    if a.dtype.kind not in "fiu" or a.shape not in ((), rounded.shape) or np.isnan(a).any():
        return None, f"nmtool.{name} is {a.dtype} of shape {a.shape}, the node has {rounded.shape}"
    a = np.broadcast_to(a.astype(np.float64), rounded.shape).copy()
    near = np.isclose(a, rounded, rtol=TOLERANCE, atol=TOLERANCE) | (np.isinf(a) & (rounded > 1e38))
    if not near.all():
        at = tuple(int(i) for i in np.argwhere(~near)[0])
        return None, (
            f"nmtool.{name} records {a[at]:g}, but the node's own parameters give {rounded[at]:g}"
            + (f" (neuron {at[0] if len(at) == 1 else at})" if at else "")
        )
    return a, ""


def _bad(
    key: str, value: Any, allowed: str, hint: str = "", where: str = "metadata of the graph"
) -> Diagnostic:
    few = np.size(value) < 10
    shown = (
        " ".join(repr(value).split())[:80] if few else f"{type(value).__name__} of {np.size(value)} values"
    )
    return Diagnostic("NM103", where, f"nmtool.{key} is {shown}, must be {allowed}", hint)


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(value)
        return str(value)

    return check


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)


def _steps(value: Any) -> int:
    n = int(_number(value))
    if n != value or not 1 <= n < 1 << 31:
        raise ValueError(value)
    return n


def _bounds(value: Any) -> tuple[float, float]:
    low, high = (_number(v) for v in value.tolist())
    if not low < high:
        raise ValueError(value)
    return low, high


def _labels(value: Any) -> tuple[str, ...]:
    labels = json.loads(value)
    if not isinstance(labels, list) or not all(isinstance(v, str) for v in labels):
        raise ValueError(value)
    return tuple(labels)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _positive_or_zero(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError(value)
    return float(value)


_MODEL_VALUES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "encoder": (_one_of(get_args(Encoder)), f"one of {', '.join(get_args(Encoder))}"),
    "n_steps": (_steps, "a whole number >= 1"),
    "readout": (_one_of(get_args(Readout)), f"one of {', '.join(get_args(Readout))}"),
    "bounds": (_bounds, "two numbers, the lower first"),
    "class_labels": (_labels, "a JSON list of texts"),
    "data": (_text, "a text"),
}
_NEURON_VALUES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "reset": (_one_of(get_args(Reset)), f"one of {', '.join(get_args(Reset))}"),
    "reset_delay": (_flag, "true or false"),
    "noise_std": (_positive_or_zero, "a finite number >= 0"),
}
