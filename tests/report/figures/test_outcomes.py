"""Every run and its arm's interval against SciPy's, and what trials of learning rates came to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from alexlab.report.figures.outcomes import cost, dots, rates
from support.figures import texts


def test_the_seeds_and_the_interval_of_their_mean():
    values = [10.0, 12.0, 17.0]
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    axes = dots({"base": (values, []), "other": ([9.0], [])}, "%").axes[0]
    drawn = [np.asarray(line.get_xdata(), float) for line in axes.lines]
    assert any(len(xs) == 2 and np.allclose(xs, [low, high]) for xs in drawn)
    assert any(np.array_equal(xs, values) for xs in drawn)
    [band] = axes.patches
    left, width = band.get_x(), band.get_width()  # pyright: ignore[reportAttributeAccessIssue]
    assert (left, left + width) == pytest.approx((13 - np.std(values, ddof=1), 13 + np.std(values, ddof=1)))


def test_trials_of_learning_rates():
    trials = {"base": [(0.002, 8.0), (0.001, 10.0), (0.001, 12.0), (0.004, None)], "tanh": [(0.001, None)]}
    axes = (figure := rates(trials, "epochs")).axes[0]
    drawn = [(one.get_marker(), np.asarray(one.get_xydata(), float)) for one in axes.lines]
    assert any(np.array_equal(points, [[0.001, 11.0], [0.002, 8.0]]) for marker, points in drawn if marker == "None")
    crosses = np.concatenate([points for marker, points in drawn if marker == "x"])
    assert list(crosses[:, 0]) == [0.004, 0.001]
    assert crosses[:, 1].min() > 12.0
    assert {"no value", "×: no value, see the table"} <= set(texts(figure))
    with pytest.raises(ValueError, match="has no trial"):
        rates({"base": []}, "epochs")


def test_values_just_above_a_power_of_ten_have_a_tick_on_both_sides():
    axes = rates({"base": [(0.0005, 13.3), (0.001, 9.1), (0.002, 7.1), (0.004, None)]}, "epochs").axes[0]
    ticks = [float(tick) for tick in axes.yaxis.get_majorticklocs()]
    assert min(ticks) <= 7.1
    assert max(ticks) >= 13.3


def test_no_points_are_refused():
    with pytest.raises(ValueError, match="is empty"):
        cost([])
