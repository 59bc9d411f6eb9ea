"""Local response normalisation (section 3.3) with an explicit gradient, and the released code's norm within a map."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_HAS_TRITON = find_spec("triton") is not None  # CPU builds of torch come without it


class LocalResponseNorm(nn.Module):
    """Divide each activation by (k + alpha * sum of the squares of `size` adjacent channels) ** beta.

    Unlike in `torch.nn.LocalResponseNorm`, alpha multiplies the sum, as in the paper's formula, not the mean. Takes
    [B, C, ...] in any memory layout. Computes in at least float32, even under autocast: near k = 2 bfloat16 has steps
    of 0.016, which would swallow the sum. With `groups` towers a window stops at the last channel of its tower.

    `fused`: on a GPU, run one kernel per pass (`alexlab.models.lrn_triton`) and save only the input for the gradient.
    """

    def __init__(
        self,
        size: int = 5,
        k: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        groups: int = 1,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size={size}: must be odd, so that the window has a middle channel")
        self.size, self.k, self.alpha, self.beta, self.groups, self.fused = size, k, alpha, beta, groups, fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused and x.is_cuda and x.dim() == 4 and x.dtype is not torch.float64 and _HAS_TRITON:
            from alexlab.models.lrn_triton import normalise

            return normalise(x, self.size, self.k, self.alpha, self.beta, self.groups)
        with torch.autocast(x.device.type, enabled=False):
            if x.dtype in (torch.float16, torch.bfloat16):
                x = x.float()
            return _Normalise.apply(x, self.size, self.k, self.alpha, self.beta, self.groups)

    def extra_repr(self) -> str:
        return f"size={self.size}, k={self.k}, alpha={self.alpha}, beta={self.beta}, groups={self.groups}"


class SameMapNorm(nn.Module):
    """Divide each activation by (1 + alpha * sum of the squares of its 5 x 5 neighbourhood in the feature map) ** beta.

    In the authors' released code it comes after the second LRN (`rnorm` there, alpha = 0.001 / 25); the paper does not
    have it. `scale` multiplies the activations inside the sum. Computes in at least float32.
    """

    def __init__(self, size: int = 5, alpha: float = 4e-5, beta: float = 0.75, scale: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha * scale**2, beta

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            if x.dtype in (torch.float16, torch.bfloat16):
                x = x.float()
            sums = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2, divisor_override=1)
            return x * (1 + self.alpha * sums) ** -self.beta

    def extra_repr(self) -> str:
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}"


def _window_sum(values: Tensor, size: int, groups: int) -> Tensor:
    """Sum over the window of `size` adjacent channels, truncated at the first and last channel of each tower."""
    total = values.clone(memory_format=torch.preserve_format)
    for sums, channels in zip(total.chunk(groups, 1), values.chunk(groups, 1), strict=True):
        for distance in range(1, min(size // 2, channels.shape[1] - 1) + 1):
            sums[:, distance:] += channels[:, :-distance]
            sums[:, :-distance] += channels[:, distance:]
    return total


class _Normalise(torch.autograd.Function):
    """y = x * s ** -beta with s = k + alpha * window(x ** 2); saves only x and r = s ** -1/2.

    dL/dx = t - 2 alpha beta x * window(t * x / s) with t = g * s ** -beta, since the window is symmetric.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
        r = _window_sum(x * x, size, groups).mul_(alpha).add_(k).rsqrt_()
        ctx.save_for_backward(x, r)
        ctx.constants = size, alpha, beta, groups
        return _power(r, beta).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = grads
        x, r = ctx.saved_tensors
        size, alpha, beta, groups = ctx.constants
        scaled = _power(r, beta).mul_(grad)
        shared = _window_sum((scaled * x).mul_(r).mul_(r), size, groups)
        return scaled.addcmul_(shared, x, value=-2 * alpha * beta), None, None, None, None, None


def _power(root: Tensor, beta: float) -> Tensor:
    """root ** (2 beta); uses a square root for the paper's exponent of 1.5, three times as fast as `pow` on a CPU."""
    return root.sqrt().mul_(root) if beta == 0.75 else root.pow(2 * beta)
