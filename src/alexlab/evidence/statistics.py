"""What two arms' runs say of a claim: the difference with its intervals, the verdict on a published one, and planning.

Numbers are in the metric's own unit, such as an error as a fraction. The spread of an arm's few runs is estimated
with those of all arms (Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1):3). Nothing here
reads or writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from scipy import special, stats

LEVEL = 0.95  # of the intervals
LEAST_RUNS = 3  # in each arm, for a verdict
UNLIKE = 2.0  # two measured standard deviations are unlike where one is more than this many times the other
MAX_FAILED = 5  # an arm with more than one failed run in so many does not train
MOST_RUNS = 1_000_000  # in a plan
# d0 that plans assume: what `shrink` finds where the logarithms of the arms' standard deviations scatter by about .3.
PLANNED_PRIOR_DF = 6.0


@dataclass(frozen=True, eq=False)
class Sample:
    """What one arm's runs came to in one metric.

    Raises:
        ValueError: for no run, a value that is not finite, or images that do not belong to the values.
    """

    values: np.ndarray  # float64 [n]: one number a run
    images: np.ndarray | None = None  # bool [n, M]: wrong, in the same order for all arms; values = images.mean(1)

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        object.__setattr__(self, "values", values)
        if values.ndim != 1 or not values.size:
            raise ValueError(f"values: have the shape {values.shape}; give one number a run, of one run or more")
        if not np.isfinite(values).all():
            run = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(f"values[{run}]: is {values[run]}; leave out runs without a result")
        if self.images is None:
            return
        images = self.images
        if images.dtype != np.bool_ or images.ndim != 2 or len(images) != len(values) or images.shape[1] < 2:
            raise ValueError(
                f"images: have the shape {images.shape} of {images.dtype}; give bool, {len(values)} runs by two images "
                "or more"
            )
        if not np.allclose(np.count_nonzero(images, axis=1) / images.shape[1], values, rtol=0, atol=1e-9):
            raise ValueError("images: their mean over a run is not the run's value")

    @classmethod
    def of_images(cls, images: np.ndarray) -> Sample:
        """The share of wrong images, with the images."""
        return cls(images.mean(axis=1), images)

    @property
    def variance(self) -> float:
        """Over runs, unbiased; NaN for one run."""
        if len(self.values) == 1:
            return math.nan
        rounding = 1e-12 * float(np.abs(self.values).max())  # values so near are equal
        return float(self.values.var(ddof=1)) if np.ptp(self.values) > rounding else 0.0


@dataclass(frozen=True)
class Spread:
    """How much an arm's runs scatter."""

    sd: float  # as measured; NaN for one run
    variance: float  # shrunk towards that of all arms
    df: float  # degrees of freedom of the variance
    df_all: float  # of all arms together, which no interval's exceed


@dataclass(frozen=True)
class Effect:
    """A difference of two arms' means. `fixed`, `new` and `study` are half widths of intervals around it."""

    difference: float
    fixed: float  # 95 %, for these very images
    # 95 %, for new images of the same kind; None where single images are not known. It can be a hair narrower than
    # `fixed` where degrees of freedom are few, as the images' part adds to those as well.
    new: float | None
    study: float  # 95 %, for these images, of the intervals of all the family's claims at once
    standard_error: float  # sqrt(V), on these images
    df: float  # degrees of freedom of V
    run_sd: float  # what the difference of two single runs scatters by
    image_variance: float  # Vg: of the mean difference, from the images' scatter; 0 where they are not known
    welch: bool  # from the two arms' own spreads alone, as these are unlike and it is the wider


class Verdict(Enum):
    reproduced = "reproduced"
    direction_only = "direction only"
    reversed = "reversed"
    negligible = "negligible"
    unsettled = "unsettled"
    does_not_train = "does not train"
    not_testable = "not testable here"


def shrink(samples: Mapping[str, Sample]) -> dict[str, Spread]:
    """The spread of every arm, by what all arms together say (Smyth 2004, section 6.2).

    An arm of one run, or whose runs are all equal, says nothing to the estimate and takes it as it is. Where arms
    differ no more than by chance, or only one says anything, all have the pooled variance. Where all runs of every arm
    are equal, the variance is 0; where every arm has one run, it is infinite with no degrees of freedom.
    """
    names = list(samples)
    measured = np.array([samples[name].variance for name in names])
    own_df = np.array([len(samples[name].values) - 1.0 for name in names])
    used = measured > 0
    df_all = float(own_df[used].sum())
    variance, df = np.empty(len(names)), np.empty(len(names))
    if not used.any():
        df_all = float(own_df.sum())
        variance[:], df[:] = 0.0 if df_all else math.inf, df_all
    else:
        known, known_df = measured[used], own_df[used]
        e = np.log(known) - special.digamma(known_df / 2) + np.log(known_df / 2)
        excess = e.var(ddof=1) - special.polygamma(1, known_df / 2).mean() if len(e) > 1 else 0.0
        if excess <= 0:
            variance[:], df[:] = (known_df * known).sum() / df_all, df_all
        else:
            prior_df = 2 * inverse_trigamma(float(excess))
            prior = math.exp(e.mean() + special.digamma(prior_df / 2) - math.log(prior_df / 2))
            variance[~used], df[~used] = prior, min(prior_df, df_all)
            variance[used] = (prior_df * prior + known_df * known) / (prior_df + known_df)
            df[used] = np.minimum(prior_df + known_df, df_all)
    return {
        name: Spread(math.sqrt(measured[i]), float(variance[i]), float(df[i]), df_all) for i, name in enumerate(names)
    }


def inverse_trigamma(value: float) -> float:
    """x > 0 with trigamma(x) = value, for a value > 0: Newton's steps on 1 / trigamma, which is convex."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        step = float(trigamma * (1 - trigamma / value) / special.polygamma(2, x))
        x += step
        if -step <= 1e-13 * x:
            break
    return x


def unlike(first: Spread, second: Spread) -> bool:
    """Whether one measured standard deviation is over twice the other; one that is 0 or unknown tells nothing."""
    low, high = sorted((first.sd, second.sd)) if first.sd > 0 and second.sd > 0 else (1.0, 1.0)
    return high > UNLIKE * low


def effect(
    first: Sample, second: Sample, spreads: tuple[Spread, Spread], family: int, *, welch: bool | None = None
) -> Effect:
    """mean(first) - mean(second) of independent arms, one of `family` claims.

    Degrees of freedom by Welch and Satterthwaite. Shrinking makes an odd arm's interval too narrow: where the arms'
    spreads are `unlike` and both have three runs, their own, unshrunk spreads (Welch's t) count if they make the study
    interval wider. Welch's t wherever spreads are unlike would favour those that are small by chance, and err in .09 of
    studies of arms that are alike, not .05 (`alexlab.evidence.simulate`); as it is, .08 err where the logarithms of the
    arms' sd scatter by .3. `welch=True` takes Welch's t wherever there are three runs, `welch=False` nowhere. Intervals
    have no width where no arm of the study scatters, and are infinite where none has two runs.

    Raises:
        ValueError: for arms with different numbers of images, or a family below 1.
    """
    counts = len(first.values), len(second.values)
    images = None
    if first.images is not None and second.images is not None:
        if first.images.shape[1] != second.images.shape[1]:
            raise ValueError(f"images: {first.images.shape[1]} in one arm, {second.images.shape[1]} in the other")
        shares = first.images.mean(axis=0), second.images.mean(axis=0)
        # Over the runs, per image: share (1 - share) n / (n - 1), and that over n; unknown for one run, so taken as 0.
        within = [
            float((share * (1 - share)).mean()) / (count - 1) if count > 1 else 0.0
            for share, count in zip(shares, counts, strict=True)
        ]
        images = shares[0] - shares[1], sum(within)
    difference = float(first.values.mean() - second.values.mean())

    def by(variances: list[float], dfs: list[float], df_all: float, is_welch: bool) -> Effect:
        parts = [variance / count for variance, count in zip(variances, counts, strict=True)]
        total, df = sum(parts), sum(dfs)
        if 0 < total < math.inf:
            df = total**2 / sum(part**2 / df for part, df in zip(parts, dfs, strict=True))
        return _effect(difference, total, min(df, df_all), sum(variances), images, family, is_welch)

    shrunk = by([spread.variance for spread in spreads], [spread.df for spread in spreads], spreads[0].df_all, False)
    if welch is False or min(counts) < LEAST_RUNS or not (welch or unlike(*spreads)):
        return shrunk
    own = by([first.variance, second.variance], [count - 1.0 for count in counts], math.inf, True)
    return own if welch or own.study > shrunk.study else shrunk


def paired_effect(first: Sample, second: Sample, family: int) -> Effect:
    """mean(first - second) of the same runs measured twice, in the same order, such as ten views against one.

    From the runs' own differences; one run has an infinite interval.

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
    return _effect(
        float(differences.values.mean()), variance / count, count - 1.0, variance, images, family, welch=False
    )


def _effect(
    difference: float,
    variance: float,
    df: float,
    run_variance: float,
    images: tuple[np.ndarray, float] | None,
    family: int,
    welch: bool,
) -> Effect:
    """`images`: the mean difference for each, and how much of its variance is the runs', on average."""
    if family < 1:
        raise ValueError(f"family={family}: a study has one claim or more")
    tail = (1 - LEVEL) / 2
    new, image_variance = None, 0.0
    if images is not None:
        per_image, within = images
        image_variance = float(per_image.var(ddof=1)) / len(per_image)
        both = variance + max(0.0, image_variance - within / len(per_image))
        new = _half_width(both, df * (both / variance) ** 2 if 0 < variance < math.inf else math.inf, tail)
    return Effect(
        difference=difference,
        fixed=_half_width(variance, df, tail),
        new=new,
        study=_half_width(variance, df, tail / family),
        standard_error=math.sqrt(variance),
        df=df,
        run_sd=math.sqrt(run_variance),
        image_variance=image_variance,
        welch=welch,
    )


def _half_width(variance: float, df: float, tail: float) -> float:
    if not 0 < variance < math.inf:
        return variance
    return math.sqrt(variance) * _quantile(1 - tail, df)


def _quantile(chance: float, df: float) -> float:
    return float(special.stdtrit(df, chance) if df < math.inf else special.ndtri(chance))


def verdict(
    effect: Effect | None,
    published: float | None,
    sign: int,
    *,
    runs: tuple[int, int],
    failed: tuple[int, int] = (0, 0),
    at_least: bool = False,
    same_images: bool = True,
) -> Verdict:
    """What the study interval says of a published difference, or of its mere sign where `published` is None.

    `runs` that gave a result and those that `failed` for good, in each arm; an arm without a result has no effect.
    `at_least`: the claim is "more than", so that a larger effect reproduces it. `same_images`: whether the published
    figure is from these images.

    Raises:
        ValueError: for a sign other than 1 and -1, or a published figure that is not finite or not of that sign.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign={sign}: is 1 or -1")
    if published is not None and not (math.isfinite(published) and published * sign > 0):
        raise ValueError(f"published={published}: is not a figure with the sign {sign}")
    if any(MAX_FAILED * bad > good + bad for good, bad in zip(runs, failed, strict=True)):
        return Verdict.does_not_train
    if effect is None or min(runs) < LEAST_RUNS:
        return Verdict.not_testable
    toward = sign * effect.difference
    if toward - effect.study > 0:
        if published is None or (at_least and toward >= abs(published)):
            return Verdict.reproduced
        scatter = effect.standard_error**2 + effect.run_sd**2 + (0 if same_images else 2 * effect.image_variance)
        near = abs(effect.difference - published) <= 2 * math.sqrt(scatter)
        return Verdict.reproduced if near else Verdict.direction_only
    if toward + effect.study < 0:
        return Verdict.reversed
    if published is not None and abs(toward) + effect.study <= abs(published) / 2:
        return Verdict.negligible
    return Verdict.unsettled


def fisher(failed_a: int, total_a: int, failed_b: int, total_b: int) -> float:
    """Two-sided p of Fisher's exact test that two arms fail equally often, from failed runs and all runs.

    Raises:
        ValueError: for more failed runs than runs, or fewer than none.
    """
    for name, bad, total in (("failed_a", failed_a, total_a), ("failed_b", failed_b, total_b)):
        if not 0 <= bad <= total:
            raise ValueError(f"{name}={bad}: is not from 0 to the {total} runs")
    if not total_a or not total_b:
        return 1.0
    test: Any = stats.fisher_exact([[failed_a, total_a - failed_a], [failed_b, total_b - failed_b]])
    return float(test.pvalue)


def power(
    size: float, sd: float, runs: int, family: int, base_factor: int = 3, prior_df: float = PLANNED_PRIOR_DF
) -> float:
    """The chance that a claim's study interval leaves 0 on the right side, where its effect is of this size.

    `size` is the published one and `sd`, of both arms' runs, an upper estimate, in the same unit; neither is to be
    taken from the runs whose number is planned. `runs` in the claim's arm, `base_factor` times as many in the base.
    `prior_df`: how alike the arms' spreads are, as d0 of `shrink`. Of 12 effects of .4 points with 5 runs and an sd of
    .15 this says that .95 are found; simulated arms whose sd scatters around that by .3 find .86.

    Raises:
        ValueError: for numbers that are no plan.
    """
    _check_plan(size, sd, family, base_factor)
    if runs < 2:
        raise ValueError(f"runs={runs}: a spread needs two or more")
    if sd == 0:
        return 1.0
    base_runs = base_factor * runs
    df_all = family * (runs - 1) + base_runs - 1
    parts = 1 / runs, 1 / base_runs
    dfs = [min(prior_df + count - 1, df_all) for count in (runs, base_runs)]
    df = min(sum(parts) ** 2 / sum(part**2 / df for part, df in zip(parts, dfs, strict=True)), df_all)
    needed = _quantile(1 - (1 - LEVEL) / 2 / family, df)
    shift = abs(size) / (sd * math.sqrt(sum(parts)))
    return float(stats.nct.sf(needed, df, shift))


def seeds_needed(
    size: float, sd: float, family: int, base_factor: int = 3, least: float = 0.9, prior_df: float = PLANNED_PRIOR_DF
) -> int:
    """The fewest runs an arm, three or more, with at least this power; the arguments are those of `power`.

    Raises:
        ValueError: for numbers that are no plan, or where a million runs are too few.
    """
    _check_plan(size, sd, family, base_factor)
    if not 0 < least < 1:
        raise ValueError(f"least={least}: is a chance between 0 and 1")

    def enough(runs: int) -> bool:
        return power(size, sd, runs, family, base_factor, prior_df) >= least

    high = LEAST_RUNS
    while not enough(high):
        high *= 2
        if high > MOST_RUNS:
            raise ValueError(f"size={size}: takes over {MOST_RUNS:,} runs an arm where their sd is {sd}")
    low = max(high // 2, LEAST_RUNS - 1)  # too few, or below what is allowed
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_plan(size: float, sd: float, family: int, base_factor: int) -> None:
    if not math.isfinite(size) or size == 0:
        raise ValueError(f"size={size}: is no effect to plan for")
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd={sd}: is no standard deviation")
    if family < 1 or base_factor < 1:
        raise ValueError(f"family={family}, base_factor={base_factor}: both are 1 or more")
