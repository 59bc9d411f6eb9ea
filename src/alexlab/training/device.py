"""The type of device that a run uses."""

from __future__ import annotations

import torch

from alexlab.config import Accelerator


def device_type(accelerator: Accelerator) -> str:
    """`cuda` or `cpu`; Lightning's own `auto` prefers an Apple GPU to the CPU, but those are not supported."""
    is_gpu = accelerator is Accelerator.gpu or (accelerator is Accelerator.auto and torch.cuda.is_available())
    return "cuda" if is_gpu else "cpu"
