"""Training progress: a live bar if the run has a terminal to itself, else one line per epoch (at most ten a run)."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from alexlab.console import Console
from alexlab.progress import is_live
from alexlab.training.divergence import AsyncScalar
from alexlab.training.module import ClassificationTask


class TrainingBar(L.Callback):
    """Shows epoch, loss, images per second and time left, after a title such as "run 2 of 4"."""

    def __init__(self, title: str, is_shown: bool = True) -> None:
        self._title, self._is_shown = title, is_shown
        self._live = is_shown and is_live()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]} · {task.fields[speed]:.0f} images/s ·", markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not self._live, refresh_per_second=4)
        self._task: TaskID | None = None
        self._loss: AsyncScalar | None = None
        self._images = 0
        self._images_shown = 0
        self._shown = self._started = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert trainer.max_epochs is not None
        self._epochs = trainer.max_epochs
        self._steps = int(trainer.num_training_batches)
        self._shown = self._started = time.monotonic()
        self._first_step = trainer.global_step  # of this process, if the run was resumed
        self._task = self._bar.add_task(
            self._describe(0), total=self._epochs * self._steps, completed=trainer.global_step, loss="-", speed=0
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
        if self._live or not self._is_shown or (epoch % -(-self._epochs // 10) and epoch != self._epochs):
            return
        spent, done = time.monotonic() - self._started, max(1, trainer.global_step - self._first_step)
        error = trainer.callback_metrics.get("val_top1_error")
        parts = [
            self._describe(trainer.current_epoch),
            f"loss {loss:.3f}",
            *([f"val error {100 * float(error):.1f} %"] if error is not None else []),
            f"{self._images / spent:.0f} images/s",
            f"{spent / done * (self._epochs * self._steps - trainer.global_step):.0f} s left",
        ]
        print(" · ".join(parts), file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=trainer.global_step)
        self._bar.stop()

    def _describe(self, epoch: int) -> str:
        return f"{self._title} · epoch {min(epoch + 1, self._epochs)}/{self._epochs}"
