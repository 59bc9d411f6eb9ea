"""Train one configuration, resume it if it was interrupted, and evaluate the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import nn

from alexlab import distributed
from alexlab.config import Checkpoint, Config, ConfigError
from alexlab.data import build_datamodule
from alexlab.data.datamodule import StoreDataModule
from alexlab.progress import Progress
from alexlab.training import preemption
from alexlab.training.checkpoint import Recorder, States, Stopper, no_check, save_weights, weights_of
from alexlab.training.debug import debug_callbacks
from alexlab.training.device import TF32, tf32
from alexlab.training.evaluate import VIEW_KINDS, EnsembleMember, NonFiniteOutput, Predictions, evaluate
from alexlab.training.lightning_compat import check_precision, convert_before_restore, keep_signal_handlers, quiet
from alexlab.training.module import ClassificationTask, Diverged
from alexlab.training.progress_bar import TrainingBar
from alexlab.training.strategies import ConnectedProcesses, load_full_state, shared, trainer_devices
from alexlab.training.weights import load_weights


@dataclass(frozen=True)
class Outcome:
    """The result of a training run."""

    epochs: int
    steps: int
    ended_by: str | None  # "max_epochs", "schedule" (plateau), "train_error" or "race"
    seconds: dict[str, float]  # {"fit": ..., "evaluate": ...}
    first_step_at: float | None  # of this process, in seconds since 1970; None if it took no step
    parameters: int
    device: str
    test: dict[str, Predictions]  # by kind of view
    sent_per_step: int  # bytes that each device sends to others in a training step
    train: dict[str, float]  # of the centre view in evaluation mode: top-1 and top-5 error, loss, number of images
    conv1: np.ndarray | None  # float16 [kernels, channels, side, side], the last weights; None if no layer is conv1


def fit(
    config: Config,
    folder: Path | None,
    title: str,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    may_write: Callable[[], None] = no_check,
) -> Outcome:
    """Train and evaluate; resume if the folder has a state of this run.

    Writes metrics.csv and checkpoints to `folder`; saves nothing if it is None, as in a try-out (`Config.is_tryout`).
    `on_row` gets each finished row of metrics.csv. `may_write` is called before each write, and raises if this process
    must not write any more.

    Raises:
        Diverged: if the loss, a gradient or the final outputs are not finite.
        DoesNotLearn: if the training loss stays at chance level.
        ConfigError: if `weights` does not fit the network.
        NotLearnt: if `debug=overfit` does not learn its batch.
        Preempted: if a stop was requested; the state is saved.
    """
    quiet()
    trainer_devices(config.trainer)  # checked before any work is done
    data = build_datamodule(config)
    with distributed.first_rank_first():
        data.prepare_data()
        data.setup()  # before `held()`, so that a stop request need not wait for a store to be copied
    task = ClassificationTask(config)
    convert_before_restore(task, config.trainer.precision)
    states = States(folder / "checkpoints", may_write) if folder is not None else None
    state = distributed.gather_objects(states.newest() if states is not None and distributed.is_first() else None)[0]
    if state is not None:
        print(f"{title}: resumes from step {int(state.name.partition('-')[0]):,}", flush=True)
    elif config.weights is not None:
        load_weights(task.network, config.weights, classes=data.store.classes)
    num_parameters = sum(p.numel() for p in task.network.parameters())
    task.network = shared(task.network, config.trainer, data.train_batch_size)
    recorder = Recorder(folder, states, config, on_row, may_write) if folder and states else None
    trainer = build_trainer(config, title, recorder)
    is_tf32 = config.trainer.precision == TF32
    if is_tf32 and trainer.strategy.root_device.type != "cuda":
        raise ConfigError("trainer.precision=tf32-true: not on this device; use 32-true")
    check_precision(trainer, _lightning_precision(config))
    started = time.monotonic()
    with preemption.held(), tf32(is_tf32):  # the recorder checks for requests where the run's state can be saved
        trainer.fit(task, datamodule=data, ckpt_path=state)
    fitted = time.monotonic()
    fit_seconds = recorder.seconds if recorder is not None else fitted - started
    epochs = len(recorder.rows) if recorder is not None else trainer.current_epoch

    last, best = weights_of(task.network), recorder.best if recorder is not None else None
    if config.evaluate.checkpoint is Checkpoint.best and recorder is not None:
        assert best is not None  # a configuration without validation is rejected
        load_full_state(task.network, best["state_dict"])
    device = trainer.strategy.root_device
    try:
        test, train = _evaluate(config, task.network.to(device), data, device, title)
    except NonFiniteOutput as error:  # caused by the last update: no training loss is computed after it
        raise Diverged(str(error), epoch=epochs) from error
    if folder is not None and distributed.is_first():
        classes = {"classes": data.store.classes}
        save_weights(folder / "checkpoints" / "last.ckpt", {"state_dict": last, "epoch": epochs, **classes}, may_write)
        if best is not None:
            save_weights(folder / "checkpoints" / "best.ckpt", {**best, **classes}, may_write)
    return Outcome(
        epochs=epochs,
        steps=trainer.global_step,
        ended_by=task.ended_by(epochs),
        first_step_at=recorder.first_step_at if recorder is not None else None,
        seconds={"fit": fit_seconds, "evaluate": time.monotonic() - fitted},
        parameters=num_parameters,
        device=device_name(device),
        test=test,
        sent_per_step=task.sent_per_step,
        train={**train.errors(), "loss": -float(train.log_probability.mean()), "images": len(train.labels)},
        conv1=last["conv1.weight"].to(torch.float16).numpy() if "conv1.weight" in last else None,
    )


def _evaluate(
    config: Config, network: nn.Module, data: StoreDataModule, device: torch.device, title: str
) -> tuple[dict[str, Predictions], Predictions]:
    """Predictions for the test split by kind of view, and those of the centre view for the training split."""
    num_test, num_train = len(data.split("test")), min(len(data.split("train")), config.evaluate.train_images)
    if config.trainer.fast_dev_run:
        num_test, num_train = min(num_test, config.data.eval_batch_size), min(num_train, config.data.eval_batch_size)
    if config.debug.images is not None:
        num_test, num_train = min(num_test, config.debug.images), min(num_train, config.debug.images)
    name = "the final weights"
    test_member = EnsembleMember(
        network, data.evaluation_dataloader("test", num_test), data, config.evaluate.average, name
    )
    train_member = EnsembleMember(network, data.evaluation_dataloader("train", num_train), data, name=name)
    with Progress(f"{title} · evaluating", num_test + num_train, transient=True) as progress:
        test = evaluate([test_member], device, VIEW_KINDS, progress.advance)
        return test, evaluate([train_member], device, ("center",), progress.advance)["center"]


def _lightning_precision(config: Config) -> str:
    """Lightning's name for `trainer.precision`; it has none for TF32, which `tf32` switches on."""
    return "32-true" if config.trainer.precision == TF32 else config.trainer.precision


def build_trainer(config: Config, title: str, recorder: Recorder | None = None) -> L.Trainer:
    """Lightning's Trainer for a configuration."""
    trainer = config.trainer
    callbacks: list[L.Callback] = [recorder or Stopper()]
    if trainer.enable_progress_bar:
        callbacks.append(TrainingBar(title, distributed.is_first()))
    callbacks += debug_callbacks(config, title)
    built = L.Trainer(
        max_epochs=trainer.max_epochs,
        limit_train_batches=trainer.limit_train_batches,
        limit_val_batches=min(trainer.limit_val_batches, 1.0),  # the data module limits them to evenly spread images
        **trainer_devices(trainer),
        precision=_lightning_precision(config),  # pyright: ignore[reportArgumentType]
        deterministic=trainer.deterministic,
        gradient_clip_val=trainer.gradient_clip_val,
        fast_dev_run=trainer.fast_dev_run,
        logger=False,  # the recorder writes what is logged
        callbacks=callbacks,
        enable_checkpointing=recorder is not None,
        enable_progress_bar=False,  # `TrainingBar` shows the whole run instead
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our order of images is a function of seed and epoch
        plugins=[ConnectedProcesses(), *([] if recorder is None else [recorder.states])],
    )
    # With `deterministic`, torch would fill all memory that it allocates, in every operation.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    keep_signal_handlers(built)
    return built


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
