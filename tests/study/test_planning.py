"""Power and recommended runs against simulation and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from alexlab.study.claims import Claim
from alexlab.study.planning import PER_IMAGE_SD, UNKNOWN, Deviation, prospects
from alexlab.study.simulate import simulate
from alexlab.study.statistics import power, smallest_effect, upper_sd
from support.studies import claim

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


class TestProspects:
    def test_sizes_and_scales(self):
        claims = [
            claim("points", published={"top1_error": -1.4}),
            claim("sign", direction="lower", smallest_effect=1.0),
            claim("speed", metric="epochs_to_25", ratio=True, published={"epochs_to_25": 6.0}),
            claim("level", is_level=True, published={"top1_error": 37.5}),
            claim("context", is_context=True),
        ]
        points, sign, speed, level = prospects(claims, 5, 10, 5000, [], assumed_sd=0.5)
        assert (points.size, points.is_published, sign.size, sign.is_published) == (
            pytest.approx(0.014),
            True,
            pytest.approx(0.01),
            False,
        )
        assert points.sd == Deviation(0.005, "study.assumed_sd")
        assert points.family == 4
        expected = power(0.014, 0.005, 5, 4, 2, image_variance=PER_IMAGE_SD**2 / 5000)
        assert points.power == pytest.approx(expected)
        assert speed.size == pytest.approx(math.log(6))
        assert speed.why_not == UNKNOWN  # points say nothing about a ratio
        assert speed.power is None
        assert level.why_not is not None
        assert level.power is None

    def test_without_any_standard_deviation(self):
        [one] = prospects([claim("a", published={"top1_error": -1.0})], 5, 5, 100, [])
        assert one.why_not == UNKNOWN
        assert (one.power, one.found, one.needed) == (None, None, None)

    def test_one_run_shows_no_spread(self):
        [one] = prospects([claim("a", published={"top1_error": -1.0})], 1, 1, 100, [], 0.5)
        assert (one.why_not, one.power, one.found) == ("having one run an arm", None, None)

    def test_a_number_of_runs_is_recommended_only_where_one_suffices(self):
        [one] = prospects([claim("a", published={"top1_error": -1.0})], 5, 5, 10**6, [], 0.5)
        assert one.needed is not None
        assert (one.with_runs(one.needed, one.needed, 1).power or 0) >= 0.9
        [few] = prospects([claim("a", published={"top1_error": -1.0})], 5, 5, 100, [], 0.5)
        assert few.needed is None  # 100 images never tell a point


def test_claims_between_two_arms_need_no_base():
    between = Claim(id="b", source="x", arm=["ablation=p"], against=["ablation=q"], published={"top1_error": -1.0})
    [one] = prospects([between], 4, 40, 10**6, [], 0.5)
    assert one.base_runs == 4
    assert one.with_runs(6, 24, 1).power == pytest.approx(
        power(0.01, 0.005, 6, 1, 1, image_variance=PER_IMAGE_SD**2 / 10**6)
    )
