"""Detect non-finite losses and gradients without synchronising with the GPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class AsyncScalar:
    """A tensor that is copied from the GPU asynchronously."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=value.is_cuda)
        self._copied = None
        if value.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    @property
    def is_here(self) -> bool:
        """Whether the copy is complete."""
        return self._copied is None or self._copied.query()

    def get(self) -> Tensor:
        """The tensor on the CPU; waits until the copy is complete."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._value


def sizes(loss: Tensor, gradients: list[Tensor]) -> Tensor:
    """The loss and a norm of each gradient, [1 + G]; finite if and only if all their values are."""
    if not gradients:
        return loss[None]
    if not loss.is_cuda:  # on a CPU the Euclidean norm is ten times as fast, but it can overflow
        norms = torch.stack([loss, *torch._foreach_norm(gradients)])  # pyright: ignore[reportPrivateImportUsage]
        if norms.isfinite().all():
            return norms
    largest = torch._foreach_norm(gradients, math.inf)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack([loss, *(one.to(loss.dtype) for one in largest)])


class DivergenceDetector:
    """Finds the first training step with a non-finite loss or gradient.

    On the GPU, the flag that `check` returns prevents any update from that step on. This process learns of it later,
    through `found`.
    """

    def __init__(self) -> None:
        self._step: Tensor | None = None  # the first non-finite step, -1 if there is none; on the device
        self._sizes: Tensor | None = None
        self._copy: AsyncScalar | None = None  # of `_step`

    def check(self, seen: Tensor, step: int) -> Tensor:
        """Check a step's `sizes`; return 1 from the first non-finite step on, 0 before it."""
        if self._step is None or self._sizes is None:
            self._step, self._sizes = torch.full((), -1, device=seen.device), seen
        is_first = ~seen.isfinite().all() & (self._step < 0)
        self._step = torch.where(is_first, step, self._step)
        self._sizes = torch.where(is_first, seen, self._sizes)
        if self._copy is None:
            self._copy = AsyncScalar(self._step)
        return (self._step >= 0).float()

    def found(self, wait: bool) -> tuple[int, list[float]] | None:
        """The first non-finite step and its `sizes`; None if there is none or, without `wait`, none is known yet."""
        if self._step is None or self._sizes is None or self._copy is None:
            return None
        if wait:
            self._copy = AsyncScalar(self._step)
        elif not self._copy.is_here:
            return None
        step = int(self._copy.get())
        self._copy = None if step < 0 else self._copy
        return (step, self._sizes.tolist()) if step >= 0 else None
