"""What a run leaves behind: the folder `runs/<run id>/`.

    config.yaml       the resolved configuration
    status.json       state, attempt, labels, and for a failure its class, what happened and what to do
    environment.json  versions, commit, device; of earlier attempts too
    metrics.csv       one row an epoch
    train_error.csv   training error, every trainer.train_error_every epochs where that is set
    train.log         the run's log, with the traceback of a failure
    checkpoints/      while it runs: the last two states; once it is done: last.ckpt, best.ckpt
    diverged.json     of a run that diverged: where, and the images of the batch
    conv1.npy         the final kernels of conv1, float16 [kernels, channels, side, side]
    predictions.npz   for each test image and view kind: top-5 classes, log-probability of the true class; and the
                      likeliest class by each of the ten views alone
    neighbours.json   once report.py --nets measured it: the precision of the nearest training images
    result.json       errors and costs; there only once the run is DONE
    wandb.json        what W&B has of it, where it was copied there
    claim.<n>         who works on it

Files are written whole or not at all, but for train.log, which grows while it runs.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.config import ConfigError
from alexlab.files import remove_halves, write_whole
from alexlab.runs.failure import HINTS, KILLED
from alexlab.runs.lease import Lease, holder
from alexlab.tree import flatten, read_yaml

STATES = RUNNING, DONE, PREEMPTED, FAILED = "RUNNING", "DONE", "PREEMPTED", "FAILED"
GONE = "its process is gone without a word"
RECORD_VERSION = 2  # of the files above; raised where an older one would be misread


class Record:
    """The record of one run; with a lease, what is written is first checked to be ours to write."""

    def __init__(self, runs: str | Path, run_id: str, lease: Lease | None = None) -> None:
        self.run_id = run_id
        self.path = Path(runs) / run_id
        self._lease = lease

    def file(self, name: str) -> Path:
        return self.path / name

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty where there is none yet.

        Raises:
            ConfigError: where it is damaged, or of another version of these files.
        """
        status = self.read("status.json")
        version = status.get("version", 1 if status else RECORD_VERSION)
        if version != RECORD_VERSION:
            raise ConfigError(
                f"{self.path}: is a record of version {version}, this code reads version {RECORD_VERSION}; set "
                "paths.runs to another folder, or move it away"
            )
        if status and status.get("state") not in STATES:
            raise _damaged(self.file("status.json"), "it does not say what became of the run")
        if "mend" in status:  # as records before 0.2.0 have it
            status["hint"] = status.pop("mend")
        return status

    def seen(self) -> dict[str, Any]:
        """The status as it is to be taken: a run whose process is gone without a word was killed."""
        status = self.status()
        if status.get("state") == RUNNING and holder(self.path) is None:
            status = {**status, "state": FAILED, "failure": KILLED, "message": GONE, "hint": HINTS[KILLED]}
        return status

    def read(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the record; empty where there is none yet."""
        return _read(self.file(name))

    def result(self) -> dict[str, Any]:
        """The content of result.json; empty where there is none yet."""
        return self.read("result.json")

    def rows(self) -> list[dict[str, float | None]]:
        """What metrics.csv has of each epoch, an empty cell as None; a last line that is not whole is left out."""
        return self._rows("metrics.csv")

    def train_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Training error over the run: after how many epochs it was logged, and the errors.

        From train_error.csv where the run has it, else from metrics.csv.

        Raises:
            ConfigError: where the file is missing, empty or damaged, or an entry has no error.
        """
        name = "train_error.csv" if self.file("train_error.csv").exists() else "metrics.csv"
        rows = self._rows(name)
        if not rows:
            raise ConfigError(f"{self.file(name)}: has no epoch")
        epochs, errors = (
            np.array([row.get(column) for row in rows], dtype=float) for column in ("epoch", "train_top1_error")
        )
        if not (np.isfinite(epochs).all() and np.isfinite(errors).all()):
            raise ConfigError(f"{name} has an epoch without a training error")
        return epochs, errors

    def _rows(self, name: str) -> list[dict[str, float | None]]:
        path = self.file(name)
        try:
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if None not in row.values()]
            return [{name: float(cell) if cell else None for name, cell in row.items()} for row in rows]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, csv.Error) as error:
            raise _damaged(path, str(error)) from error

    def keys(self) -> dict[str, Any]:
        """The configuration by dotted keys, as config.yaml has it; empty where there is none."""
        path = self.file("config.yaml")
        try:
            return flatten(read_yaml(path))
        except FileNotFoundError:
            return {}
        except (AttributeError, ValueError) as error:
            raise _damaged(path, " ".join(str(error).split())) from error

    @property
    def is_done(self) -> bool:
        return self.status().get("state") == DONE

    def may_write(self) -> None:
        """Raise LeaseLost where another process has taken the run over."""
        if self._lease is not None:
            self._lease.check()

    def write(self, name: str, content: str | bytes | dict[str, Any]) -> None:
        """Write a file of the record, a dict as JSON."""
        self.may_write()
        text = json.dumps(content, indent=1) + "\n" if isinstance(content, dict) else content
        write_whole(self.file(name), text, self.may_write)

    def set_status(self, state: str, **more: Any) -> None:
        """Write status.json; the attempt's number, when it began, and the labels stay as they are."""
        kept = {name: value for name, value in self.status().items() if name in ("attempt", "labels", "started")}
        self.write("status.json", {"run_id": self.run_id, "version": RECORD_VERSION, "state": state, **kept, **more})

    def begin(self, config_yaml: str, labels: dict[str, str], **more: Any) -> None:
        """Start an attempt, which goes on from the run's last state, if it has one; a finished run is never begun."""
        status = self.status()
        assert status.get("state") != DONE
        self._refuse_links()
        for folder in (self.path, self.file("checkpoints")):
            remove_halves(folder)
        self.write("config.yaml", config_yaml)
        number = self._lease.number if self._lease is not None else 0  # of leases whose owners began nothing, too
        self.set_status(RUNNING, attempt=max(number, status.get("attempt", 0) + 1), labels=labels, **more)

    def _refuse_links(self) -> None:
        """Raise ConfigError where writing the record would write elsewhere, as links in a record from others could."""
        for path in (self.path, *(self.path.iterdir() if self.path.is_dir() else [])):
            if path.is_symlink():
                raise ConfigError(f"{path}: is a link, and a record holds its own files; move what it leads to here")

    def forget(self) -> None:
        """Remove what an unfinished run has, so that it begins from nothing; the number of attempts stays."""
        assert not self.is_done
        for path in self.path.iterdir():
            if path.name not in ("status.json", "wandb", "wandb.json") and not path.name.startswith("claim."):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no keys")
    return content


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path}: is damaged ({why}); remove {path.parent} to have the run done again")
