"""Power of a planned comparison: the probability of detecting an effect, the runs needed, the smallest effect detected.

Numbers are in the metric's own unit. The intervals are those of `alexlab.study.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy import special

from alexlab.study.spreads import LEAST_ARMS, MAX_PRIOR_DF, MOST_PRIOR_DF
from alexlab.study.statistics import LEAST_RUNS, LEVEL, quantile, satterthwaite

MOST_RUNS = 1_000_000  # in a plan


def power(
    size: float,
    sd: float,
    runs: int,
    family: int,
    base_factor: float = 3,
    prior_df: float = MAX_PRIOR_DF,
    image_variance: float = 0.0,
) -> float:
    """The probability that a claim's decisive interval excludes 0 on the claimed side if its effect has this size.

    `size` is the published effect and `sd` an upper estimate of the standard deviation of both arms' runs, in the same
    unit; neither may be taken from the runs whose number is planned. `runs`: in the claim's arm; the base has
    `base_factor` times as many, rounded. `prior_df`: how similar the arms' spreads are, as d0 of `shrink`; with fewer
    than four arms their own variances are used. `image_variance`: of the difference, from the choice of test images
    alone (`planning.PER_IMAGE_SD`); more runs do not lower it. For 12 effects of .4 points with 5 runs and an sd of .15
    this gives a power of .95; simulated arms whose sd scatters around that by .3 have .86.

    Raises:
        ValueError: for numbers out of range.
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
        df = satterthwaite(parts, [runs - 1.0, base_runs - 1.0])
    else:
        df = min(satterthwaite(parts, [min(prior_df + count - 1, df_all) for count in (runs, base_runs)]), df_all)
    own, both = sum(parts), sum(parts) + image_variance
    if own > 0:
        df *= (both / own) ** 2
    needed = quantile(1 - (1 - LEVEL) / 2 / family, df)
    shift = abs(size) / math.sqrt(both)
    if df > MOST_PRIOR_DF:
        return float(special.ndtr(shift - needed))
    from scipy import stats  # takes half a second

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
    """The fewest runs per arm, three or more, with at least this power; the arguments are those of `power`.

    Raises:
        ValueError: for numbers out of range, or if a million runs are too few.
    """
    _check_plan(size, sd, family, base_factor, image_variance)
    if not 0 < least < 1:
        raise ValueError(f"least={least}: must be a probability between 0 and 1")

    def enough(runs: int) -> bool:
        return power(size, sd, runs, family, base_factor, prior_df, image_variance) >= least

    high = LEAST_RUNS
    while not enough(high):
        high *= 2
        if high > MOST_RUNS:
            raise ValueError(f"size={size}: needs over {MOST_RUNS:,} runs per arm if their sd is {sd}")
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
    """The smallest effect, in the unit of `sd`, that is detected with this power; the arguments are those of `power`.

    Raises:
        ValueError: for numbers out of range.
    """
    if not 0 < least < 1:
        raise ValueError(f"least={least}: must be a probability between 0 and 1")
    scale = math.sqrt(sd**2 + image_variance)
    if scale == 0:
        return 0.0
    from scipy import optimize  # takes a quarter of a second

    def lack(size: float) -> float:
        return power(size, sd, runs, family, base_factor, prior_df, image_variance) - least

    high = scale
    while lack(high) < 0:
        high *= 2
    return float(optimize.brentq(lack, scale * 1e-9, high, xtol=scale * 1e-6))  # pyright: ignore[reportArgumentType]


def upper_sd(samples: Iterable[np.ndarray], level: float = 0.8) -> float | None:
    """An upper bound, at this level, of the standard deviation that several arms share; None if no arm has two runs.

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
        raise ValueError(f"size={size}: must be finite and not 0")
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd={sd}: must be finite, 0 or more")
    if not 0 <= image_variance < math.inf:
        raise ValueError(f"image_variance={image_variance}: must be finite, 0 or more")
    if family < 1 or not 0 < base_factor < math.inf:
        raise ValueError(f"family={family}, base_factor={base_factor}: must be 1 or more, and above 0")
