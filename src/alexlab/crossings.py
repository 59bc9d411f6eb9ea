"""When a training error first falls to a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.25  # of figure 1's training error


def epochs_to(
    errors: Sequence[float] | np.ndarray, threshold: float, epochs: Sequence[float] | np.ndarray | None = None
) -> float:
    """Epochs until an error first is at most `threshold`, between two entries on the line that joins them.

    `epochs`: after how many epochs each error was logged; None = after 1, 2, 3, ... What was before the first entry is
    not known: a first error that is low enough gives its own epoch, an upper bound. NaN where no error is.
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
