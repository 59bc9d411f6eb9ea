"""The values of an arm's runs, and their spread.

With few runs a variance is poorly estimated, so it is shrunk towards the pooled variance of all arms (empirical Bayes;
Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1):3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

LEAST_ARMS = 4  # for shrinkage; with fewer, Welch's t
UNLIKE = 2.0  # two standard deviations are unlike if one is more than this many times the other
# Upper limit for the degrees of freedom of the prior of `shrink`. With few arms they are poorly estimated, and if arms
# are taken to be more similar than they are, intervals are too narrow: of simulated studies whose arms' sds scatter by
# 30 %, .06 to .09 err without the limit and .04 to .06 with it. Plans assume this value.
MAX_PRIOR_DF = 6.0
LEAST_PRIOR_DF, MOST_PRIOR_DF = 0.1, 1e5  # of the robust prior; more are as good as infinite
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
            raise ValueError("images: their mean over a run, minus `less`, is not the run's value")

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
        rounding = 1e-12 * float(np.abs(self.values).max())  # values this close are equal
        return float(self.values.var(ddof=1)) if np.ptp(self.values) > rounding else 0.0


@dataclass(frozen=True)
class Spread:
    """The spread of an arm's runs."""

    sd: float  # as measured; NaN for one run
    variance: float  # shrunk towards that of all arms
    df: float  # degrees of freedom of the variance
    df_all: float  # of all arms together: the limit for any interval
    arms: int = LEAST_ARMS  # how many arms with a variance it was estimated from


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

    With ten or more arms estimated as in Phipson et al. (2016), so that one outlying arm does not widen the intervals
    of all others.
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
    """The same from moments of the logarithms, winsorised at `TAILS` (Phipson et al. 2016, section 3).

    The median of the arms' degrees of freedom is used for all. The authors' correction of an outlying arm's own degrees
    of freedom is left out: `unlike` arms get Welch's interval if that is wider.
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
