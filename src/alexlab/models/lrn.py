"""Local response normalisation (section 3.3), with its gradient written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LocalResponseNorm(nn.Module):
    """Divide each activity by (k + alpha * sum of the squares of `size` adjacent maps) ** beta.

    Unlike `torch.nn.LocalResponseNorm`, alpha multiplies the sum, as in the paper's formula, not the mean. Takes
    [B, C, ...] in any memory layout; computes in float32 at least, whatever autocast says: at k = 2 the numbers of
    bfloat16 lie 0.016 apart and would swallow the sum.
    """

    def __init__(self, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size={size}: must be odd, so that the window has a middle map")
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            if x.dtype in (torch.float16, torch.bfloat16):
                x = x.float()
            return _Normalise.apply(x, self.size, self.k, self.alpha, self.beta)

    def extra_repr(self) -> str:
        return f"size={self.size}, k={self.k}, alpha={self.alpha}, beta={self.beta}"


def _window_sum(values: Tensor, size: int) -> Tensor:
    """Sum over the window of `size` adjacent maps, cut off at the first and the last map."""
    total = values.clone(memory_format=torch.preserve_format)
    for distance in range(1, min(size // 2, values.shape[1] - 1) + 1):
        total[:, distance:] += values[:, :-distance]
        total[:, :-distance] += values[:, distance:]
    return total


def _power(base: Tensor, beta: float) -> Tensor:
    """base ** -beta; the paper's 0.75 by square roots, three times faster on a CPU than `pow`."""
    if beta == 0.75:
        root = base.rsqrt()
        return root.sqrt().mul_(root)
    return base.pow(-beta)


class _Normalise(torch.autograd.Function):
    """y = x * s ** -beta with s = k + alpha * window(x ** 2); keeps x and s, nothing else.

    dL/dx = g * s ** -beta - 2 alpha beta x * window(g * x * s ** (-beta - 1)), the window being symmetric.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
        s = _window_sum(x * x, size).mul_(alpha).add_(k)
        ctx.save_for_backward(x, s)
        ctx.constants = size, alpha, beta
        return _power(s, beta).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = grads
        x, s = ctx.saved_tensors
        size, alpha, beta = ctx.constants
        scale = _power(s, beta)
        shared = _window_sum((grad * x).mul_(scale).div_(s), size)
        return scale.mul_(grad).sub_(shared.mul_(x).mul_(2 * alpha * beta)), None, None, None, None
