"""Caveats of a claim's effect: failed, unused and unplanned runs, and other differences between its two arms."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from alexlab.architecture import map_sides
from alexlab.console import plural
from alexlab.errors import UserError, one_line
from alexlab.runs.identity import DERIVED, differences
from alexlab.study.claims import GROUPED, METRICS
from alexlab.study.judgement import Arm, Row
from alexlab.study.metrics import is_at_once, is_cut, read_neighbours
from alexlab.study.records import Archive
from alexlab.study.statistics import fisher
from alexlab.study.surroundings import between_arms


def add_caveats(row: Row, archive: Archive, plan: dict[str, Any]) -> None:
    """Add notes and confounds to a measured row, in the order of the report."""
    _note_unplanned(row)
    _note_differences(row, archive, plan)
    _note_failures(row)
    _note_uncounted(row)
    if row.claim.metric == "retrieval":
        row.notes += _precisions(row)
    if row.beyond is not None:
        row.notes.append(row.beyond)
    _note_bounds(row, archive)


def _note_unplanned(row: Row) -> None:
    for arm in row.arms:
        if arm.unplanned:
            seeds = ", ".join(str(run.seed) for run in arm.unplanned)
            count = plural(len(arm.unplanned), "finished run")
            row.notes.append(f"{arm.name}: {count} outside the plan, not counted (seeds {seeds})")


def _note_differences(row: Row, archive: Archive, plan: dict[str, Any]) -> None:
    """Note keys in which the arms differ unnamed by the claim, and differences in their runs' surroundings."""
    if len(row.arms) < 2 or not all(arm.runs for arm in row.arms):
        return
    try:
        first, second = (archive.config(arm.runs[0]) for arm in row.arms)
    except UserError as error:
        row.confounds.append(f"configurations cannot be compared: {archive.named(one_line(error))}")
        return
    changed = {**differences(second, first), **differences(first, second)}
    row.differing = sorted(name for name in changed if name not in DERIVED)
    named = [*row.claim.differs, *(["optim.lr"] if plan["rate"] == "own" else [])]
    row.unexpected = [name for name in row.differing if name not in named] if row.claim.differs else []
    if row.unexpected:
        row.confounds.append(f"the arms differ in more than the claim says: {', '.join(row.unexpected)}")
    if lacking := [name for name in row.claim.differs if name not in row.differing]:
        row.confounds.append(f"the arms do not differ in {', '.join(lacking)}, as the claim says")
    if not changed.keys() & {"model.remove", "model.kernels"}:
        sides = [map_sides(config) for config in (first, second)]
        if sides[0] != sides[1]:
            row.confounds.append(f"feature maps differ in size: {sides[0]} and {sides[1]}")
    apart, mixed = between_arms([arm.runs for arm in row.arms])
    row.confounds += apart
    row.notes += mixed


def _note_failures(row: Row) -> None:
    """List failed and partly trained runs by arm, and compare their numbers."""
    counts = []
    for arm in row.arms:
        if arm.failed:
            counts.append(f"{len(arm.failed)} of {len(arm.planned)} runs of {arm.name} failed")
        if arm.partly:
            which = ", ".join(
                f"seed {run.seed}: {100 * run.result['test']['ten']['top1_error']:.0f} %" for run in arm.partly
            )
            counts.append(f"{len(arm.partly)} of {len(arm.planned)} runs of {arm.name} trained only partly ({which})")
    if counts:
        row.notes.append(f"only runs that trained are compared: {'; '.join(counts)}")
    if len(row.arms) == 2 and any(arm.lost for arm in row.arms):
        first, second = ((arm.lost, arm.lost + len(arm.runs)) for arm in row.arms)
        row.fisher = fisher(*first, *second)


def _note_uncounted(row: Row) -> None:
    if row.uncounted:
        size, _ = GROUPED.get(row.claim.metric, (1, ""))
        what = "finished runs" if size == 1 else f"groups of {size} runs"
        row.notes.append(f"{row.uncounted} {what} could not be used; see Records left out")


def _precisions(row: Row) -> list[str]:
    """The two precisions behind a claim about neighbours, each with its standard error over the queries of a run."""
    found = []
    for run in row.arms[0].runs:
        with suppress(UserError):  # not counted, and reported
            found.append(read_neighbours(run))
    if not found:
        return []
    means = [
        f"{100 * np.mean([one['precision'][name] for one in found]):.1f} ± "
        f"{100 * np.mean([one['standard_error'][name] for one in found]):.1f} % by {label}"
        for name, label in (("layer", found[0]["layer"]), ("pixels", "pixels"))
    ]
    of = f"{found[0]['nearest']} nearest of {found[0]['pool']:,} training images, {found[0]['queries']} queries a run"
    return [f"precision: {' and '.join(means)} (standard errors of one run over its queries; {of})"]


def _note_bounds(row: Row, archive: Archive) -> None:
    """Count the runs whose time to an event is only bounded."""
    what = METRICS[row.claim.metric][0]
    row.ended_before = tuple(_ended_before(arm, row.claim.metric, archive) for arm in row.arms)
    row.logged_after = tuple(_logged_after(arm, row.claim.metric) for arm in row.arms)
    for arm, before, after in zip(row.arms, row.ended_before, row.logged_after, strict=True):
        if before:
            row.notes.append(
                f"{plural(before, 'run')} of {arm.name} ended before the event, so their {what} are a lower bound"
            )
        if after:
            row.notes.append(
                f"{plural(after, 'run')} of {arm.name} first logged after the event, so their {what} are an upper bound"
            )


def _ended_before(arm: Arm, metric: str, archive: Archive) -> int:
    """Count an arm's runs that ended before the event that a metric counts to."""
    if metric not in ("epochs", "epochs_to_25"):
        return 0
    count = 0
    for run in arm.runs:
        with suppress(UserError):  # not counted, and reported
            count += is_cut(run, metric, archive.config(run).trainer.max_epochs)
    return count


def _logged_after(arm: Arm, metric: str) -> int:
    """Count an arm's runs whose first log came after the event that a metric counts to."""
    count = 0
    for run in arm.runs:
        with suppress(UserError):
            count += is_at_once(run, metric)
    return count
