"""The share of colour in first-layer kernels: one tower's are colour-agnostic, the other's are not (6.1, figure 3)."""

from __future__ import annotations

import numpy as np


def colour_indices(kernels: np.ndarray) -> np.ndarray:
    """The share of each kernel's energy that is colour, from 0 to 1, float64 [K], of kernels [K, 3, S, S].

    The RGB weights at one position are a vector: its component along grey (r = g = b) responds to brightness, the
    orthogonal rest to colour alone. Energy is the sum of squares over all positions. Independent random weights, as
    before training, have 2/3 on average; a kernel of zeros has 0.

    Raises:
        ValueError: for kernels of another shape, or weights that are not finite.
    """
    if kernels.ndim != 4 or kernels.shape[1] != 3:
        raise ValueError(f"kernels: have the shape {kernels.shape}; colour needs [kernels, 3, side, side]")
    if not np.isfinite(kernels).all():
        raise ValueError("kernels: have weights that are not finite")
    weights = kernels.astype(np.float64)
    weights /= max(float(np.abs(weights).max(initial=0)), np.finfo(np.float64).tiny)  # keeps the squares in range
    red, green, blue = weights.swapaxes(0, 1).reshape(3, len(weights), kernels.shape[2] * kernels.shape[3])
    grey = ((red + green + blue) ** 2).sum(1) / 3
    colour = ((red - green) ** 2 + (green - blue) ** 2 + (blue - red) ** 2).sum(1) / 3
    total = grey + colour
    return np.divide(colour, total, out=np.zeros_like(total), where=total > 0)


def colour_gap(kernels: np.ndarray) -> float:
    """The absolute difference of the mean colour indices of the first and the second half of the kernels.

    With two towers each half is one tower; without towers the value shows what arises by chance. The middle one of an
    odd number of kernels belongs to the second half.

    Raises:
        ValueError: as `colour_indices`, and for under two kernels.
    """
    indices = colour_indices(kernels)
    if len(indices) < 2:
        raise ValueError(f"kernels: are {len(indices)}; two halves need two or more")
    half = len(indices) // 2
    return float(abs(indices[:half].mean() - indices[half:].mean()))
