"""Measure a claim: the difference between its arms, or one arm's level, with intervals, and the same by other metrics.

Nothing here compares an effect with the published one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from alexlab.study.claims import METRICS, VIEWED, Claim
from alexlab.study.judgement import OTHER_IMAGES, Arm, Row
from alexlab.study.samples import Measured, Samples
from alexlab.study.spreads import Sample, Spread, unlike
from alexlab.study.statistics import LEAST_RUNS, Effect, effect, paired_effect, quantile


def measure(claim: Claim, arms: tuple[Arm, ...], samples: Samples, family: float) -> Row:
    """A claim's row with its numbers; intervals are for `family` claims at once."""
    row = Row(claim, arms)
    spreads = samples.spreads(claim.metric, claim.view, claim.ratio)
    found = [samples.measured(arm.name, claim.metric, claim.view, claim.ratio) for arm in arms]
    row.counted = tuple(0 if one is None else len(one.runs) for one in found)
    if claim.against_view is not None:
        _compare_views(row, found[0], samples, family)
    elif all(one is not None for one in found):
        row.spreads = tuple(spreads[arm.name].sd for arm in arms)
        if len(arms) == 2:
            _compare_arms(row, (spreads[arms[0].name], spreads[arms[1].name]), samples, family)
        elif found[0] is not None:
            _measure_arm(row, found[0].sample, spreads[arms[0].name], family)
    _measure_secondary(row, samples)
    row.beyond = _beyond_all(row, samples) if claim.every_run else None
    for metric in claim.also:
        found_also = _two_arms(row, metric, False, samples, family)
        row.also[metric] = None if found_also is None else found_also[0]
    return row


def _compare_views(row: Row, seen: Measured | None, samples: Samples, family: float) -> None:
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


def _measure_arm(row: Row, sample: Sample, spread: Spread, family: float) -> None:
    """Measure a claim about one arm: its level, or its metric if that is itself a difference within each run."""
    if row.claim.one_arm:
        row.effect = paired_effect(sample, Sample(np.zeros(len(sample.values))), family)
    else:
        row.level = _level(sample, spread, family)


def _level(sample: Sample, spread: Spread, family: float) -> tuple[float, float, float]:
    """Mean over seeds, and half widths of its 95 % interval on this test set and of the prediction interval of one run.

    The latter is for all of the family's claims at once.
    """
    if spread.df <= 0:
        return float(sample.values.mean()), math.inf, math.inf
    count = len(sample.values)
    half = quantile(0.975, spread.df) * math.sqrt(spread.variance / count)
    one_run = quantile(1 - 0.025 / family, spread.df) * math.sqrt(spread.variance * (1 + 1 / count))
    return float(sample.values.mean()), float(half), float(one_run)


def _compare_arms(row: Row, spreads: tuple[Spread, Spread], samples: Samples, family: float) -> None:
    found = _two_arms(row, row.claim.metric, row.claim.ratio, samples, family)
    row.has_other_images = found is None
    if found is None:
        row.confounds.append(OTHER_IMAGES)
        return
    row.effect, independent = found
    if row.effect.correlation is not None:
        row.notes.append(_shared_seeds_note(row, row.effect.correlation, independent))
    elif unlike(*spreads) and min(row.counted) >= LEAST_RUNS:
        how = "Welch's interval is used" if row.effect.welch else "Welch's interval is not wider"
        row.notes.append(f"the arms' standard deviations differ by more than a factor of two; {how}")


def _two_arms(row: Row, metric: str, ratio: bool, samples: Samples, family: float) -> tuple[Effect, Effect] | None:
    """The effect by a metric, and the effect if the arms were independent; None if they cannot be compared.

    They are equal unless one arm starts from the initial weights of the other, the base, whose runs on shared seeds are
    then a control variate.
    """
    key = metric, row.claim.view, ratio
    names = [arm.name for arm in row.arms]
    found = [one for one in (samples.measured(name, *key) for name in names) if one is not None]
    if len(found) != 2 or found[0].images != found[1].images:
        return None
    spreads = samples.spreads(*key)
    independent = effect(found[0].sample, found[1].sample, (spreads[names[0]], spreads[names[1]]), family)
    # A ratio's logarithms are compared by Welch's t, as the plan of figure 1 says: a net with other units learns at
    # another speed, of which the base's runs on the same seeds tell little.
    if ratio or samples.shared_start is None or samples.shared_start[0] not in names:
        return independent, independent
    matched = samples.matched(metric, row.claim.view, family)
    if names[0] in matched:
        return matched[names[0]], independent
    if names[1] in matched:
        return replace(matched[names[1]], difference=-matched[names[1]].difference), independent
    return independent, independent


def _shared_seeds_note(row: Row, correlation: float, independent: Effect) -> str:
    name, unit, size = next(arm.name for arm in row.arms if arm.overrides), *METRICS[row.claim.metric][1:]
    return (
        f"{name} starts from the base's initial weights; on shared seeds its runs correlate with the base's "
        f"(r = {correlation:+.2f}), which are used as a control variate. As independent arms: "
        f"{independent.difference / size:+.2f} ± {independent.fixed / size:.2f} {unit}"
    )


def _measure_secondary(row: Row, samples: Samples) -> None:
    """Measure the difference by the other published metrics too, and for errors on single images by the other views."""
    claim = row.claim
    others = [(name, claim.view) for name in claim.published if name != claim.metric]
    if claim.metric in VIEWED and claim.against_view is None:
        others += [(claim.metric, "center" if claim.view == "ten" else "ten")]
    if claim.metric == "top1_error" and "top5_error" not in claim.published and claim.view != "corner":
        others.append(("top5_error", claim.view))
    if claim.metric == "gap":  # a gap by itself does not show that the error is worse
        others.append(("top1_error", claim.view))
    for metric, view in others:
        found = [samples.measured(arm.name, metric, view, claim.ratio) for arm in row.arms]
        if claim.against_view is not None:
            found.append(samples.measured(row.arms[0].name, metric, claim.against_view, claim.ratio))
        means = [float(one.sample.values.mean()) for one in found if one is not None]
        if len(means) == len(found) and len({one.images for one in found if one is not None}) == 1:
            label = metric if view == claim.view else f"{metric}, {view} view"
            row.secondary[label] = means[0] - means[1] if len(means) > 1 else means[0]


def _beyond_all(row: Row, samples: Samples) -> str | None:
    """The number of runs of the claim's arm that lie beyond all runs of the other arm, as text."""
    claim = row.claim
    first, second = (samples.measured(arm.name, claim.metric, claim.view) for arm in row.arms)
    if first is None or second is None:
        return None
    ours, theirs = claim.sign * first.sample.values, claim.sign * second.sample.values
    extreme = "above the largest" if claim.sign > 0 else "below the smallest"
    most = row.shown(claim.sign * float(theirs.max()))
    return f"{int((ours > theirs.max()).sum())} of {len(ours)} runs {extreme} of the other arm, {most:.3g}"
