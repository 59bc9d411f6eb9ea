"""`alexlab.study.statistics` against slow formulas written here, SciPy's own tests, and studies of a known truth."""

from __future__ import annotations

import itertools
import math
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import optimize, special, stats

from alexlab.study.simulate import main, simulate
from alexlab.study.statistics import (
    Effect,
    Matched,
    Sample,
    Spread,
    Verdict,
    both_needed,
    contrast,
    effect,
    equal_effects,
    fisher,
    inverse_trigamma,
    match_seeds,
    paired_effect,
    power,
    prediction,
    replication_bayes_factor,
    seeds_needed,
    shrink,
    strength,
    unlike,
    variance_components,
    verdict,
    weaker,
)

# --- The reference: plain Python, by other formulas where there are any.


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


def slow_effect(
    first: np.ndarray, second: np.ndarray, spreads: list[tuple[float, float]], family: int, all_df: int
) -> dict[str, float]:
    """All of an effect from the runs' images, one number at a time."""
    images, arms = first.shape[1], (first.tolist(), second.tolist())
    parts = [variance / len(arm) for (variance, _), arm in zip(spreads, arms, strict=True)]
    total = sum(parts)
    df = min(total**2 / sum(part**2 / df for part, (_, df) in zip(parts, spreads, strict=True)), all_df)
    gaps, within = [], 0.0
    for image in range(images):
        columns = [[float(run[image]) for run in arm] for arm in arms]
        gaps.append(statistics.mean(columns[0]) - statistics.mean(columns[1]))
        within += sum(statistics.variance(column) / len(column) for column in columns) / images
    image_variance = max(0, statistics.variance(gaps) / images - within / images)
    both = total + image_variance
    pair = [variance * (1 + 1 / len(arm)) for (variance, _), arm in zip(spreads, arms, strict=True)]
    pair_df = sum(pair) ** 2 / sum(part**2 / df for part, (_, df) in zip(pair, spreads, strict=True))
    return {
        "difference": statistics.mean(gaps),
        "fixed": stats.t.ppf(0.975, df) * total**0.5,
        "study": stats.t.ppf(1 - 0.025 / family, df) * total**0.5,
        "new": stats.t.ppf(0.975, df * (both / total) ** 2) * both**0.5,
        "new_study": stats.t.ppf(1 - 0.025 / family, df * (both / total) ** 2) * both**0.5,
        "pair_df": min(pair_df, all_df),
        "standard_error": total**0.5,
        "df": df,
        "run_sd": (spreads[0][0] + spreads[1][0]) ** 0.5,
        "image_variance": image_variance,
    }


def draw_arms(rng: np.random.Generator, images: int, counts: list[int], run_sd: float, scatter: float) -> list[Any]:
    difficulty = rng.normal(-0.4, 1.5, images)
    arms = []
    for count in counts:
        chances = special.expit(difficulty + rng.normal(0, 0.4, images))
        shifts = rng.normal(0, run_sd * np.exp(rng.normal(0, scatter)), (count, 1))
        arms.append(rng.random((count, images)) < chances + shifts)
    return arms


# Spreads that scatter as by chance, more, and much more.
@pytest.mark.parametrize(("run_sd", "scatter"), [(0.0, 0.0), (0.05, 0.5), (0.1, 2.0)])
@pytest.mark.parametrize("seed", range(3))
def test_effects_are_those_of_the_slow_formulas(run_sd: float, scatter: float, seed: int):
    counts = [15, 5, 3, 5, 8, 4]
    arms = draw_arms(np.random.default_rng(seed), 157, counts, run_sd, scatter)
    samples = {str(number): Sample.of_images(arm) for number, arm in enumerate(arms)}
    spreads = shrink(samples)
    expected = slow_shrink([arm.mean(1).tolist() for arm in arms])
    for number, (variance, df) in enumerate(expected):
        spread = spreads[str(number)]
        assert (spread.variance, spread.df) == pytest.approx((variance, df), rel=1e-7)
        assert spread.sd == pytest.approx(statistics.stdev(arms[number].mean(1).tolist()))
        assert spread.df_all == sum(counts) - 6
    for first, second in itertools.permutations(range(3), 2):
        pair = samples[str(first)], samples[str(second)]
        found = effect(*pair, (spreads[str(first)], spreads[str(second)]), 7, welch=False)
        slow = slow_effect(arms[first], arms[second], [expected[first], expected[second]], 7, sum(counts) - 6)
        assert {name: getattr(found, name) for name in slow} == pytest.approx(slow, rel=1e-6)
        assert found.welch is False


def test_unshrunk_is_welchs_t():
    rng = np.random.default_rng(1)
    first, second = Sample(rng.normal(0.4, 0.01, 5)), Sample(rng.normal(0.41, 0.03, 9))
    spreads = shrink({"first": first, "second": second})
    test: Any = stats.ttest_ind(first.values, second.values, equal_var=False)
    interval: Any = test.confidence_interval(0.95)
    found = effect(first, second, (spreads["first"], spreads["second"]), 1, welch=True)
    assert found.welch
    assert (found.difference - found.fixed, found.difference + found.fixed) == pytest.approx(
        (interval.low, interval.high)
    )
    assert found.study == found.fixed  # a family of one
    assert found.difference / found.standard_error == pytest.approx(float(test[0]))
    assert found.new is None
    assert found.image_variance == 0


@pytest.mark.parametrize(("sd", "wider"), [(0.02, True), (0.0009, False)])
def test_unlike_spreads_take_welchs_t_where_it_is_wider(sd: float, wider: bool):
    arms = {**scaled([0.002] * 12 + [sd]), "base": scaled([0.002], 15)["0"]}
    spreads = shrink(arms)
    pair = spreads["12"], spreads["base"]
    assert unlike(*pair)
    by_rule, shrunk, own = (effect(arms["12"], arms["base"], pair, 12, welch=welch) for welch in (None, False, True))
    assert (own.study > shrunk.study) is wider
    assert (shrunk.welch, own.welch) == (False, True)
    assert by_rule == (own if wider else shrunk)


def test_two_runs_are_too_few_for_welchs_t():
    arms = {**scaled([0.002] * 12), "two": Sample(np.array([0.3, 0.5]))}
    spreads = shrink(arms)
    pair = spreads["two"], spreads["0"]
    assert unlike(*pair)
    for welch in (None, True):
        assert not effect(arms["two"], arms["0"], pair, 12, welch=welch).welch


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1, 2, False), (1, 2.001, True), (5, 2, True), (0, 1, False), (math.nan, 1, False)],
)
def test_unlike(first: float, second: float, expected: bool):
    assert unlike(Spread(first, 1, 4, 8), Spread(second, 1, 4, 8)) is expected


# --- Shrinking, by Smyth (2004).


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.1, 0.36, 1.0, math.pi**2 / 6, 20.0, 1e4, 1e8])
def test_inverse_trigamma(value: float):
    def gap(log_x: float) -> float:
        return math.log(float(special.polygamma(1, math.exp(log_x)))) - math.log(value)

    root: Any = optimize.brentq(gap, -20, 25, xtol=1e-14)
    found = inverse_trigamma(value)
    assert found == pytest.approx(math.exp(root), rel=1e-8)
    assert float(special.polygamma(1, found)) == pytest.approx(value, rel=1e-9)


def scaled(sds: list[float], count: int = 5) -> dict[str, Sample]:
    """Arms whose runs have just these standard deviations."""
    pattern = np.arange(count) - (count - 1) / 2
    pattern /= pattern.std(ddof=1)
    return {str(number): Sample(sd * pattern) for number, sd in enumerate(sds)}


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


# --- Edges: little or nothing to estimate from.


def test_one_arm_that_scatters_lends_its_spread():
    spreads = shrink({**scaled([0.2]), "one": Sample(np.array([3.0])), "still": Sample(np.full(9, 0.3))})
    assert [(s.variance, s.df, s.df_all) for s in spreads.values()] == [pytest.approx((0.04, 4, 4))] * 3


def test_no_arm_scatters():
    wrong = np.zeros((4, 10), bool)
    wrong[:, :3] = True
    first, second, one = Sample.of_images(wrong), Sample(np.full(5, 0.1 + 0.2 - 0.2)), Sample(np.array([0.5]))
    spreads = shrink({"first": first, "second": second, "one": one})
    assert [(s.variance, s.df, s.df_all) for s in spreads.values()] == [(0, 7, 7)] * 3
    found = effect(first, second, (spreads["first"], spreads["second"]), 3)
    assert (found.fixed, found.study, found.run_sd, found.standard_error) == (0, 0, 0, 0)
    assert found.df == 7
    assert found.difference == pytest.approx(0.2)
    assert verdict(found, 0.3, 1, runs=(4, 5)) is Verdict.smaller
    # New images still differ.
    other = Sample.of_images(~wrong)
    found = effect(first, other, (spreads["first"], spreads["first"]), 3)
    gaps = [1.0] * 3 + [-1.0] * 7
    assert found.new == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(statistics.variance(gaps) / 10))


def test_no_arm_has_two_runs():
    wrong = np.arange(10)[None] < np.array([[3], [6]])
    first, second = Sample.of_images(wrong[:1]), Sample.of_images(wrong[1:])
    spreads = shrink({"first": first, "second": second})
    found = effect(first, second, (spreads["first"], spreads["second"]), 2)
    assert found.difference == pytest.approx(-0.3)
    assert (found.fixed, found.new, found.study, found.run_sd, found.df) == (math.inf,) * 4 + (0,)
    assert verdict(found, -0.3, -1, runs=(1, 1)) is Verdict.not_testable
    assert paired_effect(first, second, 2).new == math.inf
    assert paired_effect(first, second, 2).fixed == math.inf


def test_one_run_against_many():
    rng = np.random.default_rng(4)
    arms = draw_arms(rng, 100, [1, 2, 5], 0.05, 0.5)
    samples = {str(number): Sample.of_images(arm) for number, arm in enumerate(arms)}
    spreads = shrink(samples)
    for first, second in itertools.permutations(samples, 2):
        found = effect(samples[first], samples[second], (spreads[first], spreads[second]), 2)
        assert found.new is not None
        assert 0 < found.fixed < found.study < math.inf
        assert 0 < found.new < math.inf
        runs = len(samples[first].values), len(samples[second].values)
        assert verdict(found, 0.1, 1, runs=runs) is Verdict.not_testable


def test_inputs_are_refused():
    good = np.zeros((3, 4), bool)
    with pytest.raises(ValueError, match=r"values\[1\]: is nan; leave out runs without a result"):
        Sample(np.array([0.1, math.nan, 0.2]))
    with pytest.raises(ValueError, match=r"values\[0\]: is inf"):
        Sample(np.array([math.inf]))
    for shape in ((0,), (2, 2)):
        with pytest.raises(ValueError, match="values: have the shape"):
            Sample(np.zeros(shape))
    for images in (good.astype(float), good[:2], good[:, :1], good[0]):
        with pytest.raises(ValueError, match="images: have the shape"):
            Sample(np.zeros(3), images)
    with pytest.raises(ValueError, match="images: their mean"):
        Sample(np.full(3, 0.1), good)
    first, second, fewer = Sample(np.zeros(3), good), Sample(np.zeros(3), good[:, :3]), Sample(np.zeros(2), good[:2])
    spread = shrink({"first": first})["first"]
    with pytest.raises(ValueError, match="images: 4 in one arm, 3 in the other"):
        effect(first, second, (spread, spread), 1)
    with pytest.raises(ValueError, match="family=0"):
        effect(first, first, (spread, spread), 0)
    with pytest.raises(ValueError, match="images: 4 in the first, 3 in the second"):
        paired_effect(first, second, 1)
    with pytest.raises(ValueError, match="values: 3 runs in the first, 2 in the second"):
        paired_effect(first, fewer, 1)
    for published, sign in ((math.nan, 1), (0.0, 1), (-1.0, 1), (math.inf, 1)):
        with pytest.raises(ValueError, match="published="):
            verdict(None, published, sign, runs=(3, 3))
    with pytest.raises(ValueError, match="sign=0"):
        verdict(None, None, 0, runs=(3, 3))


# --- Shared seeds.


def test_shared_seeds_are_the_regression_estimate():
    """One arm: the regression on the base's runs (SciPy's), extended to the base's further runs (double sampling)."""
    rng = np.random.default_rng(11)
    base = Sample(rng.normal(0.17, 0.02, 15))
    shared = np.array([3, 0, 7, 4, 12, 9])
    values = 0.1 + 0.8 * base.values[shared] + rng.normal(0, 0.01, 6)
    spread = Spread(0.02, 0.0004, 12.0, 19.0)
    start = effect(Sample(values), base, (Spread(0.02, 0.0005, 10.0, 19.0), spread), 6)
    found = match_seeds(base, spread, {"arm": Matched(start, values, shared)}, 6)["arm"]
    line: Any = stats.linregress(base.values[shared], values)
    assert found.difference == pytest.approx(
        line.intercept + line.slope * base.values.mean() - base.values.mean(), rel=1e-10
    )
    residuals = values - line.intercept - line.slope * base.values[shared]
    error = (residuals**2).sum() / 4  # n - 2
    off = base.values[shared].mean() - base.values.mean()
    own = error * (1 / 6 + off**2 / ((base.values[shared] - base.values[shared].mean()) ** 2).sum())
    rest = (1 - line.slope) ** 2 * 0.0004 / 15
    squares = ((base.values[shared] - base.values[shared].mean()) ** 2).sum()
    slope_part = 2 * error / squares * (1 - line.slope) ** 2 * (0.0004 / 15) ** 2
    df = (own + rest) ** 2 / (own**2 / 4 + rest**2 / 12 + slope_part)
    assert found.standard_error == pytest.approx(math.sqrt(own + rest), rel=1e-10)
    assert found.fixed == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(own + rest), rel=1e-10)
    assert found.study == pytest.approx(stats.t.ppf(1 - 0.025 / 6, df) * math.sqrt(own + rest), rel=1e-10)
    assert found.correlation == pytest.approx(line.rvalue, rel=1e-10)
    assert (found.new, found.new_study) == (None, None)
    assert (found.run_sd, found.pair_df) == (start.run_sd, start.pair_df)


def test_where_all_seeds_are_shared_it_is_about_the_paired_t():
    """Many pairs of arms with equal variances: the same difference, and on average its width but for a few percent."""
    rng = np.random.default_rng(15)
    ratios = []
    for _ in range(300):
        base, arm = Sample(rng.normal(0, 1, 10)), Sample(rng.normal(0, 1, 10))
        spreads = shrink({"base": base, "arm": arm})
        start = effect(arm, base, (spreads["arm"], spreads["base"]), 1)
        found = match_seeds(base, spreads["base"], {"arm": Matched(start, arm.values, np.arange(10))}, 1)["arm"]
        paired = paired_effect(arm, base, 1)
        assert found.difference == pytest.approx(paired.difference)
        ratios.append(found.fixed / paired.fixed)
    assert statistics.mean(ratios) == pytest.approx(1, abs=0.05)


def test_a_slope_is_pooled_over_the_arms_and_images_keep_their_part():
    rng = np.random.default_rng(12)
    wrong = rng.random((3, 5, 300)) < rng.random(300) * 0.4
    base, arms = Sample.of_images(wrong[0]), {name: Sample.of_images(wrong[i]) for i, name in ((1, "a"), (2, "b"))}
    spreads = shrink({"base": base, **arms})
    start = {name: effect(arm, base, (spreads[name], spreads["base"]), 2) for name, arm in arms.items()}
    places = np.arange(5)
    found = match_seeds(
        base, spreads["base"], {name: Matched(start[name], arm.values, places) for name, arm in arms.items()}, 2
    )
    x = base.values - base.values.mean()
    slope = sum((x * arm.values).sum() for arm in arms.values()) / (2 * (x**2).sum())
    for name in arms:
        assert found[name].difference == pytest.approx(start[name].difference)  # all seeds are shared
        each = shrink({key: Sample(one.values - slope * base.values) for key, one in arms.items()})
        residuals, of_slope = (
            each[name],
            statistics.mean(one.variance for one in each.values()) * 8 / 7 / (2 * (x**2).sum()),
        )
        own = residuals.variance * 8 / 7 / 5
        rest = (1 - slope) ** 2 * spreads["base"].variance / 5
        slope_part = 2 * of_slope * (1 - slope) ** 2 * (spreads["base"].variance / 5) ** 2
        df = (own + rest) ** 2 / (own**2 / (residuals.df - 1) + rest**2 / spreads["base"].df + slope_part)
        both = own + rest + start[name].image_variance
        new = stats.t.ppf(1 - 0.025 / 2, df * (both / (own + rest)) ** 2) * math.sqrt(both)
        assert found[name].new_study == pytest.approx(new, rel=1e-10)


def test_a_base_without_any_scatter_is_no_control():
    base, arm = Sample(np.full(5, 0.2)), Sample(np.array([0.1, 0.2, 0.3]))
    spreads = shrink({"base": base, "arm": arm})
    start = effect(arm, base, (spreads["arm"], spreads["base"]), 1)
    few = {"arm": Matched(start, arm.values, np.arange(3))}
    assert match_seeds(Sample(np.array([0.1, 0.3, 0.2])), spreads["arm"], few, 1) == {"arm": start}  # too few runs
    assert match_seeds(base, spreads["base"], {"arm": Matched(start, arm.values, np.arange(3))}, 1) == {"arm": start}


# --- The same runs measured twice.


def test_paired_effect_is_the_paired_t_test():
    rng = np.random.default_rng(5)
    centre = draw_arms(rng, 200, [5], 0.05, 0)[0]
    ten = centre ^ (rng.random(centre.shape) < 0.1)
    found = paired_effect(Sample.of_images(ten), Sample.of_images(centre), 4)
    test: Any = stats.ttest_rel(ten.mean(1), centre.mean(1))
    interval = test.confidence_interval(0.95)
    assert (found.difference - found.fixed, found.difference + found.fixed) == pytest.approx(
        (interval.low, interval.high)
    )
    simultaneous = test.confidence_interval(1 - 0.05 / 4)
    assert found.difference + found.study == pytest.approx(simultaneous.high)
    assert found.df == 4
    gaps, within = [], 0.0
    for image in range(200):
        each = [float(a) - float(b) for a, b in zip(ten[:, image], centre[:, image], strict=True)]
        gaps.append(statistics.mean(each))
        within += statistics.variance(each) / 5 / 200
    total = found.standard_error**2
    both = total + max(0, statistics.variance(gaps) / 200 - within / 200)
    assert found.new == pytest.approx(stats.t.ppf(0.975, 4 * (both / total) ** 2) * both**0.5)
    assert found.run_sd == pytest.approx(statistics.stdev((ten.mean(1) - centre.mean(1)).tolist()))
    still = paired_effect(Sample(np.array([0.5, 0.6, 0.9])), Sample(np.array([0.3, 0.4, 0.7])), 4)
    assert (still.fixed, still.study, still.new) == (0, 0, None)  # .2 each, but for rounding


def test_a_gap_has_its_test_images_part():
    """Test less training error: new test images move it as much as they move the test error."""
    rng = np.random.default_rng(21)
    wrong = [rng.random((5, 400)) < chance for chance in (rng.beta(2, 5, 400), rng.beta(2, 4, 400))]
    training = [rng.normal(0.1, 0.02, 5) for _ in wrong]
    errors, gaps = [], []
    for images, less in zip(wrong, training, strict=True):
        errors.append(Sample.of_images(images))
        gaps.append(Sample.of_images(images, less))
        assert gaps[-1].values == pytest.approx(images.mean(1) - less)
    found, plain = (
        effect(one, other, (Spread(1e-4, 1e-4, 8.0, 8.0), Spread(1e-4, 1e-4, 8.0, 8.0)), 3)
        for one, other in (gaps, errors)
    )
    means = [images.mean() - less.mean() for images, less in zip(wrong, training, strict=True)]
    assert found.difference == pytest.approx(means[0] - means[1])
    each = wrong[0].mean(0) - wrong[1].mean(0)
    within = sum(float(images.var(axis=0, ddof=1).mean()) / 5 for images in wrong)
    assert found.image_variance == pytest.approx((each.var(ddof=1) - within) / 400)
    assert found.new == pytest.approx(plain.new)
    assert found.new is not None
    assert found.new > found.fixed
    some = gaps[0].of_runs([0, 3])
    assert some.values == pytest.approx(gaps[0].values[[0, 3]])
    with pytest.raises(ValueError, match="is not the run's value"):
        Sample(gaps[0].values, wrong[0])


# --- Verdicts.


def of(difference: float, half: float, scatter: float = 0.5, image_variance: float = 0.0) -> Effect:
    """With V = 0 and endless runs, so that a published difference may be off by 1.96 times `scatter`."""
    return Effect(
        difference, half, None, half, None, 0.0, 8.0, scatter / 1.959963984540054, math.inf, image_variance, False
    )


V = Verdict
# What the rules (docs/explanation/verdicts.md) say, case by case: a published 1.5, so that the smallest effect is .75.
CASES: list[tuple[Effect | None, float | None, dict[str, Any], Verdict]] = [
    # Negligible comes before the sign: the whole interval within a half of the published effect.
    (of(0.25, 0.5), 1.5, {}, V.negligible),
    (of(-0.25, 0.5), 1.5, {}, V.negligible),
    (of(0.25, 0.125), 1.5, {}, V.negligible),  # on the claimed side, a sixth of the effect
    (of(-0.25, 0.125), 1.5, {}, V.negligible),  # on the other side
    (of(0.0, 0.0), 1.5, {}, V.negligible),
    (of(0.25, 0.5625), 1.5, {}, V.inconclusive),
    (of(-0.25, 0.5625), 1.5, {}, V.inconclusive),
    (of(1.0, 1.0), 1.5, {}, V.inconclusive),  # touches 0
    (of(-1.0, 1.0), 1.5, {}, V.inconclusive),
    (of(-1.0, 0.9375), 1.5, {}, V.reversed),
    (of(0.0, math.inf, math.inf), 1.5, {}, V.inconclusive),
    # On the claimed side: by where the published figure lies, and at least a half of it.
    (of(1.5, 1.0), 1.5, {}, V.reproduced),
    (of(0.75, 0.25, 0.75), 1.5, {}, V.reproduced),
    (of(0.75, 0.375, 0.75), 1.5, {}, V.size_open),  # a quarter of the effect is not excluded
    (of(1.25, 0.875, 0.75), 1.5, {}, V.size_open),
    (of(1.25, 0.8125, 0.75), 1.5, {}, V.reproduced),
    (of(0.6875, 0.5, 0.9), 1.5, {}, V.size_open),  # noise alone would allow the published effect
    (of(0.6875, 0.5, 0.5), 1.5, {}, V.smaller),
    (of(0.9, 0.5, 0.5), 1.5, {}, V.smaller),
    (of(1.9375, 1.0, 0.5), 1.5, {}, V.reproduced),  # about as far off as two single runs may be
    (of(2.0625, 1.0, 0.5), 1.5, {}, V.larger),
    (of(3.0, 1.0, 0.5), 1.5, {}, V.larger),  # twice the effect is no mere "direction"
    (of(1.5, 0.0, 0.0), 1.5, {}, V.reproduced),
    # A smallest effect of interest of the claim's own.
    (of(0.6875, 0.25, 0.9), 1.5, {"least": 0.6}, V.reproduced),
    (of(0.6875, 0.5, 0.9), 1.5, {"least": 0.6}, V.size_open),
    (of(0.25, 0.5), 1.5, {"least": 0.5}, V.inconclusive),
    # Figures from other images may be further off.
    (of(2.5, 1.0, 0.5, 0.1), 1.5, {}, V.larger),
    (of(2.5, 1.0, 0.5, 0.1), 1.5, {"same_images": False}, V.reproduced),  # sqrt(.0651 + .2) * 1.96 = 1.009
    (of(2.5625, 1.0, 0.5, 0.1), 1.5, {"same_images": False}, V.larger),
    # "More than".
    (of(9.0, 1.0), 1.0, {"at_least": True}, V.reproduced),
    (of(1.0, 0.5, 0.0), 1.0, {"at_least": True}, V.reproduced),
    (of(0.9, 0.5, 0.0), 1.0, {"at_least": True}, V.smaller),
    (of(0.9, 0.5, 0.2), 1.0, {"at_least": True}, V.reproduced),
    (of(0.75, 0.125, 2.0), 1.0, {"at_least": True}, V.smaller),  # its interval lies wholly below the figure
    (of(9.0, 10.0), 1.0, {"at_least": True}, V.inconclusive),
    (of(-9.0, 1.0), 1.0, {"at_least": True}, V.reversed),
    (of(0.0, 0.5), 1.0, {"at_least": True}, V.negligible),
    # Without a figure: the sign, and the smallest effect of interest.
    (of(9.0, 1.0), None, {"least": 2.0}, V.reproduced),
    (of(1.5, 1.0), None, {"least": 2.0}, V.size_open),
    (of(1.0, 0.5), None, {"least": 2.0}, V.negligible),
    (of(-9.0, 1.0), None, {"least": 2.0}, V.reversed),
    (of(1.0, 1.5), None, {"least": 2.0}, V.inconclusive),
    (of(9.0, 1.0), None, {}, V.size_open),  # of a plan that states none
    (of(0.0, 0.0), None, {}, V.inconclusive),
    # Runs too few or failed.
    (of(1.5, 1.0), 1.5, {"runs": (3, 3)}, V.reproduced),
    (of(1.5, 1.0), 1.5, {"runs": (2, 15)}, V.not_testable),
    (of(1.5, 1.0), 1.5, {"runs": (15, 2)}, V.not_testable),
    (None, 1.5, {"runs": (5, 0)}, V.not_testable),
    (None, 1.5, {"runs": (5, 0), "failed": (0, 5)}, V.does_not_train),
    (of(1.5, 1.0), 1.5, {"runs": (4, 15), "failed": (1, 0)}, V.reproduced),  # 20 %
    (of(1.5, 1.0), 1.5, {"runs": (15, 12), "failed": (0, 3)}, V.reproduced),
    (of(1.5, 1.0), 1.5, {"runs": (3, 15), "failed": (1, 0)}, V.does_not_train),
    (of(1.5, 1.0), 1.5, {"runs": (15, 11), "failed": (0, 3)}, V.does_not_train),
    (of(1.5, 1.0), 1.5, {"runs": (2, 15), "failed": (1, 0)}, V.does_not_train),
]


@pytest.mark.parametrize(("found", "published", "options", "expected"), CASES)
def test_verdict(found: Effect | None, published: float | None, options: dict[str, Any], expected: Verdict):
    options = {"runs": (5, 15), **options}
    assert verdict(found, published, 1, **options) is expected
    # And all of it the other way round.
    if found is not None:
        found = Effect(**{**vars(found), "difference": -found.difference})
    assert verdict(found, None if published is None else -published, -1, **options) is expected


def test_the_interval_for_new_images_carries_the_verdict():
    on_these = Effect(1.5, 0.5, 1.0, 0.9, 1.6, 0.3, 8.0, 0.5, 8.0, 0.1, False)
    assert on_these.decisive == 1.6
    assert verdict(on_these, 1.5, 1, runs=(5, 15)) is V.inconclusive
    without_images = Effect(**{**vars(on_these), "new": None, "new_study": None})
    assert verdict(without_images, 1.5, 1, runs=(5, 15)) is V.reproduced


def slow_word(d: float, half: float, published: float | None, scatter: float, least: float | None, bound: bool) -> str:
    """The rules once more, from intervals' ends; for claims that an effect is above 0."""
    low, high = d - half, d + half
    smallest = published / 2 if least is None and published is not None else least
    if smallest is not None and low >= -smallest and high <= smallest:
        return "negligible"
    if high < 0:
        return "reversed"
    if low <= 0:
        return "inconclusive"
    if published is None:
        return "reproduced" if smallest is not None and d >= smallest else "same direction, size open"
    assert smallest is not None
    allowed = published - scatter <= d <= published + scatter or (bound and d >= published)
    if bound and high < published:
        return "same direction, smaller"
    if allowed:
        return "reproduced" if d >= smallest and low > published / 4 else "same direction, size open"
    return "same direction, larger" if d > published else "same direction, smaller"


def test_words_are_those_of_the_rules_written_again():
    rng = np.random.default_rng(8)
    seen = set()
    for _ in range(3000):
        d, half, scatter = rng.normal(0.8, 1.5), abs(rng.normal(0, 0.8)), abs(rng.normal(0, 0.6))
        published = None if rng.random() < 0.2 else float(rng.uniform(0.5, 2))
        least = float(rng.uniform(0.1, 0.5)) if published is None or rng.random() < 0.3 else None
        bound = published is not None and rng.random() < 0.3
        found = verdict(of(d, half, scatter), published, 1, runs=(5, 5), least=least, at_least=bound)
        assert found.value == slow_word(d, half, published, scatter, least, bound)
        seen.add(found)
    assert len(seen) == 7


def test_prediction_is_a_t_interval_for_a_pair_of_single_runs():
    """With equal spreads that are all pooled: Student's t, by the runs' own formula."""
    rng = np.random.default_rng(9)
    arms = {str(number): Sample(rng.normal(0, 1, count)) for number, count in enumerate([15, 5, 5, 5])}
    pooled = {name: Spread(1.0, 0.9, 26.0, 26.0) for name in arms}
    found = effect(arms["1"], arms["0"], (pooled["1"], pooled["0"]), 6)
    expected = stats.t.ppf(0.975, 26) * math.sqrt(0.9 * (1 + 1 / 5 + 1 + 1 / 15))
    assert prediction(found) == pytest.approx(expected, rel=1e-12)
    assert prediction(found, same_images=False) == pytest.approx(expected, rel=1e-12)  # no images, no part of theirs


def test_strength_and_bayes_factor_of_the_published_pair():
    found = Effect(-1.1, 0.5, None, 0.8, None, 0.2, 20.0, 0.3, 20.0, 0.04, False)
    assert strength(found, -1.4) == pytest.approx(1.4 / 0.3)
    ratio = stats.norm.pdf(-1.1, -1.4, math.sqrt(0.04 + 0.09)) / stats.norm.pdf(-1.1, 0, 0.2)
    assert replication_bayes_factor(found, -1.4) == pytest.approx(ratio, rel=1e-10)
    ratio = stats.norm.pdf(-1.1, -1.4, math.sqrt(0.04 + 0.09 + 0.08)) / stats.norm.pdf(-1.1, 0, math.sqrt(0.08))
    assert replication_bayes_factor(found, -1.4, same_images=False) == pytest.approx(ratio, rel=1e-10)
    still = Effect(**{**vars(found), "standard_error": 0.0, "run_sd": 0.0, "image_variance": 0.0})
    assert strength(still, 1.0) is None
    assert replication_bayes_factor(still, -1.4) is None


@pytest.mark.parametrize(
    ("first", "second", "one_claim_two_ways", "two_findings"),
    [
        ("reproduced", "reproduced", "reproduced", "reproduced"),
        ("reproduced", "smaller", "smaller", "smaller"),
        ("reproduced", "inconclusive", "inconclusive", "inconclusive"),
        ("reproduced", "reversed", "inconclusive", "reversed"),
        ("size_open", "negligible", "inconclusive", "negligible"),
        ("negligible", "reversed", "negligible", "reversed"),
        ("inconclusive", "reversed", "inconclusive", "reversed"),
    ],
)
def test_two_words(first: str, second: str, one_claim_two_ways: str, two_findings: str):
    for pair in ((V[first], V[second]), (V[second], V[first])):
        assert weaker(*pair) is V[one_claim_two_ways]
        assert both_needed(*pair) is V[two_findings]


def test_variance_components_are_found_again():
    """A crossed design of known components; and by hand on the smallest one."""
    rng = np.random.default_rng(13)
    made = rng.normal(0, 2, 400) + rng.normal(0, 1, (300, 1)) + rng.normal(0, 0.5, (300, 400))
    assert variance_components(made) == pytest.approx((2, 1, 0.5), rel=0.1)
    column, row, rest = variance_components(np.array([[1.0, 4.0], [2.0, 9.0]]))
    # mean 4; rows 2.5, 5.5; columns 1.5, 6.5; rest +-1
    assert rest == pytest.approx(2.0)
    assert column == pytest.approx(math.sqrt((2 * 12.5 - 4) / 2))
    assert row == pytest.approx(math.sqrt((2 * 4.5 - 4) / 2))


# --- Failures, and planning.


@pytest.mark.parametrize("table", [(0, 5, 0, 15), (1, 5, 0, 15), (3, 5, 1, 15), (5, 5, 0, 15), (2, 7, 3, 4)])
def test_fisher(table: tuple[int, int, int, int]):
    failed_a, total_a, failed_b, total_b = table
    failed, total = failed_a + failed_b, total_a + total_b
    ways = {
        k: math.comb(total_a, k) * math.comb(total_b, failed - k)
        for k in range(max(0, failed - total_b), min(failed, total_a) + 1)
    }
    expected = sum(way for way in ways.values() if way <= ways[failed_a]) / math.comb(total, failed)
    assert fisher(*table) == pytest.approx(expected)


def test_fisher_edges():
    assert fisher(0, 0, 3, 5) == 1
    for table in ((-1, 5, 0, 5), (0, 5, 6, 5)):
        with pytest.raises(ValueError, match="failed_"):
            fisher(*table)


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


@pytest.mark.parametrize("size", [0.001, 0.002, 0.004, 0.014, 1.0])
@pytest.mark.parametrize("base_factor", [1, 3])
def test_seeds_needed(size: float, base_factor: int):
    found = seeds_needed(size, 0.0015, 12, base_factor)
    first = next(runs for runs in itertools.count(3) if power(size, 0.0015, runs, 12, base_factor) >= 0.9)
    assert found == first


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
    with pytest.raises(ValueError, match="takes over 1,000,000 runs"):
        seeds_needed(1e-7, 0.1, 1)


# --- Whole studies.


SIMULATED: list[dict[str, Any]] = [
    {"claims": 1, "runs": 10, "base_runs": 10},
    {"claims": 1, "runs": 5, "base_runs": 15, "unlike": 1},
    {"claims": 2, "runs": 5, "base_runs": 15, "unlike": 1, "factor": 3},
    {"claims": 6, "noise": "t3"},
    {"claims": 6, "noise": "lognormal"},
    {"claims": 6, "partly": 0.1},
    {"claims": 6, "scatter": 0.3},
    {"claims": 12, "runs": 5, "base_runs": 15, "scatter": 0.3},
    *({"claims": 6, "correlation": correlation, "scatter": 0.3} for correlation in (0.8, 0.0, -0.5)),
    {"claims": 1, "correlation": 0.8},
    {"claims": 6, "images": 1000, "image_sd": 0.8},
]


@pytest.mark.parametrize("options", SIMULATED, ids=str)
def test_intervals_hold_in_simulated_studies(options: dict[str, Any]):
    """Of 400 studies a share of .05 has a standard error of .011."""
    found = simulate(400, **options)
    assert 0.93 - 0.01 < found["fixed"] < 0.97 + 0.01
    if "new" in found:
        assert 0.92 < found["new"] < 0.98
    assert found["study_error"] <= 0.06 + 0.025


def test_words_of_simulated_studies():
    """At a quarter of the effect next to nothing is reproduced, at the true effect nearly all is."""
    options: dict[str, Any] = {"claims": 6, "published": 0.0372}
    quarter, whole, twice = (simulate(200, size=share * 0.0372, **options) for share in (0.25, 1.0, 2.0))
    assert quarter["reproduced"] <= 0.03
    assert whole["reproduced"] >= 0.9
    assert twice["same direction, larger"] > 0.9


def test_a_quarter_of_a_small_effect_is_rarely_called_reproduced():
    """Of 2.7 sd, by one claim of 10 runs an arm: at most .025, since such an interval excludes the truth that often."""
    options: dict[str, Any] = {"claims": 1, "runs": 10, "base_runs": 10, "published": 2.7 * 0.004}
    quarter, whole = (simulate(1500, size=share * 2.7 * 0.004, **options) for share in (0.25, 1.0))
    assert quarter["reproduced"] <= 0.025 + 3 * 0.004
    assert whole["reproduced"] >= 0.9


def test_effects_are_found_in_simulated_studies():
    options: dict[str, Any] = {"images": 0, "run_sd": 0.0015, "scatter": 0.3}
    assert simulate(200, size=0.014, **options)["found"] > 0.99
    assert 0.75 < simulate(200, size=0.004, **options)["found"] < 0.95


def test_main_prints_both_tables(capsys: pytest.CaptureFixture[str]):
    main(["--studies", "2", "--only", "1 claims, 10/10"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1 claims, 10/10 ")
    assert any("published 9.3 sd, true x1" in line for line in lines)


def test_nothing_of_a_report_waits_for_scipy_stats():
    """Half a second of CPU time for quantiles that `scipy.special` has."""
    code = "import sys, alexlab.study.verdicts, alexlab.study.sweeps; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def effects_of(groups: list[list[np.ndarray]]) -> list[Effect]:
    """Each group's effect, of one arm or of two, from its own variances."""
    found = []
    for arms in groups:
        samples = [Sample(arm) for arm in arms]
        spreads = list(shrink(dict(zip("ab", samples, strict=False))).values())
        found.append(contrast(samples, spreads, (1.0, -1.0)[: len(arms)], 1))
    return found


def johansen(groups: list[list[np.ndarray]]) -> tuple[float, float, float, float]:
    """F, its degrees of freedom and p by Johansen (1980), with the matrices of his general form."""
    cells = [arm for arms in groups for arm in arms]
    means = np.array([arm.mean() for arm in cells])
    covariance = np.diag([arm.var(ddof=1) / len(arm) for arm in cells])
    signs = np.kron(np.eye(len(groups)), np.array([[1.0, -1.0]])[:, : len(groups[0])])
    hypothesis = (signs[:-1] - signs[-1:]) @ np.eye(len(cells))
    inverse = np.linalg.inv(hypothesis @ covariance @ hypothesis.T)
    wald = float(means @ hypothesis.T @ inverse @ hypothesis @ means)
    projection = covariance @ hypothesis.T @ inverse @ hypothesis
    a = 0.0
    for place, arm in enumerate(cells):
        one = np.zeros_like(covariance)
        one[place, place] = 1
        part = projection @ one
        a += (np.trace(part @ part) + np.trace(part) ** 2) / (len(arm) - 1) / 2
    df = len(groups) - 1
    scale, residual = df + 2 * a - 6 * a / (df + 2), df * (df + 2) / (3 * a)
    return wald / scale, df, residual, float(stats.f.sf(wald / scale, df, residual))


class TestEqualEffects:
    @pytest.mark.parametrize("sizes", [[(4, 4), (5, 7)], [(4, 12), (8, 5), (3, 6)], [(4, 4)] * 6])
    def test_is_that_of_johansen(self, sizes: list[tuple[int, int]]):
        random = np.random.default_rng(0)
        groups = [[random.normal(0.4, 1 + place, size) for place, size in enumerate(pair)] for pair in sizes]
        found = equal_effects(effects_of(groups))
        assert found is not None
        np.testing.assert_allclose((found.statistic, *found.dfs, found.p), johansen(groups), rtol=1e-10)

    def test_of_one_arm_is_welchs_analysis_of_variance(self):
        random = np.random.default_rng(1)
        arms = [random.normal(place / 3, 1 + place, 4 + place) for place in range(4)]
        found = equal_effects(effects_of([[arm] for arm in arms]))
        theirs = stats.f_oneway(*arms, equal_var=False)
        assert found is not None
        np.testing.assert_allclose((found.statistic, found.p), (theirs.statistic, theirs.pvalue), rtol=1e-10)
        two = equal_effects(effects_of([[arm] for arm in arms[:2]]))
        assert two is not None
        welch: Any = stats.ttest_ind(*arms[:2], equal_var=False)
        assert two.p == pytest.approx(welch.pvalue, rel=1e-10)

    @pytest.mark.parametrize(
        ("sizes", "sds"),
        [
            ([(4, 4)] * 2, (1, 1)),
            ([(4, 8), (8, 8)], (1, 3)),
            ([(5, 5)] * 4, (1, 1)),
            ([(4, 4), (6, 6), (8, 8)], (2, 1)),
        ],
    )
    def test_rejects_equal_effects_of_few_runs_in_a_twentieth_of_studies(
        self, sizes: list[tuple[int, int]], sds: tuple[float, float]
    ):
        # 2,000 studies: .05 has a standard error of .005. Q against chi-squared comes to .07 to .10 here.
        random = np.random.default_rng(2)
        count = 2000
        [like] = effects_of([[np.arange(4.0), np.arange(4.0)]])
        columns = []
        for pair in sizes:
            arms = [random.normal(0, sd, (count, size)) for sd, size in zip(sds, pair, strict=True)]
            parts = [arm.var(axis=1, ddof=1) / arm.shape[1] for arm in arms]
            df = (parts[0] + parts[1]) ** 2 / sum(part**2 / (size - 1) for part, size in zip(parts, pair, strict=True))
            columns.append((arms[0].mean(1) - arms[1].mean(1), np.sqrt(parts[0] + parts[1]), df))
        below = 0
        for study in range(count):
            found = equal_effects(
                [
                    replace(like, difference=effects[study], standard_error=errors[study], df=dfs[study])
                    for effects, errors, dfs in columns
                ]
            )
            assert found is not None
            below += found.p < 0.05
        assert 0.025 <= below / count <= 0.065

    def test_finds_effects_that_differ(self):
        random = np.random.default_rng(3)
        groups = [[random.normal(shift, 1, 6), random.normal(0, 1, 6)] for shift in (0, 0, 6)]
        found = equal_effects(effects_of(groups))
        assert found is not None
        assert found.p < 0.001

    def test_none_of_one_effect_or_without_a_variance(self):
        one = effects_of([[np.arange(4.0), np.arange(5.0)]])
        constant = effects_of([[np.ones(4), np.ones(5)]])
        single = effects_of([[np.ones(1), np.ones(1)]])
        assert [equal_effects(each) for each in (one, one + constant, one + single)] == [None] * 3
