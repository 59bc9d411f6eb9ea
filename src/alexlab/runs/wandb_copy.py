"""Copies of records in Weights & Biases: one W&B run per run, grouped by arm.

At a run's end W&B also gets the final errors, conv1's kernels as an image, the confusion matrix and a table of
predictions. W&B accepts each step only once, so sending a record again creates no duplicates.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.util import get_temp_dir
from typing import Any

from alexlab.config import Config, LoggerConfig
from alexlab.console import printable_line
from alexlab.errors import UserError
from alexlab.runs import tracked
from alexlab.runs.names import RunName
from alexlab.runs.record import DONE, PREEMPTED, Record

_LONGEST_NAME, _LONGEST_TAG = 128, 64  # W&B refuses longer ones
_IDS = 9  # to try: W&B never accepts a deleted one again
# Variables that identify one W&B run: under `wandb agent`, or in a job within a run, they are those of an outer run.
# With WANDB_SWEEP_ID, wandb.init even ignores its own arguments, so all runs of a sweep would be one.
_OF_ONE_RUN = tuple(
    f"WANDB_{name}"
    for name in (
        *("RUN_ID", "RUN_NAME", "NAME", "NOTES", "DESCRIPTION", "TAGS", "RUN_TAGS", "RUN_GROUP", "JOB_TYPE"),
        *("RUN_STORAGE_ID", "RUN_DIR", "RESUME", "RESUME_FROM", "FORK_FROM", "SWEEP_ID", "SWEEP_PARAM_PATH", "CONFIG"),
        *("CONFIG_PATHS", "LAUNCH", "LAUNCH_CONFIG_PATH", "RUN_NOTES", "RUN_JOB_TYPE"),
    )
)


class WandbCopy:
    """W&B's copy of one run: online with a key, offline without."""

    title = "W&B"

    def __init__(self, config: Config, record: Record, say: Callable[[str], None]) -> None:
        self._config, self._record, self._say = config, record, say
        self._run: Any = None
        self._mode = ""
        self._step = 0  # of the last row

    @staticmethod
    def place(logger: LoggerConfig) -> str:
        return wandb_mode()

    def is_complete(self) -> bool:
        return is_copied(self._record, wandb_mode())

    def start(self) -> bool:
        wandb = _wandb()
        self._mode = mode = wandb_mode()
        if mode == "disabled":
            return False
        folder = tracked.own_folder(self._record, "wandb")
        if mode == "offline":
            if "WANDB_MODE" not in os.environ:
                copies = self._record.path.parent / "*" / "wandb" / "offline-*"
                self._say(f"logger=wandb: no W&B key, so copies are offline; to send them: wandb sync {copies}")
            for piece in folder.glob("offline-run-*"):  # they cannot be joined; the new one will be complete
                shutil.rmtree(piece)
        labels = self._record.status()["labels"]
        arm = tracked.named(self._config, self._record)
        run_id = self._record.run_id
        name = self._record.read("wandb.json").get("id", run_id)
        if not re.fullmatch(rf"{run_id}(-\d+)?", name):  # else an untrusted record could add to another run of ours
            name = run_id
        for number in range(2, _IDS + 2):
            try:
                self._run = wandb.init(
                    project=self._config.logger.project,
                    entity=self._config.logger.entity,
                    dir=self._record.path,
                    id=name,
                    resume="allow",
                    name=tracked.title(self._config, arm),
                    group=group_name(labels, arm),
                    notes=arm.noted or None,
                    job_type=labels["recipe"],
                    tags=[labels["protocol"], labels["recipe"], labels["model"], arm.arm[:_LONGEST_TAG]],
                    config=tracked.public_config(self._config),
                    mode="offline" if mode == "offline" else "online",
                    settings=private_settings(),
                )
                break
            except wandb.errors.CommError as error:  # pyright: ignore[reportAttributeAccessIssue]
                if "deleted" not in str(error) or number > _IDS:
                    raise
                name = f"{run_id}-{number}"
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")  # W&B's own panels then show epochs, as ours do
        self._record.write("wandb.json", {"id": name, "mode": mode, "complete": False})
        return True

    def row(self, row: dict[str, Any]) -> None:
        self._step = max(self._step, row["step"])
        if row["step"] >= self._run.starting_step:
            self._run.log({name: value for name, value in row.items() if value != ""}, step=row["step"])

    def finish(self) -> None:
        state, result = self._record.status()["state"], self._record.result()
        if state == DONE:
            for name, value in tracked.final_numbers(result).items():
                self._run.summary[name] = value
            if self._step >= self._run.starting_step and (media := self._media()):  # else W&B has the last step already
                with _removed_later():
                    self._run.log(media, step=self._step)
        elif state == PREEMPTED:
            self._run.mark_preempting()
        tracked.within(tracked.seconds_to_end(state), lambda: self._run.finish(exit_code=0 if state == DONE else 1))
        self._record.write(
            "wandb.json", {**self._record.read("wandb.json"), "mode": self._mode, "complete": state == DONE}
        )

    def _media(self) -> dict[str, Any]:
        """Images and tables of a finished run, from the files that its record has."""
        import wandb

        media: dict[str, Any] = {}
        if (picture := tracked.kernels(self._record)) is not None:
            media["conv1"] = wandb.Image(picture, caption="kernels of the first layer")
        if (found := tracked.predictions(self._config, self._record)) is not None:
            if len(found.names) <= tracked.MOST_CLASSES:
                media["confusion"] = wandb.plot.confusion_matrix(
                    y_true=found.true.tolist(),
                    preds=found.predicted.tolist(),
                    class_names=found.names,
                    title="Confusions, ten views",
                )
            media["predictions"] = wandb.Table(
                columns=[*tracked.PREDICTION_COLUMNS], data=[[*row] for row in found.table]
            )
        return media


def private_settings() -> Any:
    """W&B settings that send no command line, environment or repository URL: any of them may contain a key."""
    import wandb

    return wandb.Settings(
        silent=True, console="off", init_timeout=30, x_disable_meta=True, disable_git=True, disable_code=True
    )


def is_copied(record: Record, mode: str) -> bool:
    """Whether W&B or, with `mode` offline, its local folder already has the complete record."""
    copy = record.read("wandb.json")
    return copy.get("complete", False) and mode in ("offline", copy.get("mode"))


def group_name(labels: dict[str, str], name: RunName) -> str:
    """An arm's group: its recipe, protocol, model and name, and the number and a hash of its settings.

    If that is too long for W&B, it is cut and ends with the arm's hash.
    """
    group = "/".join([*(labels[part] for part in ("recipe", "protocol", "model")), name.arm])
    if name.settings:
        group += f" +{len(name.settings)} settings {hashlib.sha256(name.noted.encode()).hexdigest()[:4]}"
    return group if len(group) <= _LONGEST_NAME else f"{group[: _LONGEST_NAME - 13]}-{labels['arm']}"


def outer_run() -> list[str]:
    """The environment variables that identify another W&B run, and are ignored."""
    return [name for name in _OF_ONE_RUN if name in os.environ]


def _wandb() -> Any:
    """Import the package, which reads the environment on import."""
    for name in outer_run():
        del os.environ[name]
    if key := os.environ.pop("WANDB_API_KEY", "").strip():  # W&B refuses one with a trailing newline
        os.environ["WANDB_API_KEY"] = key
    with _removed_later():
        import wandb
    return wandb


@contextmanager
def _removed_later() -> Iterator[None]:
    """Make W&B create temporary folders where multiprocessing removes them: its processes run no exit handlers.

    W&B creates two on import, and one for each table.
    """
    before, tempfile.tempdir = tempfile.tempdir, get_temp_dir()
    try:
        yield
    finally:
        tempfile.tempdir = before


def wandb_mode() -> str:
    """`online`, `offline` or `disabled`: the value of WANDB_MODE, else online only if there is a key.

    Raises:
        UserError: if W&B rejects the key's form; no message shows the key.
    """
    wandb = _wandb()
    if mode := os.environ.get("WANDB_MODE"):
        return "offline" if mode == "dryrun" else mode
    try:
        return "online" if wandb.login(prompt=False, verify=False) else "offline"
    except wandb.Error as error:
        raise UserError(
            f"W&B's key cannot be used ({printable_line(error)}); set another, or WANDB_MODE=offline"
        ) from error
