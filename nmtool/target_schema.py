"""What may stand in a target file: sections, keys, kinds of value and the rules between them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from nmtool.errors import ConfigError, Diagnostic, FindingsError, did_you_mean

TARGET_SCHEMA = "nmtool.target/1"
PROFILES_SCHEMA = "nmtool.profiles/1"

T = TypeVar("T")
Origins = dict[tuple[str, ...], str]
_ENTRY_HINT = 'Write { value = ..., source = "where the number stands" }'


class Table(BaseModel):
    """Unknown keys, other types, inf and nan are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Entry(Table, Generic[T]):
    """A value, who says so, and under which condition it holds."""

    value: T
    source: Annotated[str, Field(min_length=3)]
    condition: str = ""


_LARGE = 1 << 40
Count = Entry[Annotated[int, Field(ge=1, le=_LARGE)]] | None
Integer = Entry[Annotated[int, Field(ge=-_LARGE, le=_LARGE)]] | None
Natural = Entry[Annotated[int, Field(ge=0, le=_LARGE)]] | None
Flag = Entry[bool] | None
Names = Entry[Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]] | None
Bits = Entry[Annotated[list[Annotated[int, Field(ge=0, le=64)]], Field(min_length=1)]] | None
Resets = Entry[Annotated[list[Literal["zero", "subtract", "none"]], Field(min_length=1)]] | None
Places = Entry[Annotated[list[Literal["membrane", "current"]], Field(min_length=1)]] | None
Models = Entry[Annotated[list[Literal["uniform8", "irwin_hall", "gaussian"]], Field(min_length=1)]] | None
Real = Entry[Annotated[float, Field(ge=0, le=1e12)]] | None
Point = Annotated[list[Annotated[float, Field(ge=0, le=1e12)]], Field(min_length=2, max_length=2)]
Points = Entry[Annotated[list[Point], Field(min_length=1)]] | None


class Chip(Table):
    """One chip."""

    cores: Count = None
    cores_per_tile: Count = None
    tiles_x: Count = None
    tiles_y: Count = None
    max_neurons: Count = None
    max_synapses: Count = None


class Core(Table):
    """One core; memory in bits."""

    max_compartments: Count = None
    max_in_axons: Count = None
    max_out_axons: Count = None
    axon_atoms: Count = None
    max_synapse_bits: Count = None
    max_compartment_profiles: Count = None
    max_threshold_profiles: Count = None
    noise_settings: Count = None
    memory_bits: Count = None


class Neuron(Table):
    """Registers of a compartment; ``decay_max_q12`` is the register, the current loses (register + 1) / 4096."""

    resets: Resets = None
    state_bits: Count = None
    decay_max_q12: Count = None
    v_th_shift: Natural = None
    v_th_man_min: Integer = None
    v_th_man_max: Integer = None
    bias_man_min: Integer = None
    bias_man_max: Integer = None
    bias_exp_min: Integer = None
    bias_exp_max: Integer = None
    refractory_min: Natural = None
    refractory_max: Natural = None


class Synapse(Table):
    """Weights, delays and how they are stored."""

    weight_bits_allowed: Bits = None
    mixed_min: Integer = None
    mixed_max: Integer = None
    excitatory_max: Integer = None
    inhibitory_min: Integer = None
    exp_min: Integer = None
    exp_max: Integer = None
    max_delay_steps: Natural = None
    index_bits_allowed: Bits = None
    block_synapses: Count = None
    block_overhead_bits: Natural = None
    word_bits: Count = None


class Noise(Table):
    """The noise generator."""

    models: Models = None
    targets: Places = None
    exp_min: Integer = None
    exp_max: Integer = None
    man_offset_min: Integer = None
    man_offset_max: Integer = None
    draw_values: Count = None


class Input(Table):
    """How input may enter."""

    graded: Flag = None
    max_payload_bits: Natural = None


class Host(Table):
    """What the host computes."""

    first_layer: Flag = None
    weight_bits: Count = None


SECTIONS: dict[str, type[Table]] = {
    "chip": Chip,
    "core": Core,
    "neuron": Neuron,
    "synapse": Synapse,
    "noise": Noise,
    "input": Input,
    "host": Host,
}

_OPS_KEYS = ("mac_pj", "ac_pj")
_ABOUT_KEYS = ("node_nm", "voltage_v")


class Profile(Table):
    """Prices per event in pJ and times per event in ns.

    ``synop_<format>_pj`` may stand instead of ``synop_pj`` for ``dense``, ``sparse`` and ``conv`` synapses.
    ``neuron_active_pj`` is the whole price of an update of an active neuron, ``neuron_idle_pj`` of an idle one.
    """

    description: Annotated[str, Field(min_length=1)]
    scope: Literal["ops", "chip-dynamic", "chip-total", "system"]
    evidence: Literal["simulated", "fitted", "measured", "derived"]
    citation: Annotated[str, Field(min_length=10)]
    all_in: bool = False
    node_nm: Real = None
    voltage_v: Real = None
    mac_pj: Real = None
    ac_pj: Real = None
    synop_pj: Real = None
    synop_dense_pj: Real = None
    synop_sparse_pj: Real = None
    synop_conv_pj: Real = None
    graded_synop_pj: Real = None
    neuron_active_pj: Real = None
    neuron_idle_pj: Real = None
    spike_pj: Real = None
    message_pj: Real = None
    hop_ew_pj: Real = None
    hop_ns_pj: Real = None
    static_power_mw: Real = None
    synop_ns: Real = None
    synop_dense_ns: Real = None
    synop_sparse_ns: Real = None
    synop_conv_ns: Real = None
    neuron_active_ns: Real = None
    neuron_idle_ns: Real = None
    spike_ns: Real = None
    barrier_ns: Points = None

    def _has(self, *keys: str) -> bool:
        return all(getattr(self, k) is not None for k in keys)

    def _others(self, allowed: tuple[str, ...]) -> list[str]:
        allowed = (*allowed, *_ABOUT_KEYS)
        return [
            k for k in type(self).model_fields if isinstance(getattr(self, k), Entry) and k not in allowed
        ]

    @model_validator(mode="after")
    def _one_scope(self) -> Profile:
        allowed = _OPS_KEYS if self.scope == "ops" else ("synop_pj",) if self.all_in else None
        if allowed is not None and (mixed := self._others(allowed)):
            what = "counts arithmetic alone" if self.scope == "ops" else "already holds everything"
            raise PydanticCustomError(
                "mixed_scopes",
                "a profile that {what} cannot price {keys}",
                {"what": what, "keys": ", ".join(mixed)},
            )
        if self.scope != "ops" and self._has("mac_pj"):
            raise PydanticCustomError(
                "mixed_scopes",
                "bare arithmetic (mac_pj) has scope 'ops', not '{scope}'",
                {"scope": self.scope},
            )
        return self

    @model_validator(mode="after")
    def _complete(self) -> Profile:
        if self.scope == "ops" and not self._has(*_OPS_KEYS):
            raise ValueError("scope 'ops' needs mac_pj and ac_pj")
        formats = tuple(f"synop_{k}_pj" for k in ("dense", "sparse", "conv"))
        if self.scope != "ops" and not (self._has("synop_pj") or self._has(*formats)):
            raise ValueError(f"needs synop_pj, or all of {', '.join(formats)}")
        for pair in (
            ("neuron_active_pj", "neuron_idle_pj"),
            ("hop_ew_pj", "hop_ns_pj"),
            ("neuron_active_ns", "neuron_idle_ns"),
        ):
            if self._has(pair[0]) != self._has(pair[1]):
                raise ValueError(f"{pair[0]} and {pair[1]} go together")
        return self

    @model_validator(mode="after")
    def _ascending(self) -> Profile:
        points = [] if self.barrier_ns is None else [n for n, _ in self.barrier_ns.value]
        if points != sorted(set(points)):
            raise ValueError("the tiles of barrier_ns must ascend")
        return self


class Estimate(Table):
    """Which profiles make the headline: ``nominal``, and a ``second`` opinion that may raise the upper end."""

    nominal: str
    second: str | None = None


class AliasFile(Table):
    """A second name for a target."""

    format_: Literal["nmtool.target/1"] = Field(alias="schema")
    alias_of: Annotated[str, Field(min_length=1)]
    description: str = ""


class ProfileFile(Table):
    """A library of energy profiles."""

    format_: Literal["nmtool.profiles/1"] = Field(alias="schema")
    energy: dict[str, Profile]


class TargetFile(Table):
    """A target description."""

    format_: Literal["nmtool.target/1"] = Field(alias="schema")
    description: str = ""
    extends: str | None = None
    chip: Chip | None = None
    core: Core | None = None
    neuron: Neuron | None = None
    synapse: Synapse | None = None
    noise: Noise | None = None
    input: Input | None = None
    host: Host | None = None
    energy: dict[str, Profile] = Field(default_factory=dict)
    estimate: Estimate | None = None

    @model_validator(mode="after")
    def _ranges_in_order(self) -> TargetFile:
        for section in SECTIONS:
            table: Any = getattr(self, section)
            for key in type(table).model_fields if table is not None else ():
                low, high = getattr(table, key), getattr(table, f"{key.removesuffix('_min')}_max", None)
                if key.endswith("_min") and low is not None and high is not None and low.value > high.value:
                    raise ValueError(
                        f"{section}.{key} is {low.value}, above {section}.{key.removesuffix('_min')}_max, {high.value}"
                    )
        return self


def brief(value: Any) -> str:
    """A value as one short line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def validated(
    model: type[Any], document: Mapping[str, Any], file: str, origins: Origins | None = None
) -> Any:
    """The document as ``model``, or every finding in it, each with the file that the entry came from."""
    try:
        return model.model_validate(dict(document))
    except ValidationError as e:
        findings = [_finding(model, dict(error), file, origins or {}) for error in e.errors()]
    if len(findings) == 1:
        f = findings[0]
        raise ConfigError(f.code, f.where, f.message, f.hint)
    raise FindingsError(findings)


def _finding(model: type[Any], error: dict[str, Any], file: str, origins: Origins) -> Diagnostic:
    loc = [str(part) for part in error["loc"]]
    file = next((origins[tuple(loc[:n])] for n in range(len(loc), 0, -1) if tuple(loc[:n]) in origins), file)
    where = f"{file}: {'.'.join(loc)}" if loc else file
    kind = error["type"]
    if kind == "extra_forbidden":
        return Diagnostic("NM003", where, "unknown key", did_you_mean(loc[-1], _fields(model, loc[:-1])))
    if kind == "missing":
        hint = _ENTRY_HINT if loc[-1] in ("value", "source") else ""
        return Diagnostic("NM004", where, "is missing", hint)
    if kind in ("model_type", "model_attributes_type"):
        return Diagnostic("NM004", where, f"is {brief(error['input'])}, not a table", _ENTRY_HINT)
    if kind == "mixed_scopes":
        return Diagnostic("NM504", where, error["msg"], "Split it into two profiles")
    shown = "" if isinstance(error["input"], dict) else f"is {brief(error['input'])}: "
    return Diagnostic("NM004", where, f"{shown}{error['msg'].removeprefix('Value error, ')}")


def _fields(model: Any, loc: Iterable[str]) -> list[str]:
    """Names that are allowed at ``loc``, by walking the schema."""
    for part in loc:
        inner = model.model_fields.get(part) if part in getattr(model, "model_fields", {}) else None
        if inner is None:
            continue
        candidates = [
            a
            for a in (inner.annotation, *getattr(inner.annotation, "__args__", ()))
            if hasattr(a, "model_fields")
        ]
        if candidates:
            model = candidates[0]
    return [f.alias or name for name, f in model.model_fields.items()]
