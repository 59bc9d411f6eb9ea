"""The spread of arms and its shrinkage (Smyth 2004), against SciPy and known truths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, special

from alexlab.study.spreads import Sample, Spread, inverse_trigamma, shrink, unlike
from support.samples import scaled


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1, 2, False), (1, 2.001, True), (5, 2, True), (0, 1, False), (math.nan, 1, False)],
)
def test_unlike(first: float, second: float, expected: bool):
    assert unlike(Spread(first, 1, 4, 8), Spread(second, 1, 4, 8)) is expected


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.1, 0.36, 1.0, math.pi**2 / 6, 20.0, 1e4, 1e8])
def test_inverse_trigamma(value: float):
    def gap(log_x: float) -> float:
        return math.log(float(special.polygamma(1, math.exp(log_x)))) - math.log(value)

    root: Any = optimize.brentq(gap, -20, 25, xtol=1e-14)
    found = inverse_trigamma(value)
    assert found == pytest.approx(math.exp(root), rel=1e-8)
    assert float(special.polygamma(1, found)) == pytest.approx(value, rel=1e-9)


def test_alike_spreads_are_drawn_towards_the_pooled_one():
    for most_df, df in ((6.0, 10), (1e9, 24)):
        for spread in shrink(scaled([0.2] * 6), most_df).values():
            assert (spread.variance, spread.df, spread.df_all) == pytest.approx((0.04, df, 24))
    mixed = {"a": scaled([0.2], 5)["0"], "b": scaled([0.21], 9)["0"]}
    pooled = (4 * 0.04 + 8 * 0.0441) / 12
    expected = [((6 * pooled + 4 * 0.04) / 10, 10), ((6 * pooled + 8 * 0.0441) / 14, 12)]  # 12 runs' degrees in all
    assert [(s.variance, s.df) for s in shrink(mixed).values()] == [pytest.approx(one) for one in expected]


def test_wildly_different_spreads_are_left_alone():
    sds = [10.0**exponent for exponent in range(-30, 31, 8)]
    for sd, spread in zip(sds, shrink(scaled(sds)).values(), strict=True):
        assert spread.variance == pytest.approx(sd**2, rel=0.01)
        assert spread.df == pytest.approx(4, rel=0.01)


def test_prior_is_found_again():
    rng = np.random.default_rng(3)
    d0, s0 = 8.0, 2.0
    sds = np.sqrt(s0 * d0 / rng.chisquare(d0, 20_000))
    arms = {str(number): Sample(rng.normal(0, sd, 5)) for number, sd in enumerate(sds)}
    spreads = shrink({**arms, "one": Sample(np.array([7.0])), "still": Sample(np.full(4, 0.1))}, 1e9)
    for name in ("one", "still"):  # these take the prior as it is
        assert spreads[name].variance == pytest.approx(s0, rel=0.05)
        assert spreads[name].df == pytest.approx(d0, rel=0.1)
    assert math.isnan(spreads["one"].sd)
    assert spreads["still"].sd == 0
    assert spreads["0"].df == pytest.approx(d0 + 4, rel=0.1)
    # Nearer to the truth than as measured.
    shrunk = np.array([spreads[name].variance for name in arms])
    measured = np.array([spreads[name].sd ** 2 for name in arms])
    assert np.abs(np.log(shrunk / sds**2)).mean() < 0.6 * np.abs(np.log(measured / sds**2)).mean()


def test_one_odd_arm_changes_little_for_the_others():
    """From ten arms on the prior is of winsorised moments, which the theory of log F gives back."""
    rng = np.random.default_rng(14)
    sds = np.sqrt(8 * 2.0 / rng.chisquare(8, 20_000))
    known = {str(number): Sample(rng.normal(0, sd, 5)) for number, sd in enumerate(sds)}
    assert shrink({**known, "one": Sample(np.array([1.0]))}, 1e9)["one"].df == pytest.approx(8, rel=0.15)
    arms = scaled(list(np.exp(rng.normal(0, 0.2, 12))))
    odd = {**arms, "odd": Sample(np.array([0.0, 0, 0, 0, 100]))}
    for name, spread in shrink(arms).items():
        assert shrink(odd)[name].variance == pytest.approx(spread.variance, rel=0.15)
        assert shrink(odd)[name].df == pytest.approx(spread.df, rel=0.05)


def test_shrinking_keeps_order_and_moves_inwards():
    sds = [0.01, 0.03, 0.1, 0.3, 1.0]
    spreads = list(shrink(scaled(sds)).values())
    variances = [spread.variance for spread in spreads]
    assert variances == sorted(variances)
    assert variances[0] > sds[0] ** 2
    assert variances[-1] < sds[-1] ** 2
    assert all(4 < spread.df < 20 for spread in spreads)


def test_arms_that_say_nothing_leave_the_others_as_they_are():
    arms = scaled([0.1, 0.5, 2.0])
    alone = shrink(arms)
    spreads = shrink({**arms, "one": Sample(np.array([3.0])), "still": Sample(np.full(9, 0.3))})
    assert {name: spreads[name] for name in arms} == alone
    assert spreads["one"].variance == spreads["still"].variance


def test_one_arm_that_scatters_lends_its_spread():
    spreads = shrink({**scaled([0.2]), "one": Sample(np.array([3.0])), "still": Sample(np.full(9, 0.3))})
    assert [(s.variance, s.df, s.df_all) for s in spreads.values()] == [pytest.approx((0.04, 4, 4))] * 3
