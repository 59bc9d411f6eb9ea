"""Dropout in the paper's form (section 4.2) and in the modern, inverted form."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Set each unit to zero with probability `rate` in training.

    `scale_at_test=True` is the paper's form: surviving units are unchanged in training, and at test all outputs are
    multiplied by 1 - rate. False is inverted dropout: surviving units are divided by 1 - rate in training, and nothing
    happens at test.

    After `reseed(seed)` the next mask is a function of that seed alone, so that a resumed run draws the same masks.
    Without it, masks come from torch's global generator.

    `part`: (dimension, begin, end, total) if the input is this slice of a tensor that is divided among devices. The
    mask is drawn for the full tensor, so the number of devices does not change it.
    """

    def __init__(self, rate: float, scale_at_test: bool = True) -> None:
        super().__init__()
        self.rate, self.scale_at_test = rate, scale_at_test
        self.part: tuple[int, int, int, int] | None = None
        self._seed: int | None = None

    def reseed(self, seed: int) -> None:
        self._seed = seed

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * (1 - self.rate) if self.scale_at_test else x
        x = x * (self._uniform_like(x) >= self.rate)  # pyright: ignore
        return x if self.scale_at_test else x / (1 - self.rate)

    @torch.compiler.disable  # pyright: ignore[reportArgumentType]; torch.compile would recompile for each seed
    def _uniform_like(self, x: Tensor) -> Tensor:
        generator = None
        if self._seed is not None:
            generator = torch.Generator(x.device).manual_seed(self._seed)
        shape = list(x.shape)
        dim, begin, end, total = self.part or (0, 0, shape[0], shape[0])
        shape[dim] = total
        uniform = torch.rand(shape, generator=generator, device=x.device, dtype=torch.float32)
        return uniform.narrow(dim, begin, end - begin)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, scale_at_test={self.scale_at_test}"
