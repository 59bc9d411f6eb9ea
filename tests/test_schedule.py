"""The learning rate of an epoch."""

from __future__ import annotations

import pytest

from alexlab.config import OptimConfig, Schedule
from alexlab.training.schedule import learning_rate


def test_fixed_drops_at_fractions_of_the_run():
    optim = OptimConfig(lr=0.01, schedule=Schedule.fixed, drops=[0.5, 0.75, 0.9])
    rates = [learning_rate(optim, epoch, 20, []) for epoch in range(20)]
    assert rates == pytest.approx([0.01] * 10 + [0.001] * 5 + [1e-4] * 3 + [1e-5] * 2)


def test_constant_never_drops():
    optim = OptimConfig(schedule=Schedule.constant)
    assert {learning_rate(optim, epoch, 90, [0.5] * epoch) for epoch in range(90)} == {0.01}


def test_plateau_drops_after_patience_and_ends_after_the_fourth_level():
    optim = OptimConfig(lr=0.01, schedule=Schedule.plateau, patience=3, threshold=0.01, num_drops=3)
    errors = [0.9, 0.8, 0.7] + [0.7] * 30
    rates = [learning_rate(optim, epoch, 90, errors[:epoch]) for epoch in range(16)]
    expected = [0.01] * 6 + [0.001] * 3 + [1e-4] * 3 + [1e-5] * 3
    assert rates[:15] == pytest.approx(expected)
    assert rates[15] is None  # stalled at the fourth level: over


def test_an_improvement_below_the_threshold_is_none():
    optim = OptimConfig(lr=1.0, schedule=Schedule.plateau, patience=2, threshold=0.01)
    creeping = [0.5, 0.495, 0.492]  # each better than the last, none better than 0.5 by 0.01
    assert learning_rate(optim, 3, 90, creeping) == pytest.approx(0.1)
    assert learning_rate(optim, 3, 90, [0.5, 0.495, 0.485]) == 1.0
