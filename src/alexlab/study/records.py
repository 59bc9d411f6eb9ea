"""The records of folders and bundles, merged by run id, and the problems of those that cannot be used."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.compose import read_config
from alexlab.config import Config
from alexlab.errors import UserError, one_line
from alexlab.files import read_regular
from alexlab.runs.arrays import read_arrays
from alexlab.runs.bundle import HERE, Source
from alexlab.runs.failure import RESULTS
from alexlab.runs.record import DONE, FAILED, Record, find_records
from alexlab.study.claims import METRICS, VIEW_NAMES, VIEWS
from alexlab.tree import flatten, parse_yaml

_SEED = re.compile(r"^seed: (\d{1,19})$", re.MULTILINE)
_SEED_LINE = re.compile(r"^(  )?seed: .*\n", re.MULTILINE)  # of `seed` and `data.seed`
_MAX_CONFIG = 2**20  # bytes
_LONGEST_LABEL = 200


@dataclass(frozen=True)
class RunData:
    """The record of a run; each file is read once, on first use."""

    record: Record
    status: dict[str, Any]
    submitter: str = HERE  # as its bundle names them

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def is_done(self) -> bool:
        return self.status.get("state") == DONE

    @property
    def state(self) -> str:
        """The state, with the class of a failure."""
        state = self.status.get("state", "not run")
        return f"{state}: {self.status['failure'][:_LONGEST_LABEL]}" if "failure" in self.status else state

    @property
    def labels(self) -> dict[str, str]:
        """Protocol, recipe, model, ablation and arm, each short enough to be printed."""
        return {name: label[:_LONGEST_LABEL] for name, label in self.status.get("labels", {}).items()}

    @property
    def arm(self) -> str | None:
        """The hash of the settings that the runs of its arm share."""
        return self.labels.get("arm")

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of result.json; empty unless it is done.

        Raises:
            UserError: if a finished run has none.
        """
        if not self.is_done:
            return {}
        result = self.record.result()
        if not result:
            raise UserError(f"{self.record.path}: is DONE but has no result.json; remove it to repeat the run")
        return result

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The configuration by dotted keys."""
        return self.record.keys()

    @property
    def arm_config(self) -> str:
        """The text of config.yaml without the seeds, which the runs of an arm share.

        Raises:
            UserError: if it is missing or not text.
        """
        path = self.record.file("config.yaml")
        try:
            return _SEED_LINE.sub("", read_regular(path, _MAX_CONFIG).decode("utf-8-sig"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'is not text'}") from error

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration without the seeds, as nested mappings; parsed once for the runs of an arm.

        Raises:
            UserError: if config.yaml is missing or corrupt.
        """
        try:
            return _parsed(self.arm_config)
        except ValueError as error:
            raise UserError(f"{self.record.file('config.yaml')}: {error}") from error

    @cached_property
    def seed(self) -> int | None:
        """The seed, read without the rest of the configuration."""
        if "seed" in self.result:
            return self.result["seed"]
        try:
            found = _SEED.search(read_regular(self.record.file("config.yaml"), _MAX_CONFIG).decode("utf-8-sig"))
        except (OSError, ValueError):
            return None
        return int(found[1]) if found else None

    @property
    def is_terminal(self) -> bool:
        """Whether it is done, or failed in a way that is a result; neither is retried."""
        return self.is_done or (self.status.get("state") == FAILED and self.status.get("failure") in RESULTS)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The content of environment.json; empty if it is missing or corrupt."""
        try:
            return self.record.read("environment.json")
        except UserError:
            return {}

    @cached_property
    def epochs(self) -> list[dict[str, float | None]]:
        """The rows of metrics.csv, one per epoch.

        Raises:
            UserError: if it is missing, empty or corrupt.
        """
        rows = self.record.rows()
        if not rows:
            raise UserError(f"{self.record.file('metrics.csv')}: has no epoch")
        return rows

    @property
    def validation_error(self) -> float | None:
        """The top-1 validation error after the last epoch; None if there was no validation.

        Raises:
            UserError: if metrics.csv is missing, empty or corrupt.
        """
        return self.epochs[-1].get("val_top1_error")

    @cached_property
    def train_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Training error over the run: the epochs after which it was logged, and the errors.

        From train_error.csv if the run has it, else from metrics.csv.

        Raises:
            UserError: if the file is missing, empty or corrupt, or an entry has no error.
        """
        name = "train_error.csv" if self.record.file("train_error.csv").exists() else "metrics.csv"
        rows = self.record.rows(name)
        if not rows:
            raise UserError(f"{self.record.file(name)}: has no epoch")
        epochs, errors = (
            np.array([row.get(column) for row in rows], dtype=float) for column in ("epoch", "train_top1_error")
        )
        if not (np.isfinite(epochs).all() and np.isfinite(errors).all()):
            raise UserError(f"{name} has an epoch without a training error")
        return epochs, errors

    def wrong(self, metric: str, view: str) -> tuple[np.ndarray, str]:
        """Whether each test image was classified wrongly, bool [M], and a hash of the images' classes in their order.

        `corner`: each image is classified by one of its four corner crops, in turn.

        Raises:
            UserError: if predictions.npz is missing or corrupt, or does not match result.json.
        """
        found = self._wrong.get((metric, view), UserError(f"predictions.npz: has no {metric} of view {view}"))
        if isinstance(found, UserError):
            raise found
        bits, count, labels = found
        return np.unpackbits(bits, count=count).astype(bool), labels

    def confusions(self, num_classes: int) -> np.ndarray:
        """The number of test images by their class (rows) and their most likely class by ten views, int [C, C].

        Raises:
            UserError: if predictions.npz is missing or corrupt, or has other classes.
        """
        path = self.record.file("predictions.npz")
        try:
            arrays = read_arrays(path, ("labels", "ten_top5"))
            true, given = (arrays[name].astype(np.int64) for name in ("labels", "ten_top5"))
            if not 0 <= min(true.min(), given.min()) <= max(true.max(), given.max()) < num_classes:
                raise ValueError(f"has classes beyond the {num_classes} of data.num_classes")
            counts = np.bincount(true * num_classes + given[:, 0], minlength=num_classes**2)
        except Exception as error:  # from zipfile, numpy or the file system
            raise UserError(f"{path}: cannot be read ({one_line(error)})") from error
        return counts.reshape(num_classes, num_classes)

    @cached_property
    def _wrong(self) -> dict[tuple[str, str], tuple[np.ndarray, int, str] | UserError]:
        """By metric and view, packed as bits: each file is read once, and a study may have thousands."""
        path = self.record.file("predictions.npz")
        found: dict[tuple[str, str], tuple[np.ndarray, int, str] | UserError] = {}
        try:
            names = ("labels", "ten_top5", "center_top5", "ten_by_view")
            arrays = read_arrays(path, names)
            labels = arrays["labels"]
            right = {("top1_error", "corner"): _corners(arrays, labels)}
            for view in ("ten", "center"):
                if f"{view}_top5" in arrays:
                    hits = arrays[f"{view}_top5"] == labels[:, None]
                    right |= {("top1_error", view): hits[:, 0], ("top5_error", view): hits.any(1)}
            wrong = {key: None if hits is None else ~hits for key, hits in right.items()}
            digest = _digest(labels.tobytes(), labels.dtype)
        except Exception as error:  # from zipfile, numpy or the file system
            unread = UserError(f"{path}: cannot be read ({one_line(error)})")
            return {(metric, view): unread for metric in ("top1_error", "top5_error") for view in VIEWS}
        for (metric, view), values in wrong.items():
            if values is None:
                older = "predictions.npz: has no predictions by single views; the record is from an older version"
                found[metric, view] = UserError(older)
            elif len(values) == 0 or (
                view != "corner" and not abs(values.mean() - self.result["test"][view][metric]) <= 1e-9
            ):
                found[metric, view] = UserError(f"{path}: its errors are not those of result.json")
            else:
                found[metric, view] = np.packbits(values), len(values), digest
        return found


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    return parse_yaml(text)


def _corners(arrays: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray | None:
    """Whether each image is correct by one of its four corner crops, in turn, bool [M]; None in older records."""
    if "ten_by_view" not in arrays:
        return None
    return arrays["ten_by_view"][np.arange(len(labels)), np.arange(len(labels)) % 4] == labels


@lru_cache(maxsize=16)
def _digest(labels: bytes, dtype: np.dtype) -> str:
    return hashlib.sha256(np.frombuffer(labels, dtype).astype(np.int64).tobytes()).hexdigest()


@dataclass
class Archive:
    """All runs by id, and in `problems` a line for each record that cannot be used, or not in full."""

    sources: list[Source]
    runs: dict[str, RunData] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    # All finished copies of runs that are in several places or from several submitters, including the one in `runs`.
    copies: dict[str, list[RunData]] = field(default_factory=dict)
    _configs: dict[str, Config] = field(default_factory=dict)

    def config(self, run: RunData) -> Config:
        """The run's configuration, which is parsed once per arm.

        Raises:
            UserError: if config.yaml is missing or corrupt, or has a key of another version.
        """
        text = run.arm_config
        if text not in self._configs:
            self._configs[text] = read_config(run.record.file("config.yaml"), stored=False)
        return self._configs[text]

    def named(self, text: str) -> str:
        """Replace folders of unpacked bundles in a text by the bundles' files."""
        for source in self.sources:
            text = source.named(text)
        return text


def read_archive(places: Sequence[Path | Source]) -> Archive:
    """Read the status and result of every record of folders and opened bundles.

    A run in several places is counted once, whatever their order: an ended copy takes precedence over an unfinished
    one, a failure that is a result over a success, then the one that ended first. `problems` names ended copies with
    other results, and records that are left out.

    Raises:
        UserError: if a folder is missing.
    """
    sources = [place if isinstance(place, Source) else Source(place, str(place)) for place in places]
    archive = Archive(sources)
    found: dict[str, list[tuple[Source, RunData]]] = {}
    for source in sources:
        if not source.folder.is_dir():
            raise UserError(f"runs={source.folder}: no such folder")
        for record in find_records(source.folder):
            try:
                run = _read(record, source.who)
            except (UserError, OSError) as error:
                archive.problems.append(source.named(why_left_out(record, error)))
                continue
            found.setdefault(run.run_id, []).append((source, run))
    for run_id, copies in found.items():
        ended = sorted((copy for copy in copies if copy[1].is_terminal), key=_order)
        archive.runs[run_id] = (ended or copies)[0][1]
        if len(ended) > 1:
            archive.copies[run_id] = [run for _, run in ended]
            archive.problems += _conflicts(run_id, ended)
    return archive


def _order(copy: tuple[Source, RunData]) -> tuple[bool, float]:
    """The key by which a run's copies are sorted; the first is taken.

    A failure comes before a success, since taking another attempt would select survivors.
    """
    return copy[1].is_done, copy[1].status.get("ended", math.inf)


def _conflicts(run_id: str, copies: list[tuple[Source, RunData]]) -> list[str]:
    """A line for each further source whose result for the run differs from the one that is used."""
    taken, first = copies[0]
    return [
        f"{run_id}: {metric} {own} in {taken}, {others} in {other}; counted once, as in {taken}"
        for other, run in copies[1:]
        for metric, own, others in _differing(first, run)
    ]


def _differing(first: RunData, second: RunData) -> list[tuple[str, str, str]]:
    """The first difference between two ended copies of a run, with both values; empty if they agree."""
    if not (first.is_done and second.is_done):
        return [("is", first.state, second.state)] if first.state != second.state else []
    results = [flatten(run.result["test"]) for run in (first, second)]
    for name in dict.fromkeys(["ten.top1_error", *results[0], *results[1]]):
        own, others = results[0].get(name), results[1].get(name)
        if own != others:
            view, _, metric = name.rpartition(".")
            if metric in METRICS and own is not None and others is not None:
                own, others, metric = f"{100 * own:.2f} %", f"{100 * others:.2f} %", METRICS[metric][0]
            return [(f"{metric} by {VIEW_NAMES.get(view, view)} is", str(own), str(others))]
    return []


# Entries of result.json that a report needs, by dotted name; the record's schema has the types.
_NEEDED = (
    *(f"test.{view}.{metric}" for view in ("ten", "center") for metric in ("top1_error", "top5_error")),
    *("train.center.top1_error", "train.center.loss", "seconds", "epochs", "seed"),
    *("data.store", "device", "precision", "checkpoint"),
)


def _read(record: Record, submitter: str) -> RunData:
    run = RunData(record, record.seen(), submitter)
    if run.is_done:
        flat = flatten(run.result)
        for name in _NEEDED:
            if name not in flat:
                raise UserError(f"result.json: {name} is missing")
    return run


def finished_runs(folder: Path) -> list[RunData]:
    """The finished runs of a folder; a corrupt record is left out."""
    found = []
    for record in find_records(folder):
        with suppress(UserError, OSError):
            run = RunData(record, record.status())
            if run.is_done:
                found.append(run)
    return found


def why_left_out(record: Record, error: Exception) -> str:
    """One line that names a record and the error for which it is left out."""
    text = one_line(error)
    return f"{text}; left out" if str(record.path) in text else f"{record.run_id}: {text}; left out"
