"""The words for one result: in the terminal, on the page, in the tables and at W&B the same."""

from __future__ import annotations

import math

from alexlab.study.claims import METRICS
from alexlab.study.verdicts import Judgement, Row


def published(row: Row) -> str:
    """The published figure, in its unit; or the sign alone."""
    claim = row.claim
    figure = claim.published.get(claim.metric)
    if figure is None:
        return {-1: "lower", 1: "higher", 0: ""}[claim.sign] if claim.not_testable is None else ""
    text = f"{figure:g}" if claim.is_level else f"{figure:g}x" if claim.ratio else f"{figure:+g}"
    if not claim.at_least:
        return text
    return f"<{text}" if claim.sign < 0 else f">{text}"


def measured(row: Row, which: str = "decisive") -> str:
    """The measured effect with an interval, in the published figure's unit."""
    if row.level is not None:
        mean, half = (row.shown(value) for value in row.level[:2])
        return f"{mean:.1f} ±{half:.1f}" if math.isfinite(half) else f"{mean:.1f}"
    if row.effect is None:
        return ""
    half = getattr(row.effect, which)
    if half is None:
        return ""
    if row.claim.ratio:
        low, high = (
            (row.shown(row.effect.difference + sign * half) for sign in (-1, 1)) if half < 700 else (0, math.inf)
        )
        return f"{row.shown(row.effect.difference):.2f}x {low:.2f}-{high:.2f}"
    digits = 2 if METRICS[row.claim.metric][1] == "points" else 3
    text = f"{row.shown(row.effect.difference):+.{digits}f}"
    return f"{text} ±{row.shown(half):.{digits}f}" if math.isfinite(half) else f"{text} (1 run)"


def runs(row: Row) -> str:
    """Finished runs of the arms, and failed ones."""
    counted = row.counted or tuple(len(arm.runs) for arm in row.arms)
    counts = [f"{count}{f'+{arm.lost}!' if arm.lost else ''}" for count, arm in zip(counted, row.arms, strict=True)]
    return "/".join(counts) if row.claim.not_testable is None else ""


def verdict_and_reason(row: Row) -> str:
    """The verdict, or why there is none."""
    parts = [row.verdict or "", row.why_none or ""]
    return ": ".join(part for part in parts if part)


def summary(judgement: Judgement) -> list[str]:
    """What holds of the report as a whole."""
    plan = judgement.plan
    lines = [
        f"{judgement.done} runs done; {judgement.family} claims share the study-wise 5 %. ± is the study interval: it "
        "holds for all of them at once, for new images where the metric is of images."
    ]
    if judgement.is_rehearsal:
        lines.append(f"A rehearsal: no verdict is given at recipe={plan['recipe']}; it shows what a study looks like.")
    if judgement.missing:
        lines.append(f"Interim: {judgement.missing} planned runs are missing. {judgement.command}")
    untestable = sum(row.claim.not_testable is not None for row in judgement.rows)
    if untestable:
        lines.append(f"{untestable} more claims no records can test; the report says what would.")
    if any(row.confounds for row in judgement.rows):
        lines.append("* more differs between the arms than the claim says; see the report.")
    lines += judgement.remarks
    if plan.get("digest") is None:
        lines.append("This study was not started by study=, so nothing shows that its seeds were planned beforehand.")
    lines += [f"Left out: {problem}" for problem in judgement.problems[:5]]
    if len(judgement.problems) > 5:
        lines.append(f"... and {len(judgement.problems) - 5} more; report.md lists them")
    return lines
