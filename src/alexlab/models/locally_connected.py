"""A convolution whose weights differ from place to place, as in the authors' CIFAR-10 nets (section 3.3, footnote)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Unshared2d(nn.Module):
    """Like `nn.Conv2d` with square kernels, but each of the `side` x `side` places has weights and biases of its own.

    Takes [B, inputs, H, W], gives [B, outputs, side, side]. Weights are [side * side, outputs, inputs * kernel^2] and
    biases [side * side, outputs], places in rows from the top left.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, side: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.side = kernel, stride, padding, side
        self.weight = nn.Parameter(torch.zeros(side**2, outputs, inputs * kernel**2))
        self.bias = nn.Parameter(torch.zeros(side**2, outputs))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)  # [B, inputs * kernel^2, places]
        sums = torch.baddbmm(self.bias[:, None], patches.permute(2, 0, 1), self.weight.transpose(1, 2))
        return sums.permute(1, 2, 0).unflatten(2, (self.side, self.side))

    def extra_repr(self) -> str:
        places, outputs, fan_in = self.weight.shape
        return f"{fan_in // self.kernel**2}, {outputs}, kernel={self.kernel}, padding={self.padding}, places={places}"
