"""The paper's SGD (section 5), and learning-rate schedules as pure functions of the epoch and the errors so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alexlab.config import RACE_ERRORS, OptimConfig, Schedule
from alexlab.crossings import epochs_to


class PaperSGD(Optimizer):
    """v <- momentum * v - weight_decay * lr * w - lr * gradient; w <- w + v.

    `torch.optim.SGD` keeps the learning rate outside the velocity. At a constant rate the two are the same. After a
    drop, the velocity here still contains updates at the old rate, until momentum has decayed them.

    At a rate of 0 neither weights nor velocities are updated, so momentum has no effect: the released code freezes
    conv1 in this way.

    `fused`: one pass over all parameters instead of four. `skip`: a flag of 0 or 1 on the parameters' device; 1 turns
    the next step into a no-op, without synchronising with the GPU.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float, fused: bool = True) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._fused = fused
        self.skip: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None] if group["lr"] > 0 else []
            if weights:
                # torch's fused kernel needs momentum and one of these devices.
                can_fuse = group["momentum"] > 0 and weights[0].device.type in ("cpu", "cuda")
                update = _fused if self._fused and can_fuse else _four_passes
                gradients = [_with_layout_of(p, p.grad) for p in weights]
                velocities = [self._velocity(p) for p in weights]
                update(weights, gradients, velocities, group, self.skip)
        self.skip = None
        return loss

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        state["velocity"] = _with_layout_of(weight, state["velocity"])  # a loaded state may have another layout
        return state["velocity"]


def _with_layout_of(weight: Tensor, value: Any) -> Tensor:
    """Return `value` in the memory layout of the weight, which the fused kernel assumes."""
    return value if value.stride() == weight.stride() else torch.empty_like(weight).copy_(value)


def _fused(weights: list[Tensor], gradients: list, velocities: list[Tensor], rule: dict[str, Any], skip: Any) -> None:
    # torch's rule: b <- momentum * b + (1 - dampening) * (gradient + decay * w); w <- w - lr * b.
    torch._fused_sgd_(  # pyright: ignore[reportPrivateImportUsage]
        *(weights, gradients, velocities),
        **{"momentum": rule["momentum"], "weight_decay": rule["weight_decay"], "dampening": 1 + rule["lr"], "lr": -1.0},
        **{"nesterov": False, "maximize": False, "is_first_step": False, "found_inf": skip},
    )


def _four_passes(
    weights: list[Tensor], gradients: list, velocities: list[Tensor], rule: dict[str, Any], skip: Any
) -> None:
    if skip is not None and skip.item():
        return
    lr, decay = rule["lr"], rule["weight_decay"]
    torch._foreach_mul_(velocities, rule["momentum"])  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(velocities, weights, alpha=-lr * decay)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(velocities, gradients, alpha=-lr)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(weights, velocities)  # pyright: ignore[reportPrivateImportUsage]


def learning_rate(optim: OptimConfig, epoch: int, max_epochs: int, val_errors: Sequence[float]) -> float | None:
    """The learning rate of `epoch` (from 0), given one validation error per epoch before it; None: the run is over.

    `fixed` drops at given fractions of the run, so that all arms of a study are equally long. `linear` falls by the
    same amount after each epoch, to 0 after the last one. `plateau` is the paper's rule (5), applied by hand there: a
    drop after `patience` epochs without an error more than `threshold` below the best so far. The run is over when the
    error stalls once more after the last drop.
    """
    if optim.schedule is Schedule.constant:
        return optim.lr
    if optim.schedule is Schedule.linear:
        return optim.lr * (1 - epoch / max_epochs)
    if optim.schedule is Schedule.fixed:
        drops = sum(epoch >= fraction * max_epochs for fraction in optim.drops)
        return optim.lr * optim.drop_factor**drops
    best, stalled, drops = float("inf"), 0, 0
    for error in val_errors:
        if error < best - optim.threshold:
            best, stalled = error, 0
        else:
            stalled += 1
        if stalled >= optim.patience:
            drops, stalled = drops + 1, 0
    return optim.lr * optim.drop_factor**drops if drops <= optim.num_drops else None


def conv1_factor(optim: OptimConfig, epoch: int, max_epochs: int) -> float:
    """The factor of conv1's learning rate in an epoch: the released training lowered it late, then froze conv1."""
    if optim.conv1_freeze_at is not None and epoch >= optim.conv1_freeze_at * max_epochs:
        return 0.0
    if optim.conv1_cut_at is not None and epoch >= optim.conv1_cut_at * max_epochs:
        return optim.drop_factor
    return 1.0


def steps_between(epoch: int, steps: int, every: float) -> set[int]:
    """The steps of `epoch` (from 0) that complete a period of `every` epochs, counted over the run from 1.

    Each multiple of `every` is rounded to a step on its own, so that rounding errors do not accumulate.
    """
    first, last = int(epoch / every), int((epoch + 1) / every) + 1
    found = {round(number * every * steps) for number in range(first, last + 1)}
    return {step for step in found if epoch * steps < step <= (epoch + 1) * steps}


def lost_race(epochs: Sequence[float], errors: Sequence[float], limits: Sequence[float]) -> bool:
    """Whether the training error has missed the limit of one of RACE_ERRORS, judged by the entries so far."""
    if not epochs:
        return False
    for level, limit in zip(RACE_ERRORS, limits, strict=True):
        reached = epochs_to(errors, level, epochs)
        if reached > limit or (math.isnan(reached) and epochs[-1] >= limit):
            return True
    return False
