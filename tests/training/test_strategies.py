"""Where a run trains, and what several devices cannot train together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import alexlab.models
from alexlab import distributed
from alexlab.config import Accelerator, ConfigError, TrainerConfig
from alexlab.training.strategies import shared, trainer_devices


@pytest.mark.parametrize("has_cuda", [True, False])
def test_an_apple_gpu_is_not_chosen(monkeypatch: pytest.MonkeyPatch, has_cuda: bool):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    chosen = {one.name: trainer_devices(TrainerConfig(accelerator=one))["accelerator"] for one in Accelerator}
    assert chosen == {"auto": "cuda" if has_cuda else "cpu", "cpu": "cpu", "gpu": "cuda"}


def test_statistics_of_one_devices_images_are_refused(monkeypatch: pytest.MonkeyPatch):
    """DDP would train it, as another method under the same run id."""
    network = nn.Sequential(nn.Conv2d(3, 8, 7), nn.Sequential(nn.BatchNorm2d(8)))
    trainer = TrainerConfig(devices=2)
    assert shared(network, trainer, 20) is network  # pyright: ignore[reportArgumentType]; one process has all images
    monkeypatch.setattr(distributed, "count", lambda: 2)
    message = r"^trainer.devices=2: 1.0 is a BatchNorm2d, .*; use alexlab.models.BatchNorm, or set trainer.devices=1$"
    with pytest.raises(ConfigError, match=message):
        shared(network, trainer, 20)  # pyright: ignore[reportArgumentType]
    ours = alexlab.models.BatchNorm(8)
    network[1] = ours
    shared(network, trainer, 20)  # pyright: ignore[reportArgumentType]
    assert ours.is_shared
