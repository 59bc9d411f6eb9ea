"""The record of a run: the folder `runs/<run id>/`.

    config.yaml       the resolved configuration
    net.py            the Python file of model.build, if that is set; never run from here
    status.json       state, attempt, labels, and for a failure its class, message and hint
    environment.json  packages, commit with the changes since, machine; also of earlier attempts
    metrics.csv       one row per epoch
    train_error.csv   training error, every trainer.train_error_every epochs, if that is set
    train.log         the run's log, with the traceback of a failure
    checkpoints/      while it runs: the last two states; once it is done: last.ckpt, best.ckpt
    diverged.json     for a run that diverged: where it did, and the images of the batch
    conv1.npy         the final kernels of conv1, float16 [kernels, channels, side, side]
    predictions.npz   for each test image and view kind: top-5 classes, log-probability of the true class; and the
                      likeliest class by each of the ten views alone
    neighbours.json   the precision of the nearest training images, once report.py --nets has measured it
    result.json       errors and costs; exists only once the run is DONE
    wandb.json        the id and state of its copy in W&B, if there is one; mlflow.json is the same for MLflow
    wandb/            W&B's own files; tensorboard/ has TensorBoard's
    claim.<n>         the lease of the process that works on it

Files are written atomically, except train.log, which grows during the run. A record may be untrusted: types are
checked, and only regular files are read.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from alexlab.config import did_you_mean
from alexlab.errors import UserError, one_line
from alexlab.files import TEMPORARY, is_foreign, read_regular, write_atomic
from alexlab.runs.failure import HINTS, KILLED
from alexlab.runs.lease import Lease, holder, remove_dead
from alexlab.tree import ANY, BOOL, FRACTION, INTEGER, NULL, NUMBER, TEXT, TIME, Kind, flatten, read_json, read_yaml

STATES = RUNNING, DONE, PREEMPTED, FAILED = "RUNNING", "DONE", "PREEMPTED", "FAILED"
GONE = "its process ended without writing a status"
RECORD_VERSION = 2  # of the files above; increased when older ones would be misread

_ERRORS = {"top1_error": FRACTION, "top5_error": FRACTION, "loss": NUMBER}
_OR_NAN = Kind("a number", lambda value: isinstance(value, float))  # NaN for a single query
_SPLIT = {"images": INTEGER, "ten": _ERRORS, "center": _ERRORS}
# The types of the entries that are read from each JSON file; other entries may hold anything.
SCHEMAS: dict[str, dict[str, Any]] = {
    "status.json": {
        **{"run_id": TEXT, "version": INTEGER, "state": TEXT, "attempt": INTEGER, "labels": {ANY: TEXT}},
        **{"failure": TEXT, "message": TEXT, "hint": TEXT, "started": TIME, "ended": TIME},
    },
    "result.json": {
        **{"seed": INTEGER, "epochs": INTEGER, "steps": INTEGER, "parameters": INTEGER, "labels": {ANY: TEXT}},
        **{"seconds": NUMBER, "seconds_start": NUMBER | NULL, "device": TEXT, "precision": TEXT, "checkpoint": TEXT},
        **{"data": {"store": TEXT}, "test": _SPLIT, "train": _SPLIT},
    },
    "environment.json": {
        **{"packages": {ANY: TEXT}, "git_commit": TEXT | NULL, "git_dirty": BOOL | NULL, "gpus": [TEXT]},
        **{"python": TEXT, "machine": TEXT, "system": TEXT, "cpus": INTEGER, "threads": INTEGER, "devices": INTEGER},
        **{"strategy": TEXT | NULL, "driver": TEXT | NULL, "cuda": TEXT | NULL, "earlier": [{}]},
        **{"implementation": TEXT, "os": TEXT | NULL, "kernel": TEXT, "libc": TEXT | NULL, "cudnn": TEXT | NULL},
        "changes": {"sha256": TEXT | NULL, "diff": TEXT, "untracked": {ANY: {"sha256": TEXT, "content": TEXT}}},
    },
    "neighbours.json": {
        **{"precision": {"layer": NUMBER, "pixels": NUMBER}, "standard_error": {"layer": _OR_NAN, "pixels": _OR_NAN}},
        **{"layer": TEXT, "nearest": INTEGER, "pool": INTEGER, "queries": INTEGER},
    },
    "wandb.json": {"id": TEXT, "mode": TEXT, "complete": BOOL},
    "mlflow.json": {"id": TEXT, "complete": BOOL},
}
_MAX_CSV = 2**26  # bytes
_STATE = re.compile(r"\d+-[0-9a-f]{16}\.(ckpt|damaged)")
# Files that a run writes into its record; only these, and those of `_DISPOSABLE`, are removed with it.
_OWN = re.compile(
    r"config\.yaml|net\.py|(status|environment|result|diverged|neighbours|wandb|mlflow)\.json|"
    r"(metrics|train_error)\.csv|train\.log|conv1\.npy|predictions\.npz|checkpoints|wandb|tensorboard|"
    rf"claim\.\d+|{TEMPORARY.pattern}|"
    r"\.(claim\.\d+|clock)\.[0-9a-f]{32}"
)
_COPIES = ("wandb", "wandb.json", "mlflow.json", "tensorboard")  # resumed by the next attempt
_OWN_CHECKPOINTS = re.compile(rf"{_STATE.pattern}|(last|best)\.ckpt|{TEMPORARY.pattern}")
_DISPOSABLE = re.compile(r"\.DS_Store|\._.*|\.nfs.*|Thumbs\.db|desktop\.ini")


def find_records(runs: Path) -> list[Record]:
    """The records in a folder, by name: subfolders with a status.json, except hidden ones and backups.

    Empty if there is no such folder.
    """
    if not runs.is_dir():
        return []
    names = sorted(path.name for path in runs.iterdir() if not is_foreign(path.name))
    return [Record(runs, name) for name in names if (runs / name / "status.json").exists()]


def find_record(runs: Path, given: str) -> Record:
    """The record whose run id begins with `given`.

    Raises:
        UserError: if there is none, or several.
    """
    known = [record.run_id for record in find_records(runs)]
    fitting = [name for name in known if name.startswith(given)]
    if len(fitting) == 1:
        return Record(runs, fitting[0])
    if fitting:
        raise UserError(f"{given}: matches {', '.join(fitting)}; write more digits")
    hint = did_you_mean(given, known) or "; paths.runs=FOLDER looks elsewhere"
    raise UserError(f"{given}: there is no such run in {runs}{hint}")


class Record:
    """The record of one run; with a lease, every write first checks that the lease is still held."""

    def __init__(self, runs: str | Path, run_id: str, lease: Lease | None = None) -> None:
        self.run_id = run_id
        self.path = Path(runs) / run_id
        self._lease = lease

    def file(self, name: str) -> Path:
        return self.path / name

    @property
    def size(self) -> int:
        """The total size of its files in bytes."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty if there is none yet.

        Raises:
            UserError: if it is corrupt, of another run, or of another version of these files.
        """
        status = self.read("status.json")
        if not status:
            return status
        if (version := status.get("version", 1)) != RECORD_VERSION:
            raise UserError(
                f"{self.path}: is a record of version {version}, but this code reads version {RECORD_VERSION}; set "
                "paths.runs to another folder, or move it away"
            )
        if status.get("state") not in STATES:
            raise self._corrupt("status.json", f"state is {status.get('state')!r}, must be one of {', '.join(STATES)}")
        if status.get("run_id") != self.run_id:
            raise UserError(
                f"{self.path}: is a copy of the record of run {status.get('run_id')}, which must be in a folder of "
                "that name; move the copy away"
            )
        if "mend" in status:  # as records before 0.2.0 have it
            status["hint"] = status.pop("mend")
        return status

    def seen(self) -> dict[str, Any]:
        """The status, but FAILED (killed) if it says RUNNING and no process holds the lease."""
        status = self.status()
        if status.get("state") == RUNNING and holder(self.path) is None:
            status = {**status, "state": FAILED, "failure": KILLED, "message": GONE, "hint": HINTS[KILLED]}
        return status

    def read(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the record; empty if there is none yet."""
        try:
            content = read_json(self.file(name), SCHEMAS.get(name, {}))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError as error:
            raise self._corrupt(name, str(error)) from error
        if not content:
            raise self._corrupt(name, "it is empty")
        return content

    def result(self) -> dict[str, Any]:
        """The content of result.json; empty if there is none yet."""
        return self.read("result.json")

    def rows(self, name: str = "metrics.csv") -> list[dict[str, float | None]]:
        """The rows of a CSV file, empty cells as None; an incomplete last line is left out."""
        try:
            text = read_regular(self.file(name), _MAX_CSV).decode("utf-8-sig")
            rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if None not in row.values()]
            found = [{name: float(cell) if cell else None for name, cell in row.items()} for row in rows]
            for row in found:
                if not all(math.isfinite(row.get(name) or 0.0) for name in ("epoch", "step")):
                    raise ValueError(f"epoch {row.get('epoch')}, step {row.get('step')}")
            return found
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, csv.Error) as error:
            raise self._corrupt(name, str(error)) from error

    def keys(self) -> dict[str, Any]:
        """The configuration by dotted keys, as config.yaml has it; empty if there is none."""
        try:
            return flatten(read_yaml(self.file("config.yaml")))
        except FileNotFoundError:
            return {}
        except (AttributeError, RecursionError, ValueError) as error:
            raise self._corrupt("config.yaml", one_line(error)) from error

    def _corrupt(self, name: str, why: str) -> UserError:
        return UserError(f"{self.file(name)}: is corrupt ({why}); remove {self.path} to train the run again")

    @property
    def is_done(self) -> bool:
        return self.status().get("state") == DONE

    def may_write(self) -> None:
        """Raise LeaseLost if another process has taken the run over."""
        if self._lease is not None:
            self._lease.check()

    def write(self, name: str, content: str | bytes | dict[str, Any]) -> None:
        """Write a file of the record, a dict as JSON."""
        self.may_write()
        text = json.dumps(content, indent=1) + "\n" if isinstance(content, dict) else content
        try:
            write_atomic(self.file(name), text, self.may_write)
        except FileNotFoundError:
            self.may_write()  # raises LeaseLost if a new owner removed the temporary file while this one was paused
            raise

    def set_status(self, state: str, **more: Any) -> None:
        """Write status.json; the attempt's number and start time and the labels are kept."""
        kept = {name: value for name, value in self.status().items() if name in ("attempt", "labels", "started")}
        self.write("status.json", {"run_id": self.run_id, "version": RECORD_VERSION, "state": state, **kept, **more})

    def fence(self) -> None:
        """Prevent earlier owners of the lease from writing anything more.

        An owner checks its lease before it renames a temporary file, but may be paused in between; once the temporary
        files are gone, its rename fails when it continues.
        """
        self._refuse_links()
        found = self._temporary_files()
        self.may_write()  # so that none of them is a later owner's
        _remove(found)

    def _temporary_files(self) -> list[Path]:
        return [path for path in self._contents() if TEMPORARY.fullmatch(path.name)]

    def begin(self, config_yaml: str, labels: dict[str, str], net: bytes | None = None, **more: Any) -> None:
        """Start an attempt, which resumes from the last checkpoint if there is one; the run must not be finished."""
        self.fence()
        status = self.status()
        self.may_write()  # another owner may have finished it while this one was paused
        assert status.get("state") != DONE
        self.write("config.yaml", config_yaml)
        if net is not None:
            self.write("net.py", net)
        number = self._lease.number if self._lease is not None else 0  # counts also leases whose owners started nothing
        self.set_status(RUNNING, attempt=max(number, status.get("attempt", 0) + 1), labels=labels, **more)

    def _refuse_links(self) -> None:
        """Raise UserError if writing the record could write elsewhere, as through links in an untrusted record."""
        for path in (self.path, *self._contents()):
            if path.is_symlink():
                raise UserError(f"{path}: is a symbolic link, which a record must not contain; move its target here")
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise UserError(f"{path}: is neither a file nor a folder; remove it")

    def _contents(self) -> Iterator[Path]:
        """The entries of the record and of its checkpoints folder, without following links."""
        for folder in (self.path, self.file("checkpoints")):
            if folder.is_dir() and not folder.is_symlink():
                yield from folder.iterdir()

    def _is_own(self, path: Path) -> bool:
        return (_OWN if path.parent == self.path else _OWN_CHECKPOINTS).fullmatch(path.name) is not None

    def foreign(self) -> list[Path]:
        """Files and folders in the record that no run writes."""
        return [path for path in self._contents() if not (self._is_own(path) or _DISPOSABLE.fullmatch(path.name))]

    def forget(self) -> None:
        """Remove the files of an unfinished run, so that it starts from scratch; the number of attempts is kept."""
        is_done = self.is_done
        self.may_write()
        assert not is_done
        self._refuse_links()
        for path in reversed([*self._contents()]):  # checkpoints/ after the files in it
            is_kept = path.name in ("status.json", *_COPIES) or path.name.startswith("claim.")
            if not self._is_own(path) or is_kept:
                continue
            self.may_write()
            if path.is_dir():
                with suppress(OSError):  # it contains a file of another program
                    path.rmdir()
            else:
                path.unlink()

    def tidy(self, keeps_newest: bool) -> None:
        """Remove the states and the lease that a finished run leaves behind if it is killed in its last second.

        `keeps_newest`: whether the configuration keeps the last state.
        """
        found = self._temporary_files()
        if self.path.is_symlink() or holder(self.path) is not None:
            return
        states = {path: int(path.name.partition("-")[0]) for path in self._contents() if _STATE.fullmatch(path.name)}
        newest = max((path for path in states if path.suffix == ".ckpt"), key=states.__getitem__, default=None)
        _remove([*found, *(path for path in states if path != newest or not keeps_newest)])
        with suppress(OSError):  # as in a folder that cannot be written
            remove_dead(self.path)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with suppress(OSError):  # it is gone, or the folder cannot be written
            path.unlink()
