"""The environment of a run: what is recorded with a result, but is no part of its identity."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alexlab import threads
from alexlab.config import CONF_DIR, PROJECT_DIR, TrainerConfig
from alexlab.runs.code_fingerprint import modified
from alexlab.runs.device import driver_version
from alexlab.runs.identity import RESULTS_VERSION

_PACKAGES = ("alexlab", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy", "pillow", "wandb")


def environment(trainer: TrainerConfig) -> dict[str, Any]:
    """Versions, commit, machine, threads, and the devices that a run is split over."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        **code(),
        "modified_code": modified(RESULTS_VERSION),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "system": platform.system(),
        "cpus": threads.cores(),
        "threads": torch.get_num_threads(),
        "devices": trainer.devices,
        "strategy": trainer.strategy.name if trainer.devices > 1 else None,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "driver": driver_version(),
        "cuda": torch.version.cuda,
    }


@cache
def cpu_model() -> str:
    """The processor's name with its family and model: its kind decides how float32 sums are rounded."""
    with suppress(OSError):
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines())
        found = {name.strip(): value.strip() for name, _, value in lines}
        if "model name" in found:
            return f"{found['model name']} (family {found.get('cpu family')}, model {found.get('model')})"
    return platform.processor() or platform.machine()


@cache
def code() -> dict[str, str | bool | None]:
    """Commit of the code that this process loaded, and whether its tree differed from it.

    Changed tracked files count, and untracked ones in src/ and conf/. Without a repository of the project's own the
    commit is that of ALEXLAB_COMMIT, which the image sets.
    """
    commit = changed = None
    if CONF_DIR.parent == PROJECT_DIR and _git("rev-parse", "--show-toplevel") == str(PROJECT_DIR.resolve()):
        commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=all")
    if commit is None or changed is None:
        return {"git_commit": os.environ.get("ALEXLAB_COMMIT"), "git_dirty": None}
    is_dirty = any(not line.startswith("??") or line[3:].startswith(("src/", "conf/")) for line in changed.splitlines())
    return {"git_commit": commit, "git_dirty": is_dirty}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    # Without GIT_DIR and the like, which a hook of another repository sets.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=PROJECT_DIR, env=environment, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None
