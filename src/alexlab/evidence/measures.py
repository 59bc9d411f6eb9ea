"""What a run came to in each metric that a claim may be about, by its record."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from alexlab.claims import METRICS
from alexlab.config import ConfigError
from alexlab.evidence.archive import Run
from alexlab.evidence.colour import colour_gap

THRESHOLD = 0.25  # of figure 1's training error


def epochs_to(errors: np.ndarray, threshold: float) -> float:
    """After how many epochs an error first is at most `threshold`, between two epochs on the line that joins them.

    `errors` [epochs], the first after epoch 1. What was before it is not known, so an error that is there at once gives
    1, which is an upper bound. NaN where it never is.
    """
    reached = np.flatnonzero(np.asarray(errors) <= threshold)
    if not len(reached):
        return math.nan
    last = int(reached[0])
    if last == 0 or not math.isfinite(errors[last - 1]):
        return last + 1.0
    before, after = float(errors[last - 1]), float(errors[last])
    return last + (before - threshold) / (before - after)


def _error(metric: str) -> Callable[[Run, str], float]:
    return lambda run, view: run.result["test"][view][metric]


def _epochs_to(run: Run, view: str) -> float:
    """Epochs to the threshold; the run's length, which is less than that, where it was never reached."""
    errors = np.array([row["train_top1_error"] for row in run.epochs], dtype=float)
    if not len(errors):
        raise ConfigError("metrics.csv has no epoch")
    found = epochs_to(errors, THRESHOLD)
    return float(len(errors)) if math.isnan(found) else found


def _first_loss(run: Run, view: str) -> float:
    if not run.epochs or run.epochs[0]["train_loss"] is None:
        raise ConfigError("metrics.csv has no first epoch")
    return float(run.epochs[0]["train_loss"])


def _colour(run: Run, view: str) -> float:
    path = run.record.file("conv1.npy")
    try:
        with path.open("rb") as file:
            return colour_gap(np.load(file))
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path.name}: {getattr(error, 'strerror', None) or error}") from error


MEASURES: dict[str, Callable[[Run, str], float]] = {
    "top1_error": _error("top1_error"),
    "top5_error": _error("top5_error"),
    "gap": lambda run, _: run.result["test"]["center"]["top1_error"] - run.result["train"]["center"]["top1_error"],
    "train_top1_error": lambda run, _: run.result["train"]["center"]["top1_error"],
    "train_loss": lambda run, _: run.result["train"]["center"]["loss"],
    "first_epoch_loss": _first_loss,
    "epochs": lambda run, _: run.result["epochs"],
    "epochs_to_25": _epochs_to,
    "colour_gap": _colour,
}
assert MEASURES.keys() == METRICS.keys()
