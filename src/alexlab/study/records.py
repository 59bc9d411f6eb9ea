"""The records of one or several folders, merged by run id, and what is wrong with those that cannot be used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.compose import read_config
from alexlab.config import Config, ConfigError
from alexlab.runs.failure import RESULTS
from alexlab.runs.record import DONE, FAILED, Record
from alexlab.study.claims import VIEWS
from alexlab.tree import flatten

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

    @property
    def is_terminal(self) -> bool:
        """Whether it is done, or failed in a way that is a result: neither is to be tried again."""
        return self.is_done or (self.status.get("state") == FAILED and self.status.get("failure") in RESULTS)

    @property
    def arm(self) -> str | None:
        """The hash of what the runs of its arm share, as its status has it."""
        labels = self.status.get("labels")
        return labels.get("arm") if isinstance(labels, dict) else None

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What it ran on; empty where that file is missing or damaged."""
        try:
            return self.record.read("environment.json")
        except ConfigError:
            return {}

    @cached_property
    def epochs(self) -> list[dict[str, float | None]]:
        """What metrics.csv has of each epoch.

        Raises:
            ConfigError: where it is missing, empty or damaged.
        """
        rows = self.record.rows()
        if not rows:
            raise ConfigError(f"{self.record.file('metrics.csv')}: has no epoch")
        return rows

    @cached_property
    def train_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """After how many epochs the training error was logged, and the errors; see `Record.train_errors`."""
        return self.record.train_errors()

    def wrong(self, metric: str, view: str) -> tuple[np.ndarray, str]:
        """Whether each test image was classified wrongly, bool [M], and a hash of the images' classes in their order.

        `corner`: each by one of its four corner crops, in turn, which shows it off the centre.

        Raises:
            ConfigError: where predictions.npz is missing or damaged, or is not of this result.
        """
        found = self._wrong.get((metric, view), ConfigError(f"predictions.npz: has no {metric} of view {view}"))
        if isinstance(found, ConfigError):
            raise found
        bits, count, labels = found
        return np.unpackbits(bits, count=count).astype(bool), labels

    @cached_property
    def _wrong(self) -> dict[tuple[str, str], tuple[np.ndarray, int, str] | ConfigError]:
        """By metric and view, as bits: the file is read once, and a study may have thousands."""
        path = self.record.file("predictions.npz")
        found: dict[tuple[str, str], tuple[np.ndarray, int, str] | ConfigError] = {}
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                labels = arrays["labels"]
                classes = {("top1_error", "corner"): _corners(arrays, len(labels))}
                for view in ("ten", "center"):
                    top5 = arrays[f"{view}_top5"]
                    classes |= {("top1_error", view): top5[:, :1], ("top5_error", view): top5}
                wrong = {
                    key: None if given is None else (given != labels[:, None]).all(1) for key, given in classes.items()
                }
                digest = _digest(labels)
        except Exception as error:  # of zipfile, of numpy, of the file system
            unread = ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})")
            return {(metric, view): unread for metric in ("top1_error", "top5_error") for view in VIEWS}
        for (metric, view), values in wrong.items():
            if values is None:
                older = "predictions.npz: has no classes by single views; the record is older than them"
                found[metric, view] = ConfigError(older)
            elif len(values) == 0 or (
                view != "corner" and not abs(values.mean() - self.result["test"][view][metric]) <= 1e-9
            ):
                found[metric, view] = ConfigError(f"{path}: its errors are not those of result.json")
            else:
                found[metric, view] = np.packbits(values), len(values), digest
        return found


def _corners(arrays: Any, count: int) -> np.ndarray | None:
    """For each image the likeliest class by one of its four corner crops, in turn, [M, 1]; None in older records."""
    if "ten_by_view" not in arrays:
        return None
    return arrays["ten_by_view"][np.arange(count), np.arange(count) % 4][:, None]


def _digest(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.astype(np.int64).tobytes()).hexdigest()


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
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}") from error
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
            except (ConfigError, OSError) as error:
                archive.problems.append(_one_line(record, error))
                continue
            before = archive.runs.get(run.run_id)
            if before is None or (run.is_terminal and not before.is_terminal):
                archive.runs[run.run_id] = run
            elif (
                run.is_terminal
                and before.is_terminal
                and (run.is_done, run.result.get("test"))
                != (
                    before.is_done,
                    before.result.get("test"),
                )
            ):
                # A failure stays one: to take another try of it instead would select survivors.
                taken = before if run.is_done else run
                archive.runs[run.run_id] = taken
                archive.problems.append(
                    f"{run.run_id}: came to something else in {before.record.path.parent} than in {folder}; that in "
                    f"{taken.record.path.parent} is taken"
                )
    return archive


# What a report reads of a result, by dotted name.
_NEEDED: dict[str, type | tuple[type, ...]] = {
    **{f"test.{view}.{metric}": (int, float) for view in ("ten", "center") for metric in ("top1_error", "top5_error")},
    **{f"train.center.{metric}": (int, float) for metric in ("top1_error", "loss")},
    **{"seconds": (int, float), "epochs": (int, float), "seed": int},
    **{"data.store": str, "device": str, "precision": str, "checkpoint": str},
}


def _read(record: Record) -> Run:
    status = record.seen()
    if status.get("state") != DONE:
        return Run(record, status, {})
    result = record.result()
    if not result:
        raise ConfigError("is DONE and has no result.json")
    flat = flatten(result)
    for name, kind in _NEEDED.items():
        if not isinstance(flat.get(name), kind):
            raise ConfigError(f"result.json: {name} is {flat.get(name, 'missing')}")
        if name.endswith("_error") and not 0 <= flat[name] <= 1:
            raise ConfigError(f"result.json: {name} is {flat[name]}, and no error")
    return Run(record, status, result)


def _one_line(record: Record, error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{said}; left out" if said.startswith(str(record.path)) else f"{record.run_id}: {said}; left out"
