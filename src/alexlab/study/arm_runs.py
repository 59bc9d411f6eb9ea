"""The runs of a study's arms: done, partly trained, failed, missing and unplanned."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np

from alexlab.errors import UserError
from alexlab.study.judgement import Arm
from alexlab.study.records import Archive, RunData
from alexlab.study.statistics import partly_trained


def read_arms(plan: dict[str, Any], archive: Archive, known: Container[str] = ()) -> list[Arm]:
    """Read the arms of a plan with their runs; runs in `known`, of other studies' plans, are not unplanned."""
    arms = [_arm(planned, archive) for planned in plan["arms"]]
    _find_unplanned(arms, archive, known)
    return arms


def _arm(planned: dict[str, Any], archive: Archive) -> Arm:
    seeds = {int(seed): run_id for seed, run_id in planned["runs"].items()}
    arm = Arm(planned["name"], list(planned["overrides"]), planned["lr"], seeds)
    for seed, run_id in sorted(seeds.items()):
        run = archive.runs.get(run_id)
        if run is not None and run.is_done:
            arm.runs.append(run)
        elif run is not None and run.is_terminal:
            arm.failed.append(run)
        else:
            arm.missing[seed] = run_id
    _find_partly_trained(arm, archive)
    return arm


def _find_partly_trained(arm: Arm, archive: Archive) -> None:
    """Set aside runs whose error lies above the midpoint of the arm's median and chance."""
    try:
        num_classes = archive.config(arm.runs[0]).data.num_classes
    except (UserError, IndexError):  # reported as a confound
        return
    if num_classes is None:
        return
    flags = partly_trained(np.array(arm.errors), 1 - 1 / num_classes)
    arm.partly = [run for run, is_partly in zip(arm.runs, flags, strict=True) if is_partly]
    arm.runs = [run for run, is_partly in zip(arm.runs, flags, strict=True) if not is_partly]


def _find_unplanned(arms: list[Arm], archive: Archive, known: Container[str]) -> None:
    """Find finished runs of the arms that are in no plan; counting them would allow sampling until a claim holds."""
    planned = {run_id for arm in arms for run_id in arm.planned.values()}
    others: dict[str, list[RunData]] = {}
    for run in archive.runs.values():
        if run.is_done and run.run_id not in planned and run.run_id not in known and run.arm is not None:
            others.setdefault(run.arm, []).append(run)
    for arm in arms:
        hashes = {run.arm for run in [*arm.runs, *arm.partly, *arm.failed] if run.arm is not None}
        arm.unplanned = [run for name in sorted(hashes) for run in others.get(name, [])]
