"""Local response normalisation (section 3.3) as one GPU kernel per pass, forward and backward; saves only the input.

The memory layout is channels-last: a program takes a block of positions with all their channels, reads neighbouring
channels from the cache, and sums in float32 whatever the input's type.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS = 1024  # per program


@triton.jit
def _near(channels, other, is_valid, C, GROUP: tl.constexpr, IS_SPLIT: tl.constexpr):
    """Whether the other channel exists and is in the same tower."""
    is_near = is_valid & (other >= 0) & (other < C)
    if IS_SPLIT:
        is_near = is_near & (other // GROUP == channels // GROUP)
    return is_near


@triton.jit
def _sum_of_squares(
    x, positions, channels, is_valid, C, GROUP: tl.constexpr, IS_SPLIT: tl.constexpr, REACH: tl.constexpr
):
    """The sum over each channel's window, within its tower; positions [P, 1], channels [1, C]."""
    total = tl.zeros_like(positions + channels).to(tl.float32)
    for distance in tl.static_range(-REACH, REACH + 1):  # pyright: ignore[reportGeneralTypeIssues]
        other = channels + distance
        is_near = _near(channels, other, is_valid, C, GROUP, IS_SPLIT)
        value = tl.load(x + positions * C + other, mask=is_near, other=0.0).to(tl.float32)
        total += value * value
    return total


@triton.jit
def _forward(
    x,
    y,
    P,
    C,
    k,
    alpha,
    beta,
    GROUP: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    REACH: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    positions = (tl.program_id(0).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS))[:, None]
    channels = tl.arange(0, CHANNELS)[None, :]
    is_valid = (positions < P) & (channels < C)
    s = k + alpha * _sum_of_squares(x, positions, channels, is_valid, C, GROUP, IS_SPLIT, REACH)
    value = tl.load(x + positions * C + channels, mask=is_valid, other=0.0).to(tl.float32)
    tl.store(y + positions * C + channels, value * tl.exp2(-beta * tl.log2(s)), mask=is_valid)


@triton.jit
def _backward(
    x,
    grad,
    dx,
    P,
    C,
    k,
    alpha,
    beta,
    GROUP: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    REACH: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    positions = (tl.program_id(0).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS))[:, None]
    channels = tl.arange(0, CHANNELS)[None, :]
    is_valid = (positions < P) & (channels < C)
    shared = tl.zeros_like(positions + channels).to(tl.float32)
    own = tl.zeros_like(positions + channels).to(tl.float32)
    for distance in tl.static_range(-REACH, REACH + 1):  # pyright: ignore[reportGeneralTypeIssues]
        other = channels + distance
        is_near = _near(channels, other, is_valid, C, GROUP, IS_SPLIT)
        s = k + alpha * _sum_of_squares(x, positions, other, is_near, C, GROUP, IS_SPLIT, REACH)
        value = tl.load(x + positions * C + other, mask=is_near, other=0.0).to(tl.float32)
        scaled = tl.load(grad + positions * C + other, mask=is_near, other=0.0).to(tl.float32) * tl.exp2(
            -beta * tl.log2(s)
        )
        shared += scaled * value / s
        if distance == 0:
            own = scaled
    value = tl.load(x + positions * C + channels, mask=is_valid, other=0.0).to(tl.float32)
    tl.store(dx + positions * C + channels, own - 2 * alpha * beta * value * shared, mask=is_valid)


def normalise(x: Tensor, size: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """`alexlab.models.LocalResponseNorm` of [B, C, H, W] in float32, float16 or bfloat16; keeps the type."""
    return _normalised(x.contiguous(memory_format=torch.channels_last), size, k, alpha, beta, groups)


# Custom operators, so that torch.compile does not trace into them.
@torch.library.custom_op("alexlab::lrn", mutates_args=())
def _normalised(x: Tensor, size: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """y = x * s ** -beta with s = k + alpha * window(x ** 2)."""
    y = torch.empty_like(x)
    _launch(_forward, x, (y,), size, k, alpha, beta, groups)
    return y


@torch.library.custom_op("alexlab::lrn_backward", mutates_args=())
def _gradient(x: Tensor, grad: Tensor, size: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """dL/dx = t - 2 alpha beta x * window(t * x / s) with t = g * s ** -beta, since the window is symmetric."""
    dx = torch.empty_like(x)
    _launch(_backward, x, (grad.contiguous(memory_format=torch.channels_last), dx), size, k, alpha, beta, groups)
    return dx


@_normalised.register_fake
@_gradient.register_fake
def _shape(x: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.constants = inputs
    ctx.save_for_backward(x)


def _pass_back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    return _gradient(x, grad, *ctx.constants), None, None, None, None, None


_normalised.register_autograd(_pass_back, setup_context=_keep)


def _launch(
    kernel: Any, x: Tensor, others: tuple[Tensor, ...], size: int, k: float, alpha: float, beta: float, groups: int
) -> None:
    batch, channels, height, width = x.shape
    positions, block = batch * height * width, triton.next_power_of_2(channels)
    rows = max(1, _ELEMENTS // block)
    kernel[(triton.cdiv(positions, rows),)](
        *(x, *others, positions, channels, k, alpha, beta),
        **{
            "GROUP": channels // groups,
            "IS_SPLIT": groups > 1,
            "REACH": size // 2,
            "POSITIONS": rows,
            "CHANNELS": block,
        },
    )
