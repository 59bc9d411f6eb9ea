"""The paper's update rule (section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class PaperSGD(Optimizer):
    """v <- momentum * v - weight_decay * lr * w - lr * gradient; w <- w + v.

    `torch.optim.SGD` keeps the learning rate outside the velocity. At a constant rate the two are the same; after a
    drop, here the old velocity still moves the weights at the old rate until momentum has worn it down.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights]
            velocities = [self._velocity(p) for p in weights]
            lr = group["lr"]
            torch._foreach_mul_(velocities, group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(velocities, weights, alpha=-lr * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(velocities, gradients, alpha=-lr)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(weights, velocities)  # pyright: ignore[reportPrivateImportUsage]
        return loss

    def _velocity(self, weight: torch.Tensor) -> torch.Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        return state["velocity"]
