"""The kernels' words."""

from __future__ import annotations

import numpy as np
import pytest

from alexlab.report.figures.images import kernels
from support.figures import CONV1, texts


def test_colour_of_towers():
    grey = np.ones((4, 3, 3, 3))
    colour = grey * np.array([1, -1, 0])[:, None, None]
    told = texts(kernels(np.concatenate([grey, colour]), 2))
    assert told[:2] == [f"Tower {i}: {n} % of a kernel's energy is colour, on average" for i, n in ((1, 0), (2, 100))]


def test_kernels_that_do_not_divide_into_towers_are_refused():
    with pytest.raises(ValueError, match="groups=5: 24 kernels do not divide"):
        kernels(CONV1, 5)
