"""The records of one or several folders, merged by run id, and what is wrong with those that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.compose import read_config
from alexlab.config import Config, ConfigError
from alexlab.runs.record import DONE, Record

_SEED_LINE = re.compile(r"^(  )?seed: .*\n", re.MULTILINE)  # of `seed` and `data.seed`


@dataclass(frozen=True)
class Run:
    """One record with what its status and result say."""

    record: Record
    status: dict[str, Any]
    result: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def is_done(self) -> bool:
        return self.status.get("state") == DONE

    @property
    def seed(self) -> int | None:
        return self.result.get("seed")

    @cached_property
    def environment(self) -> dict[str, Any]:
        return self.record.read("environment.json")

    @cached_property
    def epochs(self) -> list[dict[str, float | None]]:
        """What metrics.csv has of each epoch."""
        return self.record.rows()

    def wrong(self, metric: str, view: str) -> np.ndarray | None:
        """Whether each test image was classified wrongly, bool [M]; None for a metric that is not of images.

        Raises:
            ConfigError: where predictions.npz is missing or damaged, or is not of this result.
        """
        if metric not in ("top1_error", "top5_error"):
            return None
        path = self.record.file("predictions.npz")
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                count = 1 if metric == "top1_error" else 5
                wrong = (arrays[f"{view}_top5"][:, :count] != arrays["labels"][:, None]).all(1)
        except Exception as error:  # of zipfile, of numpy, of the file system
            raise ConfigError(f"{path}: cannot be read ({error})") from error
        if abs(wrong.mean() - self.result["test"][view][metric]) > 1e-9:
            raise ConfigError(f"{path}: its errors are not those of result.json")
        return wrong


@dataclass
class Archive:
    """All runs by id, and in `problems` a line for each record that could not be taken as it is."""

    folders: list[Path]
    runs: dict[str, Run] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _configs: dict[str, Config] = field(default_factory=dict)

    def config(self, run: Run) -> Config:
        """The run's configuration; those of an arm's seeds are parsed once.

        Raises:
            ConfigError: where config.yaml is missing or damaged, or has a key of another version.
        """
        path = run.record.file("config.yaml")
        try:
            text = _SEED_LINE.sub("", path.read_text())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        if text not in self._configs:
            self._configs[text] = read_config(path, stored=False)
        return self._configs[text]


def read_archive(folders: Sequence[Path]) -> Archive:
    """Read the status and result of every record below the folders.

    A run that is in several is taken once: finished before unfinished, else from the first. Two finished ones with
    other results are a conflict, which is told. Nothing is left out without a line in `problems`.

    Raises:
        ConfigError: where a folder is missing.
    """
    archive = Archive(list(folders))
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"runs={folder}: no such folder")
        for path in sorted(folder.glob("*/status.json")):
            record = Record(folder, path.parent.name)
            try:
                run = _read(record)
            except (ConfigError, OSError, KeyError, TypeError) as error:
                archive.problems.append(_one_line(record, error))
                continue
            before = archive.runs.get(run.run_id)
            if before is None or (run.is_done and not before.is_done):
                archive.runs[run.run_id] = run
            elif run.is_done and run.result["test"] != before.result["test"]:
                archive.problems.append(
                    f"{run.run_id}: is finished in {before.record.path.parent} and in {folder} with other results; the "
                    "first is taken"
                )
    return archive


def _read(record: Record) -> Run:
    status = record.seen()
    if status.get("state") != DONE:
        return Run(record, status, {})
    result = record.result()
    if not result:
        raise ConfigError("is DONE and has no result.json")
    for view in ("ten", "center"):
        for metric in ("top1_error", "top5_error"):
            if not 0 <= float(result["test"][view][metric]) <= 1:
                raise ConfigError(f"its {view} {metric} is {result['test'][view][metric]}, and no error")
    return Run(record, status, result)


def _one_line(record: Record, error: Exception) -> str:
    said = f"has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return f"{record.run_id}: {said}; left out" if not said.startswith(str(record.path)) else f"{said}; left out"
