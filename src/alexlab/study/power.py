"""The power of a planned comparison: the chance to find an effect, the runs that takes, the smallest effect found.

Numbers are in the metric's own unit. The intervals planned for are those of `alexlab.study.statistics`.
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
