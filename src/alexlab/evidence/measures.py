"""What a run came to in each metric that a claim may be about, by its record."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from alexlab.claims import METRICS
from alexlab.config import ConfigError
from alexlab.crossings import THRESHOLD, epochs_to
from alexlab.evidence.archive import Run
from alexlab.evidence.colour import colour_gap


def _error(metric: str) -> Callable[[Run, str], float]:
    return lambda run, view: run.result["test"][view][metric]


def _epochs_to(run: Run, view: str) -> float:
    """Epochs to the threshold; the run's length, which is less than that, where it was never reached."""
    epochs, errors = run.train_errors
    found = epochs_to(errors, THRESHOLD, epochs)
    return float(epochs[-1]) if math.isnan(found) else found


def _training_errors(run: Run) -> np.ndarray:
    return run.train_errors[1]


def is_cut(run: Run, metric: str, max_epochs: int) -> bool:
    """Whether the run ended before what the metric waits for, so that its value is too small."""
    if metric == "epochs_to_25":
        return bool((_training_errors(run) > THRESHOLD).all())
    return metric == "epochs" and run.result["epochs"] >= max_epochs


def is_at_once(run: Run, metric: str) -> bool:
    """Whether what the metric waits for was there when first logged, so that its value is too large."""
    return metric == "epochs_to_25" and bool(_training_errors(run)[0] <= THRESHOLD)


def _first_loss(run: Run, view: str) -> float:
    loss = run.epochs[0].get("train_loss")
    if loss is None:
        raise ConfigError("metrics.csv has no loss of the first epoch")
    return loss


def _colour(run: Run, view: str) -> float:
    path = run.record.file("conv1.npy")
    try:
        with path.open("rb") as file:
            return colour_gap(np.load(file))
    except Exception as error:  # of numpy, of zipfile, of the file system
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
