"""From a study's plan and the records that there are to one row a claim: effect, intervals, verdict, and what to doubt.

The statistics are those of `alexlab.evidence.statistics`; here is what they are applied to, and what no number shows:
missing runs, failures, seeds that nobody planned, and all that differs between two arms besides what the claim says.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from alexlab.claims import METRICS, VIEWED, Claim
from alexlab.config import ConfigError
from alexlab.evidence.archive import Archive, Run
from alexlab.evidence.measures import is_cut
from alexlab.evidence.rates import rate_remarks
from alexlab.evidence.samples import Measured, Samples
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
from alexlab.runs.identity import DERIVED, differences
from alexlab.runs.plan import map_sides

# Verdicts that can disagree.
DECIDED = [one.value for one in Verdict if one not in (Verdict.unsettled, Verdict.not_testable)]
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
    counted: tuple[int, ...] = ()  # runs of each arm that the effect is of
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
        flags = [] if self.plan.get("config_dir") is None else ["--config-dir", self.plan["config_dir"]]
        return f"python src/train.py {shlex.join([*flags, *self.plan['line']])}"


def judge(
    looks: list[dict[str, Any]],
    archive: Archive,
    own: list[dict[str, Any]] | None = None,
    known: Container[str] = (),
) -> Judgement:
    """Judge every claim of a study by its last plan.

    `own`: the plans of the same study at each arm's own learning rate. `known`: runs that other studies planned, which
    are not told of as unplanned.

    Raises:
        ConfigError: where the plan is damaged.
    """
    plan = looks[-1]
    try:
        claims = [Claim(**claim) for claim in plan["claims"]]
        arms = [_arm(planned, archive) for planned in plan["arms"]]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ConfigError(f"runs/studies/{plan.get('id')}.json: cannot be read by this version ({error})") from error
    problems: list[str] = list(archive.problems)
    _find_unplanned(arms, archive, known)
    by_overrides = {tuple(arm.overrides): arm for arm in arms}
    tested = [claim for claim in claims if _is_tested(claim, plan, by_overrides)]
    family = max(1, sum(not claim.is_context and not claim.is_level for claim in tested))
    samples = Samples({arm.name: arm.runs for arm in arms}, problems)
    rows = [_row(claim, plan, by_overrides, archive, samples, family, claim in tested) for claim in claims]
    remarks = [*_remarks(looks, arms), *rate_remarks(plan)]
    if not claims:
        remarks += [_against_itself(arm.name, samples) for arm in arms]
    judgement = Judgement(plan, len(looks), rows, arms, family, problems, remarks)
    for row in rows:
        if judgement.is_interim:
            _withhold(row, "interim: runs are missing")
        _qualify(row, looks)
    if own is not None:
        _add_own_rates(judgement, judge(own, archive, known=known))
    return judgement


def _withhold(row: Row, why: str) -> None:
    if row.verdict is not None and row.verdict != Verdict.not_testable.value:
        row.verdict, row.why_none = None, why


def _qualify(row: Row, looks: list[dict[str, Any]]) -> None:
    """Say with the verdict what it is worth less for: a plan that came after its results, or after another plan."""
    if row.verdict is None or row.verdict == Verdict.not_testable.value:
        return
    before = {run_id for look in looks for run_id in look.get("finished_before", ())}
    arms = [arm for arm in row.arms if arm.overrides] or list(row.arms)  # the base is shared between studies
    told = []
    if len(looks) > 1:
        told.append(f"look {len(looks)}")
    if any(run.run_id in before for arm in arms for run in arm.runs) and len(looks) == 1:
        told.append("exploratory: runs were finished before the study was planned")
    if told:
        row.verdict = f"{row.verdict} ({'; '.join(told)})"


def _add_own_rates(judgement: Judgement, own: Judgement) -> None:
    rows = {row.claim.name: row for row in own.rows}
    for row in judgement.rows:
        row.own_rate = rows.get(row.claim.name)
        if row.own_rate is None or row.claim.is_level:
            continue
        told = [(one.verdict or "").partition(" (")[0] for one in (row, row.own_rate)]
        if all(word in DECIDED for word in told) and told[0] != told[1]:
            row.verdict = f"depends on the learning rate ({told[0]}; {told[1]} at each arm's own)"
    if judgement.plan["claims_digest"] != own.plan["claims_digest"]:
        judgement.remarks.append("the study at each arm's own rate has other claims")
    if own.missing:
        judgement.remarks.append(f"at own rates: {own.missing} planned runs are missing")
    judgement.remarks += [f"at own rates: {remark}" for remark in own.remarks]
    judgement.problems += [f"at own rates: {line}" for line in own.problems if line not in judgement.problems]


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
    return arm


def _find_unplanned(arms: list[Arm], archive: Archive, known: Container[str]) -> None:
    """Finished runs of the arms that no plan knows of: counting them would be to look until a claim holds."""
    planned = {run_id for arm in arms for run_id in arm.planned.values()}
    others: dict[str, list[Run]] = {}
    for run in archive.runs.values():
        if run.is_done and run.run_id not in planned and run.run_id not in known and run.arm is not None:
            others.setdefault(run.arm, []).append(run)
    for arm in arms:
        hashes = {run.arm for run in [*arm.runs, *arm.failed] if run.arm is not None}
        arm.unplanned = [run for name in sorted(hashes) for run in others.get(name, [])]


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


def _row(
    claim: Claim,
    plan: dict[str, Any],
    arms: dict[tuple[str, ...], Arm],
    archive: Archive,
    samples: Samples,
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
    spreads = samples.spreads(claim.metric, claim.view, claim.ratio)
    found = [samples.measured(arm.name, claim.metric, claim.view, claim.ratio) for arm in row.arms]
    row.counted = tuple(0 if one is None else len(one.runs) for one in found)
    if claim.against_view is not None:
        _compare_views(row, found[0], samples, family)
    elif claim.is_level and found[0] is not None:
        row.spreads = (spreads[row.arms[0].name].sd,)
        row.level = _level(found[0].sample, spreads[row.arms[0].name])
    elif found[0] is not None and found[-1] is not None:
        row.spreads = tuple(spreads[arm.name].sd for arm in row.arms)
        _compare_arms(row, found[0], found[-1], (spreads[row.arms[0].name], spreads[row.arms[-1].name]), family)
    _secondary(row, claim, samples)
    _doubt(row, archive, plan)
    _conclude(row, claim, plan, archive)
    return row


def _compare_views(row: Row, seen: Measured | None, samples: Samples, family: int) -> None:
    claim = row.claim
    other = samples.measured(row.arms[0].name, claim.metric, claim.against_view or "", claim.ratio)
    if seen is None or other is None:
        row.counted = (0,)
        return
    first, second = seen.among(other), other.among(seen)
    row.counted = (len(first.values),)
    if len(first.values):
        row.effect = paired_effect(first, second, family)
        spread = np.std(first.values - second.values, ddof=1) if len(first.values) > 1 else math.nan
        row.spreads = (float(spread),)


def _compare_arms(row: Row, first: Measured, second: Measured, spreads: tuple[Spread, Spread], family: int) -> None:
    samples = first.sample, second.sample
    if first.images != second.images:
        samples = Sample(first.sample.values), Sample(second.sample.values)
        row.confounds.append("the arms' test images are not the same ones")
    row.effect = effect(*samples, spreads, family)
    if unlike(*spreads):
        how = "Welch's interval is taken, the wider one" if row.effect.welch else "the interval holds by Welch's t too"
        row.notes.append(f"the arms' spreads differ by more than twice; {how}")


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


def _secondary(row: Row, claim: Claim, samples: Samples) -> None:
    """The same difference by the other published metrics, and for errors on single images by the other views."""
    others = [(name, claim.view) for name in claim.published if name != claim.metric]
    if claim.metric in VIEWED and claim.against_view is None:
        others += [(claim.metric, "center" if claim.view == "ten" else "ten")]
    if claim.metric == "top1_error" and "top5_error" not in claim.published:
        others.append(("top5_error", claim.view))
    for metric, view in others:
        found = [samples.measured(arm.name, metric, view, claim.ratio) for arm in row.arms]
        if claim.against_view is not None:
            found.append(samples.measured(row.arms[0].name, metric, claim.against_view, claim.ratio))
        means = [float(one.sample.values.mean()) for one in found if one is not None]
        if len(means) == len(found):
            label = metric if view == claim.view else f"{metric}, {view} view"
            row.secondary[label] = means[0] - means[1] if len(means) > 1 else means[0]


def _conclude(row: Row, claim: Claim, plan: dict[str, Any], archive: Archive) -> None:
    """The verdict, or why there is none."""
    runs = row.counted
    failed = [len(arm.failed) for arm in row.arms]
    if any(failed):
        counts = [
            f"{bad} of {bad + len(arm.runs)} runs of {arm.name} failed"
            for arm, bad in zip(row.arms, failed, strict=True)
            if bad
        ]
        row.notes.append(f"given that it trains: {', '.join(counts)}")
    if len(row.arms) == 2 and any(failed):
        totals = [bad + len(arm.runs) for arm, bad in zip(row.arms, failed, strict=True)]
        row.fisher = fisher(failed[0], totals[0], failed[1], totals[1])
    lost = sum(len(arm.runs) for arm in row.arms) - sum(runs)
    if lost:
        row.notes.append(f"{lost} finished runs could not be counted; the problems name them")
    cut = [_cut(arm, claim.metric, archive) for arm in row.arms]
    for arm, number in zip(row.arms, cut, strict=True):
        if number:
            row.notes.append(f"{number} runs of {arm.name} ended before {METRICS[claim.metric][0]}: counted as too few")
    if claim.is_context:
        return
    if plan["recipe"] not in claim.recipes:
        row.why_none = f"a rehearsal: told at {', '.join(claim.recipes)}"
    elif plan.get("departures"):
        row.why_none = f"a rehearsal: not as the recipe has it in {', '.join(plan['departures'])}"
    elif plan["rate"] == "choose":
        row.why_none = "these runs choose learning rates"
    elif claim.is_level:
        row.verdict, row.why_none = _level_verdict(row, claim)
    else:
        _judge_effect(row, claim, plan, failed, cut, lost)


def _cut(arm: Arm, metric: str, archive: Archive) -> int:
    """How many of an arm's runs ended before what a metric waits for."""
    if metric not in ("epochs", "epochs_to_25"):
        return 0
    count = 0
    for run in arm.runs:
        with suppress(ConfigError):  # it is not counted, and told of
            count += is_cut(run, metric, archive.config(run).trainer.max_epochs)
    return count


def _judge_effect(row: Row, claim: Claim, plan: dict[str, Any], failed: list[int], cut: list[int], lost: int) -> None:
    runs = (row.counted[0], row.counted[-1])
    published = claim.effect
    if published is not None and claim.ratio:
        published = math.log(published)
    is_bound = bool(cut and (cut[0] if claim.sign > 0 else cut[-1]))  # the effect is at least what was measured
    if any(cut) and not (is_bound and not (cut[-1] if claim.sign > 0 else cut[0])):
        row.verdict, row.why_none = Verdict.not_testable.value, "runs ended before what the claim is about"
        return
    if lost:
        row.why_none = "interim: finished runs could not be read"
        return
    found = verdict(
        row.effect,
        None if is_bound else published,
        claim.sign,
        runs=runs,
        failed=(failed[0], failed[-1]),
        at_least=claim.at_least,
        same_images=claim.published_on is not None and plan["data"] == claim.published_on,
    )
    is_same = row.effect is not None and row.effect.study == 0 and all(spread == 0 for spread in row.spreads)
    if is_same and found is not Verdict.does_not_train:
        row.why_none = "all runs of an arm are the same, whatever their seeds: something is wrong"
        return
    row.verdict = found.value
    if found is Verdict.not_testable:
        row.why_none = f"{min(runs)} runs in an arm; a verdict takes {LEAST_RUNS}"


def _level_verdict(row: Row, claim: Claim) -> tuple[str, str | None]:
    """Whether the published figure, of one run, is one that such a run might have had."""
    runs = row.counted[0]
    if row.level is None or runs < LEAST_RUNS:
        return Verdict.not_testable.value, f"{runs} runs; a verdict takes {LEAST_RUNS}"
    mean, half = row.level
    one_run = half * math.sqrt(runs + 1)  # from the interval of the mean to that of a new run
    published = claim.effect
    assert published is not None
    if abs(published - mean) <= one_run:
        return Verdict.reproduced.value, None
    return f"other by {row.shown(mean - published):+.1f} {METRICS[claim.metric][1]}".rstrip(), None


def _doubt(row: Row, archive: Archive, plan: dict[str, Any]) -> None:
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
    said = [*row.claim.differs, *(["optim.lr"] if plan["rate"] == "own" else [])]
    extra = [name for name in row.differing if name not in said]
    if row.claim.differs and extra:
        row.confounds.append(f"the arms differ in more than the claim says: {', '.join(extra)}")
    if lacking := [name for name in row.claim.differs if name not in row.differing]:
        row.confounds.append(f"the arms do not differ in {', '.join(lacking)}, as the claim says")
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
    packages = run.environment.get("packages") or {}
    return " ".join(
        f"{name} {packages[name]}" for name in ("torch", "torchvision", "lightning", "numpy") if name in packages
    )


def _code(run: Run) -> str:
    commit = run.environment.get("git_commit")
    return f"{str(commit)[:10]}{' with changes' if run.environment.get('git_dirty') else ''}" if commit else "unknown"


def _against_itself(arm: str, samples: Samples) -> str:
    """A/A: how often an arm differs from itself, over random halves of its runs."""
    measured = samples.measured(arm, "top1_error", "ten")
    if measured is None or len(measured.runs) < 2 * LEAST_RUNS:
        return f"{arm} against itself takes {2 * LEAST_RUNS} runs"
    whole = measured.sample
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
        f"A/A: {arm} against itself, {SPLITS:,} random splits of {len(whole.values)} runs (sd {sd:.2f} points) in "
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
