"""The verdict on a claim: the rule for a published effect, and how claims on levels, bounds and ranges depart from it.

docs/explanation/verdicts.md explains the rule.
"""

from __future__ import annotations

import math
from typing import Any

from alexlab.config import Rate
from alexlab.console import plural
from alexlab.study.claims import GROUPED, METRICS, OF_NETS, Claim, Verdict
from alexlab.study.judgement import OTHER_IMAGES, Row
from alexlab.study.statistics import LEAST_RUNS, Effect, prediction, replication_bayes_factor, strength, too_many_failed

LENGTH = "trainer.max_epochs"  # a claim about when something happens may change it
# From the strongest support of a claim to the strongest evidence against it.
SUPPORT = (
    *(Verdict.reproduced, Verdict.larger, Verdict.same_direction, Verdict.size_open, Verdict.smaller),
    *(Verdict.inconclusive, Verdict.negligible, Verdict.reversed),
)


def verdict(
    effect: Effect | None,
    published: float | None,
    sign: int,
    *,
    runs: tuple[int, int],
    failed: tuple[int, int] = (0, 0),
    least: float | None = None,
    at_least: bool = False,
    same_images: bool = True,
) -> Verdict:
    """The verdict on a published difference, or on its sign if `published` is None, by the decisive interval.

    In this order: negligible, if the whole interval lies within `least` of 0; reversed; inconclusive; and on the
    claimed side reproduced, if the effect is at least `least`, its 95 % interval for new images excludes a quarter of
    the published effect, and a pair of single runs could have shown the published one (`prediction`); else smaller,
    larger, or size open if noise alone would allow the published effect.

    `runs` that gave a result and those that `failed` permanently, in each arm; an arm without a result has no effect.
    `least`: the smallest effect of interest, by default half of the published one. `at_least`: the claim is "more
    than", so that a larger effect reproduces it, and an interval entirely below the figure does not. `same_images`:
    whether the published figure is from these images.

    Raises:
        ValueError: for a sign other than 1 and -1, or a published figure that is not finite or not of that sign.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign={sign}: must be 1 or -1")
    if published is not None and not (math.isfinite(published) and published * sign > 0):
        raise ValueError(f"published={published}: must be finite and have the sign {sign}")
    if any(too_many_failed(good, bad) for good, bad in zip(runs, failed, strict=True)):
        return Verdict.does_not_train
    if effect is None or min(runs) < LEAST_RUNS:
        return Verdict.not_testable
    size = None if published is None else abs(published)
    least = size / 2 if least is None and size is not None else least
    toward, half = sign * effect.difference, effect.decisive
    if least is not None and abs(toward) + half <= least:
        return Verdict.negligible
    if toward + half < 0:
        return Verdict.reversed
    if toward - half <= 0:
        return Verdict.inconclusive
    if published is None or size is None:
        return Verdict.reproduced if least is not None and toward >= least else Verdict.size_open
    assert least is not None
    is_near = abs(effect.difference - published) <= prediction(effect, same_images)
    if at_least:
        if toward + half < size:
            return Verdict.smaller
        is_near = is_near or toward >= size
    if is_near:
        single = effect.fixed if effect.new is None else effect.new
        is_sized = toward >= least and toward - single > size / 4
        return Verdict.reproduced if is_sized else Verdict.size_open
    return Verdict.larger if toward > size else Verdict.smaller


def weaker(first: Verdict, second: Verdict) -> Verdict:
    """The verdict from two analyses: the one nearer to inconclusive, or inconclusive if they are on different sides."""
    centre = SUPPORT.index(Verdict.inconclusive)
    steps = [SUPPORT.index(one) - centre for one in (first, second)]
    if steps[0] * steps[1] <= 0:
        return Verdict.inconclusive
    return SUPPORT[centre + min(steps, key=abs)]


def both_needed(first: Verdict, second: Verdict) -> Verdict:
    """The verdict on a claim that needs two findings: the less favourable one."""
    return max(first, second, key=SUPPORT.index)


def set_verdict(row: Row, plan: dict[str, Any]) -> None:
    """Set a row's verdict, or why it has none, from its numbers and caveats."""
    claim = row.claim
    others = _judge_others(row)
    if claim.is_context:
        return
    _compare_original(row, plan)
    departures = [name for name in plan.get("departures") or () if not (claim.waits and name == LENGTH)]
    if plan["recipe"] not in claim.recipes:
        row.why_none = f"a rehearsal: verdicts are given at {', '.join(claim.recipes)}"
    elif departures:
        row.why_none = f"a rehearsal: differs from the recipe in {', '.join(departures)}"
    elif plan["rate"] == Rate.choose.name:
        row.why_none = "these runs choose learning rates"
    elif row.has_other_images:
        row.word, row.why_none = Verdict.not_testable, OTHER_IMAGES
    elif row.is_upper_bound:
        row.word = Verdict.not_testable
        what = "ended before" if any(row.ended_before) else "were first logged after"
        row.why_none = f"runs {what} what the claim is about"
    elif row.uncounted and claim.metric in OF_NETS:
        row.why_none = "interim: the nets are not measured yet; run this command with --nets"
    elif row.uncounted:
        row.why_none = "interim: finished runs could not be read"
    elif claim.is_level:
        _judge_level(row)
    else:
        _judge_effect(row, plan, others)
    if row.word is not None and row.verdict is None:
        row.verdict = row.word.value
    if row.beyond is not None and row.word is Verdict.reproduced:
        row.verdict = f"{row.verdict} ({row.beyond})"


def _compare_original(row: Row, plan: dict[str, Any]) -> None:
    """Set z of the published pair of single runs, and the Bayes factor."""
    if row.effect is not None and row.published:
        row.strength = strength(row.effect, row.published)
        row.bayes_factor = replication_bayes_factor(row.effect, row.published, _has_same_images(row.claim, plan))


def _has_same_images(claim: Claim, plan: dict[str, Any]) -> bool:
    return claim.published_on is not None and plan["data"] == claim.published_on


def _judge_others(row: Row) -> list[tuple[str, Verdict]]:
    """Judge and note the other metrics that a claim needs; return their names with the verdicts on the side."""
    found = []
    for metric, side in row.claim.also.items():
        name, unit, size = METRICS[metric]
        measured = row.also[metric]
        if measured is None:
            found.append((name, Verdict.inconclusive))
            continue
        toward = (1 if side == "higher" else -1) * measured.difference
        word = Verdict.inconclusive
        if abs(toward) > measured.decisive:
            word = Verdict.reproduced if toward > 0 else Verdict.reversed
        low, high = ((measured.difference + sign * measured.decisive) / size for sign in (-1, 1))
        row.notes.append(
            f"the claim also needs {name} to be {side}: {measured.difference / size:+.2f} {unit} "
            f"({low:+.2f} to {high:+.2f})"
        )
        found.append((name, word))
    return found


def _judge_effect(row: Row, plan: dict[str, Any], others: list[tuple[str, Verdict]]) -> None:
    """`others`: by the metrics that the claim needs too."""
    claim = row.claim
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
        row.word, row.why_none = word, f"{_counted(row)} in an arm; a verdict needs {LEAST_RUNS}"
        return
    if row.effect.study == 0 and all(spread == 0 for spread in row.spreads):
        row.why_none = "all runs of an arm have the same result, whatever their seeds, which points to a bug"
        return
    same_images = _has_same_images(claim, plan)
    if claim.ranges:
        row.range, row.word, row.verdict = _by_range(row, row.effect.decisive, same_images)
    elif row.is_bound:  # whatever its size, it may be larger
        is_clear = claim.sign * row.effect.difference > row.effect.decisive
        row.word = Verdict.same_direction if is_clear else Verdict.inconclusive
        row.verdict = row.word.value
    else:
        row.word, row.verdict = word, word.value
    if row.is_bound and row.word is Verdict.same_direction:
        row.verdict = f"{row.verdict}, at least {_bound(row)}"
    if row.word is Verdict.inconclusive and not row.is_bound:
        here = _on_this_test_set(row, row.effect, same_images)
        if here is not Verdict.inconclusive:
            row.verdict = f"{row.verdict} ({here.value} on this test set only)"
    for name, other in others:
        joint = both_needed(row.word, other)
        if joint is not row.word:
            first = "as claimed" if row.word in SUPPORT[:5] else row.word.value
            row.word, row.verdict = joint, f"{joint.value} ({METRICS[claim.metric][0]}: {first}; {name}: {other.value})"


def _counted(row: Row) -> str:
    """The number of runs, or groups of runs, in the smaller arm."""
    size, _ = GROUPED.get(row.claim.metric, (1, ""))
    return plural(min(row.counted), "run") if size == 1 else f"{plural(min(row.counted), 'group')} of {size} runs"


def _by_range(row: Row, half: float, same_images: bool) -> tuple[int, Verdict, str]:
    """The first of the claim's own ranges that contains the whole interval of this half width.

    A bound is open on one side. A range for *reproduced* without an end on the claimed side does not say how large an
    effect must be, so a published one must also be of that size by the general rule.

    Returns: its index, verdict and words; of the last one and *inconclusive* if none does.
    """
    claim = row.claim
    assert row.effect is not None
    low, high = row.effect.difference - half, row.effect.difference + half
    if row.is_bound:
        low, high = (low, math.inf) if claim.sign > 0 else (-math.inf, high)
    for index, one in enumerate(claim.ranges):
        above, below = (_on_scale(claim, bound) for bound in (one.above, one.below))
        is_inside = (above is None or low >= above) and (below is None or high <= below)
        if is_inside and one.verdict == Verdict.reproduced.value:
            is_open = (below if claim.sign > 0 else above) is None
            is_inside = not row.is_bound and (not is_open or _is_of_size(row, row.effect, same_images))
        if is_inside:
            return index, Verdict(one.verdict), one.words or one.verdict
    return len(claim.ranges) - 1, Verdict.inconclusive, Verdict.inconclusive.value


def _is_of_size(row: Row, effect: Effect, same_images: bool) -> bool:
    """Whether the effect is large enough, and as near the published one as a pair of single runs; True without one."""
    published, least = row.published, row.claim.least
    if published is None or least is None:
        return True
    is_near = abs(effect.difference - published) <= prediction(effect, same_images)
    return is_near and row.claim.sign * effect.difference >= least


def _on_this_test_set(row: Row, effect: Effect, same_images: bool) -> Verdict:
    """The verdict by the study-wise interval for this test set: of a range, or else the side of 0."""
    if row.claim.ranges:
        return _by_range(row, effect.study, same_images)[1]
    if abs(effect.difference) <= effect.study:
        return Verdict.inconclusive
    return Verdict.same_direction if row.claim.sign * effect.difference > 0 else Verdict.reversed


def _on_scale(claim: Claim, figure: float | None) -> float | None:
    """A figure in the published unit on the scale of the interval."""
    if figure is None:
        return None
    return math.log(figure) if claim.ratio else figure * claim.unit


def _bound(row: Row) -> str:
    """The smallest effect that is compatible with a bound: the interval's end nearer to no effect."""
    assert row.interval is not None
    end = row.shown(row.interval[0] if row.claim.sign > 0 else row.interval[1])
    return f"{end:.2f}×" if row.claim.ratio else f"{end:+.2f} {METRICS[row.claim.metric][1]}".rstrip()


def _judge_level(row: Row) -> None:
    """Compare the published figure, of one run, with the prediction interval of one more run."""
    runs, arm = row.counted[0], row.arms[0]
    if arm.does_not_train:
        row.word, row.verdict = Verdict.does_not_train, f"{Verdict.does_not_train.value}: {arm.name}"
        return
    if row.level is None or runs < LEAST_RUNS:
        row.word, row.why_none = Verdict.not_testable, f"{plural(runs, 'run')}; a verdict needs {LEAST_RUNS}"
        return
    mean, _, one_run = row.level
    published = row.claim.effect
    assert published is not None
    if abs(published - mean) <= one_run:
        row.word = Verdict.reproduced
        return
    row.word = Verdict.reversed
    row.verdict = f"other by {row.shown(mean - published):+.1f} {METRICS[row.claim.metric][1]}".rstrip()
