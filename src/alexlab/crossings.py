"""The time at which a training error first falls to a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.25  # of figure 1's training error


def epochs_to(
    errors: Sequence[float] | np.ndarray, threshold: float, epochs: Sequence[float] | np.ndarray | None = None
) -> float:
    """Epochs until an error is first at most `threshold`, interpolated linearly between entries.

    `epochs`: after how many epochs each error was logged; None = after 1, 2, 3, ... The time before the first entry is
    unknown: a first error that is low enough gives its own epoch, an upper bound. NaN if no error is low enough.
    """
    times = range(1, len(errors) + 1) if epochs is None else epochs
    reached = np.flatnonzero(np.asarray(errors) <= threshold)
    if not len(reached):
        return math.nan
    place = int(reached[0])
    if place == 0 or not math.isfinite(errors[place - 1]):
        return float(times[place])
    before, after = float(errors[place - 1]), float(errors[place])
    start, end = float(times[place - 1]), float(times[place])
    return start + (end - start) * (before - threshold) / (before - after)
