"""The paper's update rule (section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class PaperSGD(Optimizer):
    """v <- momentum * v - weight_decay * lr * w - lr * gradient; w <- w + v.

    `torch.optim.SGD` keeps the learning rate outside the velocity. At a constant rate the two are the same; after a
    drop, here the old velocity still moves the weights at the old rate until momentum has worn it down.

    At a rate of 0 neither weights nor velocities are updated, so an old velocity moves nothing; the released code stops
    conv1 so.

    `fused`: one pass over all parameters and not four. `skip`, 0 or 1 on the parameters' device, makes the next step
    change nothing where it is 1, without this process's waiting for it.
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
                # torch's fused rule wants momentum, and is for these devices.
                can_fuse = group["momentum"] > 0 and weights[0].device.type in ("cpu", "cuda")
                update = _fused if self._fused and can_fuse else _in_four_passes
                gradients = [_laid_out_like(p, p.grad) for p in weights]
                velocities = [self._velocity(p) for p in weights]
                update(weights, gradients, velocities, group, self.skip)
        self.skip = None
        return loss

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        state["velocity"] = _laid_out_like(weight, state["velocity"])  # a state that is loaded may have its own
        return state["velocity"]


def _laid_out_like(weight: Tensor, value: Any) -> Tensor:
    """The value in the weight's layout in memory, by which alone the fused rule goes."""
    return value if value.stride() == weight.stride() else torch.empty_like(weight).copy_(value)


def _fused(weights: list[Tensor], gradients: list, velocities: list[Tensor], rule: dict[str, Any], skip: Any) -> None:
    # torch's own rule is b <- momentum * b + (1 - dampening) * (gradient + decay * w); w <- w - lr * b.
    torch._fused_sgd_(  # pyright: ignore[reportPrivateImportUsage]
        *(weights, gradients, velocities),
        **{"momentum": rule["momentum"], "weight_decay": rule["weight_decay"], "dampening": 1 + rule["lr"], "lr": -1.0},
        **{"nesterov": False, "maximize": False, "is_first_step": False, "found_inf": skip},
    )


def _in_four_passes(
    weights: list[Tensor], gradients: list, velocities: list[Tensor], rule: dict[str, Any], skip: Any
) -> None:
    if skip is not None and skip.item():
        return
    lr, decay = rule["lr"], rule["weight_decay"]
    torch._foreach_mul_(velocities, rule["momentum"])  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(velocities, weights, alpha=-lr * decay)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(velocities, gradients, alpha=-lr)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(weights, velocities)  # pyright: ignore[reportPrivateImportUsage]
