"""Statistics that need no SciPy, which takes a second to import.

The intervals are over a test set's images, for the weights of single runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z_95 = 1.959964  # of the standard normal distribution


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation; None for the mean of no values, and for the deviation of fewer than two."""
    mean = float(np.mean(values)) if values else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def wilson(errors: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an error rate over independent images (1927)."""
    centre = (errors + Z_95**2 / (2 * images)) / (1 + Z_95**2 / images)
    half = Z_95 / (1 + Z_95**2 / images) * math.sqrt(errors * (1 - errors) / images + Z_95**2 / (4 * images**2))
    return centre - half, centre + half


def paired_difference(wrong: np.ndarray, base_wrong: np.ndarray) -> tuple[float, float]:
    """Difference of two error rates on the same images, and half of its 95 % interval over images."""
    differences = wrong.astype(float) - base_wrong.astype(float)
    half = Z_95 * differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else float("inf")
    return float(differences.mean()), float(half)
