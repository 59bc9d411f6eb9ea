"""Each workaround for Lightning or torchmetrics is still needed; where one no longer is, remove it."""

from __future__ import annotations

import logging
import signal
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from alexlab.config import ConfigError
from alexlab.data.prefetch import DevicePrefetcher
from alexlab.training.lightning_compat import (
    DDPWithCommHook,
    MeanLoss,
    check_precision,
    convert_before_restore,
    keep_signal_handlers,
    quiet,
)
from alexlab.training.strategies import ConnectedProcesses

LOGGERS = ("lightning.pytorch", "lightning.fabric")


class Line(L.LightningModule):
    """Fits one weight to four samples, one per step; counts its validation batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.validated = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validated += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1 / 3)


def loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(4, 1)))


def trainer(*callbacks: L.Callback, **settings: Any) -> L.Trainer:
    hidden = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    settings = {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": bool(callbacks), **hidden, **settings}
    return L.Trainer(callbacks=list(callbacks), **settings)


class Handler(L.Callback):
    """Notes who handles SIGTERM during training."""

    found: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.found = signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("is_kept", [False, True])
def test_lightning_replaces_a_sigterm_handler(is_kept: bool):
    """Lightning #20806."""

    def handler(number: int, frame: Any) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, handler)
    try:
        note = Handler()
        made = trainer(note, enable_checkpointing=False)
        if is_kept:
            keep_signal_handlers(made)
        made.fit(Line(), loader(), loader())
        assert (note.found is handler) is is_kept
    finally:
        signal.signal(signal.SIGTERM, before)


class SaveAt(Checkpoint):
    """Saves a state once, in a hook of the first epoch."""

    def __init__(self, path: Path, hook: str, step: int = 0) -> None:
        self.path, self.hook, self.step = path, hook, step

    def _save(self, trainer: L.Trainer, hook: str, step: int = 0) -> None:
        if (hook, step, trainer.current_epoch) == (self.hook, self.step, 0):
            trainer.save_checkpoint(self.path)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._save(trainer, "step", batch_idx + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, "epoch")


@pytest.mark.parametrize("is_converted", [False, True])
def test_lightning_loads_float64_weights_as_float32(tmp_path: Path, is_converted: bool):
    path = tmp_path / "state.ckpt"
    first = Line()
    trainer(SaveAt(path, "epoch"), precision="64-true").fit(first, loader(), loader())
    weight = first.layer.weight.detach()
    assert weight.dtype is torch.float64
    assert not torch.equal(weight, weight.float().double())
    resumed = Line()
    if is_converted:
        convert_before_restore(resumed, "64-true")
    trainer(precision="64-true").fit(resumed, loader(), loader(), ckpt_path=path)  # all epochs are done
    assert torch.equal(resumed.layer.weight, weight) is is_converted


def test_other_precisions_are_not_converted():
    task = Line()
    convert_before_restore(task, "32-true")
    assert task.layer.weight.dtype is torch.float32


@pytest.mark.filterwarnings("ignore:.*AMP with fp16")
def test_lightning_replaces_a_precision_that_a_cpu_lacks():
    """Lightning #10033."""
    made = trainer(precision="16-mixed")
    assert made.precision == "bf16-mixed"
    with pytest.raises(ConfigError, match="16-mixed: not on this device; Lightning would use bf16-mixed"):
        check_precision(made, "16-mixed")
    check_precision(made, "bf16-mixed")


@pytest.mark.parametrize("is_ours", [False, True])
def test_lightning_ignores_a_communication_hook_on_a_cpu(tmp_path: Path, is_ours: bool):
    """Lightning #8346."""
    calls = []

    def hook(state: Any, bucket: Any) -> torch.futures.Future[Tensor]:
        calls.append(1)
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    hook.__annotations__.clear()  # torch does not accept them as strings
    dist.init_process_group("gloo", f"file://{tmp_path / 'meeting'}", timedelta(minutes=5), 1, 0)
    try:
        strategy = DDPWithCommHook(hook) if is_ours else DDPStrategy(ddp_comm_hook=hook)
        trainer(strategy=strategy, devices=1, plugins=[ConnectedProcesses()]).fit(Line(), loader(), loader())
    finally:
        dist.destroy_process_group()
    assert bool(calls) is is_ours


def test_torchmetrics_keeps_nan_or_weights():
    """torchmetrics #3434 and #1897; MeanLoss keeps both."""
    nan = torch.tensor(float("nan"))
    theirs = MeanMetric(nan_strategy="disable")
    for value, weight in ((1.0, 3.0), (5.0, 1.0)):
        theirs.update(value, weight)
    assert theirs.compute() == 3  # not 2, the weighted mean
    theirs = MeanMetric(nan_strategy="ignore")
    theirs.update(torch.tensor(1.0))
    theirs.update(nan)
    assert theirs.compute() == 1
    ours = MeanLoss()
    for value, weight in ((1.0, 3.0), (5.0, 1.0)):
        ours.update(torch.tensor(value), weight)
    assert ours.compute() == 2
    ours.update(nan)
    assert ours.compute().isnan()


def test_lightning_hints_are_hidden(tmp_path: Path):
    """Both that Lightning gives one, and that the filter hides it; other warnings are shown."""
    path, levels = tmp_path / "state.ckpt", {name: logging.getLogger(name).level for name in LOGGERS}
    trainer(SaveAt(path, "step", 2)).fit(Line(), loader(), loader())
    try:
        for is_hidden in (False, True):
            with warnings.catch_warnings(record=True) as shown:
                warnings.simplefilter("always")
                if is_hidden:
                    quiet()
                trainer().fit(Line(), loader(), loader(), ckpt_path=path)
                warnings.warn("another", stacklevel=1)
            messages = [str(one.message) for one in shown]
            assert any("dataloader is not resumable" in one for one in messages) is not is_hidden
            assert "another" in messages
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@pytest.mark.filterwarnings("ignore:.*not resumable")
@pytest.mark.parametrize(
    ("hook", "step", "validated"),
    [("step", 2, 4), ("step", 4, 4), ("epoch", 0, 0)],
    ids=["within the epoch", "at its last step", "at its end"],
)
def test_lightning_resumes_except_at_the_last_step(tmp_path: Path, hook: str, step: int, validated: int):
    """Lightning #20288, #19549: why no state is saved between an epoch's last step and the end of its validation."""
    path = tmp_path / "state.ckpt"
    trainer(SaveAt(path, hook, step)).fit(Line(), loader(), loader())
    resumed = Line()
    trainer().fit(resumed, loader(), loader(), ckpt_path=path)
    assert (resumed.validated == validated) is (step != 4)


@pytest.mark.parametrize("is_deleted", [False, True])
def test_lightning_ends_the_workers_of_a_prefetcher(is_deleted: bool):
    """By assigning to `_iterator`, or by deleting it (since Lightning #21708)."""
    wrapped = DataLoader(TensorDataset(torch.ones(4, 1)), num_workers=1, persistent_workers=True)
    prefetcher = DevicePrefetcher(wrapped, torch.device("cpu"))
    combined = CombinedLoader(prefetcher)
    assert len(list(combined)) == 4
    [worker] = wrapped._iterator._workers  # pyright: ignore
    if is_deleted:
        del prefetcher._iterator
    else:
        combined.reset()
    assert wrapped._iterator is None
    worker.join(60)
    assert not worker.is_alive()
