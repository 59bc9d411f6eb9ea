"""Kernels of a first layer as one image, as in the paper's figure 3."""

from __future__ import annotations

import numpy as np


def per_row(count: int) -> int:
    """Kernels per row: the number from 8 to 16 that leaves the fewest gaps, the largest one on a tie."""
    return count if count <= 16 else min(range(16, 7, -1), key=lambda width: -count % width)


def colours(weights: np.ndarray) -> np.ndarray:
    """Kernels [K, 3, S, S] as colours from 0 to 1, [K, S, S, 3]."""
    weights = weights.astype(np.float64).transpose(0, 2, 3, 1)
    largest = np.abs(weights).max((1, 2, 3), keepdims=True)
    return 0.5 + 0.5 * np.divide(weights, largest, out=np.zeros_like(weights), where=largest > 0)


def tiles(images: np.ndarray, per_row: int) -> np.ndarray:
    """Tile images [N, S, S, 3] with gaps of one transparent pixel, uint8 [.., .., 4]."""
    count, side = images.shape[:2]
    rows = -(-count // per_row)
    canvas = np.zeros((rows * (side + 1) - 1, per_row * (side + 1) - 1, 4), np.uint8)
    for number, image in enumerate(images):
        y, x = (side + 1) * (number // per_row), (side + 1) * (number % per_row)
        canvas[y : y + side, x : x + side, :3] = np.rint(255 * image)
        canvas[y : y + side, x : x + side, 3] = 255
    return canvas
