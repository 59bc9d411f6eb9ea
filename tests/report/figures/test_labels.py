"""Names beside a plot never overlap."""

from __future__ import annotations

import numpy as np

from alexlab.report.figures.labels import spread


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
