"""All text that the page and its Markdown show of a judgement; the same judgement gives the same text."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from alexlab.console import duration, plural
from alexlab.report.cite import repeat_study
from alexlab.report.wording import (
    arm_name,
    chance,
    decimals,
    disagreement,
    in_words,
    interim,
    published,
    readable_name,
    rehearsal,
    summary,
    trial_metric,
    trial_text,
)
from alexlab.study.claims import GROUPED, METRICS, VIEW_NAMES, VIEWED, Claim, Range, Verdict
from alexlab.study.intervals import mean_and_sd
from alexlab.study.judgement import Arm, Judgement, Row
from alexlab.study.rates import ArmTrials
from alexlab.study.records import RunData
from alexlab.study.statistics import LEAST_RUNS, MAX_FAILED
from alexlab.study.surroundings import SHOWN

NOTHING = "–"
INTERVALS = {"fixed": "this test set", "new": "new images", "decisive": "study-wise"}  # the last carries the verdict
SHARE = "of published"
OTHER, CONTEXT, NO_VERDICT = "other", "for comparison", "no verdict"
MEANINGS = {
    Verdict.reproduced.value: "The study-wise interval lies entirely on the claimed side of zero, the effect is at "
    "least the smallest effect of interest (half of the published one), its 95 % interval for new images excludes a "
    "quarter of the published effect, and single runs could have shown the published effect.",
    Verdict.larger.value: "On the claimed side, and larger than published by more than the noise of single runs.",
    Verdict.same_direction.value: "On the claimed side; the size is a bound, or in a range that the claim states.",
    Verdict.size_open.value: "On the claimed side; the published effect is within the noise, but so is a much smaller "
    "one; or, without a published figure, the effect is below the smallest effect of interest.",
    Verdict.smaller.value: "On the claimed side, but smaller than published by more than the noise of single runs.",
    Verdict.inconclusive.value: "The interval contains zero, or two analyses disagree; more runs could decide.",
    Verdict.negligible.value: "The whole interval lies within the smallest effect of interest around zero.",
    Verdict.reversed.value: "The study-wise interval lies entirely on the other side of zero.",
    Verdict.does_not_train.value: f"More than one in {MAX_FAILED} runs of the named arm failed or trained only partly.",
    Verdict.not_testable.value: f"Records cannot decide it, or an arm has fewer than {LEAST_RUNS} runs.",
    OTHER: "The published figure is an error, not an effect, and lies outside the study-wise prediction interval of "
    "one more run.",
}
SUBMITTERS = (
    "The effect of each submitter's own runs, with a 95 % interval from their own variances for this test set, and "
    "Welch's test that the submitters' effects are equal. The test takes each run from one submitter only and changes "
    "no verdict; of twenty such tests one is below .05 by chance."
)
ORDER = (*MEANINGS, NO_VERDICT, CONTEXT)  # of verdicts, when sorted
READING = (
    ("Effect", "The claim's arm minus the other arm, each averaged over its seeds."),
    ("This test set", "A 95 % interval for other seeds of the same arms, on the same test images."),
    ("New images", "A 95 % interval for other seeds and for other images of the same kind."),
    (
        "Study-wise",
        "As for new images, and wide enough that all of the study's intervals hold at once with 95 % confidence. It "
        "decides the verdict. For a metric that is not measured on single images it covers other seeds only. If a "
        "claim is about one arm's level, it is the prediction interval of one more run.",
    ),
    (
        "Of published",
        "The measured effect divided by the published one (of ratios, their logarithms), with the ends of the "
        "study-wise interval.",
    ),
    (
        "Shrinkage",
        "With few runs a variance is poorly estimated, so it is shrunk towards the pooled variance (empirical Bayes).",
    ),
    (
        "Unequal spreads",
        "If the standard deviations of two independent arms differ by more than a factor of two, Welch's interval, "
        "from their own variances, is used if it is wider; with fewer than four arms it is always used. It needs three "
        "runs in each arm. Arms with shared seeds have their own rule.",
    ),
    (
        "Shared seeds",
        "If an arm starts from the base's initial weights, its runs correlate with the base's on the same seeds. The "
        "shared part is not an effect, so it is removed by a control variate. Of the base's shrunk and its own "
        "variance, the one that gives the wider interval is used.",
    ),
    (
        "sd",
        "The standard deviation over an arm's seeds, as measured (not shrunk), in the effect's unit (pt: percentage "
        "points); for a ratio, of logarithms.",
    ),
    (
        "Failed",
        "The run diverged or did not learn. Failed runs are counted and never repeated.",
    ),
    (
        "Partly trained",
        "The run is done, but its error is above the midpoint of the arm's median and chance. It counts as failed.",
    ),
    ("Interim", "Verdicts are given once all planned runs are finished. Unplanned runs are not counted."),
    ("Confound", "Another difference between the arms, which may have caused the effect."),
    (
        "z, Bayes factor",
        "z: the published effect divided by its standard deviation in the authors' single runs: of the difference of "
        "two, or of one if the claim compares within a run. Bayes factor: how many times more likely the measured "
        "effect is if the published effect is real than if there is none.",
    ),
)


@dataclass(frozen=True)
class Extras:
    """Optional parts of a report."""

    pictures: str | None = None  # folder of the stores for figure 4, which is of the first run that has weights
    pdf: bool = False  # every figure for print too


PLAIN = Extras()


@dataclass(frozen=True)
class PlotOnPage:
    """A plot with its caption: inline in the page, a file next to the Markdown."""

    title: str
    text: str
    svg: str  # as `alexlab.report.figures.saving.save` writes it: a bare element with ids of its own and no URL
    png_name: str


@dataclass
class ArmOfClaim:
    """One arm of a claim."""

    name: str
    anchor: str
    counts: str
    time: str
    overrides: list[str]
    lr: str


@dataclass
class ClaimRow:
    """A row of the claims table as text, with its sort keys."""

    id: str
    anchor: str
    name: str
    section: str
    statement: str
    words: str  # the effect as a sentence
    published: str
    unit: str
    metric: str
    effect: str
    intervals: dict[str, str]
    sides: list[ArmOfClaim]
    sds: list[str]
    verdict: str
    kind: str  # the verdict without qualifications, to filter by
    has_verdict: bool
    reason: str
    disagreement: str
    confounds: list[str]
    notes: list[str]
    rule: str
    authors: str
    secondary: list[tuple[str, str, str]]
    differing: list[tuple[str, bool]]  # keys, and whether they are expected to differ
    fisher: str
    original: str
    sort: dict[str, Any]
    own: ClaimRow | None = None


@dataclass
class SubmitterRow:
    """The effect of a claim in one submitter's own runs."""

    claim: str
    anchor: str  # of the claim
    submitter: str
    effect: str
    interval: str  # 95 %, for this test set
    runs: str
    machine: str
    code: str
    equality: str  # of all submitters of the claim


@dataclass
class ArmRow:
    name: str
    anchor: str
    lr: str
    done: int
    planned: int
    failed: int
    partly: int
    missing: int
    unplanned: str
    error: str
    sd: str
    time: str
    sort: dict[str, Any] = field(default_factory=dict)


def report_content(judgement: Judgement) -> dict[str, Any]:
    plan = judgement.plan
    anchors = make_anchors("arm", [arm.name for arm in judgement.arms])
    ids = {id(arm): anchor for arm, anchor in zip(judgement.arms, anchors, strict=True)}
    claim_anchors = make_anchors("claim", [row.claim.name for row in judgement.rows])
    claims = [
        _claim(row, anchor, ids, judgement.is_rehearsal)
        for row, anchor in zip(judgement.rows, claim_anchors, strict=True)
    ]
    kinds = Counter(one.kind for one in claims)
    settings = ", ".join(f"{group} {plan[group]}" for group in ("recipe", "protocol", "model", "data"))
    missing = [(arm_name(arm), sorted(arm.missing.items())) for arm in judgement.arms if arm.missing]
    runs = {run.run_id: run for arm in judgement.arms for run in arm.runs}
    return {
        "title": f"Study “{plan['name']}” at recipe {plan['recipe']}",
        "subtitle": f"{settings}; learning rates: {plan['rate']}.",
        "rehearsal": rehearsal(judgement),
        "interim": interim(judgement),
        "findings": _findings(judgement),
        "summary": summary(judgement),
        "command": judgement.command,
        "claims": claims,
        "is_choosing": judgement.is_choosing,
        "trials": _trials(judgement.trials),
        "kinds": sorted(kinds.items(), key=lambda item: ORDER.index(item[0])),
        "about_submitters": SUBMITTERS,
        "submitters": [
            one
            for row, anchor in zip(judgement.rows, claim_anchors, strict=True)
            for one in (*_submitters(row, anchor), *_submitters(row.own_rate, anchor, " at own rates"))
        ],
        "arms": [_arm(arm, anchor) for arm, anchor in zip(judgement.arms, anchors, strict=True)],
        "missing": missing,
        "problems": judgement.problems,
        "meanings": MEANINGS,
        "reading": READING,
        "provenance": [*_plan(judgement), *surroundings(list(runs.values()))],
        "repeat": repeat_study(judgement, list(runs.values())),
    }


def _trials(arms: list[ArmTrials]) -> dict[str, Any] | None:
    """A table of the trials of learning rates: a row for each rate, a column for each arm; None without trials.

    Cells are (text, whether it is the arm's rate); trials on several seeds are in their order.
    """
    if not arms:
        return None
    rates = sorted({one.lr for arm in arms for one in arm.trials})
    rows = []
    for lr in rates:
        cells = [
            (", ".join(trial_text(one, arm.metric) for one in arm.trials if one.lr == lr) or NOTHING, arm.chosen == lr)
            for arm in arms
        ]
        rows.append((f"{lr:g}", cells))
    return {
        "what": trial_metric(arms[0].metric),
        "arms": [readable_name(arm.arm) for arm in arms],
        "rows": rows,
        "notes": [f"{readable_name(arm.arm)}: {arm.warning}." for arm in arms if arm.warning],
    }


def _findings(judgement: Judgement) -> list[str]:
    """Sentences: the question, what was found, effect sizes, what stays open, and caveats."""
    plan, rows = judgement.plan, [row for row in judgement.rows if not row.claim.is_context]
    if not rows:
        return []
    tested = [row for row in rows if row.effect is not None or row.level is not None]
    directed = [row for row in tested if not _claims_no_difference(row.claim)]
    arms, planned = plural(len(judgement.arms), "arm"), plural(len(judgement.planned), "planned run")
    asked = (
        f"Question: do {plural(len(rows), 'claim')} hold at recipe {plan['recipe']}? {len(tested)} of them are "
        f"tested, with {arms} and {planned}."
    )
    if any(row.word is not None for row in tested):
        kinds: dict[str, list[str]] = {}
        for row in tested:
            kinds.setdefault(_kind(row), []).append(_short(row))
        groups = [f"{kind}: {', '.join(kinds[kind])}" for kind in ORDER if kind in kinds and kind != NO_VERDICT]
        found = f"Found: {'; '.join(groups)}."
    else:
        sides = [(row, row.claim.sign * row.effect.difference, row.effect.decisive) for row in directed if row.effect]
        toward = [_short(row) for row, effect, half in sides if effect > half]
        against = [_short(row) for row, effect, half in sides if effect < -half]
        found = (
            f"Measured, without verdicts: {', '.join(toward) or 'no effect'} in the claimed direction; "
            f"{', '.join(against) or 'none'} in the other (intervals that exclude zero)."
        )
    sizes = [(row, row.share) for row in tested if row.share is not None and not row.is_bound and not row.claim.ratio]
    shares = [share[0] for _, share in sizes]
    size = "Sizes: no published difference to compare with."
    if shares:
        near = sum(low <= 1 <= high for _, (_, low, high) in sizes)
        size = (
            f"Sizes: the effects are {number_text(min(shares), 2)} to {number_text(max(shares), 2)} times the "
            f"published ones; {near} of {len(sizes)} intervals contain the published figure."
        )
    open_ = [_short(row) for row in directed if row.effect and abs(row.effect.difference) <= row.effect.decisive]
    never = len(rows) - len(tested)
    cannot = (
        f"Open: whether {', '.join(open_)} differ from zero; " if open_ else "Open: "
    ) + f"{plural(never, 'claim')} that these runs do not test."
    if judgement.is_rehearsal:
        cannot = f"{cannot[:-1]}; everything about the paper's own data, since this is a rehearsal."
    confounded = sum(bool(row.confounds) for row in rows)
    lost = sum(arm.lost for arm in judgement.arms)
    doubts = [f"{plural(confounded, 'row')} with confounds", f"{plural(lost, 'failed or partly trained run')}"]
    if judgement.looks > 1:
        doubts.append(f"{judgement.looks} looks, which share the 5 %")
    return [asked, found, size, cannot, f"Caveats: {', '.join(doubts)}."]


def _claims_no_difference(claim: Claim) -> bool:
    """Whether a range of effects around none reproduces the claim."""
    none = 1.0 if claim.ratio else 0.0
    return any(
        one.verdict == Verdict.reproduced.value
        and (one.above is None or one.above < none)
        and (one.below is None or one.below > none)
        for one in claim.ranges
    )


def _short(row: Row) -> str:
    return row.claim.id.replace("_", " ")


def in_order(rows: list[Row]) -> list[Row]:
    """Claims by the paper's sections, those without one last."""

    def section(row: Row) -> tuple[bool, list[int]]:
        numbers = [int(number) for number in re.findall(r"\d{1,9}", row.claim.section.partition(",")[0])]
        return not row.claim.section[:1].isdigit(), numbers

    return sorted(rows, key=section)


def _claim(row: Row, anchor: str, arms: dict[int, str], is_rehearsal: bool = False) -> ClaimRow:
    claim = row.claim
    testable = claim.not_testable is None
    kind = _kind(row)
    effect, intervals = _measured(row)
    measured = row.shown(row.effect.difference) if row.effect else row.shown(row.level[0]) if row.level else None
    sds = [_spread(row, sd) for sd in row.spreads]
    return ClaimRow(
        id=claim.id,
        anchor=anchor,
        name=claim.name,
        section=claim.section,
        statement=claim.statement,
        words=in_words(row),
        published=with_signs(published(row)) if testable else "",
        unit=_unit(claim),
        metric=_metric(claim, claim.metric, claim.view) if testable else "",
        effect=effect,
        intervals=intervals,
        sides=[
            _side(arm, arms.get(id(arm), ""), count, claim) for arm, count in zip(row.arms, row.run_counts, strict=True)
        ],
        sds=sds,
        verdict=row.verdict or kind,
        kind=kind,
        has_verdict=row.verdict is not None,
        # The banner says once that it is a rehearsal.
        reason="" if is_rehearsal and (row.why_none or "").startswith("a rehearsal") else row.why_none or "",
        disagreement=disagreement(row),
        confounds=row.confounds,
        notes=row.notes,
        rule=_rule(claim),
        authors=claim.authors or "",
        secondary=[_secondary(row, label, value) for label, value in row.secondary.items()],
        differing=[(name, name not in row.unexpected) for name in row.differing],
        fisher="" if row.fisher is None else chance(row.fisher),
        original=_original(row),
        sort={
            "published": sortable(claim.published.get(claim.metric)) if testable else "",
            "measured": sortable(measured),
            "runs": min(row.run_counts, default=""),
            "sd": sortable(row.spreads[0] if row.spreads else None),
            "time": sortable(row.arms[0].seconds if row.arms else None),
            "verdict": ORDER.index(kind),
        },
        own=_claim(row.own_rate, f"{anchor}-own", {}, is_rehearsal) if row.own_rate else None,
    )


def _submitters(row: Row | None, anchor: str, rates: str = "") -> list[SubmitterRow]:
    if row is None or row.submitters is None:
        return []
    digits, signed = decimals(row.claim), not (row.claim.is_level or row.claim.ratio)
    times = "×" if row.claim.ratio else ""
    equality = row.submitters.equality
    found = []
    for one in row.submitters.each:
        runs = [run for arm in one.runs for run in arm]
        effect, interval = NOTHING, NOTHING
        if one.effect is not None:
            middle, half = one.effect.difference, one.effect.fixed
            low, high = (row.shown(middle + sign * half) if half < 700 else math.nan for sign in (-1, 1))
            effect = number_text(row.shown(middle), digits, signed) + times
            interval = range_text(low, high, digits, signed)
        found.append(
            SubmitterRow(
                claim=f"{row.claim.id}{rates}",
                anchor=anchor,
                submitter=one.submitter,
                effect=f"{effect} {METRICS[row.claim.metric][1] if not row.claim.ratio else ''}".rstrip(),
                interval=interval,
                runs=" / ".join(str(len(arm)) for arm in one.runs)
                + (f" ({one.repeats} also counted as another's)" if one.repeats else ""),
                machine=", ".join(machines(runs)),
                code=", ".join(commits(runs)),
                equality=NOTHING if equality is None else chance(equality.p),
            )
        )
    return found


def machines(runs: list[RunData]) -> list[str]:
    """The GPUs, or else CPUs, of runs."""
    gpu, cpu = SHOWN["the GPU"], SHOWN["the CPU"]
    return sorted({str(gpu(run) if gpu(run) != "none" else cpu(run)) for run in runs})


def commits(runs: list[RunData]) -> list[str]:
    """The commits of the code of runs."""
    return sorted({str(SHOWN["the code"](run)) for run in runs})


def _kind(row: Row) -> str:
    if row.word is None:
        return CONTEXT if row.claim.is_context else NO_VERDICT
    return OTHER if row.claim.is_level and row.word is Verdict.reversed else row.word.value


def _original(row: Row) -> str:
    """z of the published pair of runs, and the Bayes factor."""
    if row.strength is None:
        return ""
    text = f"z = {row.strength:.1f} for the published effect in {_authors_runs(row.claim)}"
    if row.bayes_factor is None:
        return text
    factor = row.bayes_factor if row.bayes_factor >= 1 else 1 / row.bayes_factor
    size = f"{factor:.2g}" if factor < 1000 else "over 1,000"
    favoured, other = ("the published effect", "no effect")[:: 1 if row.bayes_factor >= 1 else -1]
    return f"{text}; the measured effect is {size} times more likely under {favoured} than under {other}"


def _authors_runs(claim: Claim) -> str:
    """The runs that a published effect is from."""
    if len(claim.compared) == 2:
        return "two single runs"
    size, _ = GROUPED.get(claim.metric, (1, ""))
    return "a single run" if size == 1 else f"a single group of {size} runs"


def _side(arm: Arm, anchor: str, counted: int, claim: Claim) -> ArmOfClaim:
    """`counted`: the arm's runs that the effect is computed from, or groups of runs."""
    size, _ = GROUPED.get(claim.metric, (1, ""))
    counts = str(counted) if size == 1 else f"{size * counted} in {plural(counted, 'group')}"
    if arm.lost:
        counts += f", {arm.lost} failed{' or partly trained' if arm.partly else ''}"
    return ArmOfClaim(arm_name(arm), anchor, counts, time_or_dash(arm.seconds), arm.overrides, f"{arm.lr:g}")


def _measured(row: Row) -> tuple[str, dict[str, str]]:
    """The effect, or the level, and its intervals from end to end."""
    if row.level is not None:
        mean, *halves = map(row.shown, row.level)
        digits, labels = decimals(row.claim), (INTERVALS["fixed"], INTERVALS["decisive"])
        ends = [range_text(mean - half, mean + half, digits, False) for half in halves]
        return number_text(mean, digits), dict(zip(labels, ends, strict=True))
    if row.effect is None:
        return NOTHING, {}
    found = row.effect.difference
    is_ratio, digits = row.claim.ratio, decimals(row.claim)
    times = "×" if is_ratio else ""
    intervals = {}
    for name, label in INTERVALS.items():
        half = getattr(row.effect, name)
        if half is None:
            continue
        low, high = (row.shown(found + sign * half) if half < 700 else math.nan for sign in (-1, 1))
        intervals[label] = range_text(low, high, digits, not is_ratio)
    if row.share is not None:
        share, low, high = row.share
        intervals[SHARE] = f"{number_text(share, 2)} ({range_text(low, high, 2, False)})"
    return number_text(row.shown(found), digits, not is_ratio) + times, intervals


def _unit(claim: Claim) -> str:
    """Of the published figure."""
    if claim.not_testable is not None or claim.ratio or claim.metric not in claim.published:
        return ""
    unit = METRICS[claim.metric][1]
    return "%" if claim.is_level and unit == "points" else unit


def _spread(row: Row, sd: float) -> str:
    if row.claim.ratio:
        return number_text(sd, 3)
    unit = METRICS[row.claim.metric][1]
    text = number_text(row.shown(sd), decimals(row.claim))
    return text if text == NOTHING else f"{text} {'pt' if unit == 'points' else unit}".rstrip()


def _secondary(row: Row, label: str, value: float) -> tuple[str, str, str]:
    """Metric, published, measured."""
    metric, _, view = label.partition(", ")
    claim = row.claim
    figure = None if view else claim.published.get(metric)
    name = _metric(claim, metric, view.removesuffix(" view") or claim.view)
    if claim.ratio:
        return name, NOTHING if figure is None else f"{figure:g}×", f"{number_text(math.exp(value), 2)}×"
    signed = not claim.is_level
    unit, size = METRICS[metric][1:]
    claimed = NOTHING if figure is None else with_signs(f"{figure:+g}" if signed else f"{figure:g}")
    return name, claimed, f"{number_text(value / size, 2, signed)} {unit}".rstrip()


def _metric(claim: Claim, metric: str, view: str) -> str:
    name = METRICS[metric][0]
    if metric not in VIEWED:
        return name
    against = f" against {VIEW_NAMES[claim.against_view]}" if claim.against_view else ""
    return f"{name}, {VIEW_NAMES[view]}{against}"


def _rule(claim: Claim) -> str:
    """The rule for "reproduced", in words."""
    if claim.reproduced:
        return claim.reproduced
    if claim.not_testable is not None:
        return ""
    if claim.is_context:
        return "Not a claim: an effect that helps to interpret another row. It gets no verdict."
    if claim.is_level:
        return "The published figure lies in the study-wise prediction interval of one more run."
    if claim.ranges:
        return "; ".join(_range_rule(one) for one in claim.ranges) + "; else inconclusive."
    null = "one" if claim.ratio else "zero"
    rule = f"The study-wise interval lies entirely {'below' if claim.sign < 0 else 'above'} {null}"
    unit = "" if claim.ratio else f" {METRICS[claim.metric][1]}".rstrip()
    if claim.smallest_effect is not None:
        size = f"{'a factor of ' if claim.ratio else ''}{claim.smallest_effect:g}{unit}"
        rule += f", and the effect is at least {size} ({claim.smallest_effect_reason})"
    elif claim.effect is not None:
        rule += ", and the effect is at least "
        root = f"as far from 1 as {claim.published[claim.metric] ** 0.5:.3g}, the square root of the published one"
        rule += root if claim.ratio else "half of the published one"
    if claim.effect is not None:
        figure = claim.published[claim.metric]
        quarter, scale = (figure**0.25, " (in logarithms)") if claim.ratio else (abs(figure) / 4, "")
        own = " for new images" if claim.metric in (*VIEWED, "gap") and not claim.ratio else ""
        rule += f"; its 95 % interval{own} excludes {quarter:.3g}{unit}, a quarter of the published effect{scale}"
        rule += f"; and the published effect lies in the 95 % prediction interval of {_authors_runs(claim)}"
        rule += (
            ", or is exceeded; since it is a bound, the study-wise interval must also reach it"
            if claim.at_least
            else ""
        )
    for metric, side in claim.also.items():
        rule += f"; and {METRICS[metric][0]} is {side} too"
    return f"{rule}."


def _range_rule(one: Range) -> str:
    ends = [f"{side} {end:g}" for side, end in (("above", one.above), ("below", one.below)) if end is not None]
    return f"{one.words or one.verdict}: the interval lies entirely {' and '.join(ends)}"


def _arm(arm: Arm, anchor: str) -> ArmRow:
    mean, sd = (None if error is None else 100 * error for error in mean_and_sd(arm.errors))
    seconds = float(sum(run.result["seconds"] for run in arm.runs)) if arm.runs else None
    return ArmRow(
        name=arm_name(arm),
        anchor=anchor,
        lr=f"{arm.lr:g}",
        done=arm.done,
        planned=len(arm.planned),
        failed=len(arm.failed),
        partly=len(arm.partly),
        missing=len(arm.missing),
        unplanned=", ".join(str(run.seed) for run in arm.unplanned),
        error=number_text(mean, 2),
        sd="" if sd is None else f"± {number_text(sd, 2)}",
        time=time_or_dash(seconds),
        sort={"error": sortable(mean), "time": sortable(seconds)},
    )


def surroundings(runs: list[RunData]) -> list[tuple[str, list[str]]]:
    """The hardware, software and settings of finished runs, each with the number of runs."""
    seen = []
    for what, value in SHOWN.items():
        counts = Counter(said or "unknown" for said in map(value, runs) if said is not None)
        if runs and not counts:
            continue  # older records without the entry
        values = [f"{found} ({plural(count, 'run')})" for found, count in sorted(counts.items())]
        name = what.removeprefix("the ")
        seen.append((name[:1].upper() + name[1:], values or [NOTHING]))
    return seen


def _plan(judgement: Judgement) -> list[tuple[str, list[str]]]:
    plan = judgement.plan
    plans = [f"{plan['id']}, claims {plan['claims_digest']}, plan {plan.get('digest') or 'not registered'}"]
    if plan.get("planned"):
        plans.append(f"registered on {datetime.fromtimestamp(plan['planned'], UTC):%Y-%m-%d at %H:%M} UTC")
    if plan.get("git_commit"):
        plans.append(f"at commit {plan['git_commit'][:10]}{' with changes' if plan.get('git_dirty') else ''}")
    if judgement.looks > 1:
        plans.append(f"look {judgement.looks}")
    return [("Plan", plans), ("Command", [judgement.command])]


def number_text(value: float | None, digits: int, signed: bool = False) -> str:
    """Format with a true minus; a dash for a non-finite number."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return with_signs(f"{0:.{digits}f}" if float(text) == 0 else text)


def range_text(low: float, high: float, digits: int, signed: bool) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    return f"{number_text(low, digits, signed)} to {number_text(high, digits, signed)}"


def with_signs(text: str) -> str:
    return re.sub(r"(?<![\w])-(?=[\d.])", "−", text)


def time_or_dash(seconds: float | None) -> str:
    """A duration as the terminal prints it; a dash if there is none or it is not finite."""
    return NOTHING if seconds is None or not math.isfinite(seconds) else duration(seconds)


def sortable(value: float | None) -> str:
    """A key to sort by; empty, and so last in either order, for a non-finite number."""
    return "" if value is None or not math.isfinite(value) else f"{value:.9g}"


def make_anchors(kind: str, names: list[str]) -> list[str]:
    """A unique id for each name."""
    found: dict[str, None] = {}
    for name in names:
        plain = f"{kind}-{re.sub(r'[^A-Za-z0-9_]+', '-', name).strip('-')}"
        anchor, number = plain, 2
        while anchor in found:
            anchor, number = f"{plain}-{number}", number + 1
        found[anchor] = None
    return list(found)
