"""A claim by submitter: the effect of each one's own runs, and whether these effects are equal.

A run (one configuration with one seed) is counted once in the study, whoever did it. Here each submitter has all runs
that it did itself; the test of equal effects takes each run from one submitter only, since runs of one seed share
initial weights and the order of images, so they are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from alexlab.console import plural
from alexlab.errors import UserError
from alexlab.files import read_regular
from alexlab.runs.arrays import MAX_BYTES
from alexlab.study.claims import METRICS, Claim
from alexlab.study.records import Archive, RunData
from alexlab.study.samples import Samples
from alexlab.study.spreads import Sample, shrink
from alexlab.study.statistics import LEAST_RUNS, Effect, Equality, contrast, equal_effects, paired_effect


@dataclass(frozen=True)
class Submission:
    """The effect of a claim in one submitter's own runs."""

    submitter: str
    runs: tuple[list[RunData], ...]  # of each arm
    repeats: int  # of these, how many are counted as another submitter's
    effect: Effect | None  # from these runs' own variances; None without a value in each arm


@dataclass(frozen=True)
class Submissions:
    """A claim by submitter."""

    each: list[Submission]
    equality: Equality | None  # None if fewer than two submitters have enough runs that no other one has


def by_submitter(claim: Claim, arms: Mapping[str, Sequence[RunData]], archive: Archive) -> Submissions | None:
    """Compare the submitters of a claim's counted runs, by arm; None if one submitter has done them all."""
    own = {arm: [copy for run in runs for copy in archive.copies.get(run.run_id, [run])] for arm, runs in arms.items()}
    names = sorted({run.submitter for runs in own.values() for run in runs})
    if len(names) < 2:
        return None
    each, independent = [], []
    for name in names:
        did = {arm: _once(run for run in runs if run.submitter == name and run.is_done) for arm, runs in own.items()}
        alone = {arm: [run for run in arms[arm] if run.submitter == name] for arm in arms}
        repeats = sum(map(len, did.values())) - sum(map(len, alone.values()))
        each.append(Submission(name, tuple(did.values()), repeats, _effect(claim, did)))
        # With fewer values the arms' variances are pooled, and if they differ, the test rejects far too often: two
        # and five runs, the two with twice the deviation, give .10 for two submitters and .16 for four.
        if (effect := _effect(claim, alone, LEAST_RUNS)) is not None:
            independent.append(effect)
    return Submissions(each, equal_effects(independent))


def _once(runs: Iterable[RunData]) -> list[RunData]:
    """The first copy of each run, since one submitter may have sent a run twice."""
    found: dict[str, RunData] = {}
    for run in runs:
        found.setdefault(run.run_id, run)
    return list(found.values())


def _effect(claim: Claim, runs: dict[str, list[RunData]], least: int = 1) -> Effect | None:
    """The effect of a claim's arms, which need `least` values each (a level is the effect of an arm alone).

    Each arm has its own variance; with fewer than three values in one, the variances are shrunk towards each other.
    """
    samples = Samples(dict(runs), [])
    names = list(runs)
    found = [samples.measured(name, claim.metric, claim.view, claim.ratio) for name in names]
    if claim.against_view is not None:
        found.append(samples.measured(names[0], claim.metric, claim.against_view, claim.ratio))
    measured = [one for one in found if one is not None and len(one.sample.values) >= least]
    if len(measured) < len(found):
        return None
    if claim.against_view is not None:
        first, second = (measured[place].among(measured[1 - place]) for place in (0, 1))
        return paired_effect(first, second, 1) if len(first.values) >= least else None
    values = {name: Sample(one.sample.values) for name, one in zip(names, measured, strict=True)}
    weights = (1.0, -1.0)[: len(values)]
    return contrast(list(values.values()), list(shrink(values).values()), weights, 1)


def repeat_remarks(archive: Archive, planned: set[str]) -> list[str]:
    """A sentence for each pair of submitters that did some of the same runs: how many are bit-identical."""
    pairs: dict[tuple[str, str], list[tuple[RunData, RunData]]] = {}
    for run_id in sorted(planned & archive.copies.keys()):
        did = {run.submitter: run for run in reversed(archive.copies[run_id])}
        for names in combinations(sorted(did), 2):
            pairs.setdefault(names, []).append((did[names[0]], did[names[1]]))
    lines = []
    for (first, second), both in sorted(pairs.items()):
        others = [pair for pair in both if not has_same_bits(*pair)]
        line = f"{plural(len(both), 'run')} done by both {first} and {second}, each counted once"
        if same := len(both) - len(others):
            line += f"; {same} bit-identical, which confirms them"
        if others:
            line += f"; {len(others)} not bit-identical, as on another machine{_apart(others)}"
        lines.append(line)
    return lines


def _apart(pairs: list[tuple[RunData, RunData]]) -> str:
    """The mean difference in top-1 error of runs that were done twice, with a 95 % interval."""
    errors = [
        [run.result["test"]["ten"]["top1_error"] for run in pair] for pair in pairs if all(run.is_done for run in pair)
    ]
    if len(errors) < 2:
        return ""
    first, second = (Sample(np.array([pair[place] for pair in errors])) for place in (1, 0))
    found, size = paired_effect(first, second, 1), METRICS["top1_error"][2]
    interval = f"{found.difference / size:+.2f} ± {found.fixed / size:.2f}"
    return f" (top-1 error of the second minus the first: {interval} points, 95 % interval)"


def has_same_bits(first: RunData, second: RunData) -> bool:
    """Whether two copies of a run have the same state, errors and predictions."""
    if first.state != second.state or first.result.get("test") != second.result.get("test"):
        return False
    try:
        contents = [read_regular(run.record.file("predictions.npz"), MAX_BYTES) for run in (first, second)]
    except (OSError, ValueError, UserError):
        return not first.is_done
    return contents[0] == contents[1]
