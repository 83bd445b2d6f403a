"""A training run on disk: one checkpoint that says for which recipe and data it was written, and its readers."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nmtool.config import Recipe, explain, load_recipe, parse_recipe
from nmtool.data.datasets import DataSpec
from nmtool.errors import ConfigError, NmtoolError
from nmtool.provenance import writing
from nmtool.train.nets import SpikingNet, build_net

CHECKPOINT = "checkpoint.pt"
RECIPE = "recipe.toml"
METRICS = "metrics.jsonl"
RUN = "run.json"
OF_A_FINISHED_RUN = (RUN, "model.nir")
"""Files that describe the weights at the end; a new run in the same folder makes them untrue."""
SCHEMA = "nmtool.checkpoint/1"


@dataclass
class Checkpoint:
    """Everything that the next epoch depends on. Plain containers and tensors only, so that no code is unpickled.

    Attributes:
        recipe_toml: the effective recipe.
        data: fields of :class:`nmtool.data.datasets.DataSpec`.
        data_sha256: digest of the training data.
        net, optimizer: their state dicts.
        generators: states of the random generators by name.
        history: one row of metrics per epoch that is behind this state.
    """

    recipe_toml: str
    data: dict[str, Any]
    data_sha256: str
    net: dict[str, Any]
    optimizer: dict[str, Any]
    generators: dict[str, torch.Tensor]
    history: list[dict[str, Any]]


def save(checkpoint: Checkpoint, out_dir: Path) -> None:
    """Write ``checkpoint.pt`` aside and rename it, so that a kill leaves the previous one."""
    with writing(out_dir / CHECKPOINT) as part:
        torch.save(
            {"schema": SCHEMA, **{k: getattr(checkpoint, k) for k in Checkpoint.__annotations__}}, part
        )


def load(run_dir: Path) -> Checkpoint:
    """Read ``checkpoint.pt``.

    Raises:
        ConfigError: NM008 if it is missing, NM009 if it is damaged or no checkpoint of this version.
    """
    path = run_dir / CHECKPOINT
    if not path.is_file():
        raise ConfigError(
            "NM008", str(run_dir), f"holds no {CHECKPOINT}", "Name a folder that nmtool train wrote"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"checksum of {broken} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.pop("schema", None) != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA!r}")
        return Checkpoint(**state)
    except Exception as e:
        # An unpickler can fail in any way on damaged bytes.
        reason = f"{type(e).__name__}: {str(e).partition(chr(10))[0]}"
        raise ConfigError("NM009", str(path), f"is no readable checkpoint ({reason})", "Train again") from e


def check_same(checkpoint: Checkpoint, recipe: Recipe, data_sha256: str, where: Path) -> None:
    """Refuse to resume with another recipe or other data.

    Raises:
        ConfigError: NM009, naming the first key that differs.
    """
    with fitting(where):
        there = parse_recipe(checkpoint.recipe_toml, str(where / CHECKPOINT))
    for old, new in zip(explain(there), explain(recipe), strict=True):
        if old.value != new.value:
            raise ConfigError(
                "NM009",
                str(where / CHECKPOINT),
                f"belongs to another recipe: {old.path} is {old.value!r} there and {new.value!r} here",
                "Resume with the run's own recipe.toml",
            )
    if checkpoint.data_sha256 != data_sha256:
        raise ConfigError(
            "NM009",
            str(where / CHECKPOINT),
            "belongs to other training data",
            "Resume with the data that the run began with",
        )


def load_run(run_dir: Path) -> tuple[Recipe, SpikingNet]:
    """The recipe and the trained network (evaluation mode, CPU) of a run directory.

    Raises:
        ConfigError: NM008 if ``recipe.toml`` or ``checkpoint.pt`` is missing; NM009 if the checkpoint is damaged
            or does not fit the recipe; NM003, NM004, NM006 if the recipe is not valid.
    """
    if not (run_dir / RECIPE).is_file():
        raise ConfigError(
            "NM008", str(run_dir), f"holds no {RECIPE}", "Name a folder that nmtool train wrote"
        )
    recipe = load_recipe(run_dir / RECIPE)
    checkpoint = load(run_dir)
    check_same(checkpoint, recipe, checkpoint.data_sha256, run_dir)
    with fitting(run_dir):
        net = build_net(recipe, _spec(checkpoint.data))
        net.load_state_dict(checkpoint.net)
    return recipe, net.eval()


@contextlib.contextmanager
def fitting(where: Path) -> Iterator[None]:
    """Turn what torch says about a state that does not fit into one error.

    Raises:
        ConfigError: NM009.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as e:
        if isinstance(e, NmtoolError):
            raise
        raise ConfigError(
            "NM009",
            str(where / CHECKPOINT),
            f"does not fit its recipe ({' '.join(str(e).split())})",
            "Train again",
        ) from e


def spec_record(spec: DataSpec) -> dict[str, Any]:
    """``spec`` as plain containers."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(spec).items()}


def _spec(record: dict[str, Any]) -> DataSpec:
    """The inverse of :func:`spec_record`."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return DataSpec(**fields)
