"""What a plan can show of its claims."""

from __future__ import annotations

import math

import pytest

from alexlab.study.claims import Claim
from alexlab.study.planning import PER_IMAGE_SD, UNKNOWN, Deviation, prospects
from alexlab.study.power import power
from support.studies import claim


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
