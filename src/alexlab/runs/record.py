"""What a run leaves behind: the folder `runs/<run id>/`.

    config.yaml       the resolved configuration
    status.json       state, attempt, labels, and for a failure its class and message
    environment.json  versions, commit, device
    metrics.csv       one row an epoch
    train.log         the run's log, with the traceback of a failure
    checkpoints/      last.ckpt, best.ckpt
    predictions.npz   for each test image and view kind: top-5 classes, log-probability of the true class
    result.json       errors and costs; there only once the run is DONE

The files that tell how a run ended are written whole or not at all: beside their place first, then renamed. metrics.csv
and train.log grow while it runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexlab.config import ConfigError

RUNNING, DONE, FAILED = "RUNNING", "DONE", "FAILED"
INTERRUPTED = "stopped from the keyboard; the same command starts it again"


class Record:
    """The record of one run."""

    def __init__(self, runs: str | Path, run_id: str) -> None:
        self.run_id = run_id
        self.path = Path(runs) / run_id

    def file(self, name: str) -> Path:
        return self.path / name

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty where there is none yet."""
        return _read(self.file("status.json"))

    def result(self) -> dict[str, Any]:
        """The content of result.json; empty where there is none yet."""
        return _read(self.file("result.json"))

    @property
    def is_done(self) -> bool:
        return self.status().get("state") == DONE

    def set_status(self, state: str, **more: Any) -> None:
        """Write status.json; the attempt's number and the labels stay as they are."""
        kept = {name: value for name, value in self.status().items() if name in ("attempt", "labels")}
        status = {"run_id": self.run_id, "state": state, **kept, **more}
        write_whole(self.file("status.json"), json.dumps(status, indent=1) + "\n")

    def begin(self, config_yaml: str, labels: dict[str, str]) -> None:
        """Start an attempt from nothing; a finished run is never begun again."""
        status = self.status()
        assert status.get("state") != DONE
        for path in self.path.iterdir():
            if path.name not in ("lock", "status.json", "wandb"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_whole(self.file("config.yaml"), config_yaml)
        self.set_status(RUNNING, attempt=status.get("attempt", 0) + 1, labels=labels)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the run, so that one process at a time works on it; waits for another that holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.file("lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"run {self.run_id} is being trained by another process; waiting for it", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise ConfigError(f"{path}: is damaged ({error}); remove {path.parent} to have the run done again") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, and let it survive a crash of the machine."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
