"""The learning rate of an epoch and the end of a run: pure functions of the epoch and of the errors so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alexlab.config import RACE_ERRORS, OptimConfig, Schedule
from alexlab.crossings import epochs_to


def learning_rate(optim: OptimConfig, epoch: int, max_epochs: int, val_errors: Sequence[float]) -> float | None:
    """The rate of `epoch` (from 0), given one validation error for each epoch before it; None = the run is over.

    `fixed` drops at given fractions of the run, so that all arms of a study are equally long; `linear` falls by as much
    after each epoch, to 0 behind the last. `plateau` is the paper's
    rule (5), by hand there and mechanical here: a drop after `patience` epochs in which the error did not fall below
    the best so far by `threshold`; the run is over when it stalls once more after the last drop.
    """
    if optim.schedule is Schedule.constant:
        return optim.lr
    if optim.schedule is Schedule.linear:
        return optim.lr * (1 - epoch / max_epochs)
    if optim.schedule is Schedule.fixed:
        drops = sum(epoch >= fraction * max_epochs for fraction in optim.drops)
        return optim.lr * optim.drop_factor**drops
    best, stalled, drops = float("inf"), 0, 0
    for error in val_errors:
        if error < best - optim.threshold:
            best, stalled = error, 0
        else:
            stalled += 1
        if stalled >= optim.patience:
            drops, stalled = drops + 1, 0
    return optim.lr * optim.drop_factor**drops if drops <= optim.num_drops else None


def conv1_factor(optim: OptimConfig, epoch: int, max_epochs: int) -> float:
    """What multiplies the rate of conv1 in an epoch: the released code's training cut it late, then stopped it."""
    if optim.conv1_freeze_at is not None and epoch >= optim.conv1_freeze_at * max_epochs:
        return 0.0
    if optim.conv1_cut_at is not None and epoch >= optim.conv1_cut_at * max_epochs:
        return optim.drop_factor
    return 1.0


def steps_between(epoch: int, steps: int, every: float) -> set[int]:
    """The steps of `epoch` (from 0), counted over the run from 1, that end a stretch of `every` epochs.

    Each multiple of `every` is rounded to a whole step by itself, so that rounding never adds up.
    """
    first, last = int(epoch / every), int((epoch + 1) / every) + 1
    found = {round(number * every * steps) for number in range(first, last + 1)}
    return {step for step in found if epoch * steps < step <= (epoch + 1) * steps}


def lost_race(epochs: Sequence[float], errors: Sequence[float], limits: Sequence[float]) -> bool:
    """Whether the training error reaches one of RACE_ERRORS later than its limit, by the entries logged so far."""
    if not epochs:
        return False
    for level, limit in zip(RACE_ERRORS, limits, strict=True):
        reached = epochs_to(errors, level, epochs)
        if reached > limit or (math.isnan(reached) and epochs[-1] >= limit):
            return True
    return False
