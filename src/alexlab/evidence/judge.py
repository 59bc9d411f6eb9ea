"""From a study's plan and the records that there are to one row a claim: effect, intervals, verdict, and what to doubt.

The statistics are those of `alexlab.evidence.statistics`; here is what they are applied to, and what no number shows:
missing runs, failures, seeds that nobody planned, and all that differs between two arms besides what the claim says.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from alexlab.claims import METRICS, VIEWED, Claim
from alexlab.config import ConfigError
from alexlab.evidence.archive import Archive, Run
from alexlab.evidence.measures import MEASURES, THRESHOLD
from alexlab.evidence.statistics import (
    LEAST_RUNS,
    Effect,
    Sample,
    Spread,
    Verdict,
    effect,
    fisher,
    paired_effect,
    shrink,
    unlike,
    verdict,
)
from alexlab.runs.failure import RESULTS
from alexlab.runs.identity import DERIVED, differences
from alexlab.runs.plan import map_sides
from alexlab.runs.record import FAILED

SPLITS = 1000  # of an arm against itself


@dataclass
class Arm:
    """What a study planned of an arm, and what came of it."""

    name: str
    overrides: list[str]
    lr: float
    planned: dict[int, str]  # run ids by seed
    runs: list[Run] = field(default_factory=list)  # done, in the seeds' order
    failed: list[Run] = field(default_factory=list)  # for good: to try again would select survivors
    missing: dict[int, str] = field(default_factory=dict)  # run ids by seed, with their state behind it
    unplanned: list[Run] = field(default_factory=list)  # done, and not counted

    @property
    def seconds(self) -> float | None:
        """Of one run, on the average."""
        return float(np.mean([run.result["seconds"] for run in self.runs])) if self.runs else None


@dataclass
class Row:
    """A claim and what the records say of it; all numbers on the metric's own scale, errors as fractions."""

    claim: Claim
    arms: tuple[Arm, ...] = ()  # none, one, or the claim's and the one that it is against
    effect: Effect | None = None  # of logarithms where the claim is a ratio
    level: tuple[float, float] | None = None  # of a claim on one arm: mean, and half of its 95 % interval
    spreads: tuple[float, ...] = ()  # each arm's standard deviation over seeds, as measured
    verdict: str | None = None  # None where none may be told: at this recipe, or yet
    why_none: str | None = None
    fisher: float | None = None  # of failed counts
    secondary: dict[str, float] = field(default_factory=dict)  # effect by other metrics, without a verdict
    notes: list[str] = field(default_factory=list)
    confounds: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)  # the keys in which the arms differ
    own_rate: Row | None = None  # the same, each arm at its own best learning rate

    @property
    def holds_on_new_images(self) -> bool | None:
        if self.effect is None or self.effect.new is None or self.claim.sign == 0:
            return None
        return self.claim.sign * self.effect.difference - self.effect.new > 0

    def shown(self, value: float) -> float:
        """An effect, or an end of its interval, in the unit of the published figure."""
        return math.exp(value) if self.claim.ratio else value / METRICS[self.claim.metric][2]


@dataclass
class Judgement:
    """A study's report in numbers."""

    plan: dict[str, Any]  # as `alexlab.runs.study` wrote it
    looks: int
    rows: list[Row]
    arms: list[Arm]
    family: int  # claims that share the study-wise error of 5 %
    problems: list[str]  # records that could not be used as they are
    remarks: list[str]  # on the study as a whole

    @property
    def missing(self) -> int:
        return len({run_id for arm in self.arms for run_id in arm.missing.values()})

    @property
    def is_interim(self) -> bool:
        return self.missing > 0

    @property
    def is_rehearsal(self) -> bool:
        claims = [row.claim for row in self.rows if not row.claim.is_context]
        return bool(claims) and not any(self.plan["recipe"] in claim.recipes for claim in claims)

    @property
    def done(self) -> int:
        return len({run.run_id for arm in self.arms for run in arm.runs})

    @property
    def command(self) -> str:
        """What makes the missing runs."""
        return f"python src/train.py {shlex.join(self.plan['line'])}"


def judge(looks: list[dict[str, Any]], archive: Archive, own: list[dict[str, Any]] | None = None) -> Judgement:
    """Judge every claim of a study by its last plan; `own`: the plans of the same study at each arm's own rate.

    Raises:
        ConfigError: where the plan is damaged.
    """
    plan = looks[-1]
    claims = [Claim(**claim) for claim in plan["claims"]]
    problems: list[str] = list(archive.problems)
    arms = [_arm(planned, archive) for planned in plan["arms"]]
    _find_unplanned(arms, archive)
    by_overrides = {tuple(arm.overrides): arm for arm in arms}
    tested = [claim for claim in claims if _is_tested(claim, plan, by_overrides)]
    family = max(1, sum(not claim.is_context and not claim.is_level for claim in tested))
    samples = _Samples(by_overrides, problems)
    rows = [_row(claim, plan, by_overrides, archive, samples, family, claim in tested) for claim in claims]
    remarks = _remarks(looks, arms)
    if not claims:
        remarks += [_against_itself(arm, samples) for arm in arms]
    judgement = Judgement(plan, len(looks), rows, arms, family, problems, remarks)
    if judgement.is_interim:
        for row in rows:
            _withhold(row, "interim: runs are missing")
    if own is not None:
        for row, other in zip(rows, judge(own, archive).rows, strict=True):
            row.own_rate = other
            told = {one.verdict for one in (row, other)}
            if None not in told and len(told) > 1:
                row.verdict = f"depends on the learning rate ({row.verdict}; {other.verdict} at each arm's own)"
    return judgement


def _withhold(row: Row, why: str) -> None:
    if row.verdict is not None and row.verdict != Verdict.not_testable.value:
        row.verdict, row.why_none = None, why


def _arm(planned: dict[str, Any], archive: Archive) -> Arm:
    seeds = {int(seed): run_id for seed, run_id in planned["runs"].items()}
    arm = Arm(planned["name"], list(planned["overrides"]), planned["lr"], seeds)
    for seed, run_id in sorted(seeds.items()):
        run = archive.runs.get(run_id)
        if run is not None and run.is_done:
            arm.runs.append(run)
        elif run is not None and run.status.get("state") == FAILED and run.status.get("failure") in RESULTS:
            arm.failed.append(run)
        else:
            arm.missing[seed] = run_id
    return arm


def _find_unplanned(arms: list[Arm], archive: Archive) -> None:
    """Finished runs of the arms that no plan knows of: counting them would be to look until a claim holds."""
    planned = {run_id for arm in arms for run_id in arm.planned.values()}
    others: dict[str, list[Run]] = {}
    for run in archive.runs.values():
        if run.is_done and run.run_id not in planned:
            others.setdefault(run.status.get("labels", {}).get("arm", ""), []).append(run)
    for arm in arms:
        hashes = {run.status["labels"]["arm"] for run in [*arm.runs, *arm.failed] if "labels" in run.status}
        arm.unplanned = [run for name in hashes for run in others.get(name, [])]


def _is_tested(claim: Claim, plan: dict[str, Any], arms: dict[tuple[str, ...], Arm]) -> bool:
    """Whether the study's runs can say something of a claim."""
    if claim.not_testable is not None or claim.name in plan["unmet"]:
        return False
    names = [tuple(claim.arm), tuple(claim.against)]
    if any(name not in arms for name in names[: 1 if claim.is_level or claim.against_view else 2]):
        return False
    if claim.is_level or claim.against_view is not None:
        return True
    first, second = (set(arms[name].planned.values()) for name in names)
    return not first & second  # else the recipe has it so already, and the two are one arm


class _Samples:
    """Each arm's values of each metric and view, and the spreads shrunk over all arms."""

    def __init__(self, arms: dict[tuple[str, ...], Arm], problems: list[str]) -> None:
        self._arms, self._problems = arms, problems
        self._made: dict[
            tuple[str, str, bool], tuple[dict[tuple[str, ...], Sample], dict[tuple[str, ...], Spread]]
        ] = {}
        self._images: dict[tuple[str, str, str], np.ndarray | None] = {}
        self.notes: dict[tuple[str, str], list[str]] = {}

    def of(
        self, metric: str, view: str, ratio: bool
    ) -> tuple[dict[tuple[str, ...], Sample], dict[tuple[str, ...], Spread]]:
        key = metric, view, ratio
        if key not in self._made:
            samples = {
                name: sample
                for name, arm in self._arms.items()
                if (sample := self.sample(arm, metric, view, ratio)) is not None
            }
            named = shrink({str(index): sample for index, sample in enumerate(samples.values())}) if samples else {}
            self._made[key] = samples, dict(zip(samples, named.values(), strict=True))
        return self._made[key]

    def sample(self, arm: Arm, metric: str, view: str, ratio: bool) -> Sample | None:
        """None where no run of the arm has the metric."""
        values, images = [], []
        for run in arm.runs:
            try:
                value = MEASURES[metric](run, view)
                wrong = self._wrong(run, metric, view)
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                said = " ".join(str(error).split()) if isinstance(error, ConfigError) else f"{metric}: {error!r}"
                line = f"{run.run_id}: {said}; not counted for {metric}"
                if line not in self._problems:
                    self._problems.append(line)
                continue
            if not math.isfinite(value) or (ratio and value <= 0):
                self._problems.append(f"{run.run_id}: {metric} is not finite; not counted")
                continue
            values.append(math.log(value) if ratio else value)
            images.append(wrong)
        if not values:
            return None
        sizes = {None if wrong is None else len(wrong) for wrong in images}
        if ratio or None in sizes or len(sizes) > 1 or sizes == {1}:
            return Sample(np.array(values))
        return Sample.of_images(np.stack(images))  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _wrong(self, run: Run, metric: str, view: str) -> np.ndarray | None:
        key = run.run_id, metric, view
        if key not in self._images:
            self._images[key] = run.wrong(metric, view)
        return self._images[key]


def _row(
    claim: Claim,
    plan: dict[str, Any],
    arms: dict[tuple[str, ...], Arm],
    archive: Archive,
    samples: _Samples,
    family: int,
    is_tested: bool,
) -> Row:
    names = [tuple(claim.arm), tuple(claim.against)]
    if claim.is_level or claim.against_view is not None:
        names = names[:1]
    if not is_tested:
        return Row(
            claim,
            tuple(arms[name] for name in names if name in arms) if claim.not_testable is None else (),
            verdict=None if claim.is_context else Verdict.not_testable.value,
            why_none=_why_not(claim, plan, arms, names),
        )
    row = Row(claim, tuple(arms[name] for name in names))
    made, spreads = samples.of(claim.metric, claim.view, claim.ratio)
    found = [made.get(name) for name in names]
    if claim.against_view is not None and found[0] is not None:
        other = samples.sample(row.arms[0], claim.metric, claim.against_view, claim.ratio)
        if other is not None and len(other.values) == len(found[0].values):
            row.effect = paired_effect(found[0], other, family)
            row.spreads = (
                float(np.std(found[0].values - other.values, ddof=1)) if len(other.values) > 1 else math.nan,
            )
    elif None not in found:
        first = found[0]
        assert first is not None
        row.spreads = tuple(spreads[name].sd for name in names)
        if claim.is_level:
            row.level = _level(first, spreads[names[0]])
        else:
            second = found[1]
            assert second is not None
            if (
                first.images is not None
                and second.images is not None
                and first.images.shape[1] != second.images.shape[1]
            ):
                first, second = Sample(first.values), Sample(second.values)
                row.confounds.append("the arms' test images are not the same ones")
            row.effect = effect(first, second, (spreads[names[0]], spreads[names[1]]), family)
            if unlike(spreads[names[0]], spreads[names[1]]):
                how = (
                    "Welch's interval is taken, the wider one"
                    if row.effect.welch
                    else "the interval holds by Welch's t too"
                )
                row.notes.append(f"the arms' spreads differ by more than twice; {how}")
    _secondary(row, claim, names, samples)
    _doubt(row, archive)
    _conclude(row, claim, plan, found)
    return row


def _why_not(
    claim: Claim, plan: dict[str, Any], arms: dict[tuple[str, ...], Arm], names: Sequence[tuple[str, ...]]
) -> str:
    if claim.not_testable is not None:
        return claim.not_testable
    if claim.name in plan["unmet"]:
        return f"requires {', '.join(plan['unmet'][claim.name])}"
    if any(name not in arms for name in names):
        return "the study has no such arms"
    return "the two arms are the same runs here: the recipe has it so already"


def _level(sample: Sample, spread: Spread) -> tuple[float, float]:
    """Mean over seeds, and half of its 95 % interval for these images."""
    from scipy import stats

    half = (
        stats.t.ppf(0.975, spread.df) * math.sqrt(spread.variance / len(sample.values)) if spread.df > 0 else math.inf
    )
    return float(sample.values.mean()), float(half)


def _secondary(row: Row, claim: Claim, names: list[tuple[str, ...]], samples: _Samples) -> None:
    """The same difference by the other published metrics, and for errors on single images by the other views."""
    others = [(name, claim.view) for name in claim.published if name != claim.metric]
    if claim.metric in VIEWED and claim.against_view is None:
        others += [(claim.metric, "center" if claim.view == "ten" else "ten")]
    if claim.metric == "top1_error" and "top5_error" not in claim.published:
        others.append(("top5_error", claim.view))
    for metric, view in others:
        found = [samples.sample(arm, metric, view, claim.ratio) for arm in row.arms]
        if claim.against_view is not None:
            found.append(samples.sample(row.arms[0], metric, claim.against_view, claim.ratio))
        if None in found:
            continue
        means = [float(sample.values.mean()) for sample in found if sample is not None]
        label = metric if view == claim.view else f"{metric}, {view} view"
        row.secondary[label] = means[0] - means[1] if len(means) > 1 else means[0]


def _conclude(row: Row, claim: Claim, plan: dict[str, Any], found: list[Sample | None]) -> None:
    """The verdict, or why there is none."""
    runs = [0 if sample is None else len(sample.values) for sample in found]
    failed = [len(arm.failed) for arm in row.arms]
    if any(failed):
        row.notes.append("given that it trains: " + ", ".join(
            f"{bad} of {bad + len(arm.runs)} runs of {arm.name} failed"
            for arm, bad in zip(row.arms, failed, strict=True)
            if bad
        ))  # fmt: skip
    if len(row.arms) == 2 and any(failed):
        row.fisher = fisher(failed[0], failed[0] + runs[0], failed[1], failed[1] + runs[1])
    if claim.metric == "epochs_to_25":
        for arm in row.arms:
            never = sum(all((epoch["train_top1_error"] or 0) > THRESHOLD for epoch in run.epochs) for run in arm.runs)
            if never:
                row.notes.append(f"{never} runs of {arm.name} never reached 25 %; their length is counted, too little")
    if claim.is_context:
        return
    if plan["recipe"] not in claim.recipes:
        row.why_none = f"a rehearsal: told at {', '.join(claim.recipes)}"
        return
    if plan["rate"] == "choose":
        row.why_none = "these runs choose learning rates"
        return
    if claim.is_level:
        row.verdict, row.why_none = _level_verdict(row, claim, runs[0])
        return
    same_images = all(run.result["data"]["store"] for arm in row.arms for run in arm.runs) and (
        claim.published_on is None or plan["data"] == claim.published_on
    )
    both = (runs[0], runs[-1])
    published = claim.effect
    if published is not None and claim.ratio:
        published = math.log(published)
    row.verdict = verdict(
        row.effect,
        published,
        claim.sign,
        runs=both,
        failed=(failed[0], failed[-1]),
        at_least=claim.at_least,
        same_images=same_images,
    ).value
    if min(both) < LEAST_RUNS:
        row.why_none = f"{min(both)} runs in an arm; a verdict takes {LEAST_RUNS}"


def _level_verdict(row: Row, claim: Claim, runs: int) -> tuple[str, str | None]:
    """Whether the published figure, of one run, is one that such a run might have had."""
    if row.level is None or runs < LEAST_RUNS:
        return Verdict.not_testable.value, f"{runs} runs; a verdict takes {LEAST_RUNS}"
    mean, half = row.level
    one_run = half * math.sqrt(runs + 1)  # from the interval of the mean to that of a new run
    published = claim.effect
    assert published is not None
    near = abs(published - mean) <= one_run
    return (Verdict.reproduced.value, None) if near else (f"other by {100 * (mean - published):+.1f} points", None)


def _doubt(row: Row, archive: Archive) -> None:
    """What differs between the arms besides what the claim says."""
    for arm in row.arms:
        if arm.unplanned:
            seeds = ", ".join(str(run.seed) for run in arm.unplanned)
            row.notes.append(
                f"{arm.name}: {len(arm.unplanned)} finished runs are not planned (seeds {seeds}), not counted"
            )
    if len(row.arms) < 2 or not all(arm.runs for arm in row.arms):
        return
    try:
        first, second = (archive.config(arm.runs[0]) for arm in row.arms)
    except ConfigError as error:
        row.confounds.append(f"configurations cannot be compared: {' '.join(str(error).split())}")
        return
    changed = {**differences(second, first), **differences(first, second)}
    row.differing = sorted(name for name in changed if name not in DERIVED)
    extra = [name for name in row.differing if name not in row.claim.differs]
    if row.claim.differs and extra:
        row.confounds.append(f"the arms differ in more than the claim says: {', '.join(extra)}")
    if not changed.keys() & {"model.remove", "model.kernels"}:
        sides = [map_sides(config) for config in (first, second)]
        if sides[0] != sides[1]:
            row.confounds.append(f"feature maps differ in size: {sides[0]} and {sides[1]}")
    for what, value in SURROUNDINGS.items():
        seen = [Counter(value(run) for run in arm.runs) for arm in row.arms]
        if seen[0].keys() != seen[1].keys():
            told = " against ".join(", ".join(map(str, one)) for one in seen)
            row.confounds.append(f"{what} differs between the arms: {told}")
        elif len(seen[0]) > 1:
            row.notes.append(f"each arm has runs of several kinds of {what}: {', '.join(map(str, seen[0]))}")


def _packages(run: Run) -> str:
    packages = run.environment.get("packages", {})
    return " ".join(
        f"{name} {packages[name]}" for name in ("torch", "torchvision", "lightning", "numpy") if name in packages
    )


def _code(run: Run) -> str:
    commit = run.environment.get("git_commit")
    return f"{str(commit)[:10]}{' with changes' if run.environment.get('git_dirty') else ''}" if commit else "unknown"


def _against_itself(arm: Arm, samples: _Samples) -> str:
    """A/A: how often an arm differs from itself, over random halves of its runs."""
    whole = samples.sample(arm, "top1_error", "ten", False)
    if whole is None or len(whole.values) < 2 * LEAST_RUNS:
        return f"{arm.name} against itself takes {2 * LEAST_RUNS} runs"
    random = np.random.default_rng(0)
    half = len(whole.values) // 2
    beyond = {"these images": 0, "new images": 0}
    for _ in range(SPLITS):
        order = random.permutation(len(whole.values))
        first, second = (
            Sample(whole.values[places], None if whole.images is None else whole.images[places])
            for places in (order[:half], order[half : 2 * half])
        )
        spreads = shrink({"first": first, "second": second})
        found = effect(first, second, (spreads["first"], spreads["second"]), 1)
        beyond["these images"] += abs(found.difference) > found.fixed
        beyond["new images"] += found.new is not None and abs(found.difference) > found.new
    sd = 100 * float(whole.values.std(ddof=1))
    shares = " and ".join(f"{100 * count / SPLITS:.1f} % for {name}" for name, count in beyond.items())
    return (
        f"A/A: {arm.name} against itself, {SPLITS:,} random splits of {len(whole.values)} runs (sd {sd:.2f} points) in "
        f"two: the 95 % interval leaves 0 out in {shares}; 5 % would be right on the average over such studies, and "
        "splits of the same runs say little more than one"
    )


SURROUNDINGS: dict[str, Callable[[Run], str]] = {
    "the store": lambda run: str(run.result["data"]["store"]),
    "the code": _code,
    "the packages": _packages,
    "the device": lambda run: str(run.result["device"]),
    "the precision": lambda run: str(run.result["precision"]),
    "the weights": lambda run: str(run.result["checkpoint"]),
}


def _remarks(looks: list[dict[str, Any]], arms: list[Arm]) -> list[str]:
    remarks = []
    for number, (before, after) in enumerate(pairwise(looks), 2):
        changed = "claims" if before["claims_digest"] != after["claims_digest"] else "runs"
        remarks.append(
            f"look {number}: the study's {changed} were changed after it had begun; its 5 % holds for look 1"
        )
    unplanned = sum(len(arm.unplanned) for arm in arms)
    if unplanned:
        remarks.append(f"{unplanned} finished runs of these arms are not planned, and not counted")
    return remarks
