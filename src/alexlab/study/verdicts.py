"""Judge a study: from its plan and records to one row per claim with effect, intervals, verdict and caveats.

`alexlab.study.statistics` has the statistics. This module applies them, and reports what no interval shows: missing
runs, failures, unplanned seeds, and every key in which two arms differ besides those that the claim names.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.architecture import layers, map_sides
from alexlab.config import Config, Rate
from alexlab.errors import UserError
from alexlab.runs.identity import DERIVED, differences
from alexlab.study.claims import GROUPED, METRICS, OF_NETS, VIEWED, Claim, Verdict, is_of_net, overridden
from alexlab.study.metrics import is_at_once, is_cut, read_neighbours
from alexlab.study.rates import OF_TRIALS, ArmTrials, read_trials
from alexlab.study.records import Archive, RunData
from alexlab.study.samples import Measured, Samples
from alexlab.study.statistics import (
    LEAST_RUNS,
    SUPPORT,
    Effect,
    Sample,
    Spread,
    both_needed,
    effect,
    fisher,
    paired_effect,
    partly_trained,
    quantile,
    replication_bayes_factor,
    strength,
    too_many_failed,
    unlike,
    variance_components,
    verdict,
    weaker,
)
from alexlab.study.submitters import Submissions, by_submitter, repeat_remarks
from alexlab.study.surroundings import between_arms, between_runs

OTHER_IMAGES = "the arms were tested on different images, so their errors cannot be compared"
LENGTH = "trainer.max_epochs"  # a claim about when something happens may change it


@dataclass
class Arm:
    """An arm of a study: its planned runs, and what became of them."""

    name: str
    overrides: list[str]
    lr: float
    planned: dict[int, str]  # run ids by seed
    runs: list[RunData] = field(default_factory=list)  # done, in the seeds' order
    failed: list[RunData] = field(default_factory=list)  # for good: repeating them would select survivors
    partly: list[RunData] = field(default_factory=list)  # done, but partly trained: counted as failed
    missing: dict[int, str] = field(default_factory=dict)  # run ids by seed
    unplanned: list[RunData] = field(default_factory=list)  # done, and not counted

    @property
    def done(self) -> int:
        return len(self.runs) + len(self.partly)

    @property
    def lost(self) -> int:
        """Runs that count as failed."""
        return len(self.failed) + len(self.partly)

    @property
    def does_not_train(self) -> bool:
        return too_many_failed(len(self.runs), self.lost)

    @property
    def seconds(self) -> float | None:
        """The mean time of a run."""
        return float(np.mean([run.result["seconds"] for run in self.runs])) if self.runs else None


@dataclass
class Row:
    """A claim and its result; all numbers on the metric's own scale, errors as fractions."""

    claim: Claim
    arms: tuple[Arm, ...] = ()  # none, one, or the claim's and the one that it is against
    effect: Effect | None = None  # of logarithms where the claim is a ratio
    level: tuple[float, float, float] | None = None  # of a claim on one arm: see `_level`
    spreads: tuple[float, ...] = ()  # each arm's standard deviation over seeds, as measured
    counted: tuple[int, ...] = ()  # runs of each arm that the effect is computed from
    word: Verdict | None = None  # None where no verdict is given: at this recipe, or yet
    verdict: str | None = None  # the word as printed, with its qualifications
    why_none: str | None = None
    fisher: float | None = None  # of failed counts
    secondary: dict[str, float] = field(default_factory=dict)  # effect by other metrics, without a verdict
    range: int = 0  # which of the claim's own ranges holds
    has_other_images: bool = False  # the arms were tested on different images, so there is no effect
    is_bound: bool = False  # runs ended before the event that the claim is about: the effect is a lower bound
    strength: float | None = None  # z of the original pair of runs
    bayes_factor: float | None = None  # for the published effect, against none
    notes: list[str] = field(default_factory=list)
    confounds: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)  # the keys in which the arms differ
    own_rate: Row | None = None  # the same, each arm at its own best learning rate
    rate_doubts: list[str] = field(default_factory=list)  # why an arm's own best rate is not known
    submitters: Submissions | None = None  # where several have runs of the claim

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that decides the verdict; a ratio's is of logarithms."""
        if self.effect is None:
            return None
        return self.effect.difference - self.effect.decisive, self.effect.difference + self.effect.decisive

    @property
    def share(self) -> tuple[float, float, float] | None:
        """Effect over published effect (a ratio's by logarithms), and its interval's ends, the lower first."""
        published = self.published
        if self.effect is None or self.interval is None or not published or not math.isfinite(self.effect.decisive):
            return None
        low, high = sorted(end / published for end in self.interval)
        return self.effect.difference / published, low, high

    @property
    def published(self) -> float | None:
        """The published effect on the scale of the interval: a logarithm where the claim is a ratio."""
        figure = None if self.claim.is_level else self.claim.effect
        return math.log(figure) if figure is not None and self.claim.ratio else figure

    def shown(self, value: float) -> float:
        """An effect, or an end of its interval, in the unit of the published figure."""
        return math.exp(value) if self.claim.ratio else value / METRICS[self.claim.metric][2]


@dataclass
class Judgement:
    """The result of a study, in numbers."""

    plan: dict[str, Any]  # as `alexlab.sweep.arms` wrote it
    looks: int
    rows: list[Row]
    arms: list[Arm]
    family: int  # claims that share the study-wise error of 5 %
    problems: list[str]  # one line for each record that could not be used, or not in full
    remarks: list[str]  # on the study as a whole
    config_dir: str | None = None  # as the reader has typed it
    trials: list[ArmTrials] = field(default_factory=list)  # of learning rates

    @property
    def is_choosing(self) -> bool:
        """Whether its runs are the trials that choose learning rates, so that they test no claim."""
        return self.plan["rate"] == Rate.choose.name

    @property
    def missing(self) -> int:
        return len({run_id for arm in self.arms for run_id in arm.missing.values()})

    @property
    def planned(self) -> set[str]:
        """All run ids of the plan."""
        return {run_id for arm in self.arms for run_id in arm.planned.values()}

    @property
    def is_interim(self) -> bool:
        return self.missing > 0

    @property
    def is_rehearsal(self) -> bool:
        claims = [row.claim for row in self.rows if not row.claim.is_context]
        return bool(claims) and not any(self.plan["recipe"] in claim.recipes for claim in claims)

    @property
    def done(self) -> int:
        return len({run.run_id for arm in self.arms for run in [*arm.runs, *arm.partly]})

    @property
    def command(self) -> str:
        """The command line that makes the missing runs, without what `left_out` names."""
        line = [one for one in self.plan["line"] if self._is_shown(one)]
        flags = ["--config-dir", self.config_dir] if self._has_own_options and self.config_dir else []
        return f"python src/train.py {shlex.join([*flags, *line])}"

    @property
    def left_out(self) -> list[str]:
        """What the plan's line sets and `command` does not: folders, launchers, or whatever a stranger may have added.

        A reader copies the command, and a plan comes from anyone.
        """
        names = [one.partition("=")[0][:60] for one in self.plan["line"] if not self._is_shown(one)]
        has_others_options = self.plan.get("config_dir") is not None and not self._has_own_options
        return [*dict.fromkeys(names), *(["--config-dir"] if has_others_options else [])]

    def _is_shown(self, override: str) -> bool:
        name = overridden(override, self.config_dir) or ""
        return name == "study" or name.startswith("study.") or is_of_net(override, self.config_dir)

    @property
    def _has_own_options(self) -> bool:
        """Whether the study's option files are those that the reader named."""
        planned, given = self.plan.get("config_dir"), self.config_dir
        return None not in (planned, given) and Path(str(planned)).resolve() == Path(str(given)).resolve()


def judge(
    looks: list[dict[str, Any]],
    archive: Archive,
    own: list[dict[str, Any]] | None = None,
    known: Container[str] = (),
    started: Mapping[str, list[dict[str, Any]]] | None = None,
    config_dir: str | None = None,
) -> Judgement:
    """Judge every claim of a study by its last plan.

    `own`: the plans of the same study at each arm's own learning rate. `known`: runs that other studies planned, which
    are not reported as unplanned. `started`: the plans of all studies, by id, to list those with the same claims and to
    find the rates that were tried. `config_dir`: the reader's own, to be named in a command.
    """
    plan = looks[-1]
    is_choosing = plan["rate"] == Rate.choose.name
    claims = [] if is_choosing else [Claim(**claim) for claim in plan["claims"]]
    arms = [_arm(planned, archive) for planned in plan["arms"]]
    problems: list[str] = list(archive.problems)
    _find_unplanned(arms, archive, known)
    if not claims and len(arms) == 1 and not is_choosing:
        arms = _halves(arms[0])
    by_overrides = {tuple(arm.overrides): arm for arm in arms}
    tested = [claim for claim in claims if _is_tested(claim, plan, by_overrides)]
    family = max(1, sum(not claim.is_context for claim in tested))
    samples = Samples({arm.name: arm.runs for arm in arms}, problems)
    samples.shared_start = _find_shared_start(arms, archive)
    divisor = family * len(looks)
    rows = [_row(claim, plan, by_overrides, archive, samples, divisor, claim in tested) for claim in claims]
    remarks = [*_remarks(looks, arms), *_same_claims(plan, tested, started or {})]
    remarks += repeat_remarks(archive, {run_id for arm in arms for run_id in arm.planned.values()})
    if not claims and not is_choosing:
        if len(arms) == 2 and not any(arm.overrides for arm in arms):
            rows = _against_itself(arms, samples)
            family = len(rows)
            remarks += _beyond(rows)
        elif components := _components(arms, samples):
            remarks.append(components)
    trials = read_trials(plan, archive.runs)
    problems = [archive.named(line) for line in problems]
    judgement = Judgement(plan, len(looks), rows, arms, family, problems, remarks, config_dir, trials)
    for row in rows:
        if row.effect is not None or row.level is not None:
            row.submitters = by_submitter(row.claim, {arm.name: arm.runs for arm in row.arms}, archive)
        if judgement.is_interim:
            _withhold(row, "interim: runs are missing")
        _qualify(row, looks)
    if plan["rate"] == "own":
        _doubt_rates(judgement, archive, started or {})
    if own is not None:
        _add_own_rates(judgement, judge(own, archive, known=known, started=started))
    return judgement


def _find_shared_start(arms: list[Arm], archive: Archive) -> tuple[str, list[str]] | None:
    """The base, and the arms whose runs start from its initial weights on the same seeds, by their configurations."""
    base = next((arm for arm in arms if not arm.overrides and arm.runs), None)
    if base is None:
        return None
    found = []
    for arm in arms:
        with suppress(UserError):  # reported as a confound
            if arm.overrides and arm.runs and starts_alike(archive.config(base.runs[0]), archive.config(arm.runs[0])):
                found.append(arm.name)
    return base.name, found


def starts_alike(first: Config, second: Config) -> bool:
    """Whether two nets have the same layers with weights, and on one seed the same initial ones."""

    def start(config: Config) -> list[Any]:
        model = config.model
        if model.build is not None:  # whose layers are not known here
            return [model.build, config.weights]
        shapes = [(one.name, one.inputs, one.outputs, one.kernel, one.groups, one.shared) for one in layers(config)]
        sides = [one.side for one in layers(config) if not one.shared]
        return [shapes, sides, model.init, model.init_std, model.init_stds, model.init_last_std, config.weights]

    return start(first) == start(second)


def _withhold(row: Row, why: str) -> None:
    if row.word is not None and row.word is not Verdict.not_testable:
        row.word, row.verdict, row.why_none = None, None, why


def _qualify(row: Row, looks: list[dict[str, Any]]) -> None:
    """Qualify the verdict if the plan was made after results, or after another plan."""
    if row.word is None or row.word is Verdict.not_testable:
        return
    before = {run_id for look in looks for run_id in look.get("finished_before", ())}
    arms = [arm for arm in row.arms if arm.overrides] or list(row.arms)  # the base is shared between studies
    limits = []
    if len(looks) > 1:
        limits.append(f"look {len(looks)}")
    if any(run.run_id in before for arm in arms for run in arm.runs) and len(looks) == 1:
        limits.append("exploratory: runs were finished before the study was planned")
    if limits:
        row.verdict = f"{row.verdict} ({'; '.join(limits)})"


def _add_own_rates(judgement: Judgement, own: Judgement) -> None:
    """Attach each claim's row at the arms' own rates; if the words differ, the weaker one is the verdict."""
    rows = {row.claim.name: row for row in own.rows}
    for row in judgement.rows:
        row.own_rate = rows.get(row.claim.name)
        if row.own_rate is None or row.claim.is_level:
            continue
        if row.own_rate.rate_doubts:
            row.rate_doubts = row.own_rate.rate_doubts
            _withhold(row, row.own_rate.why_none or "")
        words = [one.word for one in (row, row.own_rate)]
        if words[0] is None or words[1] is None or row.verdict == row.own_rate.verdict:
            continue
        if Verdict.not_testable in words:
            continue
        each = f"{row.verdict} at the common rate; {row.own_rate.verdict} at each arm's own"
        if Verdict.does_not_train in words:
            row.word = Verdict.does_not_train if words[0] is words[1] else Verdict.inconclusive
        else:
            row.word = weaker(words[0], words[1])
        # Of two ranges with one word the later is the weaker.
        weak = [one.verdict for one, word in ((row, words[0]), (row.own_rate, words[1])) if word is row.word]
        if len(weak) == 2 and row.own_rate.range < row.range:
            weak.reverse()
        row.verdict = f"{weak[-1] if weak else row.word.value} ({each})"
    if judgement.plan["claims_digest"] != own.plan["claims_digest"]:
        judgement.remarks.append("the study at each arm's own rate has other claims")
    if own.missing:
        judgement.remarks.append(f"at own rates: {own.missing} planned runs are missing")
    judgement.remarks += [f"at own rates: {remark}" for remark in own.remarks]
    judgement.trials = own.trials
    judgement.problems += [f"at own rates: {line}" for line in own.problems if line not in judgement.problems]


def _doubt_rates(judgement: Judgement, archive: Archive, started: Mapping[str, list[dict[str, Any]]]) -> None:
    """Withhold verdicts of arms whose best rate is the lowest or highest that was tried, or whose rates all failed."""
    tried = _tried_rates(judgement.plan, started)
    for arm in judgement.arms:
        rates = tried.get(tuple(arm.overrides), {})
        failed = [all(_is_failed(archive, run_id) for run_id in run_ids) for run_ids in rates.values()]
        doubt = None
        if rates and all(failed):
            doubt = f"{arm.name}: all runs failed at every rate that was tried"
        elif rates and (arm.lr <= min(rates) or arm.lr >= max(rates)):
            doubt = f"{arm.name}: its best rate, {arm.lr:g}, is at the edge of those that were tried"
        if doubt is None:
            continue
        judgement.remarks.append(f"{doubt}; try more rates")
        for row in judgement.rows:
            if arm in row.arms and not row.claim.is_level:
                row.rate_doubts.append(doubt)
                _withhold(row, f"{doubt}; no verdict")


def _tried_rates(
    plan: dict[str, Any], started: Mapping[str, list[dict[str, Any]]]
) -> dict[tuple[str, ...], dict[float, list[str]]]:
    """{arm's overrides: {rate: run ids}} of the studies that chose rates for the same base."""
    tried: dict[tuple[str, ...], dict[float, list[str]]] = {}
    for id, looks in started.items():
        if looks[-1]["rate"] != Rate.choose.name or id[-6:] != plan["id"][-6:]:
            continue
        for arm in (arm for look in looks for arm in look["arms"]):
            overrides = tuple(one for one in arm["overrides"] if not one.startswith(OF_TRIALS))
            tried.setdefault(overrides, {}).setdefault(arm["lr"], []).extend(arm["runs"].values())
    return tried


def _is_failed(archive: Archive, run_id: str) -> bool:
    run = archive.runs.get(run_id)
    return run is not None and run.is_terminal and not run.is_done


def _same_claims(plan: dict[str, Any], tested: list[Claim], started: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """A line for each other study that was started with some of these claims at the same recipe."""
    names = {claim.name for claim in tested if not claim.is_context}
    lines = []
    for id, looks in sorted(started.items()):
        last = looks[-1]
        if id == plan["id"] or last["recipe"] != plan["recipe"] or last["rate"] != plan["rate"]:
            continue
        shared = sorted(names & {f"{claim['source']}/{claim['id']}" for claim in last["claims"]})
        if shared:
            departs = last.get("departures") or []
            changed = f", with other {', '.join(departs)}" if departs else ""
            lines.append(
                f"also started at this recipe: {id}{changed}, with {len(shared)} of these claims: {' '.join(shared)}"
            )
    return lines


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
        num_classes = archive.config(arm.runs[0]).data.num_classes or 1
    except (UserError, IndexError):  # reported as a confound
        return
    errors = np.array([run.result["test"]["ten"]["top1_error"] for run in arm.runs])
    flags = partly_trained(errors, 1 - 1 / num_classes)
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


def _is_tested(claim: Claim, plan: dict[str, Any], arms: dict[tuple[str, ...], Arm]) -> bool:
    """Whether the study's runs can test a claim."""
    if claim.not_testable is not None or claim.name in plan["unmet"]:
        return False
    names = [tuple(arm) for arm in claim.compared]
    if any(name not in arms for name in names):
        return False
    if len(names) == 1:
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
    names = [tuple(arm) for arm in claim.compared]
    if not is_tested:
        return Row(
            claim,
            tuple(arms[name] for name in names if name in arms) if claim.not_testable is None else (),
            word=None if claim.is_context else Verdict.not_testable,
            verdict=None if claim.is_context else Verdict.not_testable.value,
            why_none=_why_not(claim, plan, arms, names),
        )
    row = Row(claim, tuple(arms[name] for name in names))
    spreads = samples.spreads(claim.metric, claim.view, claim.ratio)
    found = [samples.measured(arm.name, claim.metric, claim.view, claim.ratio) for arm in row.arms]
    row.counted = tuple(0 if one is None else len(one.runs) for one in found)
    if claim.against_view is not None:
        _compare_views(row, found[0], samples, family)
    elif claim.one_arm and found[0] is not None:
        row.effect = paired_effect(found[0].sample, Sample(np.zeros(len(found[0].sample.values))), family)
        row.spreads = (spreads[row.arms[0].name].sd,)
    elif claim.is_level and found[0] is not None:
        row.spreads = (spreads[row.arms[0].name].sd,)
        row.level = _level(found[0].sample, spreads[row.arms[0].name], family)
    elif found[0] is not None and found[-1] is not None:
        row.spreads = tuple(spreads[arm.name].sd for arm in row.arms)
        pair = spreads[row.arms[0].name], spreads[row.arms[-1].name]
        _compare_arms(row, found[0], found[-1], pair, family, samples)
    _secondary(row, claim, samples)
    _compare_original(row, claim, plan)
    _doubt(row, archive, plan)
    _conclude(row, claim, plan, archive, samples, family)
    return row


def _compare_original(row: Row, claim: Claim, plan: dict[str, Any]) -> None:
    """Set z of the published pair of single runs, and the Bayes factor."""
    if row.effect is not None and row.published and not claim.is_context:
        row.strength = strength(row.effect, row.published)
        row.bayes_factor = replication_bayes_factor(row.effect, row.published, _has_same_images(claim, plan))


def _has_same_images(claim: Claim, plan: dict[str, Any]) -> bool:
    return claim.published_on is not None and plan["data"] == claim.published_on


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


def _compare_arms(
    row: Row, first: Measured, second: Measured, spreads: tuple[Spread, Spread], family: int, all_samples: Samples
) -> None:
    row.has_other_images = first.images != second.images
    if row.has_other_images:
        row.confounds.append(OTHER_IMAGES)
        return
    row.effect = effect(first.sample, second.sample, spreads, family)
    _share_seeds(row, all_samples, family)
    if unlike(*spreads):
        how = "Welch's interval is used" if row.effect.welch else "Welch's interval is not wider"
        row.notes.append(f"the arms' standard deviations differ by more than a factor of two; {how}")


def _share_seeds(row: Row, samples: Samples, family: int) -> None:
    """If an arm starts from the base's initial weights, use the base's runs on shared seeds as a control variate."""
    claim, before = row.claim, row.effect
    assert before is not None
    row.effect = _by_shared_seeds(row, before, claim.metric, claim.ratio, samples, family)
    if row.effect.correlation is None:
        return
    name, unit, size = next(arm.name for arm in row.arms if arm.overrides), *METRICS[claim.metric][1:]
    if claim.ratio:
        unit, size = "in logarithms", 1.0
    row.notes.append(
        f"{name} starts from the base's initial weights; on shared seeds its runs correlate with the base's "
        f"(r = {row.effect.correlation:+.2f}), which are used as a control variate. As independent arms: "
        f"{before.difference / size:+.2f} ± {before.fixed / size:.2f} {unit}"
    )


def _by_shared_seeds(row: Row, before: Effect, metric: str, ratio: bool, samples: Samples, family: int) -> Effect:
    """The effect of an arm and the base by their shared seeds, in the row's direction; else `before`."""
    names = [arm.name for arm in row.arms]
    if samples.shared_start is None or samples.shared_start[0] not in names:
        return before
    matched = samples.matched(metric, row.claim.view, ratio, family)
    if names[0] in matched:
        return matched[names[0]]
    return replace(matched[names[1]], difference=-matched[names[1]].difference) if names[1] in matched else before


def _why_not(
    claim: Claim, plan: dict[str, Any], arms: dict[tuple[str, ...], Arm], names: Sequence[tuple[str, ...]]
) -> str:
    if claim.not_testable is not None:
        return claim.not_testable
    if claim.name in plan["unmet"]:
        return f"requires {', '.join(plan['unmet'][claim.name])}"
    if any(name not in arms for name in names):
        return "the study does not have these arms"
    return "the two arms are the same runs at this recipe"


def _level(sample: Sample, spread: Spread, family: float) -> tuple[float, float, float]:
    """Mean over seeds, half of its 95 % interval on this test set, and how far one more run may lie from it.

    The last one is for all of the family's claims at once.
    """
    if spread.df <= 0:
        return float(sample.values.mean()), math.inf, math.inf
    count = len(sample.values)
    half = quantile(0.975, spread.df) * math.sqrt(spread.variance / count)
    one_run = quantile(1 - 0.025 / family, spread.df) * math.sqrt(spread.variance * (1 + 1 / count))
    return float(sample.values.mean()), float(half), float(one_run)


def _secondary(row: Row, claim: Claim, samples: Samples) -> None:
    """The same difference by the other published metrics, and for errors on single images by the other views."""
    others = [(name, claim.view) for name in claim.published if name != claim.metric]
    if claim.metric in VIEWED and claim.against_view is None:
        others += [(claim.metric, "center" if claim.view == "ten" else "ten")]
    if claim.metric == "top1_error" and "top5_error" not in claim.published and claim.view != "corner":
        others.append(("top5_error", claim.view))
    if claim.metric == "gap":  # which says no harm by itself
        others.append(("top1_error", claim.view))
    for metric, view in others:
        found = [samples.measured(arm.name, metric, view, claim.ratio) for arm in row.arms]
        if claim.against_view is not None:
            found.append(samples.measured(row.arms[0].name, metric, claim.against_view, claim.ratio))
        means = [float(one.sample.values.mean()) for one in found if one is not None]
        if len(means) == len(found) and len({one.images for one in found if one is not None}) == 1:
            label = metric if view == claim.view else f"{metric}, {view} view"
            row.secondary[label] = means[0] - means[1] if len(means) > 1 else means[0]


def _conclude(row: Row, claim: Claim, plan: dict[str, Any], archive: Archive, samples: Samples, family: int) -> None:
    """Set the verdict, or why there is none."""
    _note_failures(row)
    size, _ = GROUPED.get(claim.metric, (1, ""))
    lost = sum(len(arm.runs) // size for arm in row.arms) - sum(row.counted)
    if lost:
        what = "finished runs" if size == 1 else f"groups of {size} runs"
        row.notes.append(f"{lost} {what} could not be used; the list of problems says why")
    if claim.metric == "retrieval":
        row.notes += _precisions(row)
    beyond = _beyond_all(row, claim, samples) if claim.every_run else None
    if beyond is not None:
        row.notes.append(beyond)
    short, at_once = ([count(arm, claim.metric, archive) for arm in row.arms] for count in (_cut, _at_once))
    for arm, number, early in zip(row.arms, short, at_once, strict=True):
        what = METRICS[claim.metric][0]
        if number:
            row.notes.append(f"{number} runs of {arm.name} ended too early for their {what}, which are a lower bound")
        if early:
            row.notes.append(
                f"{early} runs of {arm.name} were first logged too late for their {what}, which are an upper bound"
            )
    more = bool(short[0] or at_once[-1])  # the effect may be larger than measured
    less = bool(short[-1] or at_once[0])
    row.is_bound, spoiled = (more, less) if claim.sign > 0 else (less, more)
    also = _judge_others(row, claim, samples, family)
    if claim.is_context:
        return
    departures = [name for name in plan.get("departures") or () if not (claim.waits and name == LENGTH)]
    if plan["recipe"] not in claim.recipes:
        row.why_none = f"a rehearsal: verdicts are given at {', '.join(claim.recipes)}"
    elif departures:
        row.why_none = f"a rehearsal: differs from the recipe in {', '.join(departures)}"
    elif plan["rate"] == Rate.choose.name:
        row.why_none = "these runs choose learning rates"
    elif claim.is_level:
        _judge_level(row, claim)
    elif row.has_other_images:
        row.word, row.why_none = Verdict.not_testable, OTHER_IMAGES
    elif spoiled:
        row.word = Verdict.not_testable
        row.why_none = f"runs {'ended before' if any(short) else 'were first logged after'} what the claim is about"
    elif lost and claim.metric in OF_NETS:
        row.why_none = "interim: the nets are not measured yet; run this command with --nets"
    elif lost:
        row.why_none = "interim: finished runs could not be read"
    else:
        _judge_effect(row, claim, plan, also)
    if row.word is not None and row.verdict is None:
        row.verdict = row.word.value
    if beyond is not None and row.word is Verdict.reproduced:
        row.verdict = f"{row.verdict} ({beyond})"


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


def _beyond_all(row: Row, claim: Claim, samples: Samples) -> str | None:
    """In how many runs of the claim's arm the metric lies beyond all runs of the other arm."""
    first, second = (samples.measured(arm.name, claim.metric, claim.view) for arm in row.arms)
    if first is None or second is None:
        return None
    ours, theirs = claim.sign * first.sample.values, claim.sign * second.sample.values
    extreme = "largest" if claim.sign > 0 else "smallest"
    most = row.shown(claim.sign * float(theirs.max()))
    return f"in {int((ours > theirs.max()).sum())} of {len(ours)} runs beyond the {extreme} without, {most:.3g}"


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


def _cut(arm: Arm, metric: str, archive: Archive) -> int:
    """How many of an arm's runs ended before the event that a metric counts to."""
    if metric not in ("epochs", "epochs_to_25"):
        return 0
    count = 0
    for run in arm.runs:
        with suppress(UserError):  # not counted, and reported
            count += is_cut(run, metric, archive.config(run).trainer.max_epochs)
    return count


def _at_once(arm: Arm, metric: str, archive: Archive) -> int:
    """In how many of an arm's runs the event that a metric counts to came before the first log."""
    count = 0
    for run in arm.runs:
        with suppress(UserError):
            count += is_at_once(run, metric)
    return count


def _judge_others(row: Row, claim: Claim, samples: Samples, family: int) -> list[tuple[str, Verdict]]:
    """Judge the other metrics that a claim needs too; each with the word for its side."""
    found = []
    for metric, side in claim.also.items():
        both = [samples.measured(arm.name, metric, claim.view) for arm in row.arms]
        if len(both) != 2 or both[0] is None or both[1] is None or both[0].images != both[1].images:
            found.append((METRICS[metric][0], Verdict.inconclusive))
            continue
        spreads = samples.spreads(metric, claim.view)
        measured = effect(
            both[0].sample, both[1].sample, (spreads[row.arms[0].name], spreads[row.arms[1].name]), family
        )
        measured = _by_shared_seeds(row, measured, metric, False, samples, family)
        toward = (1 if side == "higher" else -1) * measured.difference
        word = Verdict.inconclusive
        if abs(toward) > measured.decisive:
            word = Verdict.reproduced if toward > 0 else Verdict.reversed
        name, unit, size = METRICS[metric]
        low, high = ((measured.difference + sign * measured.decisive) / size for sign in (-1, 1))
        row.notes.append(
            f"the claim also needs {name} to be {side}: {measured.difference / size:+.2f} {unit} "
            f"({low:+.2f} to {high:+.2f})"
        )
        found.append((name, word))
    return found


def _judge_effect(row: Row, claim: Claim, plan: dict[str, Any], also: list[tuple[str, Verdict]]) -> None:
    word = verdict(
        row.effect,
        row.published,
        claim.sign,
        runs=(row.counted[0], row.counted[-1]),
        failed=(row.arms[0].lost, row.arms[-1].lost),
        least=claim.least,
        at_least=claim.at_least,
        same_images=_has_same_images(claim, plan),
    )
    if word is Verdict.does_not_train:
        row.word, arms = word, [arm.name for arm in row.arms if arm.does_not_train]
        row.verdict = f"{word.value}: {' and '.join(arms)}"
        return
    if word is Verdict.not_testable or row.effect is None:
        row.word, row.why_none = word, f"{min(row.counted)} runs in an arm; a verdict needs {LEAST_RUNS}"
        return
    if row.effect.study == 0 and all(spread == 0 for spread in row.spreads):
        row.why_none = "all runs of an arm have the same result, whatever their seeds, which points to a bug"
        return
    row.word, row.verdict = _by_range(row) if claim.ranges else (word, word.value)
    if row.is_bound and not claim.ranges:
        row.word = (
            Verdict.same_direction if word in SUPPORT[: SUPPORT.index(Verdict.inconclusive)] else Verdict.inconclusive
        )
        row.verdict = row.word.value
    if row.is_bound and row.word is Verdict.same_direction:
        row.verdict = f"{row.verdict}, at least {_bound(row)}"
    if row.word is Verdict.inconclusive:
        toward = claim.sign * row.effect.difference
        if abs(toward) > row.effect.study and not row.is_bound:
            side = Verdict.same_direction if toward > 0 else Verdict.reversed
            row.verdict = f"{row.verdict} ({side.value} on this test set only)"
    for name, other in also:
        joint = both_needed(row.word, other)
        if joint is not row.word:
            first = "as claimed" if row.word in SUPPORT[:5] else row.word.value
            row.word, row.verdict = joint, f"{joint.value} ({METRICS[claim.metric][0]}: {first}; {name}: {other.value})"


def _by_range(row: Row) -> tuple[Verdict, str]:
    """The first of the claim's own ranges that contains the whole interval; a bound is open on one side."""
    claim = row.claim
    assert row.interval is not None
    low, high = row.interval
    if row.is_bound:
        low, high = (low, math.inf) if claim.sign > 0 else (-math.inf, high)
    for row.range, one in enumerate(claim.ranges):
        above, below = (_on_scale(claim, bound) for bound in (one.above, one.below))
        is_inside = (above is None or low >= above) and (below is None or high <= below)
        if is_inside and not (row.is_bound and one.verdict == Verdict.reproduced.value):
            return Verdict(one.verdict), one.words or one.verdict
    return Verdict.inconclusive, Verdict.inconclusive.value


def _on_scale(claim: Claim, figure: float | None) -> float | None:
    """A figure in the published unit on the scale of the interval."""
    if figure is None:
        return None
    return math.log(figure) if claim.ratio else figure * claim.unit


def _bound(row: Row) -> str:
    """The smallest effect that is compatible with a bound: the interval's end nearer to no effect."""
    assert row.interval is not None
    end = row.shown(row.interval[0] if row.claim.sign > 0 else row.interval[1])
    return f"×{end:.2f}" if row.claim.ratio else f"{end:+.2f} {METRICS[row.claim.metric][1]}".rstrip()


def _judge_level(row: Row, claim: Claim) -> None:
    """Compare the published figure, of one run, with the prediction interval of one more run."""
    runs, arm = row.counted[0], row.arms[0]
    if arm.does_not_train:
        row.word, row.verdict = Verdict.does_not_train, f"{Verdict.does_not_train.value}: {arm.name}"
        return
    if row.level is None or runs < LEAST_RUNS:
        row.word, row.why_none = Verdict.not_testable, f"{runs} runs; a verdict needs {LEAST_RUNS}"
        return
    mean, _, one_run = row.level
    published = claim.effect
    assert published is not None
    if abs(published - mean) <= one_run:
        row.word = Verdict.reproduced
        return
    row.word = Verdict.reversed
    row.verdict = f"other by {row.shown(mean - published):+.1f} {METRICS[claim.metric][1]}".rstrip()


def _doubt(row: Row, archive: Archive, plan: dict[str, Any]) -> None:
    """Note what differs between the arms besides what the claim names."""
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
    except UserError as error:
        row.confounds.append(f"configurations cannot be compared: {archive.named(' '.join(str(error).split()))}")
        return
    changed = {**differences(second, first), **differences(first, second)}
    row.differing = sorted(name for name in changed if name not in DERIVED)
    named = [*row.claim.differs, *(["optim.lr"] if plan["rate"] == "own" else [])]
    extra = [name for name in row.differing if name not in named]
    if row.claim.differs and extra:
        row.confounds.append(f"the arms differ in more than the claim says: {', '.join(extra)}")
    if lacking := [name for name in row.claim.differs if name not in row.differing]:
        row.confounds.append(f"the arms do not differ in {', '.join(lacking)}, as the claim says")
    if not changed.keys() & {"model.remove", "model.kernels"}:
        sides = [map_sides(config) for config in (first, second)]
        if sides[0] != sides[1]:
            row.confounds.append(f"feature maps differ in size: {sides[0]} and {sides[1]}")
    apart, mixed = between_arms([arm.runs for arm in row.arms])
    row.confounds += apart
    row.notes += mixed


def _halves(arm: Arm) -> list[Arm]:
    """Split an arm that was planned alone in two, by the order of its seeds, as older plans of A/A studies need."""
    seeds = sorted(arm.planned)
    parts = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
    return [
        replace(
            arm,
            name=f"{arm.name}{' again' * number}",
            planned={seed: arm.planned[seed] for seed in part},
            runs=[run for run in arm.runs if run.seed in part],
            failed=[run for run in arm.failed if run.run_id in {arm.planned[seed] for seed in part}],
            partly=[run for run in arm.partly if run.seed in part],
            missing={seed: run_id for seed, run_id in arm.missing.items() if seed in part},
            unplanned=[] if number else arm.unplanned,
        )
        for number, part in enumerate(parts)
    ]


def _against_itself(arms: list[Arm], samples: Samples) -> list[Row]:
    """A/A: compare two arms of one configuration by every metric in which their runs differ."""
    first, second = arms
    samples = Samples({arm.name: arm.runs for arm in arms}, [])
    found = []
    for metric, (what, _, _) in METRICS.items():
        both = [samples.measured(arm.name, metric, "ten") for arm in arms]
        if both[0] is None or both[1] is None:
            continue
        spreads = samples.spreads(metric, "ten")
        pair = spreads[first.name], spreads[second.name]
        if not all(spread.variance > 0 and spread.df > 0 for spread in pair):
            continue
        claim = Claim(id=metric, section="A/A", statement=f"The same configuration twice: {what}.", metric=metric)
        claim = replace(claim, is_context=True, source="aa")
        row = Row(claim, (first, second), spreads=tuple(spread.sd for spread in pair))
        row.counted = (len(both[0].runs), len(both[1].runs))
        found.append((row, [one.sample for one in both if one is not None], pair))
    for row, pair, spreads in found:
        row.effect = effect(pair[0], pair[1], spreads, len(found))
    return [row for row, _, _ in found]


def _beyond(rows: list[Row]) -> list[str]:
    effects = [row.effect for row in rows if row.effect is not None]
    if not effects:
        return ["A/A: the runs are too few to compare the two arms"]
    alone = sum(abs(one.difference) > (one.fixed if one.new is None else one.new) for one in effects)
    together = sum(abs(one.difference) > one.decisive for one in effects)
    return [
        f"A/A: of {len(effects)} metrics, which are correlated, {alone} differ by their own 95 % intervals and "
        f"{together} by those for all at once; 5 % of the first and none of the second are expected"
    ]


def _components(arms: list[Arm], samples: Samples) -> str | None:
    """Variance by source, if the arms are one configuration at several data seeds, each with the same seeds.

    Of the additive model error = mean + seed + data seed + rest, by moments; a component below 0 is taken as 0.
    """
    if len(arms) < 2 or any(len(arm.overrides) != 1 or not arm.overrides[0].startswith("data.seed=") for arm in arms):
        return None
    by_seed = [{run.seed: run.result["test"]["ten"]["top1_error"] for run in arm.runs} for arm in arms]
    seeds = sorted(set.intersection(*(set(each) for each in by_seed)))
    if len(seeds) < 2:
        return "variance by source: needs two seeds or more that all data seeds share"
    seed, data, rest = variance_components(100 * np.array([[each[seed] for seed in seeds] for each in by_seed]))
    return (
        f"variance by source, top-1 error, {len(arms)} data seeds by {len(seeds)} seeds: sd {seed:.2f} points by seed "
        f"(initial weights, dropout), {data:.2f} by data seed (order, augmentation), {rest:.2f} by both together and "
        "the rest"
    )


def _remarks(looks: list[dict[str, Any]], arms: list[Arm]) -> list[str]:
    remarks = []
    for number, (before, after) in enumerate(pairwise(looks), 2):
        changed = "claims" if before["claims_digest"] != after["claims_digest"] else "runs"
        remarks.append(
            f"look {number}: the study's {changed} were changed after it had started; the looks share its 5 %"
        )
    unplanned = sum(len(arm.unplanned) for arm in arms)
    if unplanned:
        remarks.append(f"{unplanned} finished runs of these arms are not planned, and not counted")
    return [*remarks, *between_runs({arm.name: arm.runs for arm in arms})]
