"""Workarounds for Lightning and torchmetrics, each with the upstream issue or, if there is none, the affected release.

tests/training/test_lightning_compat.py shows that each is still needed. Two are elsewhere: `alexlab.lean` runs before
Lightning is imported, and `alexlab.data.prefetch` is in a package that must not import this one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MeanMetric

from alexlab.config import ConfigError


def quiet() -> None:
    """Hide Lightning's hints from the terminal; other warnings still go to the run's log.

    Lightning has no switch for them; its documentation suggests filters (Lightning #10215).
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # one process is one run
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # logged values are over all devices already
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # ours starts at any step


def keep_signal_handlers(trainer: L.Trainer) -> None:
    """Keep the signal handlers of `alexlab.training.preemption`, which `Trainer.fit` would wrap.

    Lightning's SIGTERM handler calls a collective, so it deadlocks if only one of several processes gets the signal,
    and its SIGTERMException is raised before the run's state is saved (Lightning #20806).
    """
    trainer._signal_connector.register_signal_handlers = lambda: None


def convert_before_restore(task: L.LightningModule, precision: str) -> None:
    """Convert a module to float64 before a state is loaded into it.

    `Trainer.fit` converts it only after loading, which has rounded the state's weights to float32 (in 2.6.6).
    """
    if precision == "64-true":
        task.double()


def check_precision(trainer: L.Trainer, precision: str) -> None:
    """Refuse a precision that the device lacks; on a CPU Lightning replaces 16-mixed by bf16-mixed (#10033).

    Raises:
        ConfigError: for such a precision.
    """
    if trainer.precision != precision:
        raise ConfigError(f"trainer.precision={precision}: not on this device; Lightning would use {trainer.precision}")


class DDPWithCommHook(DDPStrategy):
    """DDP with a communication hook on any device.

    Lightning ignores its `ddp_comm_hook` except on GPUs (in 2.6.6), though torch has had no such limit since 1.9
    (Lightning #8346).
    """

    def __init__(self, hook: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._hook = hook

    def configure_ddp(self) -> None:
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        self.model.register_comm_hook(None, self._hook)


class MeanLoss(MeanMetric):
    """The weighted mean of losses; a NaN makes it NaN.

    torchmetrics drops NaNs and then fails on the weights (#1897), or with nan_strategy="disable" keeps NaNs and ignores
    the weights (#3434).
    """

    def update(self, value: Tensor, weight: float = 1.0) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.mean_value += value * weight
        self.weight += weight
