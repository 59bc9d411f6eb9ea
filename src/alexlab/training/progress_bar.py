"""Training progress: a line for each epoch, and below them a live bar if the run has a terminal to itself."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from alexlab.console import Console, duration
from alexlab.progress import is_live
from alexlab.training.divergence import AsyncScalar
from alexlab.training.module import ClassificationTask

_MAX_LINES = 200  # of a run
_WIDE = 100  # columns of a terminal in which everything fits


class TrainingBar(L.Callback):
    """Shows a title ("run 2 of 4"), epoch, loss, last and best validation error, images per second and time left.

    A run of more than 200 epochs prints a line for every second one, or every third, and so on.
    """

    def __init__(self, title: str, is_shown: bool = True) -> None:
        self._title, self._is_shown = title, is_shown
        self._live = is_shown and is_live()
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]}{task.fields[val]} ·", markup=False),
            *([TextColumn("{task.fields[speed]:.0f} images/s ·", markup=False)] if console.width >= _WIDE else []),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar = Progress(*columns, console=console, disable=not self._live, refresh_per_second=4)
        self._task: TaskID | None = None
        self._loss: AsyncScalar | None = None
        self._images = 0
        self._images_shown = 0
        self._shown = self._epoch_started = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert trainer.max_epochs is not None
        assert isinstance(pl_module, ClassificationTask)
        self._epochs = trainer.max_epochs
        self._steps = int(trainer.num_training_batches)
        self._shown = self._epoch_started = time.monotonic()
        self._task = self._bar.add_task(
            self._describe(trainer.current_epoch),
            total=self._epochs * self._steps,
            completed=trainer.global_step,
            loss="-",
            val=self._validation(pl_module),  # of a resumed run
            speed=0,
        )
        if self._live:
            self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[1]) * trainer.world_size
        now = time.monotonic()
        if self._live and now - self._shown > 0.3:
            assert self._task is not None
            if self._loss is None or self._loss.is_here:
                shown = "-" if self._loss is None else f"{float(self._loss.get()):.3f}"
                self._bar.update(self._task, loss=shown)
                loss = outputs["loss"] if isinstance(outputs, dict) else outputs
                self._loss = AsyncScalar(torch.as_tensor(loss))  # shown at the next update, to avoid a synchronisation
            self._bar.update(
                self._task,
                completed=trainer.global_step,
                description=self._describe(trainer.current_epoch),
                speed=(self._images - self._images_shown) / (now - self._shown),
            )
            self._images_shown, self._shown = self._images, now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        assert isinstance(pl_module, ClassificationTask)
        loss = float(pl_module.train_loss.compute())  # over all devices; a collective, so every process computes it
        seconds, self._epoch_started = time.monotonic() - self._epoch_started, time.monotonic()
        if not self._is_shown:
            return
        assert self._task is not None
        self._bar.update(self._task, val=self._validation(pl_module))
        if epoch % -(-self._epochs // _MAX_LINES) and epoch != self._epochs:
            return
        rate = pl_module.learning_rate_of(trainer.current_epoch)
        line = f"{self._describe(trainer.current_epoch)} · loss {loss:.3f}{self._validation(pl_module)}"
        line += f" · lr {rate:.3g} · {duration(seconds)}"
        if self._live:
            self._bar.console.print(line, soft_wrap=True)  # above the bar
        else:
            print(line, file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=trainer.global_step)
        self._bar.stop()

    def _validation(self, task: ClassificationTask) -> str:
        """The last and the lowest top-1 validation error; empty without validation."""
        errors = task.val_errors
        return f" · val {100 * errors[-1]:.1f} % (best {100 * min(errors):.1f})" if errors else ""

    def _describe(self, epoch: int) -> str:
        return f"{self._title} · epoch {min(epoch + 1, self._epochs)}/{self._epochs}"
