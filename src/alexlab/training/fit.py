"""Train one configuration, resume it if it was interrupted, and evaluate the result."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Set
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
from alexlab.data.store import class_difference
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

log = logging.getLogger(__name__)


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

    Writes metrics.csv and checkpoints to `folder`; saves nothing if it is None, as in a try-out (`Config.is_trial`).
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


# The layers of torchvision's `alexnet` by their names in its state dict.
_TORCHVISION = {
    **{"features.0": "conv1", "features.3": "conv2", "features.6": "conv3", "features.8": "conv4"},
    **{"features.10": "conv5", "classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8"},
}
_WRAPPERS = ("_orig_mod", "module")  # torch.compile and DistributedDataParallel add these to names
_PREFIX = "network."  # of the network in a ClassificationTask


def network_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a network's weights onto the CPU, under our names.

    Reads our checkpoints, bare state dicts, and state dicts of torchvision's `alexnet`.

    Raises:
        ConfigError: if the file is something else, or has two entries for one parameter.
    """
    return _read_weights(path)[0]


def _read_weights(path: str | Path, own: Set[str] = frozenset()) -> tuple[dict[str, torch.Tensor], list[str] | None]:
    """`network_state`, and the names of the classes if the file has them.

    `own`: the names of a network's parameters; if the file's are these, nothing is renamed.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = str(error).split("\n")[0].split(". ")[0]
        raise ConfigError(f"weights={path}: is not a checkpoint of plain tensors ({why})") from error
    classes = content.get("classes") if isinstance(content, dict) and "state_dict" in content else None
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ConfigError(f"weights={path}: its classes are not a list of names")
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ConfigError(f"weights={path}: holds no state dict of tensors")
    plain = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    if plain.keys() == own and len(plain) == len(state):  # a net of one's own may have layers called module
        return plain, classes
    unwrapped = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in state}
    ours = {name: _our_name(short.removeprefix(_PREFIX)) for name, short in unwrapped.items()}
    for name, count in Counter(ours.values()).items():
        if count > 1:
            entries = " and ".join(entry for entry, own in ours.items() if own == name)
            raise ConfigError(f"weights={path}: has {count} entries for {name}: {entries}; remove the wrong ones")
    if any(short.startswith(_PREFIX) for short in unwrapped.values()):
        ours = {name: own for name, own in ours.items() if unwrapped[name].startswith(_PREFIX)}
    return {own: state[name] for name, own in ours.items()}, classes


def _our_name(name: str) -> str:
    layer, dot, kind = name.rpartition(".")
    return _TORCHVISION.get(layer, layer) + dot + kind


def load_weights(
    network: nn.Module, path: str, fresh_last: bool = True, classes: list[str] | None = None
) -> list[str] | None:
    """Load another network's weights; return the names of its classes, if the file has them.

    The last layer keeps its initial weights if the file has another number of classes, or other names than `classes`.
    With `fresh_last=False`, as for evaluation, it must fit too; `check_classes` compares the names.

    Raises:
        ConfigError: if any other layer differs, or a value is not a finite floating-point number.
    """
    own = network.state_dict()
    state, names = _read_weights(path, own.keys())
    difference = class_difference(names, classes) if names is not None and classes is not None else ""
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ConfigError(
            f"weights={path}: has {unknown[0]}, which this network lacks; it was trained with another `model`"
        )
    for name in own:
        if name not in state:
            raise ConfigError(f"weights={path}: has no {name}; it was trained with another `model`")
        is_last = name.startswith("fc8.")
        if difference and is_last:
            log.warning("weights: %s is for other classes (%s), so it keeps its initial values", name, difference)
            state[name] = own[name]
            continue
        if state[name].shape != own[name].shape:
            if is_last and fresh_last:
                log.warning("weights: %s has another shape, so it keeps its initial values", name)
                state[name] = own[name]
                continue
            theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
            hint = f"; set data.num_classes={theirs[0]}" if is_last and theirs[1:] == ours[1:] else ""
            raise ConfigError(f"weights={path}: {name} is {theirs}, this network's is {ours}{hint}")
        problem = _problem(state[name], own[name])
        if problem:
            raise ConfigError(f"weights={path}: {name} {problem}")
    network.load_state_dict({name: state[name] for name in own})
    return names


def check_classes(path: str, names: list[str] | None, classes: list[str]) -> None:
    """Raise ConfigError if a weights file has other classes than the data, or in another order."""
    if names is not None and (difference := class_difference(names, classes)):
        raise ConfigError(
            f"weights={path}: trained on other classes: here {difference}; use the data it was trained on"
        )


def _problem(value: torch.Tensor, own: torch.Tensor) -> str:
    """Why a tensor cannot be the value of a parameter or buffer; empty if it can."""
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return "is not a dense tensor; save it as one"
    if own.is_floating_point() and not value.is_floating_point():
        return f"has the type {str(value.dtype).removeprefix('torch.')}; save it as float32"
    num_bad = int((~value.to(own.dtype).isfinite()).sum())
    counts = f"{num_bad} of {value.numel()}"
    return f"has non-finite values ({counts}); use weights of a run that did not diverge" if num_bad else ""


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
