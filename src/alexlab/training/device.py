"""The type of device that a run uses, and which of its algorithms: TF32, deterministic ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from alexlab.config import Accelerator

TF32 = "tf32-true"  # a precision that Lightning has no name for


def device_type(accelerator: Accelerator) -> str:
    """`cuda` or `cpu`; Lightning's own `auto` prefers an Apple GPU to the CPU, but those are not supported."""
    is_gpu = accelerator is Accelerator.gpu or (accelerator is Accelerator.auto and torch.cuda.is_available())
    return "cuda" if is_gpu else "cpu"


@contextmanager
def tf32(is_allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 on a GPU; by default torch allows it in convolutions."""
    torch.backends.cudnn.allow_tf32 = is_allowed
    torch.set_float32_matmul_precision("high" if is_allowed else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")


@contextmanager
def deterministic(is_required: bool) -> Iterator[None]:
    """Allow only deterministic algorithms, or all of them, where there is no Lightning Trainer to do so."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # its attribute is unknown to type checkers
    fills = memory.fill_uninitialized_memory
    if is_required:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, cuBLAS is refused
    torch.use_deterministic_algorithms(is_required)
    memory.fill_uninitialized_memory = False  # as in `fit`
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fills
