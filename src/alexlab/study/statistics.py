"""Statistics of two arms: their difference with its intervals, and tests of equal effects and equal failure rates.

Numbers are in the metric's own unit, such as an error as a fraction. Nothing here reads or writes files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special

from alexlab.study.spreads import LEAST_ARMS, Sample, Spread, shrink, unlike

LEVEL = 0.95  # of the intervals
LEAST_RUNS = 3  # in each arm, for a verdict
MAX_FAILED = 5  # an arm with more than one failed run in so many does not train
LEAST_SHARED = 4  # degrees of freedom around a slope over shared seeds, as of one arm of five runs


@dataclass(frozen=True)
class Effect:
    """A difference of two arms' means. `fixed`, `new`, `study` and `new_study` are half widths of intervals around it.

    `new` and `new_study` are None if errors on single images are unknown. With few degrees of freedom they can be
    slightly narrower than `fixed` and `study`, since the images' part adds degrees of freedom too.
    """

    difference: float
    fixed: float  # 95 %, for this test set
    new: float | None  # 95 %, for new images of the same kind
    study: float  # as `fixed`, for all of the family's claims at once
    new_study: float | None  # as `new`, for all of the family's claims at once
    standard_error: float  # sqrt(V), on this test set
    df: float  # degrees of freedom of V
    run_sd: float  # standard deviation of the difference of two single runs
    pair_df: float  # degrees of freedom of V + run_sd^2
    image_variance: float  # of the difference, from the choice of test images alone; 0 if unknown
    welch: bool  # from the two arms' own spreads alone
    correlation: float | None = None  # of the arms' runs over shared seeds, if these were used

    @property
    def decisive(self) -> float:
        """Half width of the interval that carries the verdict: study-wise, and for new images if these are known."""
        return self.study if self.new_study is None else self.new_study


def effect(
    first: Sample, second: Sample, spreads: tuple[Spread, Spread], family: float, *, welch: bool | None = None
) -> Effect:
    """Estimate mean(first) - mean(second) of independent arms, one of `family` claims; the rest is as for `contrast`.

    Raises:
        ValueError: for arms with different numbers of images, or a family below 1.
    """
    return contrast((first, second), spreads, (1.0, -1.0), family, welch=welch)


def contrast(
    samples: Sequence[Sample],
    spreads: Sequence[Spread],
    weights: Sequence[float],
    family: float,
    *,
    welch: bool | None = None,
) -> Effect:
    """Estimate the sum of weight times mean over independent arms, one of `family` claims.

    Degrees of freedom by Welch and Satterthwaite. With fewer than four arms with a variance there is too little to
    shrink towards, and the arms' own variances are used (Welch's t). With more, shrinkage makes an outlying arm's
    interval too narrow: if the arms' spreads are `unlike`, Welch's t is used if it makes the study interval wider.
    Using it whenever spreads are unlike would favour those that are small by chance. `welch=True` always uses Welch's
    t, `welch=False` never; it needs three runs in each arm. Intervals have no width if no arm of the study has any
    variance, and are infinite if none has two runs.

    Raises:
        ValueError: for arms with different numbers of images, or a family below 1.
    """
    counts = [len(sample.values) for sample in samples]
    squares = [weight**2 for weight in weights]
    by_image = [sample.images for sample in samples if sample.images is not None]
    images = None
    if len(by_image) == len(samples):
        sizes = [one.shape[1] for one in by_image]
        if other := [size for size in sizes if size != sizes[0]]:
            raise ValueError(f"images: {sizes[0]} in one arm, {other[0]} in the other")
        shares = [one.mean(axis=0) for one in by_image]
        # Over the runs, per image: share (1 - share) n / (n - 1), and that over n; unknown for one run, so taken as 0.
        within = [
            square * float((share * (1 - share)).mean()) / (count - 1) if count > 1 else 0.0
            for square, share, count in zip(squares, shares, counts, strict=True)
        ]
        images = np.sum([weight * share for weight, share in zip(weights, shares, strict=True)], axis=0), sum(within)
    difference = float(sum(weight * sample.values.mean() for weight, sample in zip(weights, samples, strict=True)))

    def by(variances: list[float], dfs: list[float], df_all: float, is_welch: bool) -> Effect:
        single = [square * variance for square, variance in zip(squares, variances, strict=True)]
        parts = [variance / count for variance, count in zip(single, counts, strict=True)]
        pair = [variance + part for variance, part in zip(single, parts, strict=True)]
        df, pair_df = (min(satterthwaite(each, dfs), df_all) for each in (parts, pair))
        return _effect(difference, sum(parts), df, sum(single), pair_df, images, family, is_welch)

    shrunk = by([spread.variance for spread in spreads], [spread.df for spread in spreads], spreads[0].df_all, False)
    is_few = spreads[0].arms < LEAST_ARMS
    has_own = min(counts) >= LEAST_RUNS and min(sample.variance for sample in samples) > 0
    is_unlike = any(unlike(one, other) for one, other in combinations(spreads, 2))
    if welch is False or not has_own or not (welch or is_few or is_unlike):
        return shrunk
    own = by([sample.variance for sample in samples], [count - 1.0 for count in counts], math.inf, True)
    return own if welch or is_few or own.study > shrunk.study else shrunk


@dataclass(frozen=True)
class Equality:
    """Welch's test that several effects are equal."""

    statistic: float  # F
    dfs: tuple[float, float]
    p: float


def equal_effects(effects: Sequence[Effect]) -> Equality | None:
    """Test that independent effects are equal, each with a standard error of its own; None for fewer than two.

    Cochran's Q = sum of w (d - mean)^2, w = 1 / V, is chi-squared only if the variances V are known. Estimated from a
    few runs, as here, they make it reject too often, so Q is scaled and referred to F as in Welch (1951, Biometrika
    38:330), with each effect's Satterthwaite degrees of freedom in place of n - 1. That is Johansen's approximation for
    any contrast of means with unequal variances (1980, Biometrika 67:85): of two effects, Welch's t. Also None if an
    effect's variance is 0 or unknown.
    """
    variances = [effect.standard_error**2 for effect in effects]
    if len(effects) < 2 or not all(0 < variance < math.inf for variance in variances):
        return None
    weights = 1 / np.array(variances)
    shares = weights / weights.sum()
    differences = np.array([effect.difference for effect in effects])
    q = float((weights * (differences - shares @ differences) ** 2).sum())
    count = len(effects)
    noise = float(((1 - shares) ** 2 / np.array([effect.df for effect in effects])).sum())
    statistic = q / (count - 1) / (1 + 2 * (count - 2) / (count**2 - 1) * noise)
    dfs = count - 1.0, (count**2 - 1) / (3 * noise)
    return Equality(statistic, dfs, float(special.fdtrc(*dfs, statistic)))


def satterthwaite(parts: list[float], dfs: list[float]) -> float:
    """Degrees of freedom of a sum of variances."""
    total = sum(parts)
    if not 0 < total < math.inf:
        return sum(dfs)
    return total**2 / sum(part**2 / df for part, df in zip(parts, dfs, strict=True) if part > 0)


@dataclass(frozen=True)
class Matched:
    """An arm whose runs share seeds with the base's, and with them initial weights, order and augmentation."""

    independent: Effect  # as `effect` computes it
    values: np.ndarray  # float64 [n] of the arm's runs
    shared: np.ndarray  # int [n]: the indices of the same seeds among the base's runs


def match_seeds(base: Sample, spread: Spread, arms: Mapping[str, Matched], family: float) -> dict[str, Effect]:
    """Estimate the effects of arms against one base, with the base's runs on shared seeds as a control variate.

    d - b (mean of the base on the shared seeds - mean of the base), with one slope b pooled over the arms: the part
    that an arm's runs share with the base's on the same seeds is not an effect. Its variance is that of the arm's
    residuals around the slope, shrunk over these arms and with one degree of freedom fewer, and of (1 - b) times the
    base's mean, by the wider of its shrunk and, from three runs on, its own variance. The images' part is that of the
    independent effect. Effects are unchanged if the base's runs have no variance, or are too few for a slope.
    """
    pairs = {name: (arm.values - arm.values.mean(), base.values[arm.shared]) for name, arm in arms.items()}
    centred = {name: (own, other - other.mean()) for name, (own, other) in pairs.items()}
    products = {name: float((own * other).sum()) for name, (own, other) in centred.items()}
    squares = {name: float((other**2).sum()) for name, (_, other) in centred.items()}
    total, degrees = sum(squares.values()), sum(len(own) - 1 for own, _ in centred.values())
    if not base.variance > 0 or total <= 0 or degrees < LEAST_SHARED:
        return {name: arm.independent for name, arm in arms.items()}
    slope = sum(products.values()) / total
    residuals = shrink({name: Sample(own - slope * other) for name, (own, other) in centred.items()})
    unit = degrees / (degrees - 1)  # for the slope's degree of freedom
    slope_variance = unit * float(np.mean([one.variance for one in residuals.values()])) / total
    # The base's variance, shrunk and by its own runs: the wider interval counts, since the base may scatter more.
    of_base = [(spread.variance, spread.df)]
    if len(base.values) >= LEAST_RUNS:
        of_base.append((base.variance, len(base.values) - 1.0))
    found = {}
    for name, arm in arms.items():
        count, offset = len(arm.values), float(pairs[name][1].mean() - base.values.mean())
        own_df = max(residuals[name].df - 1, 1.0)
        own = unit * residuals[name].variance * (1 / count + offset**2 / total)
        before = arm.independent
        each: list[tuple[float, float]] = []
        for base_variance, base_df in of_base:
            base_part = base_variance / len(base.values)
            rest = (1 - slope) ** 2 * base_part
            variance = own + rest
            # The slope's own variance, by the delta method; with one arm whose seeds are all shared, the paired t's
            # n - 1. Degrees of freedom of a sum are never fewer than its parts'; of a slope that is hardly known the
            # delta method would leave next to none, and an interval without end.
            noise = own**2 / own_df + rest**2 / base_df + 2 * slope_variance * (1 - slope) ** 2 * base_part**2
            each.append((variance, max(variance**2 / noise, min(own_df, base_df)) if noise > 0 else own_df))
        tail = (1 - LEVEL) / 2
        variance, df = max(each, key=lambda one: _half_width(one[0], one[1], tail / family))
        scatter = math.sqrt(float((centred[name][0] ** 2).sum()) * squares[name])
        both = variance + before.image_variance
        both_df = df * (both / variance) ** 2 if variance > 0 else math.inf
        has_images = before.new is not None
        found[name] = replace(
            before,
            difference=float(before.difference - slope * offset),
            fixed=_half_width(variance, df, tail),
            study=_half_width(variance, df, tail / family),
            new=_half_width(both, both_df, tail) if has_images else None,
            new_study=_half_width(both, both_df, tail / family) if has_images else None,
            standard_error=math.sqrt(variance),
            df=df,
            welch=False,
            correlation=products[name] / scatter if scatter > 0 else None,
        )
    return found


def paired_effect(first: Sample, second: Sample, family: float) -> Effect:
    """Estimate mean(first - second) of the same runs measured twice, in the same order, such as ten views against one.

    Uses the runs' own differences; one run has an infinite interval.

    Raises:
        ValueError: for different numbers of runs or images, or a family below 1.
    """
    count = len(first.values)
    if count != len(second.values):
        raise ValueError(f"values: {count} runs in the first, {len(second.values)} in the second; give the same runs")
    differences = Sample(first.values - second.values)
    variance = differences.variance if count > 1 else math.inf
    images = None
    if first.images is not None and second.images is not None:
        if first.images.shape != second.images.shape:
            raise ValueError(f"images: {first.images.shape[1]} in the first, {second.images.shape[1]} in the second")
        each = first.images.astype(np.int8) - second.images
        within = float(each.var(axis=0, ddof=1).mean()) / count if count > 1 else 0.0
        images = each.mean(axis=0), within
    df = count - 1.0
    return _effect(float(differences.values.mean()), variance / count, df, variance, df, images, family, welch=False)


def _effect(
    difference: float,
    variance: float,
    df: float,
    run_variance: float,
    pair_df: float,
    images: tuple[np.ndarray, float] | None,
    family: float,
    welch: bool,
) -> Effect:
    """`images`: the mean difference on each image, and how much of its variance is due to the runs, on average."""
    if family < 1:
        raise ValueError(f"family={family}: a study has one claim or more")
    tail = (1 - LEVEL) / 2
    new, new_study, image_variance = None, None, 0.0
    if images is not None:
        per_image, within = images
        image_variance = max(0.0, float(per_image.var(ddof=1)) - within) / len(per_image)
        both = variance + image_variance
        both_df = df * (both / variance) ** 2 if 0 < variance < math.inf else math.inf
        new, new_study = _half_width(both, both_df, tail), _half_width(both, both_df, tail / family)
    return Effect(
        difference=difference,
        fixed=_half_width(variance, df, tail),
        new=new,
        study=_half_width(variance, df, tail / family),
        new_study=new_study,
        standard_error=math.sqrt(variance),
        df=df,
        run_sd=math.sqrt(run_variance),
        pair_df=pair_df,
        image_variance=image_variance,
        welch=welch,
    )


def _half_width(variance: float, df: float, tail: float) -> float:
    if not 0 < variance < math.inf:
        return variance
    return math.sqrt(variance) * quantile(1 - tail, df)


def quantile(chance: float, df: float) -> float:
    return float(special.stdtrit(df, chance) if df < math.inf else special.ndtri(chance))


def mean_half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean over seeds, by Student's t; NaN for fewer than two."""
    count = len(values)
    return quantile(0.975, count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan


def partly_trained(errors: np.ndarray, chance: float) -> np.ndarray:
    """Whether each of an arm's runs, bool [n], has an error above the midpoint of the arm's median and chance.

    All are False with fewer than three runs, or if the median itself is no better than chance.
    """
    errors = np.asarray(errors, dtype=float)
    if len(errors) < LEAST_RUNS:
        return np.zeros(len(errors), bool)
    median = float(np.median(errors))
    return errors > ((median + chance) / 2 if median < chance else math.inf)


def too_many_failed(good: int, bad: int) -> bool:
    """Whether an arm with so many failed runs does not train."""
    return MAX_FAILED * bad > good + bad


def prediction(effect: Effect, same_images: bool = True) -> float:
    """Half width of the 95 % prediction interval for the difference of one more pair of single runs.

    A t interval; `same_images=False` for a pair that was tested on other images of the same kind.
    """
    pair = effect.standard_error**2 + effect.run_sd**2
    both = pair + (0.0 if same_images else 2 * effect.image_variance)
    df = effect.pair_df * (both / pair) ** 2 if 0 < pair < math.inf else math.inf
    return _half_width(both, df, (1 - LEVEL) / 2)


def strength(effect: Effect, published: float) -> float | None:
    """z of the original pair of single runs: the published effect over the sd of such a pair; None if that is 0."""
    return abs(published) / effect.run_sd if 0 < effect.run_sd < math.inf else None


def replication_bayes_factor(effect: Effect, published: float, same_images: bool = True) -> float | None:
    """How many times more likely the measured effect is if the published effect is real than if there is none.

    N(d; p, V + 2 s^2) / N(d; 0, V), with V the variance of d and 2 s^2 that of the published pair of single runs; None
    if there is no variance. `same_images=False`: both include the test images' part.
    """
    own = effect.standard_error**2 + (0.0 if same_images else effect.image_variance)
    original = effect.run_sd**2 + (0.0 if same_images else effect.image_variance)
    if not 0 < own + original < math.inf or own == 0:
        return None
    d = effect.difference
    log = 0.5 * (d**2 / own - (d - published) ** 2 / (own + original) + math.log(own / (own + original)))
    return math.exp(max(-700.0, min(log, 700.0)))  # neither infinite nor 0


def fisher(failed_a: int, total_a: int, failed_b: int, total_b: int) -> float:
    """Two-sided p of Fisher's exact test that two arms fail equally often, from failed runs and all runs.

    Raises:
        ValueError: for more failed runs than runs, or a negative number.
    """
    for name, bad, total in (("failed_a", failed_a, total_a), ("failed_b", failed_b, total_b)):
        if not 0 <= bad <= total:
            raise ValueError(f"{name}={bad}: is not from 0 to the {total} runs")
    if not total_a or not total_b:
        return 1.0
    if not (failed_a or failed_b):
        return 1.0
    from scipy import stats  # takes half a second

    test: Any = stats.fisher_exact([[failed_a, total_a - failed_a], [failed_b, total_b - failed_b]])
    return float(test.pvalue)


def variance_components(values: np.ndarray) -> tuple[float, float, float]:
    """Standard deviations by column, by row, and of the rest, of values [rows, columns].

    By the mean squares of two-way analysis of variance; a negative component is set to 0.
    """
    rows, columns = values.shape
    mean, by_row, by_column = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - by_row[:, None] - by_column[None] + mean
    within = float((rest**2).sum() / ((rows - 1) * (columns - 1)))
    column = (rows * float(by_column.var(ddof=1)) - within) / rows
    row = (columns * float(by_row.var(ddof=1)) - within) / columns
    return math.sqrt(max(column, 0.0)), math.sqrt(max(row, 0.0)), math.sqrt(within)
