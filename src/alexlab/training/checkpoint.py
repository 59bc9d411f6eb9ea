"""What training leaves at the end of each epoch: a row of metrics.csv, the last weights, the best."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

METRICS = ("train_loss", "train_top1_error", "val_loss", "val_top1_error", "val_top5_error")


class EpochRecord(Checkpoint):
    """Writes `metrics.csv`, `checkpoints/last.ckpt` and `checkpoints/best.ckpt` below a folder.

    Best is the lowest top-1 validation error, the earlier of two that are equal. A checkpoint holds plain tensors and
    dicts alone, so that `torch.load` opens it as it is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._best = float("inf")
        (folder / "checkpoints").mkdir(exist_ok=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "lr": metrics["lr"]}
        row.update({name: metrics.get(name, "") for name in METRICS})  # empty where validation is off
        path = self._folder / "metrics.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        self._save(trainer, "last.ckpt")
        error = metrics.get("val_top1_error", float("inf"))
        if error < self._best:
            self._best = error
            self._save(trainer, "best.ckpt")

    def _save(self, trainer: L.Trainer, name: str) -> None:
        path = self._folder / "checkpoints" / name
        beside = path.with_name(f".{name}")
        trainer.save_checkpoint(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]
