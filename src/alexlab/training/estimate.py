"""Estimate the time and disk space of a run on this machine, from a few timed steps on random images."""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F

from alexlab.architecture import layers
from alexlab.config import Config
from alexlab.data.locate import image_counts
from alexlab.models import build_model
from alexlab.training.optim import PaperSGD

_STEPS = 3


def seconds_per_run(config: Config) -> float:
    """Estimate the seconds of training, validation and final evaluation, without data loading and start-up."""
    train, forward = seconds_per_image(config)
    data, trainer = config.data, config.trainer
    limit = trainer.limit_train_batches
    images = image_counts(data)
    steps = limit if isinstance(limit, int) else limit * images["train"] / data.batch_size
    trained = min(steps * data.batch_size, images["train"]) * trainer.max_epochs
    evaluated = images["val"] * trainer.max_epochs + 10 * images["test"]
    evaluated += min(images["train"], config.evaluate.train_images)
    return trained * train + evaluated * forward


def seconds_per_image(config: Config) -> tuple[float, float]:
    """Measure the seconds per image of a training step and of a forward pass, in batches of at most 32."""
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

    return _seconds(step, device) / batch, _seconds(forward, device) / batch


def _seconds(call, device: torch.device) -> float:
    times = []
    for _ in range(_STEPS + 1):  # the first call warms up
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[_STEPS // 2]


def _parameters(config: Config) -> int:
    if config.model.build is not None:
        return sum(parameter.numel() for parameter in build_model(config).parameters())
    return sum(spec.parameters for spec in layers(config))


def record_bytes(config: Config) -> int:
    """Estimate the size of a run's record: two checkpoints of weights and velocities, and the predictions."""
    return 2 * 2 * 4 * _parameters(config) + 120 * image_counts(config.data)["test"]
