"""One training, from a configuration to final weights and their errors: Lightning's Trainer and what goes round it."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from alexlab.progress import Progress
from alexlab.training import preemption
from alexlab.training.checkpoint import Recorder, States, Stopper, nothing, save_weights, weights_of
from alexlab.training.evaluate import VIEW_KINDS, EnsembleMember, Predictions, evaluate
from alexlab.training.module import ClassificationTask, Diverged
from alexlab.training.progress_bar import TrainingBar
from alexlab.training.strategies import Started, load_whole_state, placed, shared

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    epochs: int
    steps: int
    ended_by: str | None  # "max_epochs", "schedule" (plateau), "train_error" or "race"
    seconds: dict[str, float]  # {"fit": ..., "evaluate": ...}
    first_step_at: float | None  # of this process, in seconds since 1970; None where it took none
    parameters: int
    device: str
    test: dict[str, Predictions]  # by view kind
    sent_per_step: int  # bytes that each device sends to others in a training step
    train: dict[str, float]  # top-1 and top-5 error and loss of the centre view in evaluation mode, images
    conv1: np.ndarray  # float16 [kernels, channels, side, side], the last weights, for figure 3


def fit(
    config: Config,
    folder: Path | None,
    title: str,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    may_write: Callable[[], None] = nothing,
) -> Outcome:
    """Train and evaluate; where the folder has a state of this run, go on from it.

    `folder` takes metrics.csv and the checkpoints; None, as in a trial (`trainer.fast_dev_run`), keeps nothing.
    `on_row` gets each finished row of metrics.csv; `may_write` is called before each write, and raises where this
    process must not write any more.

    Raises:
        Diverged: when loss or gradient are no longer finite.
        DoesNotLearn: when the training loss stays that of guessing.
        ConfigError: when `weights` does not fit the network.
        Preempted: when the run was asked to stop; its state is saved.
    """
    quiet()
    placed(config.trainer)  # refused before there is work to do
    data = build_datamodule(config)
    with distributed.first_alone():
        data.prepare_data()
        data.setup()  # now, where a request to stop need not wait for a copy on another disk
    task = ClassificationTask(config)
    if config.trainer.precision == "64-true":
        task.double()  # Lightning would do it only after it has put a state's weights into float32 ones
    states = States(folder / "checkpoints", may_write) if folder is not None else None
    state = distributed.gathered(states.newest() if states is not None and distributed.is_first() else None)[0]
    if state is not None:
        print(f"{title}: resumes from step {int(state.name.partition('-')[0]):,}", flush=True)
    elif config.weights is not None:
        load_weights(task.network, config.weights)
    num_parameters = sum(p.numel() for p in task.network.parameters())
    task.network = shared(task.network, config.trainer, data.train_batch_size)
    recorder = Recorder(folder, states, config, on_row, may_write) if folder and states else None
    trainer = build_trainer(config, title, recorder)
    is_tf32 = config.trainer.precision == TF32
    if is_tf32 and trainer.strategy.root_device.type != "cuda":
        raise ConfigError("trainer.precision=tf32-true: not on this device; use 32-true")
    if trainer.precision != _lightnings(config.trainer.precision):  # it takes another one where a device lacks it
        raise ConfigError(
            f"trainer.precision={config.trainer.precision}: not on this device; it would be {trainer.precision}"
        )
    started = time.monotonic()
    with preemption.held(), _rounding(is_tf32):  # the recorder looks for it where the run's state can be saved
        trainer.fit(task, datamodule=data, ckpt_path=state)
    fitted = time.monotonic()
    seconds = recorder.seconds if recorder is not None else fitted - started

    network, device = task.network, trainer.strategy.root_device
    last = weights_of(network)
    if config.evaluate.checkpoint is Checkpoint.best and recorder is not None:
        assert recorder.best is not None  # the configuration was refused without validation
        load_whole_state(network, recorder.best["state_dict"])
    network.to(device)
    one_batch = config.data.eval_batch_size if config.trainer.fast_dev_run else None
    num_test, num_train = len(data.split("test")), len(data.split("train"))
    num_test = min(num_test, one_batch or num_test)
    num_train = min(num_train, one_batch or config.evaluate.train_images)
    average = config.evaluate.average
    test_member = EnsembleMember(network, data.evaluation_dataloader("test", num_test), data, average)
    train_member = EnsembleMember(network, data.evaluation_dataloader("train", num_train), data)
    with Progress(f"{title} · evaluating", num_test + num_train, transient=True) as progress:
        test = evaluate([test_member], device, advance=progress.advance)
        train = evaluate([train_member], device, ("center",), progress.advance)["center"]
    if not np.isfinite(train.log_probability).all():  # the last step, after which no loss is looked at
        raise Diverged("the final weights give outputs that are no numbers", epoch=trainer.current_epoch)
    if folder is not None and recorder is not None and distributed.is_first():
        content = {"state_dict": last, "epoch": trainer.current_epoch}
        save_weights(folder / "checkpoints" / "last.ckpt", content, may_write)
        if recorder.best is not None:
            save_weights(folder / "checkpoints" / "best.ckpt", recorder.best, may_write)
    return Outcome(
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        ended_by=task.ended_by(trainer.current_epoch),
        first_step_at=recorder.first_step_at if recorder is not None else None,
        seconds={"fit": seconds, "evaluate": time.monotonic() - fitted},
        parameters=num_parameters,
        device=device_name(device),
        test={kind: test[kind] for kind in VIEW_KINDS},
        sent_per_step=task.sent_per_step,
        train={**train.errors(), "loss": -float(train.log_probability.mean()), "images": len(train.labels)},
        conv1=last["conv1.weight"].to(torch.float16).numpy(),
    )


TF32 = "tf32-true"


def _lightnings(precision: str) -> str:
    """Lightning's name of `trainer.precision`, which knows no TF32: `_rounding` sees to that."""
    return "32-true" if precision == TF32 else precision


@contextmanager
def _rounding(is_tf32: bool) -> Iterator[None]:
    """Whether a GPU may round the float32 numbers that it multiplies; torch's default is that convolutions do."""
    torch.backends.cudnn.allow_tf32 = is_tf32
    torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")


def build_trainer(config: Config, title: str, recorder: Recorder | None = None) -> L.Trainer:
    """Lightning's Trainer for a configuration."""
    trainer = config.trainer
    callbacks: list[L.Callback] = [recorder or Stopper()]
    if trainer.enable_progress_bar:
        callbacks.append(TrainingBar(title, distributed.is_first()))
    built = L.Trainer(
        max_epochs=trainer.max_epochs,
        limit_train_batches=trainer.limit_train_batches,
        limit_val_batches=trainer.limit_val_batches,
        **placed(trainer),
        precision=_lightnings(trainer.precision),  # pyright: ignore[reportArgumentType]
        deterministic=trainer.deterministic,
        fast_dev_run=trainer.fast_dev_run,
        logger=False,  # what is logged stands in the recorder's rows
        callbacks=callbacks,
        enable_checkpointing=recorder is not None,
        enable_progress_bar=False,  # ours shows the whole run
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the order is ours: a function of seed and epoch
        plugins=[Started(), *([] if recorder is None else [recorder.states])],
    )
    # With `deterministic` torch would fill all new memory before it is written, in every operation.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    # Its handler of SIGTERM, put over ours, would end a run with nothing saved; of two processes it waits for both.
    built._signal_connector.register_signal_handlers = lambda: None
    return built


def quiet() -> None:
    """Keep Lightning's hints out of the terminal; warnings still go to the run's log."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # one process is one run
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what is logged is of all devices already
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # ours begins where it is told
    warnings.filterwarnings("ignore", message=".*`training_step` returned `None`.*")  # a step that is passed over


# torchvision's names of our layers, in the state dict of its `alexnet`.
_TORCHVISION = {
    **{"features.0": "conv1", "features.3": "conv2", "features.6": "conv3", "features.8": "conv4"},
    **{"features.10": "conv5", "classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8"},
}
_WRAPPERS = ("_orig_mod", "module")  # what torch.compile and DistributedDataParallel put into names


def network_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The network's weights by our names, on the CPU.

    From a checkpoint of ours, a bare state dict, or the state dict of torchvision's `alexnet`.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        why = str(error).split("\n")[0].split(". ")[0]
        raise ConfigError(f"weights={path}: is no checkpoint of plain tensors ({why})") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"weights={path}: holds no state dict of tensors")
    state = {".".join(part for part in name.split(".") if part not in _WRAPPERS): state[name] for name in state}
    prefix = "network."
    if any(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {_our_name(name): value for name, value in state.items()}


def _our_name(name: str) -> str:
    layer, dot, kind = name.rpartition(".")
    return _TORCHVISION.get(layer, layer) + dot + kind


def load_weights(network: nn.Module, path: str, fresh_last: bool = True) -> None:
    """Start from another network's weights; a last layer of another number of classes stays as initialised.

    With `fresh_last=False` the weights must be this very network's, as for an evaluation.

    Raises:
        ConfigError: where any other layer differs.
    """
    state, own = network_state(path), network.state_dict()
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ConfigError(
            f"weights={path}: has {unknown[0]}, this network has not; it was trained with another `model`"
        )
    for name in own:
        if name not in state:
            raise ConfigError(f"weights={path}: has no {name}; it was trained with another `model`")
        if state[name].shape != own[name].shape:
            is_last = name.startswith("fc8.")
            if is_last and fresh_last:
                log.warning("weights: %s has another shape, so it starts anew", name)
                state[name] = own[name]
                continue
            theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
            hint = f"; set data.num_classes={theirs[0]}" if is_last and theirs[1:] == ours[1:] else ""
            raise ConfigError(f"weights={path}: {name} is {theirs}, this network's is {ours}{hint}")
    network.load_state_dict({name: state[name] for name in own})


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
