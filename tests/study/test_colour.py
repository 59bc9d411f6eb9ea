"""The share of colour in kernels against sums over places, and its edges."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from alexlab.study.colour import colour_gap, colour_indices


class TestColour:
    def test_grey_and_pure_colour(self, rng: np.random.Generator):
        one = rng.normal(size=(5, 1, 7, 7))
        grey = one.repeat(3, 1)
        assert (colour_indices(grey) == 0).all()
        red_less_green = one * np.array([1, -1, 0])[:, None, None]
        both = np.concatenate([red_less_green, one * np.array([1, 1, -2])[:, None, None]])
        np.testing.assert_array_equal(colour_indices(both), 1)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_is_the_share_off_the_grey_axis(self, rng: np.random.Generator, kind: type):
        weights = rng.normal(size=(9, 3, 5, 5)).astype(kind)
        axis = np.ones(3) / math.sqrt(3)
        expected = []
        for kernel in weights.astype(np.float64):
            total = colour = 0.0
            for place in kernel.reshape(3, -1).T:
                off = place - (place @ axis) * axis
                colour, total = colour + off @ off, total + place @ place
            expected.append(colour / total)
        np.testing.assert_allclose(colour_indices(weights), expected, rtol=1e-12)
        np.testing.assert_allclose(colour_indices(weights * kind(4)), expected, rtol=1e-12)

    def test_of_one_channel_is_two_thirds(self):
        weights = np.zeros((1, 3, 2, 2))
        weights[0, 2] = 5
        assert colour_indices(weights) == pytest.approx(2 / 3)

    def test_zeros_and_extremes(self):
        weights = np.zeros((3, 3, 2, 2))
        weights[1, 0] = 1e-200
        assert colour_indices(weights)[0] == 0
        assert colour_indices(weights)[1] == pytest.approx(2 / 3)
        assert colour_indices(1e300 * np.ones((1, 3, 2, 2))) == [0]
        assert colour_indices(np.zeros((0, 3, 2, 2))).shape == (0,)

    def test_gap_is_between_the_halves(self):
        weights = np.ones((5, 3, 2, 2))  # grey, but for the last two: the second half is three
        weights[3:, 0], weights[3:, 1], weights[3:, 2] = 1, -1, 0
        assert colour_gap(weights) == pytest.approx(2 / 3)
        assert colour_gap(weights[::-1]) == pytest.approx(1)
        assert colour_gap(np.concatenate([weights, weights])[[0, 3, 1, 4]]) == pytest.approx(0)

    @pytest.mark.parametrize("shape", [(4, 1, 5, 5), (4, 3, 5), (3, 5, 5), (4, 5, 5, 3)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            colour_indices(np.ones(shape))

    def test_what_has_no_index_is_refused(self):
        with pytest.raises(ValueError, match="not finite"):
            colour_indices(np.full((2, 3, 2, 2), np.nan))
        with pytest.raises(ValueError, match="two or more"):
            colour_gap(np.ones((1, 3, 2, 2)))
