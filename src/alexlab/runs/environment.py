"""Where a run ran: what belongs beside a result, but not into its identity."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from alexlab.config import CONF_DIR, PROJECT_DIR, TrainerConfig

_PACKAGES = ("alexlab", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy", "pillow", "wandb")


def environment(trainer: TrainerConfig) -> dict[str, Any]:
    """Versions, commit, machine, threads, and the devices that a run is split over."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        **source(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": trainer.devices,
        "strategy": trainer.strategy.name if trainer.devices > 1 else None,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def source() -> dict[str, Any]:
    """The commit of the code, and whether it was changed since; None where that is not known."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_commit": os.environ.get("ALEXLAB_COMMIT") or _git("rev-parse", "HEAD"),  # the image's, without a .git
        "git_dirty": None if changed is None else bool(changed),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    if CONF_DIR.parent != PROJECT_DIR:
        return None  # an installed package: the repository around it, if any, is another one
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT_DIR, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
