"""Runs that break off at a chosen call, and what a run leaves, in a form that compares by bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from alexlab.training.fit import Outcome


class Break(BaseException):
    """The process ends here: nothing of it is saved."""


def break_at(monkeypatch: pytest.MonkeyPatch, cls: type, name: str, number: int) -> None:
    """Let the call of a method with that number break off."""
    raise_at(monkeypatch, cls, name, number, Break())


def raise_at(monkeypatch: pytest.MonkeyPatch, cls: type, name: str, number: int, error: BaseException) -> None:
    """Let one call of a method raise, that with this number; all before and after it succeed."""
    method, calls = getattr(cls, name), [0]

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            raise error
        return method(*arguments, **named)

    monkeypatch.setattr(cls, name, counted)


def left(folder: Path, outcome: Outcome) -> dict[str, Any]:
    """All that a run leaves, in a form that compares by bits."""
    files = [folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "best")]
    weights = {file.stem: torch.load(file)["state_dict"] for file in files if file.exists()}  # best by validation
    return {
        "metrics": (folder / "metrics.csv").read_bytes(),
        "weights": {
            f"{kind} {name}": w.numpy().tobytes() for kind, state in weights.items() for name, w in state.items()
        },
        "predictions": {kind: found.log_probability.tobytes() for kind, found in outcome.test.items()},
        "train": outcome.train,
        "length": (outcome.epochs, outcome.steps, outcome.ended_by),
        "train errors": finer.read_bytes() if (finer := folder / "train_error.csv").exists() else None,
    }
