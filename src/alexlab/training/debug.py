"""Try-outs, which keep no record: overfit one batch (`debug=overfit`) or profile the steps (`debug=profile`)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, schedule

from alexlab import distributed
from alexlab.config import Config, Debug
from alexlab.console import Console

LEARNT = 0.01  # a training loss at which an image's class has a probability of 99 % on average
_UNTIMED = 3  # steps before the profile: the first ones allocate memory and choose algorithms
_ROWS = 15


class NotLearnt(RuntimeError):
    """The network did not overfit its one batch."""


def debug_callbacks(config: Config, title: str) -> list[L.Callback]:
    """The callbacks for a configuration's `debug`; they print after the progress bar has ended."""
    if config.debug.name is Debug.overfit:
        return [Overfit(title)]
    if config.debug.name is Debug.profile:
        return [Profile(title, Path(config.paths.runs) / "profiles")]
    return []


class Overfit(L.Callback):
    """Ends the training once its one batch is learnt, and prints that; otherwise raises `NotLearnt` after the epoch."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._message = ""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)
        (is_left,) = distributed.any_of(not loss < LEARNT)  # each process sees only its own part
        images = len(batch[1]) * trainer.world_size
        after = f"loss {loss:.3f} after {batch_idx + 1} steps on one batch of {images} images"
        if not is_left:
            self._message, trainer.should_stop = f"learnt: {after}", True
        elif batch_idx + 1 == trainer.num_training_batches:
            raise NotLearnt(f"{after}; must be below {LEARNT}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._message and distributed.is_first():
            print(f"{self._title}: {self._message}", flush=True)


class Profile(L.Callback):
    """Profiles the training steps of one epoch, loading included; prints a table and writes a trace."""

    def __init__(self, title: str, folder: Path) -> None:
        self._title, self._folder = title, folder
        self._profiler: profile | None = None
        self._steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total = int(trainer.num_training_batches)
        untimed = min(_UNTIMED, total - 1)
        self._steps = total - untimed
        activities = [ProfilerActivity.CPU]
        if pl_module.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch logs to the terminal
        self._profiler = profile(activities=activities, schedule=schedule(wait=0, warmup=untimed, active=self._steps))
        self._profiler.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._profiler is not None
        if trainer.current_epoch > 0:
            return
        if batch_idx + 1 < trainer.num_training_batches:
            self._profiler.step()
        else:
            self._profiler.stop()  # before validation

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._profiler is None or not distributed.is_first():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json.gz"
        self._profiler.export_chrome_trace(str(path))
        console = Console()
        console.print(slowest(self._profiler, self._steps, pl_module.device.type == "cuda"))
        console.print(f"{self._title}: trace, to open in https://ui.perfetto.dev:")
        console.print(str(path), soft_wrap=True)


def slowest(profiler: profile, steps: int, is_gpu: bool) -> Table:
    """A table of the operations that take the most time, each without the operations that it calls."""

    def spent(event: Any) -> float:
        return event.self_device_time_total if is_gpu else event.self_cpu_time_total  # in microseconds

    # On a GPU each kernel is an event too, but its time already counts for the operation that launched it.
    events = [event for event in profiler.key_averages() if event.device_type.name == "CPU"]
    events = [event for event in events if not event.key.startswith("ProfilerStep")]
    events.sort(key=spent, reverse=True)
    total = sum(map(spent, events)) or 1
    table = Table(box=None, title=f"{'GPU' if is_gpu else 'CPU'} time, mean of {steps} steps", title_justify="left")
    table.add_column("operation", no_wrap=True, max_width=48)
    for name in ("calls/step", "ms/step", "share"):
        table.add_column(name, justify="right")
    for event in events[:_ROWS]:
        share = f"{100 * spent(event) / total:.0f} %"
        table.add_row(event.key, f"{event.count / steps:.1f}", f"{spent(event) / 1000 / steps:.2f}", share)
    return table
