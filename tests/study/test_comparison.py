"""Someone else's figure among the runs of an arm, against SciPy and simulated results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from alexlab.study.comparison import Figure, place
from alexlab.study.spreads import Sample

ERRORS = np.array([0.41, 0.42, 0.405, 0.415, 0.42, 0.398, 0.411, 0.407])


def test_the_interval_is_students_for_one_further_run():
    found = place(Figure(0.43), Sample(ERRORS))
    spread = ERRORS.std(ddof=1) * math.sqrt(1 + 1 / len(ERRORS))
    assert found.interval == pytest.approx(stats.t.interval(0.95, len(ERRORS) - 1, ERRORS.mean(), spread))
    assert found.gap == pytest.approx(0.43 - ERRORS.mean())
    assert found.is_expected is False
    assert place(Figure(0.42), Sample(ERRORS)).is_expected is True


@pytest.mark.parametrize("value", [0.39, 0.398, 0.41, 0.42, 0.5])
def test_the_percentile_counts_equal_runs_half(value: float):
    found = place(Figure(value), Sample(ERRORS))
    assert found.percentile == pytest.approx(stats.percentileofscore(ERRORS, value, kind="mean"))


def test_a_mean_of_several_runs_has_a_narrower_interval():
    found = place(Figure(0.43, runs=5), Sample(ERRORS))
    spread = ERRORS.std(ddof=1) * math.sqrt(1 / 5 + 1 / len(ERRORS))
    assert found.interval == pytest.approx(stats.t.interval(0.95, len(ERRORS) - 1, ERRORS.mean(), spread))


def test_the_other_sides_own_spread_makes_it_welchs():
    found = place(Figure(0.43, runs=5, sd=0.003), Sample(ERRORS))
    assert found.half is not None
    edge = ERRORS.mean() + found.half
    test = stats.ttest_ind_from_stats(edge, 0.003, 5, ERRORS.mean(), ERRORS.std(ddof=1), 8, equal_var=False)
    assert test.pvalue == pytest.approx(0.05)  # pyright: ignore[reportAttributeAccessIssue]


def test_runs_that_err_on_the_same_images_leave_the_choice_of_images():
    wrong = np.arange(1000) < 300
    found = place(Figure(0.33, images=500), Sample.of_images(np.stack([wrong] * 4)))
    half = stats.norm.ppf(0.975) * math.sqrt(wrong.var(ddof=1) * (1 / 500 + 1 / 1000))
    assert found.half == pytest.approx(half)
    assert place(Figure(0.33), Sample.of_images(np.stack([wrong] * 4))).half == 0


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_runs_tell_nothing(count: int):
    found = place(Figure(0.43), Sample(ERRORS[:count]))
    assert (found.half, found.interval, found.is_expected) == (None, None, None)
    assert found.percentile == 100


def test_the_interval_ends_at_0_and_1():
    assert place(Figure(0.5), Sample(np.array([0.01, 0.2, 0.9]))).interval == (0, 1)


@pytest.mark.parametrize(("count", "further"), [(3, 1), (8, 1), (8, 5)])
def test_it_covers_further_runs_on_the_same_images(count: int, further: int):
    random = np.random.default_rng(count + further)
    trials = 4000
    runs, others = random.normal(0.4, 0.01, (trials, count)), random.normal(0.4, 0.01, (trials, further)).mean(axis=1)
    hits = [place(Figure(one, further), Sample(own)).is_expected is True for own, one in zip(runs, others, strict=True)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("images", "above"), [(250, 0.0), (400, 0.0), (1200, 0.02)])
def test_it_covers_a_run_on_other_images(images: int, above: float):
    """Images differ in difficulty and runs in skill; with more images there it errs on the wide side."""
    random = np.random.default_rng(images)

    def wrong(hard: np.ndarray, runs: int) -> np.ndarray:
        chance = 1 / (1 + np.exp(-hard - random.normal(0, 0.12, (runs, 1))))
        return random.random(chance.shape) < chance

    hits = []
    for _ in range(1500):
        own, other = (wrong(random.normal(-0.5, 1.5, size), runs) for size, runs in ((400, 8), (images, 1)))
        hits.append(place(Figure(float(other.mean()), images=images), Sample.of_images(own)).is_expected is True)
    assert 0.935 <= np.mean(hits) <= 0.965 + above
