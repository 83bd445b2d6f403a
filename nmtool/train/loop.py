"""The training loop: seeded, resumable after a kill, stopped at the first value that is not finite."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nmtool import provenance
from nmtool.config import Recipe
from nmtool.data.datasets import DataSet
from nmtool.errors import ConfigError, SimulationError
from nmtool.train import checkpoint as disk
from nmtool.train.checkpoint import Checkpoint
from nmtool.train.nets import SpikingNet, build_net
from nmtool.train.robust.base import Regulariser
from nmtool.train.robust.registry import regularisers
from nmtool.train.watch import PROBE_SAMPLES, broken_layer, first_not_finite, watch

SMALL_TENSOR = 1 << 20
"""Potentials of one layer and step of training below which one thread is enough."""

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""Called after each epoch with (epochs done, epochs in all, the epoch's row of metrics)."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        recipe, net: what was trained; the network is in evaluation mode on the CPU.
        history: rows of ``metrics.jsonl``.
        accuracy: on the test data, 0 to 1, with the recipe's noise on.
        accuracy_noise_off: the same without noise.
        train_s: seconds spent in epochs, over all resumed parts.
    """

    recipe: Recipe
    net: SpikingNet
    history: tuple[Mapping[str, Any], ...]
    accuracy: float
    accuracy_noise_off: float
    train_s: float


@dataclass
class _Session:
    """What one run holds while it trains."""

    recipe: Recipe
    net: SpikingNet
    optimizer: torch.optim.Optimizer
    methods: tuple[Regulariser, ...]
    order: torch.Generator
    noise: torch.Generator
    device: torch.device
    history: list[dict[str, Any]]


def train(
    recipe: Recipe,
    data: DataSet,
    out_dir: Path,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
) -> TrainResult:
    """Train ``recipe`` on ``data`` and write a run directory.

    ``checkpoint.pt``, ``recipe.toml`` and ``metrics.jsonl`` are written after every epoch, ``run.json`` at the end.
    On the CPU a resumed run ends with the same bits as an uninterrupted one.

    Args:
        recipe: effective recipe.
        data: training and test samples.
        out_dir: run directory; a run that is there is replaced when the first epoch of this one is safe.
        progress: told after each epoch.
        resume: go on from ``checkpoint.pt`` in ``out_dir``.
        device: of torch, such as ``cpu`` or ``cuda``.

    Raises:
        ConfigError: NM002 cannot write, NM004 bad device or data that do not fit the network, NM008 nothing to
            resume, NM009 a checkpoint that is damaged or belongs to another recipe or data.
        SimulationError: NM405 data, loss or weights are not finite; the last good checkpoint stays.
    """
    _refuse_not_finite(data)
    session = _begin(recipe, data, _device(device))
    if resume:
        _restore(session, data, out_dir)
    n_epochs = recipe.train.epochs
    x, y = (torch.tensor(a, device=session.device) for a in (data.x_train, data.y_train))
    with _threads(session, x):
        for epoch in range(len(session.history), n_epochs):
            session.history.append(_epoch(session, x, y, epoch))
            _write(session, data, out_dir)
            if progress is not None:
                progress(epoch + 1, n_epochs, session.history[-1])
        net = session.net.eval()
        scores = {on: evaluate(net, data.x_test, data.y_test, recipe.seed, noise=on) for on in (True, False)}
    result = TrainResult(
        recipe,
        net.cpu(),
        tuple(session.history),
        scores[True],
        scores[False],
        sum(row["epoch_s"] for row in session.history),
    )
    _write_record(result, data, out_dir)
    return result


def evaluate(
    net: SpikingNet, x: np.ndarray, y: np.ndarray, seed: int, noise: bool = True, batch_size: int = 512
) -> float:
    """Share of samples ``[B, *shape]`` whose highest score is at their label, one draw of noise, 0 to 1."""
    device = next(net.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    hits = 0
    with torch.no_grad():
        for start in range(0, len(x), batch_size):
            part = torch.tensor(x[start : start + batch_size], device=device)
            guess = net(part, generator, noise).logits.argmax(dim=1).cpu().numpy()
            hits += int((guess == y[start : start + batch_size]).sum())
    return hits / len(x)


def _refuse_not_finite(data: DataSet) -> None:
    for part in ("train", "test"):
        x = getattr(data, f"x_{part}")
        bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
        if bad.size:
            raise SimulationError(
                "NM405",
                f"data set {data.name}",
                f"x_{part}[{bad[0]}] holds a value that is not finite ({bad.size} samples do)",
                "Repair or remove these samples",
            )


def _device(name: str) -> torch.device:
    """The one place where a device is chosen."""
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as e:
        reason = str(e).splitlines()[0]
        raise ConfigError("NM004", f"device {name!r}", f"cannot be used here ({reason})", "Use cpu") from e


def _begin(recipe: Recipe, data: DataSet, device: torch.device) -> _Session:
    net = build_net(recipe, data.spec).to(device).train()
    t = recipe.train
    optimizer: torch.optim.Optimizer
    if t.optimizer == "adam":
        optimizer = torch.optim.Adam(net.parameters(), lr=t.lr, weight_decay=t.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            net.parameters(), lr=t.lr, momentum=t.momentum, weight_decay=t.weight_decay
        )
    # Two streams, so that switching the noise off leaves the order of samples as it was.
    order = torch.Generator().manual_seed(recipe.seed)
    noise = torch.Generator(device).manual_seed(recipe.seed + 1)
    return _Session(recipe, net, optimizer, regularisers(recipe.robust), order, noise, device, [])


@contextlib.contextmanager
def _threads(session: _Session, x: Tensor) -> Iterator[None]:
    """One thread while the tensors of a step are small: waking a second one then costs more than it computes."""
    before = torch.get_num_threads()
    with torch.no_grad():
        _, traces = session.net.eval()(x[:1], torch.Generator(session.device).manual_seed(0))
    session.net.train()
    largest = session.recipe.train.batch_size * max(t.v_pre.numel() for t in traces)
    torch.set_num_threads(1 if largest < SMALL_TENSOR else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _restore(session: _Session, data: DataSet, out_dir: Path) -> None:
    """Put a checkpoint's state into ``session``."""
    saved = disk.load(out_dir)
    disk.check_same(saved, session.recipe, data.sha256, out_dir)
    with disk.fitting(out_dir):
        session.net.load_state_dict(saved.net)
        session.optimizer.load_state_dict(saved.optimizer)
        session.order.set_state(saved.generators["order"])
        session.noise.set_state(saved.generators["noise"])
        session.history = list(saved.history)


def _epoch(session: _Session, x: Tensor, y: Tensor, epoch: int) -> dict[str, Any]:
    """One pass over the data; ``epoch`` counts from 0. Returns the row of metrics."""
    t, began = session.recipe.train, time.perf_counter()
    lr = t.lr if t.schedule == "constant" else 0.5 * t.lr * (1 + math.cos(math.pi * epoch / t.epochs))
    for group in session.optimizer.param_groups:
        group["lr"] = lr
    weights = {m.name: m.weight(epoch, t.epochs) for m in session.methods}
    sums: defaultdict[str, float] = defaultdict(float)
    # Parts of nearly equal size, so that batch normalisation never meets a remainder of one sample.
    n_batches = math.ceil(len(x) / t.batch_size)
    shuffled = torch.randperm(len(x), generator=session.order).to(session.device)
    for step, index in enumerate(shuffled.tensor_split(n_batches)):
        scalars = _step(session, x[index], y[index], weights, f"epoch {epoch + 1}, step {step + 1}")
        for key, value in scalars.items():
            sums[key] += value * len(index)
    row = {key: value / len(x) for key, value in sums.items()}
    probe = torch.Generator(session.device).manual_seed(session.recipe.seed)
    return {
        "epoch": epoch + 1,
        "lr": lr,
        **row,
        **{f"{name}.weight": weight for name, weight in weights.items()},
        **watch(session.net, x[:PROBE_SAMPLES], y[:PROBE_SAMPLES], probe),
        "epoch_s": time.perf_counter() - began,
    }


def _step(
    session: _Session, x: Tensor, y: Tensor, weights: Mapping[str, float], when: str
) -> dict[str, float]:
    """One update of the weights on samples ``[B, *shape]``; returns the scalars to be averaged."""
    logits, traces = session.net(x, session.noise)
    task = functional.cross_entropy(logits, y)
    loss, terms = task, {}
    for method in session.methods:
        penalty, details = method.penalty(traces)
        loss = loss + weights[method.name] * penalty
        terms[method.name] = penalty
        terms |= {f"{method.name}.{name}": value for name, value in details.items()}
    if not bool(loss.isfinite()):
        layer = first_not_finite((t.name, t.v_pre) for t in traces)
        raise _diverged(layer or "loss", "is", when)
    session.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    session.optimizer.step()
    # A NaN weight silences its neurons and leaves the loss finite, so the loss alone does not tell.
    if (layer := broken_layer(session.net)) is not None:
        raise _diverged(layer, "has weights that are", when)
    hits = (logits.detach().argmax(dim=1) == y).float().mean()
    scalars = {"loss": loss, "task_loss": task, "train_accuracy": hits, **terms}
    return {name: float(value.detach()) for name, value in scalars.items()}


def _diverged(where: str, verb: str, when: str) -> SimulationError:
    return SimulationError(
        "NM405",
        where,
        f"{verb} not finite at {when}",
        "Lower train.lr. What earlier epochs saved is kept",
    )


def _write(session: _Session, data: DataSet, out_dir: Path) -> None:
    """Everything that the run directory holds after an epoch, the checkpoint first."""
    disk.save(
        Checkpoint(
            recipe_toml=session.recipe.dump_toml(),
            data=disk.spec_record(data.spec),
            data_sha256=data.sha256,
            net=session.net.state_dict(),
            optimizer=session.optimizer.state_dict(),
            generators={"order": session.order.get_state(), "noise": session.noise.get_state()},
            history=session.history,
        ),
        out_dir,
    )
    with provenance.writing(out_dir / disk.RECIPE) as part:
        part.write_text(session.recipe.dump_toml(), encoding="utf-8")
    with provenance.writing(out_dir / disk.METRICS) as part:
        rows = (json.dumps(row, allow_nan=False) + "\n" for row in session.history)
        part.write_text("".join(rows), encoding="utf-8")
    if len(session.history) == 1:
        for name in disk.OF_A_FINISHED_RUN:
            (out_dir / name).unlink(missing_ok=True)


def _write_record(result: TrainResult, data: DataSet, out_dir: Path) -> None:
    """``run.json``: what came out, and from what."""
    checkpoint = provenance.sha256_file(out_dir / disk.CHECKPOINT)
    recipe = result.recipe
    provenance.write_json(
        out_dir / disk.RUN,
        {
            "schema": "nmtool.run/1",
            "recipe": recipe.name,
            "data": data.name,
            "epochs": len(result.history),
            "accuracy": {"noise_on": result.accuracy, "noise_off": result.accuracy_noise_off},
            "train_s": result.train_s,
            **provenance.record(recipe.seed, recipe=recipe.sha256, data=data.sha256, checkpoint=checkpoint),
        },
    )
