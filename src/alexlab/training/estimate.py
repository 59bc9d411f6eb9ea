"""Estimate the time and disk space of a run on this machine, from some timed steps on random images."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import quantiles

import torch
from torch.nn import functional as F

from alexlab.architecture import layers
from alexlab.config import Config
from alexlab.data.locate import image_counts
from alexlab.models import build_model
from alexlab.training.optim import PaperSGD

_WARM_UP = 2  # steps
_STEPS, _SECONDS = (5, 25), 2.0  # timed steps, at least and at most, and for how long beyond the least


def seconds_per_run(config: Config) -> tuple[float, float]:
    """Estimate the seconds of training, validation and final evaluation, without data loading and start-up.

    From the lower to the upper quartile of timed steps.
    """
    low, high = zip(*seconds_per_image(config), strict=True)
    return _seconds_of_run(config, *low), _seconds_of_run(config, *high)


def _seconds_of_run(config: Config, train: float, forward: float) -> float:
    """Seconds of a run, from those of a training step and a forward pass for each image."""
    data, trainer = config.data, config.trainer
    limit = trainer.limit_train_batches
    images = image_counts(data)
    steps = limit if isinstance(limit, int) else limit * images["train"] / data.batch_size
    trained = min(steps * data.batch_size, images["train"]) * trainer.max_epochs
    evaluated = images["val"] * trainer.max_epochs + 10 * images["test"]
    evaluated += min(images["train"], config.evaluate.train_images)
    return trained * train + evaluated * forward


def seconds_per_image(config: Config) -> tuple[tuple[float, float], tuple[float, float]]:
    """Measure the seconds per image of a training step and of a forward pass, in batches of at most 32.

    Each as the lower and the upper quartile.
    """
    accelerator = config.trainer.accelerator.name
    use_gpu = accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if use_gpu else "cpu")
    data = config.data
    assert data.crop_size is not None
    batch = min(data.batch_size, 32)
    network = build_model(config).to(device)
    optimizer = PaperSGD(network.parameters(), config.optim.lr, config.optim.momentum, config.optim.weight_decay)
    inputs = torch.randn(batch, 3, data.crop_size, data.crop_size, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()

    @torch.inference_mode()
    def forward() -> None:
        network(inputs)

    return _quartiles(step, device, batch), _quartiles(forward, device, batch)


def _quartiles(call: Callable[[], None], device: torch.device, images: int) -> tuple[float, float]:
    """Time calls, without those that warm up; the quartiles of their seconds, divided by the number of images."""
    times: list[float] = []
    while len(times) < _WARM_UP + _STEPS[0] or (len(times) < _WARM_UP + _STEPS[1] and sum(times) < _SECONDS):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    low, _, high = quantiles(times[_WARM_UP:], n=4, method="inclusive")
    return low / images, high / images


def _parameters(config: Config) -> int:
    if config.model.build is not None:
        return sum(parameter.numel() for parameter in build_model(config).parameters())
    return sum(spec.parameters for spec in layers(config))


def record_bytes(config: Config) -> int:
    """Estimate the size of a run's record: two checkpoints of weights and velocities, and the predictions."""
    return 2 * 2 * 4 * _parameters(config) + 120 * image_counts(config.data)["test"]
