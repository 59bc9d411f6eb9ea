"""Batch normalisation over a batch that may be divided among several devices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from alexlab.distributed import total


class BatchNorm(_BatchNorm):
    """`nn.BatchNorm2d` and `nn.BatchNorm1d` in one; with `is_shared`, statistics are over the images of all devices.

    `nn.SyncBatchNorm` does this on GPUs only. Mean and variance are summed in two passes, to avoid cancellation.
    """

    is_shared = False

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"input of {input.dim()} dimensions: must have 2 or 4")

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.is_shared):
            return super().forward(input)
        dims = [dim for dim in range(input.dim()) if dim != 1]
        shape = [-1 if dim == 1 else 1 for dim in range(input.dim())]
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        own = x.new_tensor([x.numel() // x.shape[1]])
        number = total(own)
        mean = total(x.sum(dims)) / number
        centred = x - mean.view(shape)
        variance = total((centred * centred).sum(dims)) / number
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * number / (number - 1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)
