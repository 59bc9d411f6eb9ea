"""Weights & Biases as a copy of the record: one W&B run for each run, grouped by arm.

The rows of metrics.csv, each at its own training step, are copied while the run trains or at any later time; at its end
the final errors, conv1's kernels as an image, the confusion matrix and a table of predictions. W&B accepts a step once,
so what is sent again is not there twice. No error of W&B's ends a run.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from alexlab.config import Config, Logger, flat
from alexlab.console import one_line
from alexlab.data.class_names import known_names
from alexlab.errors import UserError
from alexlab.files import is_first_time
from alexlab.runs.arrays import read_array, read_arrays
from alexlab.runs.names import RunName, run_name
from alexlab.runs.record import DONE, PREEMPTED, Record
from alexlab.tiles import per_row, shown, tiles

log = logging.getLogger(__name__)
_LONGEST_NAME, _LONGEST_TAG = 128, 64  # W&B refuses longer ones
_LAST_SECONDS = 60.0  # that W&B gets for what it has not sent when a run ends
_GRACE_SECONDS = 5.0  # likewise, if a run was asked to stop
_ZOOM = 4  # pixels for a weight of conv1
_MOST_CLASSES = 50  # of a confusion matrix, whose table has their square
_PREDICTIONS = 200  # test images in the table of predictions, evenly from all
_IDS = 9  # that are tried: W&B never takes a deleted one again
# What names one run: in the environment of `wandb agent`, or of a job within a run, they are an outer run's. With
# WANDB_SWEEP_ID, wandb.init even ignores its own arguments, so all runs of a sweep would be one.
_OF_ONE_RUN = tuple(
    f"WANDB_{name}"
    for name in (
        *("RUN_ID", "RUN_NAME", "NAME", "NOTES", "DESCRIPTION", "TAGS", "RUN_TAGS", "RUN_GROUP", "JOB_TYPE"),
        *("RUN_STORAGE_ID", "RUN_DIR", "RESUME", "RESUME_FROM", "FORK_FROM", "SWEEP_ID", "SWEEP_PARAM_PATH", "CONFIG"),
        *("CONFIG_PATHS", "LAUNCH", "LAUNCH_CONFIG_PATH", "RUN_NOTES", "RUN_JOB_TYPE"),
    )
)


class Copy:
    """W&B's copy of one run: online with a key, offline without.

    The first error is printed in one line, and ends the copy; `python src/runs.py wandb` sends it later.
    """

    def __init__(self, config: Config, record: Record, messages: Path | None = None) -> None:
        self._config, self._record, self._messages = config, record, messages
        self._run: Any = None
        self._mode = ""
        self._step = 0  # of the last row

    def start(self) -> None:
        """Start or resume the copy, if the configuration asks for one."""
        if self._config.logger.name is Logger.wandb and not self._config.is_trial:
            self._guarded(self._start, "did not start")

    def row(self, row: dict[str, Any]) -> None:
        """Copy a row of metrics.csv, unless W&B has it already."""
        self._guarded(lambda: self._row(row), "takes no more")

    def finish(self) -> None:
        """Copy how the run ended, and end the copy."""
        self._guarded(self._finish, "did not take all")

    def abandon(self) -> None:
        """Leave the copy to the process that resumes the run."""
        self._run = None

    def _start(self) -> None:
        wandb = _wandb()
        self._mode = mode = wandb_mode()
        if mode == "disabled":
            return
        folder = self._record.file("wandb")
        if folder.is_symlink():  # its runs may be another project's
            raise OSError(f"{folder} is a link, and a record holds its own files")
        if mode == "offline":
            if "WANDB_MODE" not in os.environ:
                copies = self._record.path.parent / "*" / "wandb" / "offline-*"
                self._print(f"logger=wandb: no W&B key, so copies are offline; to send them: wandb sync {copies}")
            for piece in folder.glob("offline-run-*"):  # pieces do not join; the new one will hold all
                shutil.rmtree(piece)
        labels = self._record.status()["labels"]
        arm = run_name(labels["ablation"], flat(self._config))
        run_id = self._record.run_id
        name = self._record.read("wandb.json").get("id", run_id)
        if not re.fullmatch(rf"{run_id}(-\d+)?", name):  # else a record of others could add to another run of ours
            name = run_id
        for number in range(2, _IDS + 2):
            try:
                self._run = wandb.init(
                    project=self._config.logger.project,
                    entity=self._config.logger.entity,
                    dir=self._record.path,
                    id=name,
                    resume="allow",
                    name=f"{arm.arm} seed={self._config.seed} {arm.noted}"[:_LONGEST_NAME].rstrip(),
                    group=group_name(labels, arm),
                    notes=arm.noted or None,
                    job_type=labels["recipe"],
                    tags=[labels["protocol"], labels["recipe"], labels["model"], arm.arm[:_LONGEST_TAG]],
                    config=public_config(self._config),
                    mode="offline" if mode == "offline" else "online",
                    settings=private_settings(),
                )
                break
            except wandb.errors.CommError as error:  # pyright: ignore[reportAttributeAccessIssue]
                if "deleted" not in str(error) or number > _IDS:
                    raise
                name = f"{run_id}-{number}"
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")  # W&B's own panels then have epochs, as ours
        self._record.write("wandb.json", {"id": name, "mode": mode, "complete": False})

    def _row(self, row: dict[str, Any]) -> None:
        self._step = max(self._step, row["step"])
        if self._run is not None and row["step"] >= self._run.starting_step:
            self._run.log({name: value for name, value in row.items() if value != ""}, step=row["step"])

    def _finish(self) -> None:
        if self._run is None:
            return
        state, result = self._record.status()["state"], self._record.result()
        if state == DONE:
            for split in ("test", "train"):
                for kind in ("center", "ten"):
                    for name, value in result[split].get(kind, {}).items():
                        self._run.summary[f"{split}/{kind}/{name}"] = value
            self._run.summary["seconds"] = result["seconds"]
            if self._step >= self._run.starting_step and (media := self._media()):  # else W&B has the last step already
                self._run.log(media, step=self._step)
        elif state == PREEMPTED:
            self._run.mark_preempting()
        seconds = _GRACE_SECONDS if state == PREEMPTED else _LAST_SECONDS
        _within(seconds, lambda: self._run.finish(exit_code=0 if state == DONE else 1))
        self._record.write(
            "wandb.json", {**self._record.read("wandb.json"), "mode": self._mode, "complete": state == DONE}
        )

    def _print(self, message: str) -> None:
        """Print a message, once for all runs of a command."""
        if is_first_time(self._messages, message):
            print(message, flush=True)

    def _media(self) -> dict[str, Any]:
        """What W&B shows of a finished run besides numbers, of the files that its record has. No image of the data."""
        import wandb

        media: dict[str, Any] = {}
        with suppress(OSError, ValueError):  # there are none, or they are no images
            kernels = read_array(self._record.file("conv1.npy"))
            if kernels.ndim == 4 and kernels.shape[1] == 3:
                picture = tiles(shown(kernels), per_row(len(kernels))).repeat(_ZOOM, 0).repeat(_ZOOM, 1)
                media["conv1"] = wandb.Image(picture, caption="kernels of the first layer")
        with suppress(OSError, ValueError, KeyError, IndexError, BadZipFile):
            arrays = read_arrays(self._record.file("predictions.npz"), ("labels", "ten_top5", "ten_log_probability"))
            true, top5 = arrays["labels"], arrays["ten_top5"]
            names = known_names(self._config.data)
            if len(names) <= _MOST_CLASSES:
                media["confusion"] = wandb.plot.confusion_matrix(
                    y_true=true.tolist(), preds=top5[:, 0].tolist(), class_names=names, title="Confusions, ten views"
                )
            chances = np.exp(arrays["ten_log_probability"].astype(np.float64))
            places = np.unique(np.linspace(0, len(true) - 1, min(len(true), _PREDICTIONS)).astype(int))
            table = wandb.Table(columns=["test image", "class", "1st", "2nd", "3rd", "right", "probability of class"])
            for place in places:
                given = [names[number] for number in top5[place, :3]]
                is_right = bool(top5[place, 0] == true[place])
                table.add_data(int(place), names[true[place]], *given, is_right, round(float(chances[place]), 4))
            media["predictions"] = table
        return media

    def _guarded(self, action: Callable[[], None], what: str) -> None:
        try:
            action()
        except Exception as error:  # whatever W&B raises, the record is what counts
            self._run = None
            reason = one_line(error) or type(error).__name__
            hint = "the record is complete, `python src/runs.py wandb` sends it later"
            message = f"logger=wandb: W&B {what} ({reason}); {hint}"
            log.warning(message)
            self._print(message)


def private_settings() -> Any:
    """W&B's settings without a command line, environment or repository's address: any of them may hold a key."""
    import wandb

    return wandb.Settings(
        silent=True, console="off", init_timeout=30, x_disable_meta=True, disable_git=True, disable_code=True
    )


def _within(seconds: float, action: Callable[[], None]) -> None:
    """Do something that may wait for a network that is gone; raise TimeoutError where it takes longer."""
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


def publish(config: Config, record: Record) -> bool:
    """Send a record to W&B, whatever it has of it already; whether that went well."""
    copy = Copy(config, record)
    copy.start()
    if copy._run is None:
        return False
    with record.file("metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            copy.row({name: _number(value) for name, value in row.items()})
    copy.finish()
    return copy._run is not None


def is_copied(record: Record, mode: str) -> bool:
    """Whether W&B has all of a record already, or, with `mode` offline, its folder has."""
    copy = record.read("wandb.json")
    return copy.get("complete", False) and mode in ("offline", copy.get("mode"))


def _number(text: str) -> int | float | str:
    if text == "":
        return text
    return int(text) if text.isdecimal() else float(text)


def group_name(labels: dict[str, str], name: RunName) -> str:
    """An arm's group: its recipe, protocol, model and name, and of its settings the number and a hash.

    Ended by the arm's hash where that is too long for W&B.
    """
    group = "/".join([*(labels[part] for part in ("recipe", "protocol", "model")), name.arm])
    if name.settings:
        group += f" +{len(name.settings)} settings {hashlib.sha256(name.noted.encode()).hexdigest()[:4]}"
    return group if len(group) <= _LONGEST_NAME else f"{group[: _LONGEST_NAME - 13]}-{labels['arm']}"


def public_config(config: Config) -> dict[str, Any]:
    """The configuration, flat, with numbers as numbers and lists as lists; folders of this machine stay here."""
    places = ("paths.", "data.cache", "data.raw", "data.root", "data.stage", "logger.", "weights", "study.")
    return {name: value for name, value in flat(config).items() if not name.startswith(places)}


def outer_run() -> list[str]:
    """The variables of the environment that name another W&B run, and are ignored."""
    return [name for name in _OF_ONE_RUN if name in os.environ]


def _wandb() -> Any:
    """The package, which reads the environment as it starts."""
    for name in outer_run():
        del os.environ[name]
    if key := os.environ.pop("WANDB_API_KEY", "").strip():  # W&B refuses one with the end of a file's line
        os.environ["WANDB_API_KEY"] = key
    # It makes two folders when it is imported, and a process of multiprocessing would leave them.
    before, tempfile.tempdir = tempfile.tempdir, get_temp_dir()
    try:
        import wandb
    finally:
        tempfile.tempdir = before
    return wandb


def wandb_mode() -> str:
    """`online`, `offline` or `disabled`: the value of WANDB_MODE, else online only if there is a key.

    Raises:
        UserError: if W&B can tell that the key is none, which no message shows.
    """
    wandb = _wandb()
    if mode := os.environ.get("WANDB_MODE"):
        return "offline" if mode == "dryrun" else mode
    try:
        return "online" if wandb.login(prompt=False, verify=False) else "offline"
    except wandb.Error as error:
        raise UserError(f"W&B's key cannot be used ({one_line(error)}); set another, or WANDB_MODE=offline") from error
