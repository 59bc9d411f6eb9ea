"""Locally connected layers (weights are not shared across positions), as in the authors' CIFAR-10 nets (3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocallyConnected2d(nn.Module):
    """Like `nn.Conv2d` with square kernels, but each of the `side` x `side` positions has its own weights and biases.

    Takes [B, inputs, H, W], gives [B, outputs, side, side]. Weights are [side * side, outputs, inputs * kernel^2] and
    biases [side * side, outputs], positions in row-major order.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, side: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.side = kernel, stride, padding, side
        self.weight = nn.Parameter(torch.zeros(side**2, outputs, inputs * kernel**2))
        self.bias = nn.Parameter(torch.zeros(side**2, outputs))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)  # [B, fan-in, positions]
        sums = torch.baddbmm(self.bias[:, None], patches.permute(2, 0, 1), self.weight.transpose(1, 2))
        return sums.permute(1, 2, 0).unflatten(2, (self.side, self.side))

    def extra_repr(self) -> str:
        positions, outputs, fan_in = self.weight.shape
        inputs = fan_in // self.kernel**2
        return f"{inputs}, {outputs}, kernel={self.kernel}, padding={self.padding}, positions={positions}"
