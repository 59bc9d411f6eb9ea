"""Local response normalisation and its gradient by the paper's formula, in NumPy float64."""

from __future__ import annotations

import numpy as np


def reference(a: np.ndarray, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    """b_i = a_i / (k + alpha * sum_{j = max(0, i - n/2)}^{min(N-1, i + n/2)} a_j^2)^beta, section 3.3, by loops."""
    out = np.empty_like(a)
    maps = a.shape[1]
    for i in range(maps):
        window = range(max(0, i - size // 2), min(maps - 1, i + size // 2) + 1)
        total = sum(a[:, j] ** 2 for j in window)
        out[:, i] = a[:, i] / (k + alpha * total) ** beta
    return out


def reference_gradient(a: np.ndarray, grad: np.ndarray, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    """dL/da_j = sum_i g_i db_i/da_j, every entry of the Jacobian written out."""
    out = np.zeros_like(a)
    maps = a.shape[1]
    for i in range(maps):
        window = range(max(0, i - size // 2), min(maps - 1, i + size // 2) + 1)
        s = k + alpha * sum(a[:, j] ** 2 for j in window)
        for j in window:
            out[:, j] += grad[:, i] * a[:, i] * -beta * s ** (-beta - 1) * alpha * 2 * a[:, j]
        out[:, i] += grad[:, i] * s**-beta
    return out


CONSTANTS = [(5, 2.0, 1e-4, 0.75), (3, 1.0, 5e-3, 0.5), (9, 1.0, 1e-3, 0.75), (1, 2.0, 1e-4, 0.75)]
