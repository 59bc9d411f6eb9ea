"""What finished runs leave, in a form that compares by bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from support.settings import TINY

SCALE = [*TINY, "data.train_images=120", "trainer.max_epochs=10", "checkpoint.every_steps=1"]


def weights_in(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint by their names in the network; states have those of the task."""
    return {name.removeprefix("network."): value for name, value in torch.load(checkpoint)["state_dict"].items()}


def content(record: Path) -> dict[str, Any]:
    """What a finished run leaves, in a form that compares by bits."""
    found: dict[str, Any] = {"metrics.csv": (record / "metrics.csv").read_bytes()}
    for name in ("last", "best"):
        state = torch.load(record / "checkpoints" / f"{name}.ckpt")["state_dict"]
        found.update({f"{name} {key}": value.numpy().tobytes() for key, value in state.items()})
    with np.load(record / "predictions.npz") as arrays:
        found.update({f"predictions {key}": value.tobytes() for key, value in arrays.items()})
    result = json.loads((record / "result.json").read_text())
    found.update({key: result[key] for key in ("run_id", "epochs", "steps", "test", "train", "data")})
    return found


def contents(runs: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: content(path.parent) for path in sorted(runs.glob("*/result.json"))}
