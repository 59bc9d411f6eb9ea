"""Power, the runs needed and the smallest effect found, against simulation and SciPy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from alexlab.study.power import power, seeds_needed, smallest_effect, upper_sd
from alexlab.study.simulate import simulate


def test_power():
    rng = np.random.default_rng(6)
    # Three claims, spreads pooled by an infinite d0: Student's t with 3 x 4 + 14 degrees of freedom.
    runs, base, sd, size = 5, 15, 0.0015, 0.002
    error = sd * math.sqrt(1 / runs + 1 / base)
    t = (size + error * rng.normal(size=200_000)) / (error * np.sqrt(rng.chisquare(26, 200_000) / 26))
    needed = stats.t.ppf(1 - 0.025 / 3, 26)
    assert power(size, sd, runs, 3, prior_df=1e9) == pytest.approx((t > needed).mean(), abs=0.004)
    assert power(-size, sd, runs, 3, prior_df=1e9) == power(size, sd, runs, 3, prior_df=1e9)
    # One claim: Welch's t, as SciPy has it.
    first, second = rng.normal(size, sd, (20_000, 10)), rng.normal(0, sd, (20_000, 10))
    test: Any = stats.ttest_ind(first, second, axis=1, equal_var=False)
    found = ((test.pvalue < 0.05) & (test.statistic > 0)).mean()
    assert power(size, sd, 10, 1, base_factor=1) == pytest.approx(found, abs=0.012)
    # As the study is planned: LRN's 1.4 points nearly always, overlapping pooling's .4 mostly.
    assert power(0.014, 0.0015, 5, 12) > 0.999
    assert 0.9 < power(0.004, 0.0015, 5, 12) < 0.97
    assert power(0.004, 0.0, 5, 12) == 1
    assert power(0.004, 0.0015, 5, 12) > power(0.004, 0.0015, 5, 20) > power(0.004, 0.002, 5, 20)
    assert power(0.004, 0.0015, 5, 12, base_factor=3) > power(0.004, 0.0015, 5, 12, base_factor=1)


RUN_SD = 0.004  # of the simulation


@pytest.mark.parametrize(("claims", "runs", "base_runs", "images"), [(1, 10, 10, 0), (6, 5, 15, 0), (6, 5, 15, 500)])
def test_power_is_the_share_of_simulated_studies(claims: int, runs: int, base_runs: int, images: int):
    # By the simulation: log-odds scatter by .4 around a difficulty of N(-.4, 1.5) in each arm, and each run is right or
    # wrong at an image by chance, which adds to the scatter of its error.
    rng = np.random.default_rng(0)
    chances = special.expit(rng.normal(-0.4, 1.5, 200_000)[:, None] + rng.normal(0, 0.4, (200_000, 2)))
    image_variance = float((chances[:, 0] - chances[:, 1]).var()) / images if images else 0.0
    by_chance = float((chances * (1 - chances)).mean()) / images if images else 0.0
    sd = math.sqrt(RUN_SD**2 + by_chance)
    size = 3 * math.sqrt(sd**2 * (1 / runs + 1 / base_runs) + image_variance)
    studies = 1500
    found = simulate(studies, 3, claims=claims, runs=runs, base_runs=base_runs, images=images, size=size)["found"]
    expected = power(size, sd, runs, claims, base_runs / runs, image_variance=image_variance)
    assert expected == pytest.approx(found, abs=0.02)


def test_power_with_images_by_a_direct_count():
    rng = np.random.default_rng(5)
    sd, runs, images = 0.003, 10, 0.002**2
    df = 19 * 2  # one claim of three or more arms, spreads pooled: set by prior_df
    family, size = 4, 0.006
    df = family * (runs - 1) + runs - 1
    own = sd**2 * 2 / runs
    both = own + images
    both_df = df * (both / own) ** 2
    # t with Satterthwaite's degrees of freedom for the sum of an estimated and a known variance
    t = rng.normal(size / math.sqrt(both), 1, 400_000) / np.sqrt(rng.chisquare(both_df, 400_000) / both_df)
    expected = (t > stats.t.ppf(1 - 0.025 / family, both_df)).mean()
    assert power(size, sd, runs, family, 1, 1e9, images) == pytest.approx(expected, abs=0.004)
    assert power(size, 0.0, runs, family, 1, image_variance=images) == pytest.approx(
        stats.norm.sf(stats.norm.ppf(1 - 0.025 / family) - size / 0.002), abs=1e-6
    )


def test_more_runs_do_not_help_against_few_images():
    assert power(0.001, 0.001, 1000, 1, image_variance=0.001**2) < 0.2


@pytest.mark.parametrize("size", [0.001, 0.002, 0.004, 0.014, 1.0])
@pytest.mark.parametrize("base_factor", [1, 3])
def test_seeds_needed(size: float, base_factor: int):
    found = seeds_needed(size, 0.0015, 12, base_factor)
    first = next(runs for runs in itertools.count(3) if power(size, 0.0015, runs, 12, base_factor) >= 0.9)
    assert found == first


@pytest.mark.parametrize(("runs", "family", "factor"), [(3, 1, 1), (5, 12, 3), (8, 6, 2)])
def test_the_smallest_effect_has_that_power(runs: int, family: int, factor: float):
    for images in (0.0, 1e-5):
        size = smallest_effect(0.3, runs, family, factor, 0.8, image_variance=images)
        assert power(size, 0.3, runs, family, factor, image_variance=images) == pytest.approx(0.8, abs=1e-4)
    assert smallest_effect(0.0, runs, family, factor) == 0


def test_the_standard_deviation_is_an_upper_bound():
    rng = np.random.default_rng(2)
    held = [upper_sd([rng.normal(5, 2, 4), rng.normal(-5, 2, 3), rng.normal(0, 2, 1)]) or 0.0 for _ in range(4000)]
    assert np.mean(np.array(held) >= 2) == pytest.approx(0.8, abs=0.02)
    assert upper_sd([np.array([1.0]), np.array([2.0])]) is None
    values = np.array([1.0, 2.0, 4.0])
    assert upper_sd([values]) == pytest.approx(math.sqrt(2 * values.var(ddof=1) / stats.chi2.ppf(0.2, 2)))


def test_plans_are_refused():
    with pytest.raises(ValueError, match=r"size=0\.0"):
        seeds_needed(0.0, 0.1, 1)
    with pytest.raises(ValueError, match="size=nan"):
        power(math.nan, 0.1, 5, 1)
    with pytest.raises(ValueError, match="sd=nan"):
        power(0.1, math.nan, 5, 1)
    with pytest.raises(ValueError, match="family=0, base_factor=3"):
        power(0.1, 0.1, 5, 0)
    with pytest.raises(ValueError, match="runs=1"):
        power(0.1, 0.1, 1, 1)
    with pytest.raises(ValueError, match="least=1"):
        seeds_needed(0.1, 0.1, 1, least=1)
    with pytest.raises(ValueError, match="needs over 1,000,000 runs"):
        seeds_needed(1e-7, 0.1, 1)
