"""Checkpoints of a run, and its metrics.csv and train_error.csv."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from alexlab import distributed
from alexlab.config import CHANCE_SHARE, Config
from alexlab.files import open_atomic, write_atomic
from alexlab.training import preemption
from alexlab.training.module import ClassificationTask
from alexlab.training.preemption import Preempted
from alexlab.training.strategies import full_state

log = logging.getLogger(__name__)

METRICS = ("train_loss", "train_top1_error", "val_loss", "val_top1_error", "val_top5_error")
_NUM_KEPT = 2
CHANCE_STEPS = 1000  # the demo's arms need up to 200 steps before their loss moves
_DIGEST_LENGTH = 16
_CORRUPT = ".damaged"
_STATE = re.compile(rf"(\d+)-[0-9a-f]{{{_DIGEST_LENGTH}}}\.ckpt")
_MAX_THREADS = 1024  # far more crash the process


def no_check() -> None:
    pass


class States(CheckpointIO):
    """The newest states of a run, `<steps>-<digest>.ckpt`, made of tensors, numbers, lists and dicts only.

    The digest of its content is part of a file's name, so one rename publishes both. `may_write` is called right before
    the rename, and raises if this process must not write any more.
    """

    def __init__(self, folder: Path, may_write: Callable[[], None] = no_check) -> None:
        self._folder, self._may_write = folder, may_write

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a state under the name of `path` and its digest, and remove all but the last two."""
        self._folder.mkdir(exist_ok=True)
        with open_atomic(self._folder / Path(path).name, self._may_write) as temporary:
            hashing = _HashingFile(temporary.file)
            _save(checkpoint, hashing)
            temporary.path = self._folder / f"{Path(path).name}-{hashing.digest()}.ckpt"
        for old in self._all()[:-_NUM_KEPT]:
            old.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)

    def newest(self) -> Path | None:
        """The last state that can be resumed from; each corrupt one is reported and renamed."""
        for path in reversed(self._all()):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()[:_DIGEST_LENGTH]
            except OSError as error:
                digest = f"it cannot be read: {error}"
            if path.stem.endswith(f"-{digest}"):
                if not _is_before_validation(path):
                    return path
                log.info("%s: saved by an older version before its epoch was validated; skipped", path)
                continue
            message = f"{path} is corrupt; the run resumes from the previous checkpoint"
            log.warning("%s (%s)", message, digest)
            print(message, flush=True)
            with suppress(OSError):
                path.replace(path.with_suffix(_CORRUPT))
        return None

    def _all(self) -> list[Path]:
        found = [
            (int(match[1]), path) for path in self._folder.glob("*.ckpt") if (match := _STATE.fullmatch(path.name))
        ]
        return [path for _, path in sorted(found, key=lambda one: (one[0], one[1].stat().st_mtime_ns))]

    def clear(self, but_newest: bool = False) -> None:
        """Remove all states of a finished run, or all but the last."""
        for path in [*self._all()[: -1 if but_newest else None], *self._folder.glob(f"*{_CORRUPT}")]:
            path.unlink(missing_ok=True)


def _is_before_validation(path: Path) -> bool:
    """Whether a state precedes its epoch's validation: older versions saved such states, but none can resume."""
    place = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("place")
    return place is not None and place["step"] == place["steps"]


class _HashingFile(io.RawIOBase):
    """Hashes what is written to a file; keeps the error that torch.save would replace with its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.error: Exception | None = None

    def write(self, data: Any) -> int:
        try:
            self._hash.update(data)
            return self._file.write(data)
        except Exception as error:
            self.error = error
            raise

    def digest(self) -> str:
        return self._hash.hexdigest()[:_DIGEST_LENGTH]


def _save(content: dict[str, Any], file: _HashingFile) -> None:
    try:
        torch.save(content, file)  # pyright: ignore[reportArgumentType]
    except RuntimeError as error:
        if file.error is not None:
            raise file.error from error
        raise


def save_weights(path: Path, content: dict[str, Any], may_write: Callable[[], None] = no_check) -> None:
    """Write plain tensors atomically."""
    with open_atomic(path, may_write) as temporary:
        _save(content, _HashingFile(temporary.file))


class Stopper(L.Callback):
    """Stops a try-out, which saves no state, after the step in which a stop is requested."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        (is_requested,) = distributed.any_of(preemption.requested())
        if is_requested:
            raise Preempted


class DoesNotLearn(RuntimeError):
    """The training loss is still at chance level."""


class Recorder(Checkpoint):
    """Writes metrics.csv, train_error.csv and the run's states, and resumes from a state.

    A state determines the rest of the run to the bit: weights, velocities, position in the epoch, running sums of the
    epoch's metrics, the rows so far, and the best weights (lowest top-1 validation error, the earliest on ties).
    Random draws are functions of seeds and counters and need no state. `on_row` gets each finished row; after a resume
    it first gets the rows from the state.

    If several processes share a run, each has a recorder, and they decide together; only rank 0 writes.
    """

    def __init__(
        self,
        folder: Path,
        states: States,
        config: Config,
        on_row: Callable[[dict[str, Any]], None] = lambda row: None,
        may_write: Callable[[], None] = no_check,
    ) -> None:
        self._folder, self.states, self._config = folder, states, config
        self._on_row, self._may_write = on_row, may_write
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        strategy = config.trainer.strategy.name if distributed.count() > 1 else ""
        self._devices = [distributed.count(), strategy]
        self._position = (0, 0)  # epoch, and steps done in it
        self._saved_position = (0, 0)
        self._started = self._saved_at = time.monotonic()
        self._seconds_before = 0.0
        self.first_step_at: float | None = None  # wall-clock time

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.first_step_at = self.first_step_at or time.time()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # No state is saved between an epoch's last step and the end of its validation: Lightning, resuming from there,
        # would skip the validation (in 2.6.6; one batch of it in 2.2, #19549, #20288).
        if batch_idx + 1 < trainer.num_training_batches:
            self._position = (trainer.current_epoch, batch_idx + 1)
            self._save_or_stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ClassificationTask)
        row = self._add_row(trainer, pl_module)
        self._position = (trainer.current_epoch + 1, 0)
        self._write_train_errors(pl_module)
        self._report_rows([row])
        self._stop_at_chance(trainer, row)
        self._save_or_stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)  # so that evaluation can be repeated from here

    # Rows

    def _add_row(self, trainer: L.Trainer, task: ClassificationTask) -> dict[str, Any]:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "lr": metrics["lr"]}
        row.update({name: metrics.get(name, "") for name in METRICS})  # empty without validation
        self.rows.append(row)
        error = metrics.get("val_top1_error", math.inf)
        if error < (math.inf if self.best is None else self.best["val_top1_error"]):
            self.best = {"state_dict": weights_of(task.network), "epoch": row["epoch"], "val_top1_error": error}
        return row

    def _stop_at_chance(self, trainer: L.Trainer, row: dict[str, Any]) -> None:
        patience, num_classes = self._config.trainer.chance_epochs, self._config.data.num_classes
        if patience is None or row["epoch"] < patience or row["step"] < CHANCE_STEPS or num_classes is None:
            return
        chance = math.log(num_classes)
        if row["train_loss"] >= CHANCE_SHARE * chance:
            self._save(trainer)
            raise DoesNotLearn(
                f"after {row['epoch']} epochs the training loss is {row['train_loss']:.3f}, no better than guessing "
                f"among {num_classes} classes ({chance:.3f})"
            )

    def _report_rows(self, new: list[dict[str, Any]]) -> None:
        if distributed.is_first():
            _write_csv(self._folder / "metrics.csv", self.rows, self._may_write)
            for row in new:
                self._on_row(row)

    def _write_train_errors(self, task: ClassificationTask) -> None:
        if self._config.trainer.train_error_every is not None and distributed.is_first():
            _write_csv(self._folder / "train_error.csv", task.train_errors, self._may_write)

    # Saving

    def _save_or_stop(self, trainer: L.Trainer) -> None:
        """Save a state if one is due or a stop is requested, and stop in the latter case."""
        is_due = distributed.is_first() and self._is_due(trainer.global_step)  # by the clock of one process
        is_requested, is_due = distributed.any_of(preemption.requested(), is_due)
        if is_requested or is_due:
            self._save(trainer)
        if is_requested:
            raise Preempted

    def _is_due(self, step: int) -> bool:
        steps, minutes = self._config.checkpoint.every_steps, self._config.checkpoint.every_minutes
        return (steps is not None and step % steps == 0) or (
            minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        )

    def _save(self, trainer: L.Trainer) -> None:
        if self._position != self._saved_position:
            trainer.save_checkpoint(self._folder / "checkpoints" / f"{trainer.global_step:08d}")
        self._saved_at, self._saved_position = time.monotonic(), self._position

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        epoch, step = self._position
        checkpoint["seconds"] = self.seconds
        checkpoint["threads"], checkpoint["devices"] = torch.get_num_threads(), self._devices
        checkpoint["device_type"] = trainer.strategy.root_device.type
        checkpoint["place"] = {"epoch": epoch, "step": step, "steps": int(trainer.num_training_batches)}

    @property
    def seconds(self) -> float:
        """The training time of the run, over all processes that worked on it."""
        return self._seconds_before + time.monotonic() - self._started

    # Resuming

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self._report_rows(self.rows)  # also rewrites metrics.csv, which may have rows of later epochs

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(pl_module, ClassificationTask)
        self._write_train_errors(pl_module)
        epoch, step = checkpoint["place"]["epoch"], checkpoint["place"]["step"]
        self._position = self._saved_position = (epoch, step)
        self._seconds_before = checkpoint["seconds"]
        _warn_of_other_masks(checkpoint, trainer.strategy.root_device.type)
        self._restore_threads(checkpoint)
        trainer.datamodule.start_at(epoch, step)  # pyright: ignore[reportAttributeAccessIssue]
        trainer.should_stop = step == 0 and pl_module.ends_before(epoch)

    def _restore_threads(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["devices"] != self._devices:
            before, now = (
                f"{number} x {strategy}" if strategy else "one device"
                for number, strategy in (checkpoint["devices"], self._devices)
            )
            log.warning(f"the run resumes on {now} instead of {before}: equal up to rounding, not to the bit")
        elif checkpoint["threads"] != torch.get_num_threads():  # another number would change the order of summation
            number = int(checkpoint["threads"])
            if not 0 < number <= _MAX_THREADS:
                raise ValueError(f"checkpoint of {number} threads: must be 1 to {_MAX_THREADS}; remove the checkpoints")
            log.info("the run resumes with %d threads, as it started", number)
            torch.set_num_threads(number)


def _warn_of_other_masks(checkpoint: dict[str, Any], now: str) -> None:
    """Warn if a run changes between CPU and GPU: torch's generators for them draw different numbers from one seed."""
    before = checkpoint.get("device_type", now)  # missing in states of older versions
    if before != now:
        log.warning(
            f"the run resumes on {now} instead of {before}, which draws other dropout masks: without dropout equal up "
            "to rounding, otherwise not"
        )


def _write_csv(path: Path, rows: list[dict[str, Any]], may_write: Callable[[], None]) -> None:
    if not rows and not path.exists():
        return
    text = io.StringIO(newline="")  # empties the file if there are no rows: only a rename is safe from a paused process
    writer = csv.DictWriter(text, rows[0] if rows else [])
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue(), may_write)


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the full network's weights, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in full_state(network).items()}
