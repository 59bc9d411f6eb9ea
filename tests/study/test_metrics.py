"""The epochs to a training error, against hand-made curves and NumPy's interpolation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alexlab.study.metrics import epochs_to


@pytest.mark.parametrize(
    ("errors", "epochs"),
    [
        ([0.9, 0.5, 0.25, 0.1], 3.0),
        ([0.9, 0.3, 0.2], 2.5),
        ([0.65, 0.15], 1.8),
        ([0.9, 0.2, 0.4, 0.1], 1 + 65 / 70),  # the first time
        ([0.2, 0.1], 1.0),
        ([0.25], 1.0),
        ([0.9, math.nan, 0.2], 3.0),
        ([0.9, math.nan], math.nan),
        ([0.9, 0.26], math.nan),
        ([], math.nan),
    ],
)
def test_epochs_to(errors: list[float], epochs: float):
    assert epochs_to(np.array(errors), 0.25) == pytest.approx(epochs, nan_ok=True)


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.25])
def test_epochs_to_with_several_entries_an_epoch(rng: np.random.Generator, threshold: float):
    """A falling curve: NumPy's interpolation of epochs over errors."""
    epochs = np.round(np.arange(1, 41) * 97.5) / 390
    errors = np.sort(rng.uniform(0.1, 0.9, 40))[::-1]
    expected = np.interp(threshold, errors[::-1], epochs[::-1])
    assert epochs_to(errors, threshold, epochs) == pytest.approx(expected, abs=1e-12)
