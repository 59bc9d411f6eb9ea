"""Detect non-finite losses and gradients without synchronising with the GPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class AsyncScalar:
    """A tensor's numbers, on their way from the device to this process."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=value.is_cuda)
        self._copied = None
        if value.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    @property
    def is_here(self) -> bool:
        return self._copied is None or self._copied.query()

    def get(self) -> Tensor:
        """The numbers; waits for them where they are not here."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._value


def sizes(loss: Tensor, gradients: list[Tensor]) -> Tensor:
    """The loss and a norm of each gradient, [1 + G]: finite where all numbers are."""
    if not gradients:
        return loss[None]
    if not loss.is_cuda:  # Euclid's norm is ten times quicker here, but can overflow
        found = torch.stack([loss, *torch._foreach_norm(gradients)])  # pyright: ignore[reportPrivateImportUsage]
        if found.isfinite().all():
            return found
    largest = torch._foreach_norm(gradients, math.inf)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack([loss, *(one.to(loss.dtype) for one in largest)])


class DivergenceDetector:
    """The first training step of which not all is a number.

    The device knows it at once, by `look`'s answer, and changes no weight from then on; this process hears of it later.
    """

    def __init__(self) -> None:
        self._place: Tensor | None = None  # of that step; -1 = there was none
        self._sizes: Tensor | None = None
        self._told: AsyncScalar | None = None

    def look(self, seen: Tensor, place: int) -> Tensor:
        """Note a step's `sizes`; returns 1 from the first step on that is not to be taken, before it 0."""
        if self._place is None or self._sizes is None:
            self._place, self._sizes = torch.full((), -1, device=seen.device), seen
        is_first = ~seen.isfinite().all() & (self._place < 0)
        self._place = torch.where(is_first, place, self._place)
        self._sizes = torch.where(is_first, seen, self._sizes)
        if self._told is None:
            self._told = AsyncScalar(self._place)
        return (self._place >= 0).float()

    def found(self, wait: bool) -> tuple[int, list[float]] | None:
        """That step's place and `sizes`, once it is known here; with `wait` of all steps that were looked at."""
        if self._place is None or self._sizes is None or self._told is None:
            return None
        if wait:
            self._told = AsyncScalar(self._place)
        elif not self._told.is_here:
            return None
        place = int(self._told.get())
        self._told = None if place < 0 else self._told
        return (place, self._sizes.tolist()) if place >= 0 else None
