"""The device on which runs train on this machine: its name, and an error before they start if it is unsuitable.

Torch is imported late: commands import this module, but look for the device in a child process that has torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from alexlab import threads
from alexlab.config import Accelerator, ConfigError, TrainerConfig

_CAPABILITIES = {"tf32-true": 8, "bf16-mixed": 8}  # the first NVIDIA generation with it: Ampere


@dataclass(frozen=True)
class Device:
    """The device that a run trains on, and why that is not the GPU that this machine seems to have."""

    name: str  # "NVIDIA A100, driver 580.65, CUDA 13.0" or "CPU, 2 threads"
    model: str  # as a run's result names it: "NVIDIA A100" or "cpu"
    unused_gpu: str | None = None

    def __str__(self) -> str:
        return self.name


def cpu() -> Device:
    """The CPU, with the number of threads of a run that trains alone."""
    number = str(threads.of_command() or os.environ["OMP_NUM_THREADS"])
    return Device(f"CPU, {number} thread{'s' * (number != '1')}", "cpu")


def find_device(trainer: TrainerConfig) -> Device:
    """The device on which a run would train here.

    Raises:
        ConfigError: if this machine has no such device, too few of them, or one that lacks `trainer.precision`.
    """
    import torch

    number = 0 if trainer.accelerator is Accelerator.cpu else _usable_gpus(trainer)
    if number == 0:
        _check_other_than_cuda(trainer)
        driver = None if trainer.accelerator is Accelerator.cpu else driver_version()
        return replace(cpu(), unused_gpu=_why_no_gpu() if driver else None)
    if number < trainer.devices:
        raise ConfigError(
            f"trainer.devices={trainer.devices}: PyTorch sees {number} GPU{'s' * (number > 1)} here; lower it, or set "
            "trainer.accelerator=cpu"
        )
    name = torch.cuda.get_device_name(0)
    capability = torch.cuda.get_device_capability(0)
    if torch.version.hip is None and capability[0] < _CAPABILITIES.get(trainer.precision, 0):
        raise ConfigError(
            f"trainer.precision={trainer.precision}: {name} (compute capability {capability[0]}.{capability[1]}) does "
            "not support it; use 32-true or 16-mixed"
        )
    several = f"{trainer.devices} x " if trainer.devices > 1 else ""
    versions = [("driver", driver_version()), ("CUDA", torch.version.cuda), ("ROCm", torch.version.hip)]
    return Device(", ".join([several + name, *(f"{what} {version}" for what, version in versions if version)]), name)


def _usable_gpus(trainer: TrainerConfig) -> int:
    """The number of GPUs that torch sees; the first one is tested with a small computation."""
    import torch

    number = torch.cuda.device_count() if _is_cuda_available()[0] else 0
    if number:
        try:
            torch.ones(1, device="cuda").add_(1).item()  # fails if it is full, or too old for this build
        except RuntimeError as error:
            raise ConfigError(
                f"trainer.accelerator={trainer.accelerator.name}: {torch.cuda.get_device_name(0)} cannot be used "
                f"({_first_sentence(error)}); free it, choose another in CUDA_VISIBLE_DEVICES, or set it to cpu"
            ) from error
    return number


def _check_other_than_cuda(trainer: TrainerConfig) -> None:
    if trainer.accelerator is Accelerator.gpu:
        raise ConfigError(f"trainer.accelerator=gpu: {_why_no_gpu()}; leave it out for the CPU")
    if trainer.precision in ("16-mixed", "tf32-true"):
        raise ConfigError(
            f"trainer.precision={trainer.precision}: needs a GPU, but {_why_no_gpu()}; on a CPU use bf16-mixed or "
            "32-true"
        )


def _is_cuda_available() -> tuple[bool, str]:
    """Whether torch can use CUDA, and its warning if it gives one, such as about a driver that is too old."""
    import torch

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        is_available = torch.cuda.is_available()
    return is_available, _first_sentence(found[-1].message) if found else ""


def _why_no_gpu() -> str:
    """Torch's reason for seeing no GPU, with the version of NVIDIA's driver if there is one."""
    import torch

    driver = driver_version()
    if torch.version.cuda is None and torch.version.hip is None:
        why = "this PyTorch is built for CPUs only"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        why = f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} hides them"
    else:
        why = _is_cuda_available()[1]
        try:
            torch.cuda.init()
        except Exception as error:  # from torch or the driver
            why = why or _first_sentence(error)
    found = [why, f"driver {driver}, PyTorch for CUDA {torch.version.cuda}" if driver and torch.version.cuda else ""]
    return f"PyTorch sees no GPU here ({'; '.join(part for part in found if part)})"


def _first_sentence(error: Any) -> str:
    return re.split(r"\. |\n", str(error).strip())[0].rstrip(".").strip()


@cache
def driver_version() -> str | None:
    """The version of NVIDIA's driver on this machine; None if it has none."""
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(errors="replace")
        if match := re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text):
            return match[1]
    with suppress(OSError, subprocess.SubprocessError):  # WSL has only this program
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20).stdout.split()
        return lines[0] if lines else None
    return None
