"""What a run shows while it lasts: a line for each epoch, with the validation error and its best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alexlab.config import Config, Schedule
from alexlab.training.module import ClassificationTask
from alexlab.training.progress_bar import TrainingBar


def shown(config: Config, errors: list[float], epochs: int) -> None:
    """Have a bar told of a run's epochs, with these validation errors."""
    task, bar = ClassificationTask(config), TrainingBar("run 2 of 4")
    trainer: Any = SimpleNamespace(max_epochs=epochs, num_training_batches=3, global_step=0, current_epoch=0)
    bar.on_train_start(trainer, task)
    for epoch, error in enumerate(errors):
        trainer.current_epoch, trainer.global_step = epoch, 3 * epoch + 3
        task.val_errors.append(error)
        task.train_loss.reset()
        task.train_loss.update(torch.tensor(2.25), 1.0)
        bar.on_train_epoch_end(trainer, task)
    bar.teardown(trainer, task, "fit")


def test_a_line_an_epoch_has_the_error_and_its_best(tiny_config: Config, capsys: pytest.CaptureFixture[str]):
    tiny_config.optim.lr, tiny_config.optim.schedule = 0.02, Schedule.constant
    shown(tiny_config, [0.5, 0.409, 0.413], epochs=3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" · ")[0] for line in lines] == [
        "run 2 of 4 · epoch 1/3 · loss 2.250 · val 50.0 % (best 50.0) · lr 0.02",
        "run 2 of 4 · epoch 2/3 · loss 2.250 · val 40.9 % (best 40.9) · lr 0.02",
        "run 2 of 4 · epoch 3/3 · loss 2.250 · val 41.3 % (best 40.9) · lr 0.02",
    ]


def test_a_long_run_prints_no_thousands_of_lines(tiny_config: Config, capsys: pytest.CaptureFixture[str]):
    shown(tiny_config, [0.5] * 1001, epochs=1001)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 167  # every sixth, and the last
    assert "epoch 1001/1001" in lines[-1]


def test_without_validation_no_error_is_shown(tiny_config: Config, capsys: pytest.CaptureFixture[str]):
    task, bar = ClassificationTask(tiny_config), TrainingBar("run")
    task.train_loss.update(torch.tensor(2.25), 1.0)
    trainer: Any = SimpleNamespace(max_epochs=1, num_training_batches=3, global_step=3, current_epoch=0)
    bar.on_train_start(trainer, task)
    bar.on_train_epoch_end(trainer, task)
    assert "epoch 1/1 · loss 2.250 · lr" in capsys.readouterr().err
