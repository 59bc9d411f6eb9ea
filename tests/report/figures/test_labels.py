"""Names beside a plot never overlap."""

from __future__ import annotations

import numpy as np
import pytest

from alexlab.report.figures.labels import LANE_NAMES, axes_with_lanes, spread


class TestSpread:
    def test_moves_nothing_that_has_room(self):
        assert spread([50.0, 10.0, 30.0], [10.0] * 3, 0, 100) == [50.0, 10.0, 30.0]

    def test_never_overlaps_and_keeps_order_and_ends(self, rng: np.random.Generator):
        for _ in range(50):
            count = int(rng.integers(1, 20))
            wanted, sizes = rng.uniform(0, 100, count), rng.uniform(1, 5, count)
            middles = np.array(spread(list(wanted), list(sizes), 0, 100))
            order = np.argsort(wanted)
            low, high = (middles - sizes / 2)[order], (middles + sizes / 2)[order]
            assert (low[1:] >= high[:-1] - 1e-9).all()
            assert low[0] >= -1e-9
            assert high[-1] <= 100 + 1e-9

    def test_alike_ones_lie_around_their_place(self):
        assert spread([50.0] * 3, [10.0] * 3, 0, 100) == [40.0, 50.0, 60.0]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("base", "base"),
        ("model.activation=tanh", "model.activation=tanh"),
        ("a long name " * 9, "a long name a long name"),
    ],
)
def test_a_lane_has_room_for_its_name(name: str, shown: str):
    figure, axes = axes_with_lanes([name, "base"], lane=19.0, top=6.0)
    label = axes.get_yticklabels()[0]
    assert label.get_text().startswith(shown)
    assert (label.get_text() == name) == (name == shown)
    assert label.get_window_extent().x0 >= 0
    assert 0 < figure.axes[0].get_window_extent().x0 <= LANE_NAMES[1] + 11
