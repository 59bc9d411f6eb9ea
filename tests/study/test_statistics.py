"""`alexlab.study.statistics` against slow formulas written here, and SciPy's own tests."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from alexlab.study.claims import Verdict
from alexlab.study.spreads import Sample, Spread, shrink, unlike
from alexlab.study.statistics import (
    Effect,
    Matched,
    contrast,
    effect,
    equal_effects,
    fisher,
    match_seeds,
    paired_effect,
    partly_trained,
    prediction,
    replication_bayes_factor,
    strength,
    variance_components,
)
from alexlab.study.verdicts import verdict
from support.samples import scaled, slow_shrink


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
    squares = ((base.values[shared] - base.values[shared].mean()) ** 2).sum()

    def by(base_variance: float, base_df: int) -> tuple[float, float]:
        rest = (1 - line.slope) ** 2 * base_variance / 15
        slope_part = 2 * error / squares * (1 - line.slope) ** 2 * (base_variance / 15) ** 2
        return rest, (own + rest) ** 2 / (own**2 / 4 + rest**2 / base_df + slope_part)

    # The base's variance shrunk, or by its own runs, whichever interval is wider.
    rest, df = max(
        (by(0.0004, 12), by(base.values.var(ddof=1), 14)),
        key=lambda one: stats.t.ppf(1 - 0.025 / 6, one[1]) * math.sqrt(own + one[0]),
    )
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
        by = []
        for variance, base_df in ((spreads["base"].variance, spreads["base"].df), (x.var(ddof=1), 4)):
            rest = (1 - slope) ** 2 * variance / 5
            slope_part = 2 * of_slope * (1 - slope) ** 2 * (variance / 5) ** 2
            df = (own + rest) ** 2 / (own**2 / (residuals.df - 1) + rest**2 / base_df + slope_part)
            by.append((rest, df))
        rest, df = max(by, key=lambda one: stats.t.ppf(1 - 0.025 / 4, one[1]) * math.sqrt(own + one[0]))
        both = own + rest + start[name].image_variance
        new = stats.t.ppf(1 - 0.025 / 2, df * (both / (own + rest)) ** 2) * math.sqrt(both)
        assert found[name].new_study == pytest.approx(new, rel=1e-10)


def test_a_base_that_scatters_more_than_its_arms_widens_the_interval():
    """An arm whose runs hardly scatter and have nothing in common with the base's: about Welch's t."""
    base = Sample(np.array([0.10, 0.30, 0.20, 0.05, 0.35]))
    arm = Sample(0.2 + 0.001 * np.array([1.0, 1.0, -4.0, 1.0, 1.0]))  # no slope
    shrunk = Spread(base.variance**0.5, base.variance / 9, 10.0, 8.0)
    start = effect(arm, base, (shrunk, shrunk), 1)
    found = match_seeds(base, shrunk, {"arm": Matched(start, arm.values, np.arange(5))}, 1)["arm"]
    welch: Any = stats.ttest_ind(arm.values, base.values, equal_var=False)
    assert found.fixed == pytest.approx(welch.confidence_interval(0.95).high - found.difference, rel=0.01)
    # Of a base of two runs the shrunk variance alone: its own would have one degree of freedom.
    two, places = Sample(np.array([0.1, 0.3])), np.arange(2)
    arms = {name: Matched(start, np.array([0.2, 0.2 + 1e-6 * more]), places) for more, name in enumerate("abcde", 1)}
    assert [one.df for one in match_seeds(two, shrunk, arms, 1).values()] == pytest.approx([10.0] * 5, rel=0.01)


def test_a_slope_that_is_hardly_known_leaves_no_interval_without_end():
    """A base that happens to scatter little, by which an arm's slope is nearly 1 and says next to nothing."""
    shared = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) * 1e-3
    base, values = Sample(0.2 + shared), 0.2 + shared * 0.5 + np.array([1.0, -2.0, 0.0, 2.0, -1.0]) * 0.01
    spread = Spread(0.05, 0.0025, 8.0, 8.0)
    start = effect(Sample(values), base, (spread, spread), 1)
    found = match_seeds(base, spread, {"arm": Matched(start, values, np.arange(5))}, 1)["arm"]
    assert found.df >= 3  # the residuals' own: of five runs around a line
    assert found.fixed <= stats.t.ppf(0.975, 3) * found.standard_error * (1 + 1e-9)


def test_a_base_without_any_scatter_is_no_control():
    base, arm = Sample(np.full(5, 0.2)), Sample(np.array([0.1, 0.2, 0.3]))
    spreads = shrink({"base": base, "arm": arm})
    start = effect(arm, base, (spreads["arm"], spreads["base"]), 1)
    few = {"arm": Matched(start, arm.values, np.arange(3))}
    assert match_seeds(Sample(np.array([0.1, 0.3, 0.2])), spreads["arm"], few, 1) == {"arm": start}  # too few runs
    assert match_seeds(base, spreads["base"], {"arm": Matched(start, arm.values, np.arange(3))}, 1) == {"arm": start}


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
    # Thousands of standard errors on the wrong side or on the right one: neither 0 nor infinite.
    for difference, published, log in ((0.0, 100.0, -700.0), (100.0, 100.0, 700.0)):
        far = replace(found, difference=difference, standard_error=0.001, run_sd=0.01)
        assert math.log(replication_bayes_factor(far, published) or 0.5) == pytest.approx(log)


def test_no_run_of_an_arm_that_only_guesses_is_partly_trained():
    """Else its luckier half would stand for the arm."""
    assert not partly_trained(np.array([0.9, 0.9, 0.91, 0.92]), 0.9).any()
    assert partly_trained(np.array([0.2, 0.3, 0.25, 0.7]), 0.9).tolist() == [False, False, False, True]


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
