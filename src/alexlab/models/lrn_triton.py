"""Local response normalisation (section 3.3) as one GPU kernel each way, of which nothing is kept but the input.

Maps lie last in memory (channels last): a program takes some places with all of their maps, reads each place's
neighbouring maps out of the cache, and sums in float32 whatever the input's numbers are.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ELEMENTS = 1024  # of a program


@triton.jit
def _near(maps, other, is_there, C, GROUP: tl.constexpr, IS_SPLIT: tl.constexpr):
    """Whether there is another map, in the tower of the first."""
    is_near = is_there & (other >= 0) & (other < C)
    if IS_SPLIT:
        is_near = is_near & (other // GROUP == maps // GROUP)
    return is_near


@triton.jit
def _sum_of_squares(x, places, maps, is_there, C, GROUP: tl.constexpr, IS_SPLIT: tl.constexpr, REACH: tl.constexpr):
    """Of the maps around each, within its tower; places [P, 1], maps [1, C]."""
    total = tl.zeros_like(places + maps).to(tl.float32)
    for distance in tl.static_range(-REACH, REACH + 1):  # pyright: ignore[reportGeneralTypeIssues]
        other = maps + distance
        is_near = _near(maps, other, is_there, C, GROUP, IS_SPLIT)
        value = tl.load(x + places * C + other, mask=is_near, other=0.0).to(tl.float32)
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
    PLACES: tl.constexpr,
    MAPS: tl.constexpr,
):
    places = (tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES))[:, None]
    maps = tl.arange(0, MAPS)[None, :]
    is_there = (places < P) & (maps < C)
    s = k + alpha * _sum_of_squares(x, places, maps, is_there, C, GROUP, IS_SPLIT, REACH)
    value = tl.load(x + places * C + maps, mask=is_there, other=0.0).to(tl.float32)
    tl.store(y + places * C + maps, value * tl.exp2(-beta * tl.log2(s)), mask=is_there)


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
    PLACES: tl.constexpr,
    MAPS: tl.constexpr,
):
    places = (tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES))[:, None]
    maps = tl.arange(0, MAPS)[None, :]
    is_there = (places < P) & (maps < C)
    shared = tl.zeros_like(places + maps).to(tl.float32)
    own = tl.zeros_like(places + maps).to(tl.float32)
    for distance in tl.static_range(-REACH, REACH + 1):  # pyright: ignore[reportGeneralTypeIssues]
        other = maps + distance
        is_near = _near(maps, other, is_there, C, GROUP, IS_SPLIT)
        s = k + alpha * _sum_of_squares(x, places, other, is_near, C, GROUP, IS_SPLIT, REACH)
        value = tl.load(x + places * C + other, mask=is_near, other=0.0).to(tl.float32)
        scaled = tl.load(grad + places * C + other, mask=is_near, other=0.0).to(tl.float32) * tl.exp2(
            -beta * tl.log2(s)
        )
        shared += scaled * value / s
        if distance == 0:
            own = scaled
    value = tl.load(x + places * C + maps, mask=is_there, other=0.0).to(tl.float32)
    tl.store(dx + places * C + maps, own - 2 * alpha * beta * value * shared, mask=is_there)


def normalise(x: Tensor, size: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """`alexlab.models.LocalResponseNorm` of [B, C, H, W] in float32, float16 or bfloat16; its output is likewise."""
    return _normalised(x.contiguous(memory_format=torch.channels_last), size, k, alpha, beta, groups)


# As operations of torch's own kind, so that torch.compile takes them as they are.
@torch.library.custom_op("alexlab::lrn", mutates_args=())
def _normalised(x: Tensor, size: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """y = x * s ** -beta with s = k + alpha * window(x ** 2)."""
    y = torch.empty_like(x)
    _launch(_forward, x, (y,), size, k, alpha, beta, groups)
    return y


@torch.library.custom_op("alexlab::lrn_backward", mutates_args=())
def _gradient(x: Tensor, grad: Tensor, size: int, k: float, alpha: float, beta: float, groups: int) -> Tensor:
    """dL/dx = t - 2 alpha beta x * window(t * x / s) with t = g * s ** -beta, the window being symmetric."""
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
    batch, maps, height, width = x.shape
    places, block = batch * height * width, triton.next_power_of_2(maps)
    rows = max(1, _ELEMENTS // block)
    kernel[(triton.cdiv(places, rows),)](
        *(x, *others, places, maps, k, alpha, beta),
        **{"GROUP": maps // groups, "IS_SPLIT": groups > 1, "REACH": size // 2, "PLACES": rows, "MAPS": block},
    )
