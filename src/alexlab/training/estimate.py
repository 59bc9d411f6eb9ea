"""Estimate the time and disk space of a run on this machine by timing a few steps on random images."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from statistics import quantiles

import torch
from torch.nn import functional as F

from alexlab.architecture import layers
from alexlab.config import Config, Keep, shown, walk
from alexlab.data.locate import image_counts
from alexlab.models import build_model
from alexlab.training.device import TF32, deterministic, device_type, tf32
from alexlab.training.optim import PaperSGD

_BATCH = 32  # most images of a timed step on a CPU, where a larger batch is no faster per image
_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_VISITS = 3  # rounds over all shapes, so that other load on the machine slows all of them
_WARM_UP = 1  # untimed steps of each visit
_STEPS, _SECONDS = (3, 10), 1.0  # timed steps of each visit: minimum and maximum, and the time limit beyond the minimum
# Model keys that change values, but not the work of a step.
_VALUES = ("model.dropout", "model.dropout_scaling", "model.init", "model.init_std", "model.init_stds")
_VALUES += ("model.init_last_std", "model.init_bias", "model.init_bias_layers")

Times = tuple[list[float], list[float]]  # seconds per image of training steps, and of forward passes


def seconds_of_runs(configs: Sequence[Config]) -> list[tuple[float, float, float]]:
    """Estimate the seconds of training, validation and final evaluation, without data loading and start-up.

    For each run there are three: from the lower quartile, the median and the upper quartile of the timed steps. Runs of
    the same shape share timed steps, so their estimates differ only by the number of images.
    """
    shapes = {shape(config): config for config in configs}
    times: dict[Hashable, Times] = {one: ([], []) for one in shapes}
    for _ in range(_VISITS):
        for one, config in shapes.items():
            for known, new in zip(times[one], seconds_per_image(config), strict=True):
                known.extend(new)
    return [_seconds_of_run(config, *times[shape(config)]) for config in configs]


def shape(config: Config) -> Hashable:
    """The settings that determine a step's time as measured here: network, sizes, device and precision."""
    net = (
        (name, shown(value))
        for name, value, _ in walk(config)
        if name.startswith(("model.", "pool.")) and (config.model.build is not None or name not in _VALUES)
    )
    data, trainer, is_dropped = config.data, config.trainer, config.model.dropout > 0
    sizes = data.crop_size, data.num_classes, _batch(config)
    on_device = trainer.accelerator, trainer.precision, trainer.channels_last, trainer.deterministic
    return *net, is_dropped, *sizes, *on_device, trainer.fused_lrn, trainer.fused_optimizer


def _device(config: Config) -> torch.device:
    return torch.device(device_type(config.trainer.accelerator))


def _batch(config: Config) -> int:
    size = config.data.batch_size
    return size if _device(config).type == "cuda" else min(size, _BATCH)


def _seconds_of_run(config: Config, train: list[float], forward: list[float]) -> tuple[float, float, float]:
    data, trainer = config.data, config.trainer
    limit = trainer.limit_train_batches
    images = image_counts(data)
    steps = limit if isinstance(limit, int) else limit * images["train"] / data.batch_size
    trained = min(steps * data.batch_size, images["train"]) * trainer.max_epochs
    evaluated = _validated(config, images["val"]) * trainer.max_epochs + 10 * images["test"]
    evaluated += min(images["train"], config.evaluate.train_images)
    quartiles = zip(*(quantiles(times, n=4, method="inclusive") for times in (train, forward)), strict=True)
    low, middle, high = (trained * of_step + evaluated * of_pass for of_step, of_pass in quartiles)
    return low, middle, high


def _validated(config: Config, images: int) -> float:
    """The validation images of an epoch, out of all of them."""
    limit = config.trainer.limit_val_batches
    return min(limit * config.data.eval_batch_size, images) if isinstance(limit, int) else limit * images


def seconds_per_image(config: Config) -> Times:
    """Time training steps and forward passes in the run's precision, after warm-up steps.

    Nothing is compiled, which would take longer than the steps: `trainer.compile` is ignored.
    """
    device, batch = _device(config), _batch(config)
    data, optim, trainer, precision = config.data, config.optim, config.trainer, config.trainer.precision
    assert data.crop_size is not None
    dtype = torch.float64 if precision == "64-true" else torch.float32
    network = build_model(config).to(device, dtype)
    optimizer = PaperSGD(network.parameters(), optim.lr, optim.momentum, optim.weight_decay, trainer.fused_optimizer)
    inputs = torch.randn(batch, 3, data.crop_size, data.crop_size, device=device, dtype=dtype)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, _MIXED.get(precision), enabled=precision in _MIXED):
            loss = F.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def forward() -> None:  # evaluated in the precision of the weights
        network(inputs)

    with tf32(precision == TF32), deterministic(trainer.deterministic):
        return _times(step, device, batch), _times(forward, device, batch)


def _times(call: Callable[[], None], device: torch.device, images: int) -> list[float]:
    """Seconds per image of each call after the warm-up."""
    times: list[float] = []
    while len(times) < _WARM_UP + _STEPS[0] or (len(times) < _WARM_UP + _STEPS[1] and sum(times) < _SECONDS):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return [seconds / images for seconds in times[_WARM_UP:]]


def _parameters(config: Config) -> int:
    if config.model.build is not None:
        return sum(parameter.numel() for parameter in build_model(config).parameters())
    return sum(spec.parameters for spec in layers(config))


def record_bytes(config: Config) -> int:
    """Estimate the size of a finished run's record: the last and the best weights, and the predictions.

    With `checkpoint.keep=all` also the last state, of weights and velocities.
    """
    copies = 4 if config.checkpoint.keep is Keep.all else 2
    return copies * 4 * _parameters(config) + 120 * image_counts(config.data)["test"]
