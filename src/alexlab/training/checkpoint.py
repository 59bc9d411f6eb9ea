"""What training leaves: the states that a run goes on from, a row of metrics.csv for each epoch, train_error.csv."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
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
from alexlab.training.strategies import whole_state

log = logging.getLogger(__name__)

METRICS = ("train_loss", "train_top1_error", "val_loss", "val_top1_error", "val_top5_error")
_KEPT = 2
CHANCE_STEPS = 1000  # the demo's arms need up to 200 steps before their loss moves
_DIGEST_LENGTH = 16
_DAMAGED = ".damaged"


def nothing() -> None:
    pass


class States(CheckpointIO):
    """The newest states of a run, `<steps>-<digest>.ckpt`: plain tensors, numbers, lists and dicts alone.

    A name holds the digest of its file's content, so the file and what tells whether it is whole take their place at
    once. `may_write` is called right before a file does, and raises where this process must not write any more.
    """

    def __init__(self, folder: Path, may_write: Callable[[], None] = nothing) -> None:
        self._folder, self._may_write = folder, may_write

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Add a state, called `path` and its digest, and remove what is older than the last two."""
        self._folder.mkdir(exist_ok=True)
        with open_atomic(self._folder / Path(path).name, self._may_write) as temporary:
            hashing = _Hashing(temporary.file)
            _save(checkpoint, hashing)
            temporary.path = self._folder / f"{Path(path).name}-{hashing.digest()}.ckpt"
        for old in self._all()[:-_KEPT]:
            old.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)

    def newest(self) -> Path | None:
        """The last state that is whole; each damaged one is named and put aside, and the one before it taken."""
        for path in reversed(self._all()):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()[:_DIGEST_LENGTH]
            except OSError as error:
                digest = f"it cannot be read: {error}"
            if path.stem.endswith(f"-{digest}"):
                return path
            said = f"{path} is damaged; the run resumes from the checkpoint before it"
            log.warning("%s (%s)", said, digest)
            print(said, flush=True)
            with suppress(OSError):
                path.replace(path.with_suffix(_DAMAGED))
        return None

    def _all(self) -> list[Path]:
        found = self._folder.glob("[0-9]*-*.ckpt")
        return sorted(found, key=lambda path: (int(path.name.split("-")[0]), path.stat().st_mtime_ns))

    def clear(self, but_newest: bool = False) -> None:
        """Remove all states of a run that is done, or all but the last."""
        for path in [*self._all()[: -1 if but_newest else None], *self._folder.glob(f"*{_DAMAGED}")]:
            path.unlink(missing_ok=True)


class _Hashing(io.RawIOBase):
    """Writes to a file and hashes what it writes; keeps the error that torch would hide behind its own."""

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


def _save(content: dict[str, Any], file: _Hashing) -> None:
    try:
        torch.save(content, file)  # pyright: ignore[reportArgumentType]
    except RuntimeError as error:
        if file.error is not None:
            raise file.error from error
        raise


def save_weights(path: Path, content: dict[str, Any], may_write: Callable[[], None] = nothing) -> None:
    """Write plain tensors whole or not at all."""
    with open_atomic(path, may_write) as temporary:
        _save(content, _Hashing(temporary.file))


class Stopper(L.Callback):
    """Ends a training of which nothing is kept, after the step in which it is asked to stop."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        (is_asked,) = distributed.any_of(preemption.requested())
        if is_asked:
            raise Preempted


class DoesNotLearn(RuntimeError):
    """The training loss is still that of guessing."""


class Recorder(Checkpoint):
    """Writes metrics.csv, train_error.csv and, every so often, the state of the run; resumes from a saved state.

    A state holds all that the rest of the run follows from, so that it comes to the same bits: weights, velocities, the
    place in the epoch, what the epoch's averages have summed up, the rows so far, and the best weights (lowest top-1
    validation error, the earlier of two that are equal). What is drawn is no part of it, being a function of seeds and
    counters. `on_row` gets each row as it is finished, and first those that a state brings.

    Of several processes that share a run all have a recorder, which decide alike; the first one's writes.
    """

    def __init__(
        self,
        folder: Path,
        states: States,
        config: Config,
        on_row: Callable[[dict[str, Any]], None] = lambda row: None,
        may_write: Callable[[], None] = nothing,
    ) -> None:
        self._folder, self.states, self._config = folder, states, config
        self._on_row, self._may_write = on_row, may_write
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        split = config.trainer.strategy.name if distributed.count() > 1 else ""
        self._devices = [distributed.count(), split]
        self._place = (0, 0)  # epoch, and steps done of it
        self._saved_place = (0, 0)
        self._started = self._saved_at = time.monotonic()
        self._seconds_before = 0.0
        self.first_step_at: float | None = None  # by the clock on the wall

    # Where a run is

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.first_step_at = self.first_step_at or time.time()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._place = (trainer.current_epoch, batch_idx + 1)
        self._stop_or_save(trainer, is_due=self._is_due(trainer.global_step))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._stop_or_save(trainer, is_due=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "lr": metrics["lr"]}
        row.update({name: metrics.get(name, "") for name in METRICS})  # empty where validation is off
        self.rows.append(row)
        error = metrics.get("val_top1_error", math.inf)
        if error < (math.inf if self.best is None else self.best["val_top1_error"]):
            assert isinstance(pl_module, ClassificationTask)
            weights = weights_of(pl_module.network)
            self.best = {"state_dict": weights, "epoch": row["epoch"], "val_top1_error": error}
        self._place = (trainer.current_epoch + 1, 0)
        self._write_train_errors(pl_module)
        self._show_rows([row])
        self._end_if_chance(trainer, row)
        self._stop_or_save(trainer, is_due=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)  # evaluation can start again from here

    def _end_if_chance(self, trainer: L.Trainer, row: dict[str, Any]) -> None:
        patience, num_classes = self._config.trainer.chance_epochs, self._config.data.num_classes
        if patience is None or row["epoch"] < patience or row["step"] < CHANCE_STEPS or num_classes is None:
            return
        chance = math.log(num_classes)
        if row["train_loss"] >= CHANCE_SHARE * chance:
            self._save(trainer)
            raise DoesNotLearn(
                f"after {row['epoch']} epochs the training loss is {row['train_loss']:.3f}, that of guessing among "
                f"{num_classes} classes ({chance:.3f})"
            )

    def _show_rows(self, new: list[dict[str, Any]]) -> None:
        if distributed.is_first():
            self._write_rows()
            for row in new:
                self._on_row(row)

    def _write_rows(self) -> None:
        _write_csv(self._folder / "metrics.csv", self.rows, self._may_write)

    def _write_train_errors(self, task: L.LightningModule) -> None:
        assert isinstance(task, ClassificationTask)
        if self._config.trainer.train_error_every is not None and distributed.is_first():
            _write_csv(self._folder / "train_error.csv", task.train_errors, self._may_write)

    # Saving

    def _is_due(self, step: int) -> bool:
        often = self._config.checkpoint
        steps, minutes = often.every_steps, often.every_minutes
        return (steps is not None and step % steps == 0) or (
            minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        )

    def _stop_or_save(self, trainer: L.Trainer, is_due: bool) -> None:
        is_asked, is_due = distributed.any_of(preemption.requested(), is_due and distributed.is_first())  # by one clock
        if is_asked or is_due:
            self._save(trainer)
        if is_asked:
            raise Preempted

    def _save(self, trainer: L.Trainer) -> None:
        if self._place != self._saved_place:
            trainer.save_checkpoint(self._folder / "checkpoints" / f"{trainer.global_step:08d}")
        self._saved_at, self._saved_place = time.monotonic(), self._place

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        epoch, step = self._place
        checkpoint["seconds"] = self.seconds
        checkpoint["threads"], checkpoint["devices"] = torch.get_num_threads(), self._devices
        checkpoint["place"] = {"epoch": epoch, "step": step, "steps": int(trainer.num_training_batches)}

    @property
    def seconds(self) -> float:
        """How long the run has been trained, in all processes."""
        return self._seconds_before + time.monotonic() - self._started

    # Going on

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best = state_dict["rows"], state_dict["best"]
        self._show_rows(self.rows)  # written, too: of epochs behind the state there may be some already

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put data, task and Lightning's loops to the place; called before Lightning restores its loops.

        Not by Lightning's own counters, which are in between while a hook runs: by them, a state saved at an epoch's
        last step would go on behind that epoch's validation. Here, that step is passed over and all else follows it.
        """
        assert isinstance(pl_module, ClassificationTask)
        self._write_train_errors(pl_module)
        epoch, step, steps = (checkpoint["place"][name] for name in ("epoch", "step", "steps"))
        self._place = self._saved_place = (epoch, step)
        self._seconds_before = checkpoint["seconds"]
        if checkpoint["devices"] != self._devices:
            before, now = (
                f"{number} x {split}" if split else "one device"
                for number, split in (checkpoint["devices"], self._devices)
            )
            said = f"the run resumes with {now} where it had {before}: the same but for rounding, not to the bit"
            log.warning(said)
        elif checkpoint["threads"] != torch.get_num_threads():  # sums in another order would have other last bits
            log.info("the run resumes with %d threads, as it began", checkpoint["threads"])
            torch.set_num_threads(checkpoint["threads"])
        pl_module.passes_over = step == steps
        done = step - pl_module.passes_over
        trainer.datamodule.start_at(epoch, done)  # pyright: ignore[reportAttributeAccessIssue]
        checkpoint["loops"]["fit_loop"] = _loops(
            trainer.fit_loop.state_dict(), epoch, done, epoch * steps + done, step > 0
        )
        trainer.should_stop = step == 0 and pl_module.ends_before(epoch)


def _write_csv(path: Path, rows: list[dict[str, Any]], may_write: Callable[[], None]) -> None:
    if not rows and not path.exists():
        return
    text = io.StringIO(newline="")  # empty without rows, since only a rename is safe from a process that was paused
    writer = csv.DictWriter(text, rows[0] if rows else [])
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue(), may_write)


def _loops(state: dict[str, Any], epoch: int, step: int, total: int, is_within: bool) -> dict[str, Any]:
    """The state of Lightning's loops when `total` steps are done, `step` of them in this epoch, if it was begun."""
    for place in ("total", "current"):
        for name in state["epoch_progress"][place]:
            begun = is_within and name in ("ready", "started")
            state["epoch_progress"][place][name] = epoch + begun
    optimizer = state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for progress in (state["epoch_loop.batch_progress"], optimizer["step"], optimizer["zero_grad"]):
        progress["total"] = dict.fromkeys(progress["total"], total)
        progress["current"] = dict.fromkeys(progress["current"], step)
    state["epoch_loop.state_dict"] = {"_batches_that_stepped": total}
    return state


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a whole network's weights, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in whole_state(network).items()}
