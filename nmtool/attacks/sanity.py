"""Is this evaluation believable? First checks of the gradient-masking protocol, each a named finding.

Rules after Athalye et al. 2018, Carlini et al. 2019 and Tramer et al. 2020; the numbers G1 to G16 are those of
nmtool's protocol. Red withholds the claim, amber asks for a second look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmtool.attacks.search import Model, Search, seeds

Status = Literal["pass", "amber", "red"]
Outcomes = NDArray[np.float64]

CHECK_STREAM = 2**33
NOISE_STREAM = 2**34


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: its number in the protocol.
        title: what it looks at.
        status: ``pass``, ``amber`` or ``red``.
        measured: the numbers that decided.
        rule: what would have been amber or red.
    """

    check: str
    title: str
    status: Status
    measured: Mapping[str, float]
    rule: str

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "measured": dict(self.measured)}


def graded(value: float, amber: float, red: float) -> Status:
    """``red`` above ``red``, ``amber`` above ``amber``."""
    return "red" if value > red else "amber" if value > amber else "pass"


def zero_gradient(model: Model, x: Tensor, y: Tensor, seed: int) -> Finding:
    """G1: share of inputs whose gradient is exactly zero at the input itself."""
    search = Search(model, (x, y), 0.0, seed)
    search.gradient(x)
    share = search.zero_gradients[0]
    rule = "amber above 1 %, red above 5 %"
    return Finding(
        "G1", "inputs with a gradient of exactly zero", graded(share, 0.01, 0.05), {"share": share}, rule
    )


def one_step_gap(one_step: float, iterated: float) -> Finding:
    """G9: accuracy under FGSM against accuracy under the best iterated attack at one budget."""
    measured = {"one_step": one_step, "iterated": iterated}
    status: Status = (
        "red" if iterated > one_step + 0.05 else "amber" if one_step > iterated + 0.20 else "pass"
    )
    rule = (
        "red if the iterated attack is more than 5 points weaker; amber if FGSM is more than 20 points weaker"
    )
    return Finding("G9", "one step against many", status, measured, rule)


def determinism(model: Model, x: Tensor, seed: int) -> Finding:
    """G11: the same input twice, in another order, and alone, must give the same logits.

    Order and batch size are not varied for stochastic models, whose noise follows the place in the batch.
    """
    s = seeds(seed, CHECK_STREAM, 1)[0]
    with torch.no_grad():
        whole = model.logits(x, s)
        changes = {"repeated": _largest_change(whole, model.logits(x, s))}
        if not model.stochastic:
            back = torch.arange(len(x) - 1, -1, -1, device=x.device)
            alone = torch.cat([model.logits(x[i : i + 1], s) for i in range(min(len(x), 4))])
            changes["permuted"] = _largest_change(whole[back], model.logits(x[back], s))
            changes["alone"] = _largest_change(whole[: len(alone)], alone)
    worst = max(changes.values())
    rule = "red if any prediction or more than rounding (1e-4) of a logit changes"
    return Finding("G11", "repeated and reordered inputs", "red" if worst > 1e-4 else "pass", changes, rule)


def _largest_change(a: Tensor, b: Tensor) -> float:
    """Largest difference of logits, at least 1 where a prediction changes."""
    moved = float((a - b).abs().max())
    return max(moved, 1.0) if bool((a.argmax(1) != b.argmax(1)).any()) else moved


def random_noise(
    model: Model, data: tuple[Tensor, Tensor], eps: float, seed: int, n: int, attacked: Mapping[str, float]
) -> Finding:
    """G12: signs drawn at random, against every attack at the same budget.

    Args:
        model, data, eps, seed: as for an attack.
        n: how many draws; a deterministic model counts as fooled if any of them fools it, a stochastic one by its mean.
        attacked: accuracy per attack.
    """
    x, y = data
    search = Search(model, data, eps, seed)
    low = torch.ones(len(x), dtype=torch.float64, device=x.device)
    total = torch.zeros_like(low)
    with torch.no_grad():
        for s in seeds(seed, NOISE_STREAM, n):
            right = (model.logits(search.project(x + eps * search.signs()), s).argmax(1) == y).double()
            low, total = torch.minimum(low, right), total + right
    accuracy = float((total / n if model.stochastic else low).mean())
    weakest, strongest = max(attacked.values()), min(attacked.values())
    status: Status = (
        "red" if accuracy < strongest - 0.01 else "amber" if accuracy < weakest - 0.01 else "pass"
    )
    measured = {"random": accuracy, "draws": float(n), "strongest": strongest, "weakest": weakest}
    rule = "red if random signs beat the strongest attack by more than 1 point, amber if they beat any"
    return Finding("G12", "random signs against the attacks", status, measured, rule)


def loss_increased(share: float, stochastic: bool) -> Finding:
    """G13: share of samples whose loss at the end is not below that at the start, for the best iterated attack."""
    failed: Status = "amber" if stochastic else "red"
    rule = "red below 95 % (amber for stochastic models, whose two losses are of different draws)"
    return Finding(
        "G13", "the attack raises the loss", "pass" if share >= 0.95 else failed, {"share": share}, rule
    )


def replay_gap(replay: float, direct: float) -> Finding:
    """G16: examples of the float network replayed on the deployed one, against attacking the deployed one itself."""
    status: Status = "red" if replay < direct - 0.01 else "amber" if replay > direct + 0.05 else "pass"
    rule = (
        "amber if the replay leaves more than 5 points more (it flatters and must not be quoted); "
        "red if it leaves more than 1 point less (the direct attack is weaker than a transfer: masked gradients)"
    )
    return Finding("G16", "replay against direct attack", status, {"replay": replay, "direct": direct}, rule)
