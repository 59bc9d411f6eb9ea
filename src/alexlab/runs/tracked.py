"""The facts about a run that trackers get in addition to metrics.csv: names, settings, final errors and pictures.

They include no image of the data set, no folder of this machine and no setting of the trackers themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from alexlab.config import Config, flat
from alexlab.data.class_names import known_names
from alexlab.runs.arrays import read_array, read_arrays
from alexlab.runs.names import RunName, run_name
from alexlab.runs.record import PREEMPTED, Record
from alexlab.tiles import colours, per_row, tiles

MOST_CLASSES = 50  # of a confusion matrix, which has the square of them as entries
PREDICTION_COLUMNS = ("test image", "class", "1st", "2nd", "3rd", "right", "probability of class")
_PREDICTIONS = 200  # evenly spaced test images in the table of predictions
_ZOOM = 4  # pixels per weight of conv1
_LONGEST_NAME = 128  # W&B refuses longer ones
_LAST_SECONDS = 60.0  # timeout for what a tracker has not sent when a run ends
_GRACE_SECONDS = 5.0  # the same if the run was asked to stop


def named(config: Config, record: Record) -> RunName:
    """The run's arm and settings."""
    return run_name(record.status()["labels"]["ablation"], flat(config))


def title(config: Config, name: RunName) -> str:
    """A run's name, such as `no_lrn seed=0`; settings that only change the scale follow."""
    return f"{name.arm} seed={config.seed} {name.noted}"[:_LONGEST_NAME].rstrip()


def facts(config: Config, record: Record) -> dict[str, str]:
    """The labels by which trackers find and group a run."""
    labels = record.status()["labels"]
    found = {name: labels[name] for name in ("protocol", "recipe", "model")}
    found.update({"ablation": named(config, record).arm, "seed": str(config.seed), "run_id": record.run_id})
    commit = record.read("environment.json").get("git_commit")
    return {**found, "commit": commit} if commit else found


def public_config(config: Config) -> dict[str, Any]:
    """The configuration, flat, with native numbers and lists; folders of this machine are left out."""
    places = ("paths.", "data.cache", "data.raw", "data.root", "data.stage", "logger.", "weights", "study.")
    return {name: value for name, value in flat(config).items() if not name.startswith(places)}


def final_numbers(result: dict[str, Any]) -> dict[str, float]:
    """The errors of a finished run, such as `test/ten/top1_error`, and its duration in seconds."""
    found = {
        f"{split}/{kind}/{name}": value
        for split in ("test", "train")
        for kind in ("center", "ten")
        for name, value in result[split].get(kind, {}).items()
    }
    return {**found, "seconds": result["seconds"]}


def kernels(record: Record) -> np.ndarray | None:
    """The kernels of the first layer as an image, uint8 [height, width, 4]; None if there are none for RGB images."""
    with suppress(OSError, ValueError):  # the file is missing or cannot be read
        weights = read_array(record.file("conv1.npy"))
        if weights.ndim == 4 and weights.shape[1] == 3:
            return tiles(colours(weights), per_row(len(weights))).repeat(_ZOOM, 0).repeat(_ZOOM, 1)
    return None


@dataclass(frozen=True)
class Predictions:
    """Ten-view predictions on the test split."""

    names: list[str]  # of the classes
    true: np.ndarray  # class numbers [images]
    predicted: np.ndarray  # class numbers [images]
    table: list[tuple[Any, ...]]  # PREDICTION_COLUMNS of some images


def predictions(config: Config, record: Record) -> Predictions | None:
    """The predictions of a finished run; None if its record has none, or none that can be read."""
    with suppress(OSError, ValueError, KeyError, IndexError, BadZipFile):
        arrays = read_arrays(record.file("predictions.npz"), ("labels", "ten_top5", "ten_log_probability"))
        true, top5 = arrays["labels"], arrays["ten_top5"]
        names = known_names(config.data)
        if min(true.min(), top5.min()) < 0 or max(true.max(), top5.max()) >= len(names):
            raise IndexError("a class without a name")
        chances = np.exp(arrays["ten_log_probability"].astype(np.float64))
        table = []
        for place in np.unique(np.linspace(0, len(true) - 1, min(len(true), _PREDICTIONS)).astype(int)):
            given = [names[number] for number in top5[place, :3]]
            is_right = bool(top5[place, 0] == true[place])
            table.append((int(place), names[true[place]], *given, is_right, round(float(chances[place]), 4)))
        return Predictions(names, true, top5[:, 0], table)
    return None


def confusion(found: Predictions) -> np.ndarray | None:
    """The confusion matrix as an image, uint8 [height, width, 3]: a row for each true class; None if too large."""
    if len(found.names) > MOST_CLASSES:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(found.names)
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (found.true.astype(int), found.predicted.astype(int)), 1)
    side = 3 + 0.25 * count
    canvas = FigureCanvasAgg(Figure((side, side), dpi=100, layout="constrained"))
    axes = canvas.figure.subplots()
    axes.imshow(matrix, cmap="Blues")
    axes.set(xlabel="predicted, ten views", ylabel="class")
    axes.set_xticks(range(count), [name[:20] for name in found.names], rotation=90)
    axes.set_yticks(range(count), [name[:20] for name in found.names])
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def own_folder(record: Record, name: str) -> Path:
    """A folder of the record that a tracker writes to.

    Raises:
        OSError: if it is a symbolic link, since its target may belong to another project.
    """
    folder = record.file(name)
    if folder.is_symlink():
        raise OSError(f"{folder} is a symbolic link, which a record must not contain")
    return folder


def seconds_to_end(state: str) -> float:
    """The timeout in seconds for a tracker at the end of a run."""
    return _GRACE_SECONDS if state == PREEMPTED else _LAST_SECONDS


def within(seconds: float, action: Callable[[], Any]) -> None:
    """Call a function that may hang without a network; raise TimeoutError if it takes longer than `seconds`."""
    errors: list[Exception] = []

    def act() -> None:
        try:
            action()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    if errors:
        raise errors[0]
