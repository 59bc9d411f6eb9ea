"""The learning rate of an epoch."""

from __future__ import annotations

import pytest

from alexlab.config import OptimConfig, Schedule
from alexlab.training.optim import learning_rate, lost_race, steps_between


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


@pytest.mark.parametrize(("steps", "every"), [(390, 0.25), (3, 0.25), (7, 0.3), (100, 1.0), (10, 0.07), (1, 0.5)])
def test_entries_of_training_error_are_the_nearest_steps(steps: int, every: float):
    """Over 50 epochs: the steps nearest to the multiples of `every`, whatever epoch they fall into."""
    found = sorted(step for epoch in range(50) for step in steps_between(epoch, steps, every))
    expected = {round(number * every * steps) for number in range(1, round(50 / every) + 2)}
    assert found == sorted(step for step in expected if 0 < step <= 50 * steps)
    for epoch in range(50):
        assert all(epoch * steps < step <= (epoch + 1) * steps for step in steps_between(epoch, steps, every))


def test_four_entries_an_epoch_of_390_steps():
    assert sorted(steps_between(1, 390, 0.25)) == [488, 585, 682, 780]  # 487.5 and 682.5 to the even one


@pytest.mark.parametrize(
    ("errors", "is_lost"),
    [
        ([0.9, 0.6, 0.5], False),  # 50 % in time, the others' limits not yet over
        ([0.9, 0.6, 0.55], True),  # 50 % not there by epoch 3
        ([0.9, 0.6], False),  # epoch 3 is not over yet
        ([0.9, 0.6, 0.49, 0.44, 0.43, 0.41], True),  # 40 % by epoch 6
        ([0.9, 0.6, 0.49, 0.44, 0.42, 0.39, 0.36, 0.31, 0.3], False),
        ([0.9, 0.6, 0.49, 0.44, 0.42, 0.39, 0.36, 0.35, 0.29], True),  # 35 % after 8 epochs, and not after 7.5
        ([0.2], False),
        ([], False),
    ],
)
def test_a_race(errors: list[float], is_lost: bool):
    limits = [3.0, 4.5, 6.0, 7.5, 9.0]  # of 50, 45, 40, 35 and 30 %
    assert lost_race([float(epoch) for epoch in range(1, len(errors) + 1)], errors, limits) is is_lost
