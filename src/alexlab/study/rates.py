"""The trials by which a study chooses each arm's learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexlab.errors import UserError
from alexlab.study.metrics import MEASURES, is_cut
from alexlab.study.records import RunData

RACE, LENGTH = "trainer.race_epochs=", "trainer.max_epochs="
UNFINISHED = "not finished"
OF_TRIALS = ("optim.lr=", RACE, LENGTH)  # what a trial sets in addition to its arm's overrides
SPEED = "epochs_to_25"  # the metric of claims about speed, by which rates are chosen for them


@dataclass(frozen=True)
class RateTrial:
    """One run by which a learning rate is chosen."""

    lr: float
    seed: int
    run_id: str
    value: float | None  # epochs to 25 % training error, or the validation error, a fraction
    why_none: str = ""  # such as "not in 150"; empty if there is a value

    @property
    def is_finished(self) -> bool:
        return self.why_none != UNFINISHED


@dataclass(frozen=True)
class ArmTrials:
    """The trials of one arm in their order, and the learning rate that they chose."""

    arm: str
    metric: str
    trials: tuple[RateTrial, ...]
    chosen: float | None
    warning: str | None  # why the choice is in doubt, or why there is none

    @property
    def first_seed_values(self) -> dict[float, float]:
        """{rate: value} of the trials on the first seed, without those that have no value."""
        first = self.trials[0].seed if self.trials else None
        return {one.lr: one.value for one in self.trials if one.seed == first and one.value is not None}


def read_trials(plan: dict[str, Any], runs: Mapping[str, RunData]) -> list[ArmTrials]:
    """The trials of a plan with their current results; empty at the protocol's rates.

    `runs`: all runs that were read, by id. A trial without a record there has the value noted in the plan.
    """
    return [
        ArmTrials(
            arm=rate["name"],
            metric=rate["metric"],
            trials=tuple(_trial(one, rate["metric"], runs.get(one["run"])) for one in rate["trials"]),
            chosen=rate["lr"],
            warning=rate["warning"],
        )
        for rate in plan.get("rates", ())
    ]


def _trial(planned: dict[str, Any], metric: str, run: RunData | None) -> RateTrial:
    value, why_none = planned["value"], ""
    if run is not None and run.is_terminal:
        value, why_none = _outcome(run, metric)
    elif value is None:
        why_none = UNFINISHED
    return RateTrial(planned["lr"], planned["seed"], planned["run"], value, why_none)


def _outcome(run: RunData, metric: str) -> tuple[float | None, str]:
    """The value of a finished trial, or why it has none."""
    if not run.is_done:
        return None, "failed"
    try:
        if metric != SPEED:
            return run.validation_error, "" if run.validation_error is not None else "no validation error"
        if is_cut(run, metric, 0):
            epochs = run.result["epochs"]
            was_stopped = epochs < run.settings["trainer"]["max_epochs"]
            return None, f"stopped after {epochs}" if was_stopped else f"not in {epochs}"
        return MEASURES[metric](run, "ten"), ""
    except UserError:
        return None, "unreadable"
