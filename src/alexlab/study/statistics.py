"""Statistics of two arms: their difference with its intervals, the verdict on a published difference, and planning.

Numbers are in the metric's own unit, such as an error as a fraction. With few runs a variance is poorly estimated, so
it is shrunk towards the pooled variance of all arms (empirical Bayes; Smyth 2004, Statistical Applications in Genetics
and Molecular Biology 3(1):3). Nothing here reads or writes files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special

from alexlab.study.claims import Verdict

LEVEL = 0.95  # of the intervals
LEAST_RUNS = 3  # in each arm, for a verdict
LEAST_ARMS = 4  # for shrinkage; with fewer, Welch's t
UNLIKE = 2.0  # two standard deviations are unlike if one is more than this many times the other
MAX_FAILED = 5  # an arm with more than one failed run in so many does not train
MOST_RUNS = 1_000_000  # in a plan
# Degrees of freedom that the prior of `shrink` has at most. A few arms estimate them badly, and where arms are taken to
# be more alike than they are, intervals are too narrow: without the bound .06 to .09 of simulated studies err whose
# arms' sd scatter by 30 %, with it .04 to .06. Plans assume as many.
MAX_PRIOR_DF = 6.0
LEAST_PRIOR_DF, MOST_PRIOR_DF = 0.1, 1e5  # of the robust prior; more are as good as endless
LEAST_SHARED = 4  # degrees of freedom around a slope over shared seeds, as of one arm of five runs
ROBUST_FROM = 10  # arms; with fewer no arm lies in the upper tail
TAILS = 0.05, 0.1  # of variances that are winsorised


@dataclass(frozen=True, eq=False)
class Sample:
    """The values of one arm's runs in one metric.

    Raises:
        ValueError: for no run, a value that is not finite, or images that do not belong to the values.
    """

    values: np.ndarray  # float64 [n]: one number a run
    images: np.ndarray | None = None  # bool [n, M]: wrong, in the same order for all arms
    less: np.ndarray | float = 0.0  # [n]: values = images.mean(1) - less, such as the training error of a gap

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
        if not np.allclose(np.count_nonzero(images, axis=1) / images.shape[1] - self.less, values, rtol=0, atol=1e-9):
            raise ValueError("images: their mean over a run, less what is taken from it, is not the run's value")

    @classmethod
    def of_images(cls, images: np.ndarray, less: np.ndarray | float = 0.0) -> Sample:
        """Make a sample of the share of wrong images, minus `less`, which depends on the run alone."""
        return cls(images.mean(axis=1) - less, images, less)

    def of_runs(self, kept: list[int]) -> Sample:
        """The sample of some of the runs."""
        less = self.less[kept] if isinstance(self.less, np.ndarray) else self.less
        return Sample(self.values[kept], None if self.images is None else self.images[kept], less)

    @property
    def variance(self) -> float:
        """Over runs, unbiased; NaN for one run."""
        if len(self.values) == 1:
            return math.nan
        rounding = 1e-12 * float(np.abs(self.values).max())  # values so near are equal
        return float(self.values.var(ddof=1)) if np.ptp(self.values) > rounding else 0.0


@dataclass(frozen=True)
class Spread:
    """The spread of an arm's runs."""

    sd: float  # as measured; NaN for one run
    variance: float  # shrunk towards that of all arms
    df: float  # degrees of freedom of the variance
    df_all: float  # of all arms together, which no interval's exceed
    arms: int = LEAST_ARMS  # how many arms with a variance it was estimated from


@dataclass(frozen=True)
class Effect:
    """A difference of two arms' means. `fixed`, `new`, `study` and `new_study` are half widths of intervals around it.

    `new` and `new_study` are None where single images are not known. They can be a hair narrower than `fixed` and
    `study` where degrees of freedom are few, since the images' part adds to those as well.
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
    image_variance: float  # of the difference, from the choice of test images alone; 0 where they are not known
    welch: bool  # from the two arms' own spreads alone
    correlation: float | None = None  # of the arms' runs over shared seeds, where these were used

    @property
    def decisive(self) -> float:
        """Half width of the interval that carries the verdict: study-wise and for new images, where these are known."""
        return self.study if self.new_study is None else self.new_study


def shrink(samples: Mapping[str, Sample], most_df: float = MAX_PRIOR_DF) -> dict[str, Spread]:
    """Estimate the spread of every arm from all arms together (Smyth 2004, section 6.2).

    The prior has `most_df` degrees of freedom at most. An arm of one run, or whose runs are all equal, does not
    contribute to the estimate and gets the prior. If the arms' variances differ no more than by chance, or only one arm
    contributes, the prior is the pooled variance. If all runs of every arm are equal, the variance is 0; if every arm
    has one run, it is infinite with no degrees of freedom.
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
        prior, prior_df = _prior(measured[used], own_df[used])
        prior_df = min(prior_df, most_df)
        variance[~used], df[~used] = prior, min(prior_df, df_all)
        variance[used] = (prior_df * prior + own_df[used] * measured[used]) / (prior_df + own_df[used])
        df[used] = np.minimum(prior_df + own_df[used], df_all)
    return {
        name: Spread(math.sqrt(measured[i]), float(variance[i]), float(df[i]), df_all, int(used.sum()))
        for i, name in enumerate(names)
    }


def _prior(variances: np.ndarray, dfs: np.ndarray) -> tuple[float, float]:
    """s0^2 and d0 of Smyth's prior; the pooled variance and infinity if the variances differ by chance alone.

    From ten arms on by Phipson et al. (2016), so that one odd arm does not widen the intervals of all others.
    """
    if len(variances) >= ROBUST_FROM:
        return _robust_prior(variances, dfs)
    e = np.log(variances) - special.digamma(dfs / 2) + np.log(dfs / 2)
    excess = e.var(ddof=1) - special.polygamma(1, dfs / 2).mean() if len(e) > 1 else 0.0
    if excess <= 0:
        return float((dfs * variances).sum() / dfs.sum()), math.inf
    df = 2 * inverse_trigamma(float(excess))
    return math.exp(e.mean() + special.digamma(df / 2) - math.log(df / 2)), df


def _robust_prior(variances: np.ndarray, dfs: np.ndarray) -> tuple[float, float]:
    """Likewise from moments of the logarithms, winsorised at `TAILS` (Phipson et al. 2016, section 3).

    Of the arms' degrees of freedom the median is taken for all. Their correction of an odd arm's own degrees of freedom
    is left out: `unlike` arms have Welch's interval where that is wider.
    """
    e = np.log(variances)
    e = np.clip(e, *np.quantile(e, [TAILS[0], 1 - TAILS[1]]))
    mean, spread = float(e.mean()), float(e.var(ddof=1))
    log_dfs, means, spreads = _winsorised_moments(float(np.median(dfs)))
    if spread <= spreads[-1]:
        return math.exp(mean - means[-1]), math.inf
    log_df = float(np.interp(-spread, -spreads, log_dfs))  # the variance falls as degrees of freedom grow
    return math.exp(mean - float(np.interp(log_df, log_dfs, means))), math.exp(log_df)


@lru_cache(maxsize=64)
def _winsorised_moments(df: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of log F(df, d0), winsorised at `TAILS`, for a grid of log d0 fine enough to interpolate."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    inner = 1 - sum(TAILS)
    chances = np.array([TAILS[0], *(TAILS[0] + inner * (nodes + 1) / 2), 1 - TAILS[1]])
    weights = np.array([TAILS[0], *(inner * weights / 2), TAILS[1]])
    log_dfs = np.linspace(math.log(LEAST_PRIOR_DF), math.log(MOST_PRIOR_DF), 400)
    logs = np.log(special.fdtri(df, np.exp(log_dfs)[:, None], chances))
    means = logs @ weights
    return log_dfs, means, (logs - means[:, None]) ** 2 @ weights


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
    """Whether one measured standard deviation is over twice the other; False if one is 0 or unknown."""
    low, high = sorted((first.sd, second.sd)) if first.sd > 0 and second.sd > 0 else (1.0, 1.0)
    return high > UNLIKE * low


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
        df, pair_df = (min(_satterthwaite(each, dfs), df_all) for each in (parts, pair))
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
    any contrast of means with unequal variances (1980, Biometrika 67:85): of two effects, Welch's t. None also if an
    effect has no variance, or it is not known.
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


def _satterthwaite(parts: list[float], dfs: list[float]) -> float:
    """Degrees of freedom of a sum of variances."""
    total = sum(parts)
    if not 0 < total < math.inf:
        return sum(dfs)
    return total**2 / sum(part**2 / df for part, df in zip(parts, dfs, strict=True) if part > 0)


@dataclass(frozen=True)
class Matched:
    """An arm whose runs share seeds with the base's, and with them initial weights, order and augmentation."""

    independent: Effect  # as `effect` has it
    values: np.ndarray  # float64 [n] of the arm's runs
    shared: np.ndarray  # int [n]: the indices of the same seeds among the base's runs


def match_seeds(base: Sample, spread: Spread, arms: Mapping[str, Matched], family: float) -> dict[str, Effect]:
    """Estimate the effects of arms against one base, with the base's runs on shared seeds as a control variate.

    d - b (mean of the base on the shared seeds - mean of the base), with one slope b pooled over the arms: the part
    that an arm's runs share with the base's on the same seeds is not an effect. Its variance is that of the arm's
    residuals around the slope, shrunk over these arms and with a degree of freedom less, and of (1 - b) times the
    base's mean. The images' part is that of the independent effect. Effects are unchanged if the base's runs have no
    variance, or there are too few runs for a slope.
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
    found = {}
    for name, arm in arms.items():
        count, offset = len(arm.values), float(pairs[name][1].mean() - base.values.mean())
        own_df = max(residuals[name].df - 1, 1.0)
        own = unit * residuals[name].variance * (1 / count + offset**2 / total)
        base_part = spread.variance / len(base.values)
        rest = (1 - slope) ** 2 * base_part
        variance = own + rest
        # The slope's own variance, by the delta method; with one arm whose seeds are all shared, the paired t's n - 1.
        noise = own**2 / own_df + rest**2 / spread.df + 2 * slope_variance * (1 - slope) ** 2 * base_part**2
        df = variance**2 / noise if noise > 0 else own_df
        scatter = math.sqrt(float((centred[name][0] ** 2).sum()) * squares[name])
        before = arm.independent
        both = variance + before.image_variance
        both_df = df * (both / variance) ** 2 if variance > 0 else math.inf
        tail = (1 - LEVEL) / 2
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
    """`images`: the mean difference for each, and how much of its variance is the runs', on average."""
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
    claimed side reproduced, if the effect is at least `least`, its own 95 % interval excludes a quarter of the
    published effect, and a pair of single runs could have shown the published one (`prediction`); else smaller, larger,
    or size open if noise alone would allow the published effect.

    `runs` that gave a result and those that `failed` for good, in each arm; an arm without a result has no effect.
    `least`: the smallest effect of interest, by default half of the published one. `at_least`: the claim is "more
    than", so that a larger effect reproduces it, and an interval wholly below the figure does not. `same_images`:
    whether the published figure is from these images.

    Raises:
        ValueError: for a sign other than 1 and -1, or a published figure that is not finite or not of that sign.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign={sign}: is 1 or -1")
    if published is not None and not (math.isfinite(published) and published * sign > 0):
        raise ValueError(f"published={published}: is not a figure with the sign {sign}")
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


def partly_trained(errors: np.ndarray, chance: float) -> np.ndarray:
    """Whether each of an arm's runs, bool [n], has an error above the midpoint of the arm's median and chance.

    None of fewer than three runs, or if the median itself is no better than chance.
    """
    errors = np.asarray(errors, dtype=float)
    if len(errors) < LEAST_RUNS:
        return np.zeros(len(errors), bool)
    median = float(np.median(errors))
    return errors > max((median + chance) / 2, median)


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
    """z of the original pair of single runs: the published effect over the scatter of such a pair; None without any."""
    return abs(published) / effect.run_sd if 0 < effect.run_sd < math.inf else None


def replication_bayes_factor(effect: Effect, published: float, same_images: bool = True) -> float | None:
    """How many times more likely the measured effect is if the published effect is real than if there is none.

    N(d; p, V + 2 s^2) / N(d; 0, V), with V the variance of d and 2 s^2 that of the published pair of single runs; None
    without any variance. `same_images=False`: each has the test images' part too.
    """
    own = effect.standard_error**2 + (0.0 if same_images else effect.image_variance)
    original = effect.run_sd**2 + (0.0 if same_images else effect.image_variance)
    if not 0 < own + original < math.inf or own == 0:
        return None
    d = effect.difference
    log = 0.5 * (d**2 / own - (d - published) ** 2 / (own + original) + math.log(own / (own + original)))
    return math.exp(min(log, 700.0))


# From what speaks for a claim most to what speaks against it most.
SUPPORT = (
    *(Verdict.reproduced, Verdict.larger, Verdict.same_direction, Verdict.size_open, Verdict.smaller),
    *(Verdict.inconclusive, Verdict.negligible, Verdict.reversed),
)


def weaker(first: Verdict, second: Verdict) -> Verdict:
    """The word for two analyses of one claim: on one side the one nearer to inconclusive, which two sides give."""
    centre = SUPPORT.index(Verdict.inconclusive)
    steps = [SUPPORT.index(one) - centre for one in (first, second)]
    if steps[0] * steps[1] <= 0:
        return Verdict.inconclusive
    return SUPPORT[centre + min(steps, key=abs)]


def both_needed(first: Verdict, second: Verdict) -> Verdict:
    """The word for a claim that needs two findings: the one that speaks for it less."""
    return max(first, second, key=SUPPORT.index)


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
    if not (failed_a or failed_b):
        return 1.0
    from scipy import stats  # half a second

    test: Any = stats.fisher_exact([[failed_a, total_a - failed_a], [failed_b, total_b - failed_b]])
    return float(test.pvalue)


def variance_components(values: np.ndarray) -> tuple[float, float, float]:
    """Standard deviations by column, by row, and of the rest, of values [rows, columns] with one number in each place.

    By the mean squares of two-way analysis of variance; a component below 0 is taken as 0.
    """
    rows, columns = values.shape
    mean, by_row, by_column = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - by_row[:, None] - by_column[None] + mean
    within = float((rest**2).sum() / ((rows - 1) * (columns - 1)))
    column = (rows * float(by_column.var(ddof=1)) - within) / rows
    row = (columns * float(by_row.var(ddof=1)) - within) / columns
    return math.sqrt(max(column, 0.0)), math.sqrt(max(row, 0.0)), math.sqrt(within)


def power(
    size: float,
    sd: float,
    runs: int,
    family: int,
    base_factor: float = 3,
    prior_df: float = MAX_PRIOR_DF,
    image_variance: float = 0.0,
) -> float:
    """The chance that a claim's decisive interval leaves 0 on the right side, where its effect is of this size.

    `size` is the published one and `sd`, of both arms' runs, an upper estimate, in the same unit; neither is to be
    taken from the runs whose number is planned. `runs` in the claim's arm, `base_factor` times as many in the base,
    rounded. `prior_df`: how alike the arms' spreads are, as d0 of `shrink`; with under four arms their own variances
    count. `image_variance`: of the difference, from the choice of test images alone (`planning.PER_IMAGE_SD`); more
    runs do not lower it. Of 12 effects of .4 points with 5 runs and an sd of .15 this says that .95 are found;
    simulated arms whose sd scatters around that by .3 find .86.

    Raises:
        ValueError: for numbers that are no plan.
    """
    _check_plan(size, sd, family, base_factor, image_variance)
    if runs < 2:
        raise ValueError(f"runs={runs}: a spread needs two or more")
    if sd == image_variance == 0:
        return 1.0
    base_runs = max(2, round(base_factor * runs))
    df_all = family * (runs - 1) + base_runs - 1
    parts = [sd**2 / count for count in (runs, base_runs)]
    if sd == 0:
        df = math.inf
    elif family + 1 < LEAST_ARMS:
        df = _satterthwaite(parts, [runs - 1.0, base_runs - 1.0])
    else:
        df = min(_satterthwaite(parts, [min(prior_df + count - 1, df_all) for count in (runs, base_runs)]), df_all)
    own, both = sum(parts), sum(parts) + image_variance
    if own > 0:
        df *= (both / own) ** 2
    needed = quantile(1 - (1 - LEVEL) / 2 / family, df)
    shift = abs(size) / math.sqrt(both)
    if df > MOST_PRIOR_DF:
        return float(special.ndtr(shift - needed))
    from scipy import stats  # half a second

    return float(stats.nct.sf(needed, df, shift))


def seeds_needed(
    size: float,
    sd: float,
    family: int,
    base_factor: float = 3,
    least: float = 0.9,
    prior_df: float = MAX_PRIOR_DF,
    image_variance: float = 0.0,
) -> int:
    """The fewest runs an arm, three or more, with at least this power; the arguments are those of `power`.

    Raises:
        ValueError: for numbers that are no plan, or where a million runs are too few.
    """
    _check_plan(size, sd, family, base_factor, image_variance)
    if not 0 < least < 1:
        raise ValueError(f"least={least}: is a chance between 0 and 1")

    def enough(runs: int) -> bool:
        return power(size, sd, runs, family, base_factor, prior_df, image_variance) >= least

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


def smallest_effect(
    sd: float,
    runs: int,
    family: int,
    base_factor: float = 3,
    least: float = 0.8,
    prior_df: float = MAX_PRIOR_DF,
    image_variance: float = 0.0,
) -> float:
    """The smallest effect, in the unit of `sd`, that is found with this power; the arguments are those of `power`.

    Raises:
        ValueError: for numbers that are no plan.
    """
    if not 0 < least < 1:
        raise ValueError(f"least={least}: is a chance between 0 and 1")
    scale = math.sqrt(sd**2 + image_variance)
    if scale == 0:
        return 0.0
    from scipy import optimize  # a quarter of a second

    def lack(size: float) -> float:
        return power(size, sd, runs, family, base_factor, prior_df, image_variance) - least

    high = scale
    while lack(high) < 0:
        high *= 2
    return float(optimize.brentq(lack, scale * 1e-9, high, xtol=scale * 1e-6))  # pyright: ignore[reportArgumentType]


def upper_sd(samples: Iterable[np.ndarray], level: float = 0.8) -> float | None:
    """An upper bound, at this level, of the standard deviation that several arms share; None without two runs in one.

    Pooled over the arms' values, each [n]; the bound is that of the chi-squared interval. Studies planned with a
    pilot's own standard deviation are too small in most cases (Browne 1995, Statistics in Medicine 14:1933).
    """
    arms = [np.asarray(values, dtype=float) for values in samples]
    df = sum(len(values) - 1 for values in arms if len(values) > 1)
    if not df:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in arms if len(values) > 1)
    return math.sqrt(squares / float(special.chdtri(df, level)))


def _check_plan(size: float, sd: float, family: int, base_factor: float, image_variance: float) -> None:
    if not math.isfinite(size) or size == 0:
        raise ValueError(f"size={size}: is no effect to plan for")
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd={sd}: is no standard deviation")
    if not 0 <= image_variance < math.inf:
        raise ValueError(f"image_variance={image_variance}: is no variance")
    if family < 1 or not 0 < base_factor < math.inf:
        raise ValueError(f"family={family}, base_factor={base_factor}: are 1 or more, and above 0")
