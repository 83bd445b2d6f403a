"""Single PyTorch and snnTorch modules as NIR nodes and difference equations; reads attributes, needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from nmtool.ir.fields import BadFieldError
from nmtool.ir.parse import build_node
from nmtool.ir.semantics import NeuronSemantics, Reset

F64 = NDArray[np.float64]

RESETS: tuple[Reset, ...] = ("subtract", "zero", "none")
"""By snnTorch's ``reset_mechanism_val``."""


class NoCounterpartError(Exception):
    """Why a module cannot be exported without a change of meaning, and what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(message)


def numbers(tensor: Any) -> F64:
    """A tensor, or a number, as float64."""
    return np.asarray(
        tensor.detach().cpu().double().numpy() if hasattr(tensor, "detach") else tensor, np.float64
    )


def linear(module: Any) -> Any:
    """Linear, or Affine with a bias."""
    weight = _exact(module.weight)
    return nir.Linear(weight) if module.bias is None else nir.Affine(weight, _exact(module.bias))


def conv(module: Any) -> Any:
    """Conv1d or Conv2d; a missing bias is a bias of zero."""
    if module.padding_mode != "zeros":
        raise NoCounterpartError(f"pads with '{module.padding_mode}'; NIR pads with zeros")
    values: dict[str, Any] = {"weight": _exact(module.weight), "groups": np.array(module.groups)}
    values |= {k: np.array(getattr(module, k)) for k in ("stride", "dilation")}
    values["padding"] = module.padding if isinstance(module.padding, str) else np.array(module.padding)
    if module.bias is not None:
        values["bias"] = _exact(module.bias)
    try:
        return build_node("Conv1d" if values["weight"].ndim == 3 else "Conv2d", values)
    except BadFieldError as e:
        raise NoCounterpartError(e.message, e.hint) from e


def average_pool(module: Any) -> Any:
    """AvgPool2d."""
    padding = _pair(module.padding)
    if module.ceil_mode or module.divisor_override is not None:
        raise NoCounterpartError("uses ceil_mode or divisor_override, which NIR has not", "Leave them out")
    if not module.count_include_pad and padding != (0, 0):
        raise NoCounterpartError("leaves padding out of the mean, NIR does not", "Use count_include_pad=True")
    stride = module.kernel_size if module.stride is None else module.stride
    return nir.AvgPool2d(*(np.array(_pair(v)) for v in (module.kernel_size, stride, padding)))


def flatten(start_dim: int, end_dim: int) -> Any:
    """Flatten; PyTorch counts the batch axis, NIR does not."""
    if start_dim == 0:
        raise NoCounterpartError("flattens the batch axis (start_dim=0)", "Use start_dim=1")
    return nir.Flatten(None, start_dim - (start_dim > 0), end_dim - (end_dim > 0))


def fold_norm(op: Any, norm: Any) -> Any:
    """A Linear, Affine or convolution followed by batch normalisation with its running statistics, as one node.

    ``y = (W x + b - mean) g + beta`` with ``g = gamma / sqrt(var + eps)``, worked out in float64 and stored in the type
    of the weights.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise NoCounterpartError(
            "normalises each batch by itself (track_running_stats=False)", "Track running statistics"
        )
    mean, var = numbers(norm.running_mean), numbers(norm.running_var)
    gamma = np.ones_like(mean) if norm.weight is None else numbers(norm.weight)
    shift = np.zeros_like(mean) if norm.bias is None else numbers(norm.bias)
    if len(mean) != op.weight.shape[0]:
        raise NoCounterpartError(
            f"normalises {len(mean)} features, the layer before gives {op.weight.shape[0]}"
        )
    gain = gamma / np.sqrt(var + norm.eps)
    weight = op.weight.astype(np.float64) * gain.reshape(-1, *(1,) * (op.weight.ndim - 1))
    bias = (np.asarray(getattr(op, "bias", 0.0), np.float64) - mean) * gain + shift
    weight, bias = weight.astype(op.weight.dtype), bias.astype(op.weight.dtype)
    if isinstance(op, nir.Linear | nir.Affine):
        return nir.Affine(weight, bias)
    op.weight, op.bias = weight, bias
    return op


def neuron(module: Any, family: str, shape: tuple[int, ...]) -> NeuronSemantics:
    """The difference equation of a snnTorch neuron, exact.

    Where snnTorch's flags make no difference, the simpler equation is taken: ``Leaky`` with reset to zero resets in
    the same step whatever ``reset_delay`` says. In its other classes a delayed reset to zero also drops the input of
    the next step; that is ``reset_delay`` here.

    Args:
        module: ``Leaky``, ``Synaptic``, ``RLeaky``, ``RSynaptic`` or a subclass with the same equation.
        family: which of them.
        shape: of the layer, without batch.

    Raises:
        NoCounterpartError: options that change the equation.
    """
    reset = _reset(module, family)
    late = bool(module.reset_delay) and reset != "none" and not (family == "Leaky" and reset == "zero")
    v_th = _spread(module.threshold, shape, "threshold")
    if reset == "zero" and not module.reset_delay and (v_th < 0).any():
        raise NoCounterpartError(f"has a negative threshold ({v_th.min():g}), which snnTorch's reset inverts")
    if reset == "subtract" and np.isinf(v_th).any():
        raise NoCounterpartError("subtracts an infinite threshold", "Use reset_mechanism 'none'")
    if np.isnan(v_th).any():
        raise NoCounterpartError("has a threshold that is not a number", "Train it again")
    beta_syn = None
    if family in ("Synaptic", "RSynaptic"):
        beta_syn = _decay(module.alpha, shape, "alpha")
    return NeuronSemantics(
        beta_mem=_decay(module.beta, shape, "beta"),
        gain_mem=np.ones(shape),
        beta_syn=beta_syn,
        gain_syn=np.ones(shape),
        leak=np.zeros(shape),
        v_th=v_th,
        v_reset=np.zeros(shape),
        reset=reset,
        reset_delay=late,
        noise_std=float(getattr(module, "noise_std", 0.0)),
    )


def recurrence(module: Any, shape: tuple[int, ...]) -> Any:
    """The synapses of ``RLeaky`` and ``RSynaptic`` from the neurons to themselves."""
    if not module.all_to_all:
        return nir.Scale(_exact(_spread(module.recurrent.V, shape, "V")))
    return conv(module.recurrent) if hasattr(module.recurrent, "kernel_size") else linear(module.recurrent)


def _reset(module: Any, family: str) -> Reset:
    """The reset rule, after a look at everything that would make it another neuron."""
    for option, message in (
        ("inhibition", "lets only one neuron of the layer fire (inhibition=True)"),
        ("state_quant", "quantises its state (state_quant)"),
    ):
        if getattr(module, option, False):
            raise NoCounterpartError(message, f"Export it without {option}")
    factor = numbers(module.graded_spikes_factor)
    if (factor != 1).any():
        raise NoCounterpartError(
            f"scales its spikes by {factor.flat[0]:g} (graded_spikes_factor)",
            "Scale the next weights instead",
        )
    reset = RESETS[int(module.reset_mechanism_val)]
    made = getattr(module.state_function, "__name__", "")
    if made in _STATE_FUNCTIONS and _STATE_FUNCTIONS[made] != reset:
        raise NoCounterpartError(
            f"was made with reset '{_STATE_FUNCTIONS[made]}' and changed to '{reset}', and snnTorch mixes both then",
            "Make a new neuron",
        )
    if family == "RSynaptic" and not module.reset_delay:
        raise NoCounterpartError(
            "has reset_delay=False, which RSynaptic of snnTorch 1.0 does not do", "Use reset_delay=True"
        )
    return reset


_STATE_FUNCTIONS: dict[str, Reset] = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}


def _decay(tensor: Any, shape: tuple[int, ...], name: str) -> F64:
    """Fraction kept per step; snnTorch clips it to 0..1."""
    value = _spread(tensor, shape, name)
    if np.isnan(value).any():
        raise NoCounterpartError(f"has a {name} that is not a number", "Train it again")
    return np.clip(value, 0.0, 1.0)


def _spread(tensor: Any, shape: tuple[int, ...], name: str) -> F64:
    """A parameter for every neuron, by PyTorch's rules against ``[B, *shape]``."""
    value = numbers(tensor)
    try:
        return np.broadcast_to(value, (1, *shape))[0].copy()
    except ValueError as e:
        message = f"has {name} of shape {list(value.shape)} on a layer of shape {list(shape)}"
        raise NoCounterpartError(message, "Give one value, or one per neuron") from e


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _exact(tensor: Any) -> NDArray[Any]:
    """Weights as float32 where that loses nothing, else as float64."""
    exact = numbers(tensor)
    single = exact.astype(np.float32)
    return single if (single == exact).all() else exact
