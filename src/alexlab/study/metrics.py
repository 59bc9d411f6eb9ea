"""Compute each metric of a claim from the record of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from alexlab.crossings import THRESHOLD, epochs_to
from alexlab.data.shapes import CLASSES, object_offsets
from alexlab.errors import UserError
from alexlab.runs.arrays import read_array
from alexlab.runs.record import SCHEMAS
from alexlab.study.claims import GROUPED, METRICS
from alexlab.study.colour import colour_gap
from alexlab.study.records import RunData
from alexlab.tree import ANY, FRACTION, read_json

_MAX_CONV1 = 2**28  # bytes
HOW_TO_MEASURE = "python src/report.py with --nets"  # what nets themselves tell
_ERRORS = {"test": {"ten": {ANY: FRACTION}}}
_AVERAGE = {"members": {ANY: _ERRORS}, **_ERRORS}


def _error(metric: str) -> Callable[[RunData, str], float]:
    def measure(run: RunData, view: str) -> float:
        return float(run.wrong(metric, view)[0].mean()) if view == "corner" else run.result["test"][view][metric]

    return measure


def _neighbours(run: RunData, view: str) -> float:
    precision = read_neighbours(run)["precision"]
    return precision["layer"] - precision["pixels"]


def read_neighbours(run: RunData) -> dict[str, Any]:
    """Read what `--nets` measured about a run's nearest training images.

    Raises:
        UserError: if the run has none, or the file is corrupt.
    """
    path = run.record.file("neighbours.json")
    schema = SCHEMAS["neighbours.json"]
    try:
        found = read_json(path, schema)
    except FileNotFoundError as error:
        raise UserError(f"has no neighbours.json; {HOW_TO_MEASURE} measures it") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is corrupt ({error})") from error
    if lacking := schema.keys() - found.keys():
        raise UserError(f"{path}: has no {', '.join(sorted(lacking))}")
    return found


def _off_centre(run: RunData, view: str) -> float:
    """Use the positions of objects that the generator of `shapes` chose; half of the images are nearer the centre."""
    settings = run.settings["data"]
    if settings["name"] != "shapes":
        raise UserError(f"data.name={settings['name']}: only shapes knows where its objects are")
    wrong, _ = run.wrong("top1_error", "center")
    if len(wrong) != settings["test_images"]:
        raise UserError(f"predictions.npz: has {len(wrong)} images, data.test_images={settings['test_images']}")
    names = sorted(CLASSES)[: settings["num_classes"]]
    far = far_from_centre(tuple(names), "test", len(wrong), settings["files_seed"])
    return float(wrong[far].mean() - wrong[~far].mean())


@cache
def far_from_centre(names: tuple[str, ...], split: str, count: int, seed: int) -> np.ndarray:
    """Whether an image of a split of `shapes` has its object farther from the centre than the median, bool [count]."""
    distances = np.hypot(*object_offsets(list(names), split, count, seed).T)
    return distances > np.median(distances)


def groups(runs: Sequence[RunData], size: int) -> list[Sequence[RunData]]:
    """Complete groups of `size` runs, in their order."""
    return [runs[start : start + size] for start in range(0, len(runs) - size + 1, size)]


def five_nets(runs: Sequence[RunData], metric: str) -> float:
    """The error of an ensemble of five nets, as `evaluate` computed it, minus the mean error of the five.

    Raises:
        UserError: if that ensemble was not evaluated, or from other results of its members.
    """
    ids = [run.run_id for run in runs]
    wanted = {run.run_id: run.result["test"]["ten"] for run in runs}
    for path in sorted(runs[0].record.path.parent.glob("averages/*/result.json")):
        with suppress(OSError, ValueError, KeyError):
            found = read_json(path, _AVERAGE)
            members = {name: member["test"]["ten"] for name, member in found["members"].items()}
            if members == wanted and found["average"] == "softmax":
                return found["test"]["ten"][metric] - float(np.mean([test[metric] for test in wanted.values()]))
    raise UserError(f"has no ensemble with {', '.join(ids[1:])}; {HOW_TO_MEASURE} evaluates it")


def _epochs_to(run: RunData, view: str) -> float:
    """Epochs to the threshold, or the run's length, a lower bound, if it was never reached."""
    epochs, errors = run.train_errors
    found = epochs_to(errors, THRESHOLD, epochs)
    return float(epochs[-1]) if math.isnan(found) else found


def _training_errors(run: RunData) -> np.ndarray:
    return run.train_errors[1]


def is_cut(run: RunData, metric: str, max_epochs: int) -> bool:
    """Whether the run ended before the event that the metric counts to, so that its value is too small."""
    if metric == "epochs_to_25":
        return bool((_training_errors(run) > THRESHOLD).all())
    return metric == "epochs" and run.result["epochs"] >= max_epochs


def is_at_once(run: RunData, metric: str) -> bool:
    """Whether the event that the metric counts to came before the first log, so that its value is too large."""
    return metric == "epochs_to_25" and bool(_training_errors(run)[0] <= THRESHOLD)


def _first_loss(run: RunData, view: str) -> float:
    loss = run.epochs[0].get("train_loss")
    if loss is None:
        raise UserError("metrics.csv has no loss of the first epoch")
    return loss


def read_conv1(run: RunData) -> np.ndarray:
    """Read the kernels of the first convolution from the record."""
    return read_array(run.record.file("conv1.npy"))


def _colour(run: RunData, view: str) -> float:
    path = run.record.file("conv1.npy")
    try:
        return colour_gap(read_conv1(run))
    except Exception as error:  # from numpy, zipfile or the file system
        raise UserError(f"{path.name}: {getattr(error, 'strerror', None) or error}") from error


MEASURES: dict[str, Callable[[RunData, str], float]] = {
    "top1_error": _error("top1_error"),
    "top5_error": _error("top5_error"),
    "gap": lambda run, _: run.result["test"]["center"]["top1_error"] - run.result["train"]["center"]["top1_error"],
    "train_top1_error": lambda run, _: run.result["train"]["center"]["top1_error"],
    "train_loss": lambda run, _: run.result["train"]["center"]["loss"],
    "first_epoch_loss": _first_loss,
    "epochs": lambda run, _: run.result["epochs"],
    "epochs_to_25": _epochs_to,
    "colour_gap": _colour,
    "retrieval": _neighbours,
    "off_centre": _off_centre,
}
assert {*MEASURES, *GROUPED} == METRICS.keys()
