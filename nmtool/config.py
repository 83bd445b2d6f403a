"""Recipes: how a network is built and trained, read from TOML, checked key by key, written back in full."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from nmtool import resources
from nmtool.errors import ConfigError, Diagnostic, FindingsError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Width = Annotated[int, Field(ge=1, le=65536)]


class Table(BaseModel):
    """Base of every TOML table of a recipe: frozen, no unknown key, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Table):
    """``[data]``: what is learned."""

    name: str = Field(
        default="digits",
        min_length=1,
        description="Data set: 'digits' (8x8, ships with scikit-learn), 'mnist' (IDX files under the data "
        "root), or the path of an .npz file with x and y.",
    )


class Network(Table):
    """``[network]``: layers, and how analog data become time and spikes become classes."""

    kind: Literal["mlp", "conv"] = Field(
        default="mlp", description="'mlp': dense layers only; 'conv': convolutions first, then dense layers."
    )
    hidden: tuple[Width, ...] = Field(
        default=(128,),
        strict=False,
        description="Neurons of each dense hidden layer, in order; may be empty.",
    )
    channels: tuple[Width, ...] = Field(
        default=(), strict=False, description="conv only: output channels of each convolution, in order."
    )
    kernel: int = Field(
        default=3, ge=1, le=31, description="conv only: kernel height and width, padded by half of it."
    )
    stride: int = Field(
        default=2, ge=1, le=16, description="conv only: step of every convolution, both directions."
    )
    norm: Literal["none", "batch"] = Field(
        default="none",
        description="'batch' normalises each layer's current; it is folded into the weights at export.",
    )
    bias: bool = Field(default=True, description="Whether synaptic layers add a constant current per neuron.")
    encoder: Literal["direct", "rate"] = Field(
        default="direct",
        description="'direct': the analog value is a constant current at every step; 'rate': Bernoulli "
        "spikes with the value as probability per step.",
    )
    n_steps: int = Field(default=8, ge=1, le=4096, description="T, the number of time steps per sample.")
    dt_s: float = Field(
        default=1e-3, gt=0, description="Duration of one step in seconds; the exported model says it."
    )
    readout: Literal["spike_count", "membrane"] = Field(
        default="spike_count",
        description="Class scores: spikes of each output neuron over all steps, or the membrane of a "
        "non-spiking output layer after the last step.",
    )

    @model_validator(mode="after")
    def _channels_fit_kind(self) -> Network:
        if (self.kind == "conv") != bool(self.channels):
            raise ValueError("channels must be empty if kind is 'mlp', and must not be if it is 'conv'")
        return self


class Neuron(Table):
    """``[neuron]``: V[t] = beta U[t-1] + I[t] + noise, spike where V > threshold, then reset."""

    beta: float = Field(default=0.5, ge=0, le=1, description="Leak: fraction of the potential kept per step.")
    threshold: float = Field(
        default=1.0, gt=0, description="Potential above which (strictly) a neuron fires."
    )
    reset: Literal["zero", "subtract"] = Field(
        default="zero",
        description="After a spike the potential is set to zero, or lowered by the threshold (one step "
        "later, as snnTorch does). Loihi 1 can only do 'zero'.",
    )
    noise_std: float = Field(
        default=0.0,
        ge=0,
        description="Noisy-LIF: standard deviation of the Gaussian added to every potential at every "
        "step, in its units. The TGO paper's variance of 0.4 is 0.6325.",
    )
    surrogate: Literal["triangle", "rectangle", "atan", "sigmoid", "gaussian", "double_exponential"] = Field(
        default="triangle",
        description="Family of the density that stands for a spike's derivative.",
    )
    width: float = Field(
        default=1.0,
        gt=0,
        description="Width of that density in the potential's units: half-width of 'triangle', 'rectangle', "
        "standard deviation of 'gaussian', decay length of 'double_exponential', 1/alpha of 'atan' and "
        "'sigmoid'.",
    )


class Train(Table):
    """``[train]``: the optimiser and its schedule."""

    epochs: int = Field(default=40, ge=1, le=100_000, description="Passes over the training data.")
    batch_size: int = Field(
        default=64, ge=1, le=65536, description="Largest number of samples per optimiser step."
    )
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="Update rule.")
    lr: float = Field(default=3e-3, gt=0, description="Learning rate at the start.")
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine",
        description="Learning rate per epoch: half a cosine from lr towards 0, or lr throughout.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd only: momentum.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="L2 penalty on all parameters, in the optimiser."
    )


class Tgo(Table):
    """``[robust.tgo]``: threshold guarding (TGO, ICLR 2026) pushes potentials off the threshold."""

    lambda_max: float = Field(
        default=0.6,
        ge=0,
        description="Weight of the constraint at the end of its cosine schedule (Eq. 14).",
    )
    delta: float = Field(
        default=1.0,
        gt=0,
        description="Distance from the threshold below which a potential is penalised (Eq. 12).",
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean",
        description="Of the penalties of one layer: mean over steps, samples and neurons, or their sum. "
        "The paper's formula can be read both ways; layers are summed in either case.",
    )
    v: Literal["noisy", "clean"] = Field(
        default="noisy",
        description="Potential that is constrained: with its step's noise or without. The paper is silent.",
    )


class Robust(Table):
    """``[robust]``: training methods; one is on where its table is present."""

    tgo: Tgo | None = Field(
        default=None, description="Threshold guarding: membrane constraint with cosine schedule."
    )


class Recipe(Table):
    """Everything that decides what a training run computes."""

    name: str = Field(
        default="recipe", min_length=1, description="Name; the default run directory is called so."
    )
    summary: str = Field(default="", description="One line about what the recipe is for.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of weights, order of samples and noise.")
    data: Data = Field(default=Data(), description="What is learned.")
    network: Network = Field(default=Network(), description="Layers, time and readout.")
    neuron: Neuron = Field(
        default_factory=Neuron, description="The neuron's equation and surrogate gradient."
    )
    train: Train = Field(default=Train(), description="Optimiser and schedule.")
    robust: Robust = Field(default=Robust(), description="Methods for robustness.")

    @model_validator(mode="after")
    def _batch_norm_has_a_batch(self) -> Recipe:
        if self.network.norm == "batch" and self.train.batch_size < 2:
            raise ValueError("network.norm = 'batch' needs train.batch_size of at least 2")
        return self

    def dump_toml(self) -> str:
        """The effective recipe, every key with its value; methods that are off are absent."""
        return "\n".join(_toml_lines(self.model_dump(exclude_none=True), ())) + "\n"

    @property
    def sha256(self) -> str:
        """Digest of the effective recipe: equal for recipes that mean the same."""
        return hashlib.sha256(self.dump_toml().encode()).hexdigest()


class Key(NamedTuple):
    """One key of a recipe, for ``nmtool models show``."""

    path: str
    value: Any
    allowed: str
    description: str


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path, or by the name of one that ships with nmtool.

    Args:
        name_or_path: a path (which wins), or a name such as ``digits-tgo``.
        overrides: ``a.b=value`` each, as given to ``--set``; the value is TOML, a bare word is text.

    Raises:
        ConfigError: NM001 no such file, NM003 unknown key, NM004 bad value, NM005 no recipe of that name,
            NM006 not TOML.
        FindingsError: several of NM003 and NM004 at once.
    """
    path = resources.find("models", str(name_or_path))
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as e:
        raise ConfigError("NM001", str(path), f"cannot be read ({e.strerror})", "Name a recipe file") from e
    except UnicodeDecodeError as e:
        raise ConfigError(
            "NM006", str(path), f"is not UTF-8 text (byte {e.start})", "A recipe is a TOML file"
        ) from e
    return parse_recipe(text, path.name, overrides)


def parse_recipe(text: str, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from TOML text; ``source`` names it in messages. Errors as in :func:`load_recipe`."""
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise ConfigError("NM006", source, f"is not valid TOML: {e}", "Correct the file at that place") from e
    for item in overrides:
        _override(tree, item)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as e:
        findings = [_finding(err, source) for err in e.errors(include_url=False)]
    if len(findings) > 1:
        raise FindingsError(findings)
    d = findings[0]
    raise ConfigError(d.code, d.where, d.message, d.hint)


def explain(recipe: Recipe) -> tuple[Key, ...]:
    """Every key with its value in ``recipe`` (None: its method is off), what is allowed and what it means."""
    return tuple(
        Key(path, _lookup(recipe, path), _allowed(field), field.description or "")
        for path, field in _fields(Recipe)
        if _table(field.annotation) is None
    )


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Plain values first, then sub-tables, as TOML demands. Keys are bare: they are our field names."""
    for key, value in table.items():
        if not isinstance(value, dict):
            yield f"{key} = {_toml_value(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ("", f"[{'.'.join((*path, key))}]")
            yield from _toml_lines(value, (*path, key))


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, (bool, str)):
        # JSON text is TOML text, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _override(tree: dict[str, Any], item: str) -> None:
    """Put one ``a.b=value`` into ``tree``."""
    path, equals, text = item.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            "NM004", f"--set {item}", "has not the form a.b=value", "Example: --set train.epochs=20"
        )
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()
    table: Any = tree
    for depth, key in enumerate(keys):
        if not isinstance(table, dict):
            raise ConfigError(
                "NM004",
                f"--set {item}",
                f"{'.'.join(keys[:depth])} is a value, not a table",
                "Name a key inside a table, such as train.epochs",
            )
        table = table.setdefault(key, {}) if depth < len(keys) - 1 else table
    table[keys[-1]] = value


def _finding(error: Any, source: str) -> Diagnostic:
    """One pydantic error as a finding that names the TOML path."""
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"]).lstrip(".")
    where = f"{source}: {path}" if path else source
    if error["type"] == "extra_forbidden":
        return Diagnostic("NM003", where, "no such key in a recipe", _nearest(path))
    must = error["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    if error["type"] == "missing" or isinstance(error["input"], (dict, BaseModel)):
        return Diagnostic("NM004", where, must)
    return Diagnostic("NM004", where, f"is {error['input']!r}, but {must[0].lower()}{must[1:]}")


def _nearest(path: str) -> str:
    """The known key that an unknown one probably means: same name elsewhere, else nearest spelling."""
    known = [p for p, _ in _fields(Recipe)]
    leaf = path.rpartition(".")[2]
    same = [p for p in known if p.rpartition(".")[2] == leaf]
    return f"Did you mean '{same[0]}'?" if same else did_you_mean(path, known)


def _table(annotation: Any) -> type[Table] | None:
    """The table class in an annotation such as ``Tgo | None``, else None."""
    options = get_args(annotation) or (annotation,)
    return next((t for t in options if isinstance(t, type) and issubclass(t, Table)), None)


def _fields(table: type[Table], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below a table with its dotted path, tables included, in file order."""
    for name, field in table.model_fields.items():
        yield prefix + name, field
        if (inner := _table(field.annotation)) is not None:
            yield from _fields(inner, f"{prefix}{name}.")


def _lookup(recipe: Recipe, path: str) -> Any:
    value: Any = recipe
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _allowed(field: FieldInfo) -> str:
    """Choices or limits of a key in words."""
    if get_origin(field.annotation) is Literal:
        return " | ".join(get_args(field.annotation))
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [f"{signs[k]} {getattr(m, k)}" for m in field.metadata for k in signs if hasattr(m, k)]
    kind = "list of int" if get_origin(field.annotation) else getattr(field.annotation, "__name__", "")
    return " ".join([kind, ", ".join(limits)]).strip()
