"""The words of a result, the same in the terminal, on the page, in tables and at W&B."""

from __future__ import annotations

import math
import re

from alexlab.console import plural
from alexlab.study.claims import METRICS, OF_NETS, Claim
from alexlab.study.judgement import Arm, Judgement, Row
from alexlab.study.metrics import HOW_TO_MEASURE
from alexlab.study.rates import SPEED, ArmTrials, RateTrial
from alexlab.study.statistics import LEVEL

DIGITS = {"points": 2, "nats": 3, "epochs": 1, "": 3}  # decimals, by unit


def arm_name(arm: Arm) -> str:
    """An arm's name for a reader."""
    return readable_name(arm.name)


def readable_name(name: str) -> str:
    """Call the unchanged net, which is `none` in options, base."""
    return "base" if name == "none" else name


def in_words(row: Row) -> str:
    """The effect as a sentence, such as "base: 3.92 points more top-1 error than no_lrn (published: 1.4 less)"."""
    claim, effect = row.claim, row.effect
    if effect is None or claim.ratio or len(row.arms) != 2 or claim.metric not in ("top1_error", "top5_error", "gap"):
        return ""
    size = row.shown(effect.difference)
    noun = "gap from training to test error" if claim.metric == "gap" else METRICS[claim.metric][0]
    found = f"{abs(size):.{decimals(claim)}f} points {_more(size)} {noun}"
    figure = claim.published.get(claim.metric)
    at_least = "over " if claim.at_least else ""
    paper = "" if figure is None else f" (published: {at_least}{abs(figure):g} {_more(figure)})"
    return f"{arm_name(row.arms[0])}: {found} than {arm_name(row.arms[1])}{paper}"


def _more(number: float) -> str:
    return "less" if number < 0 else "more"


def published(row: Row) -> str:
    """The published figure, in its unit; or the sign alone."""
    claim = row.claim
    figure = claim.published.get(claim.metric)
    if figure is None:
        return {-1: "lower", 1: "higher", 0: ""}[claim.sign] if claim.not_testable is None else ""
    text = f"{figure:g}" if claim.is_level else f"{figure:g}×" if claim.ratio else f"{figure:+g}"
    if not claim.at_least:
        return text
    return f"<{text}" if claim.sign < 0 else f">{text}"


def measured(row: Row, which: str = "decisive") -> str:
    """The measured effect with an interval, in the published figure's unit."""
    if row.level is not None:  # of one arm, so only the interval that decides differs from the effect's
        mean, half = row.shown(row.level[0]), row.shown(row.level[2])
        return f"{mean:.2f} ±{half:.2f}" if math.isfinite(half) else f"{mean:.2f}"
    if row.effect is None:
        return ""
    half = getattr(row.effect, which)
    if half is None:
        return ""
    if row.claim.ratio:
        low, high = (
            (row.shown(row.effect.difference + sign * half) for sign in (-1, 1)) if half < 700 else (0, math.inf)
        )
        return f"{row.shown(row.effect.difference):.2f}× {low:.2f}-{high:.2f}"
    places = decimals(row.claim)
    text = f"{row.shown(row.effect.difference):+.{places}f}"
    return f"{text} ±{row.shown(half):.{places}f}" if math.isfinite(half) else f"{text} (1 run)"


def runs(row: Row) -> str:
    """The number of finished runs of each arm, and of failed ones."""
    pairs = zip(row.run_counts, row.arms, strict=True)
    counts = [f"{count}{f'+{arm.lost}!' if arm.lost else ''}" for count, arm in pairs]
    return "/".join(counts) if row.claim.not_testable is None else ""


def disagreement(row: Row) -> str:
    """A sentence if the effects of several submitters differ at the 5 % level; else empty."""
    found = None if row.submitters is None else row.submitters.equality
    if found is None or found.p >= 1 - LEVEL:
        return ""
    return f"The submitters' effects differ ({chance(found.p)}), so do not read the pooled figure alone."


def chance(p: float) -> str:
    """A p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def verdict_and_reason(row: Row) -> str:
    """The verdict, or why there is none."""
    parts = [row.verdict or "", row.why_none or ""]
    return ": ".join(part for part in parts if part)


def row_cells(row: Row, is_rehearsal: bool) -> list[str]:
    """A row of a table of claims: name, published, measured, runs, verdict."""
    is_silent = is_rehearsal and row.verdict is None and row.claim.not_testable is None
    name = f"{row.claim.id}{'*' * bool(row.confounds)}"
    return [name, published(row), measured(row), runs(row), "" if is_silent else verdict_and_reason(row)]


def rehearsal(judgement: Judgement) -> str:
    """Why no claim gets a verdict; empty unless the study is a rehearsal."""
    if not judgement.is_rehearsal:
        return ""
    recipes = dict.fromkeys(recipe for row in judgement.rows for recipe in row.claim.recipes)
    where = f" Verdicts are given at {', '.join(recipes)}, depending on the claim." if recipes else ""
    return (
        f"At recipe {judgement.plan['recipe']} no claim gets a verdict. Such runs show that every switch works and "
        f"what a study looks like, but say nothing about ImageNet.{where}"
    )


def interim(judgement: Judgement) -> str:
    """What is missing, to be followed by the command; empty if all planned runs are there."""
    if not judgement.is_interim:
        return ""
    left_out = ", ".join(judgement.left_out)
    also = f" It omits settings that depend on the machine or are not of the net: {left_out}." if left_out else ""
    is_one = judgement.missing == 1
    waiting = (
        f"{'its result decides' if is_one else 'their results decide'} which trials follow"
        if judgement.is_choosing
        else f"verdicts wait for {'it' if is_one else 'them'}"
    )
    return (
        f"{judgement.missing} of {plural(len(judgement.planned), 'planned run')} {'is' if is_one else 'are'} missing, "
        f"and {waiting}. This command runs {'it' if is_one else 'them'}.{also}"
    )


def summary(judgement: Judgement) -> list[str]:
    """Sentences about the study as a whole."""
    planned, failed = len(judgement.planned), len({run.run_id for arm in judgement.arms for run in arm.failed})
    lines = [
        f"{judgement.done} of {plural(planned, 'planned run')} {'is' if planned == 1 else 'are'} finished; "
        f"{failed or 'none'} failed permanently."
    ]
    if judgement.is_choosing:
        lines.insert(0, "These runs choose each arm's learning rate; they test no claim.")
    if judgement.family > 1:
        lines.append(
            f"{judgement.family} claims are tested. The study-wise intervals hold for all of them at once "
            "with 95 % confidence, and for new images if the metric is measured on single images."
        )
    if untestable := sum(row.claim.not_testable is not None for row in judgement.rows):
        lines.append(
            f"{plural(untestable, 'claim')} cannot be tested with records; the report says what would test them."
        )
    if confounded := sum(bool(row.confounds) for row in judgement.rows):
        lines.append(f"{plural(confounded, 'row')} {'has' if confounded == 1 else 'have'} confounds.")
    if disagreeing := ", ".join(row.claim.id for row in judgement.rows if disagreement(row)):
        lines.append(
            f"Submitters' effects differ at the 5 % level, so do not read the pooled figure alone: {disagreeing}."
        )
    lines += [remark[:1].upper() + remark[1:].rstrip(".") + "." for remark in judgement.remarks]
    lines += rate_sentences(judgement.trials)
    if judgement.plan.get("digest") is None:
        lines.append("This study was not started by study=, so nothing shows that its seeds were planned beforehand.")
    unmeasured = [problem for problem in judgement.problems if HOW_TO_MEASURE in problem]
    if unmeasured:
        rows = [one for row in judgement.rows for one in (row, row.own_rate) if one is not None and one.counted]
        waiting = dict.fromkeys(row.claim.id for row in rows if row.uncounted and row.claim.metric in OF_NETS)
        claims = f": {', '.join(waiting)}" if waiting else ""
        lines.append(f"Nets are not measured yet{claims}. {HOW_TO_MEASURE} measures them.")
    if count := _count_records([problem for problem in judgement.problems if problem not in unmeasured]):
        lines.append(f"{plural(count, 'record')} could not be used, or not in full.")
    return lines


def _count_records(problems: list[str]) -> int:
    """How many records lines are about; each line names its record first, by run id or by a path that has it."""
    found = [re.search(r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])", problem) for problem in problems]
    return len({one.group() if one else problem for one, problem in zip(found, problems, strict=True)})


def trial_metric(metric: str) -> str:
    """The metric by which learning rates are chosen."""
    return "epochs to 25 % training error" if metric == SPEED else "validation error in %"


def trial_text(trial: RateTrial, metric: str) -> str:
    """The result of a trial of a learning rate: epochs, or a validation error in percent."""
    if trial.value is None:
        return trial.why_none
    return f"{trial.value:.1f}" if metric == SPEED else f"{100 * trial.value:.2f}"


def rate_sentences(trials: list[ArmTrials]) -> list[str]:
    """Each arm's trials and its learning rate, and the ratios at rates that two arms share.

    The ratios are of single trials, so they are not verdicts.
    """
    sentences = []
    for arm in trials:
        found: dict[float, list[str]] = {}
        for one in arm.trials:
            found.setdefault(one.lr, []).append(trial_text(one, arm.metric))
        each = ", ".join(f"{lr:g}: {' and '.join(found[lr])}" for lr in sorted(found))
        chosen = arm.warning or (f"chosen: {arm.chosen:g}" if arm.chosen is not None else "not chosen yet")
        sentences.append(
            f"Trials of {readable_name(arm.arm)}, {trial_metric(arm.metric)} by learning rate: {each}; {chosen}."
        )
    if trials and trials[0].metric == SPEED:
        base = trials[0].first_seed_values
        for arm in trials[1:]:
            values = arm.first_seed_values
            common = [lr for lr in sorted(base.keys() & values.keys()) if base[lr] > 0]
            ratios = [f"{lr:g}: {values[lr] / base[lr]:.2f}" for lr in common]
            if ratios:
                names = f"{readable_name(arm.arm)} / {readable_name(trials[0].arm)}"
                sentences.append(
                    f"{names}, epochs to 25 % at common rates, single trials, no verdict: {', '.join(ratios)}"
                )
    return sentences


def _conventions(judgement: Judgement) -> list[str]:
    """What the signs in a table of claims mean, as far as it has them."""
    lines, has_level = [], any(row.level is not None for row in judgement.rows)
    if has_level or any(row.effect is not None for row in judgement.rows):
        level = "; of a level, of the prediction interval of one more run" if has_level else ""
        lines.append(f"± is half the width of the study-wise interval{level}.")
    if any(row.confounds for row in judgement.rows):
        lines.append("* marks rows with confounds.")
    return lines


def printed(judgement: Judgement) -> list[str]:
    """The lines below a table of claims."""
    lines = [*_conventions(judgement), *summary(judgement)]
    if sentence := rehearsal(judgement):
        lines.append(f"A rehearsal. {sentence}")
    if sentence := interim(judgement):
        lines += [f"Interim. {sentence}", judgement.command]
    lines += [f"Left out: {problem}" for problem in judgement.problems[:5]]
    if len(judgement.problems) > 5:
        lines.append(f"... and {len(judgement.problems) - 5} more; report.md lists them")
    return lines


def decimals(claim: Claim) -> int:
    """Decimals of a figure in the published unit."""
    return 2 if claim.ratio else DIGITS[METRICS[claim.metric][1]]
