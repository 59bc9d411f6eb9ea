"""Samples of a given standard deviation, and Smyth's shrinkage in plain Python."""

from __future__ import annotations

import math
import statistics

import numpy as np

from alexlab.study.spreads import Sample


def digamma(x: float) -> float:
    """By recurrence up to where the asymptotic series is exact."""
    total = 0.0
    while x < 30:
        total -= 1 / x
        x += 1
    return total + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


def trigamma(x: float) -> float:
    total = 0.0
    while x < 30:
        total += 1 / x**2
        x += 1
    return total + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5) + 1 / (42 * x**7)


def slow_shrink(arms: list[list[float]]) -> list[tuple[float, float]]:
    """Variance and degrees of freedom of each arm, all of which scatter."""
    s2 = [statistics.variance(arm) for arm in arms]
    nu = [len(arm) - 1 for arm in arms]
    e = [math.log(s) - digamma(n / 2) + math.log(n / 2) for s, n in zip(s2, nu, strict=True)]
    excess = statistics.variance(e) - statistics.mean(trigamma(n / 2) for n in nu)
    if excess <= 0:
        d0, s0 = 6.0, sum(s * n for s, n in zip(s2, nu, strict=True)) / sum(nu)
    else:
        low, high = 1e-9, 1e9
        for _ in range(200):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if trigamma(middle) > excess else (low, middle)
        s0 = math.exp(statistics.mean(e) + digamma(low) - math.log(low))
        d0 = min(2 * low, 6.0)
    return [((d0 * s0 + n * s) / (d0 + n), min(d0 + n, sum(nu))) for s, n in zip(s2, nu, strict=True)]


def scaled(sds: list[float], count: int = 5) -> dict[str, Sample]:
    """Arms whose runs have just these standard deviations."""
    pattern = np.arange(count) - (count - 1) / 2
    pattern /= pattern.std(ddof=1)
    return {str(number): Sample(sd * pattern) for number, sd in enumerate(sds)}
