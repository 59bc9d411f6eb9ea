"""The net in NumPy float64, written from the formulas of the paper and of the released code, not from the code in src.

Maps are [B, C, H, W]; weights are a state dict's arrays by name, such as conv1.weight. Sections in brackets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from alexlab.config import Config

SAME_MAP_ALPHA, SAME_MAP_SIDE = 0.001 / 25, 5  # `rnorm` of the released code

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
}


def patches(x: np.ndarray, kernel: int, stride: int, before: int, after: int) -> np.ndarray:
    """What the kernel stands on at each place, [B, C, places down, places across, kernel, kernel]."""
    padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    return sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]


def conv2d(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: int = 1,
    zeros: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> np.ndarray:
    """Kernels [K, C / groups, k, k]; zeros before and after in each direction; the g-th K / groups kernels see the g-th
    C / groups maps.
    """
    outputs = []
    for maps, kernels in zip(np.split(x, groups, 1), np.split(weight, groups), strict=True):
        seen = patches(maps, weight.shape[2], stride, *zeros)
        images, _, down, across = seen.shape[:4]
        columns = seen.transpose(0, 1, 4, 5, 2, 3).reshape(images, -1, down * across)
        outputs.append((kernels.reshape(len(kernels), -1) @ columns).reshape(images, -1, down, across))
    return np.concatenate(outputs, 1) + bias[:, None, None]


def local2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, kernel: int, stride: int, zeros: int) -> np.ndarray:
    """A convolution without shared weights: kernels [places, K, C * k * k], biases [places, K], places row by row."""
    seen = patches(x, kernel, stride, zeros, zeros)
    images, _, down, across = seen.shape[:4]
    out = np.empty((images, weight.shape[1], down, across))
    for i in range(down):
        for j in range(across):
            place = i * across + j
            out[:, :, i, j] = seen[:, :, i, j].reshape(images, -1) @ weight[place].T + bias[place]
    return out


def pool(x: np.ndarray, window: int, ceil: bool, kind: str) -> np.ndarray:
    """Windows 2 apart (3.4); with `ceil` a last one may stand over the edge and then sees just what is on the map."""
    spare = x.shape[2] - window
    places = (spare + 1) // 2 + 1 if ceil else spare // 2 + 1
    out = np.empty((*x.shape[:2], places, places))
    for i in range(places):
        for j in range(places):
            seen = x[:, :, 2 * i : 2 * i + window, 2 * j : 2 * j + window]
            out[:, :, i, j] = {
                "max": lambda a: a.max((2, 3)),
                "average": lambda a: a.mean((2, 3)),
                "max_average": lambda a: a.max((2, 3)) + a.mean((2, 3)),
            }[kind](seen)
    return out


def lrn(a: np.ndarray, n: int, k: float, alpha: float, beta: float, towers: int = 1) -> np.ndarray:
    """b_i = a_i / (k + alpha * sum_{j = max(0, i - n/2)}^{min(N-1, i + n/2)} a_j^2)^beta (3.3), N maps to a tower."""
    outputs = []
    for tower in np.split(a, towers, 1):
        count, b = tower.shape[1], np.empty_like(tower)
        for i in range(count):
            first, last = max(0, i - n // 2), min(count - 1, i + n // 2)
            b[:, i] = tower[:, i] / (k + alpha * (tower[:, first : last + 1] ** 2).sum(1)) ** beta
        outputs.append(b)
    return np.concatenate(outputs, 1)


def same_map_norm(x: np.ndarray, alpha: float = SAME_MAP_ALPHA, beta: float = 0.75) -> np.ndarray:
    """x / (1 + alpha * sum of the squares of the 5 x 5 places around it in its map, zeros beyond the edge)^beta."""
    reach = SAME_MAP_SIDE // 2
    sums = (patches(x, SAME_MAP_SIDE, 1, reach, reach) ** 2).sum((4, 5))
    return x / (1 + alpha * sums) ** beta


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over images of -log softmax at the label."""
    top = logits.max(1, keepdims=True)
    log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    return float((log_sums - logits[np.arange(len(labels)), labels]).mean())


def forward(config: Config, weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Logits of a whole net in evaluation, by the configuration's keys."""
    model = config.model
    assert not model.remove
    assert model.batch_norm.name == "none"
    activation = ACTIVATIONS[model.activation.name]
    x = images.astype(np.float64)
    for number in range(1, len(model.kernels) + 1):
        name = f"conv{number}"
        x = _convolution(config, name, number, x, *_of(weights, name))
        order = {1: model.conv1_order, 2: model.conv2_order}.get(number, ["activation", "pool"])
        for step in order:
            if step == "activation":
                x = activation(x)
            elif step == "lrn":
                x = _norms(config, name, x)
            elif name in config.pool.after:
                kind = dict(item.split(":") for item in config.pool.kinds).get(name, config.pool.kind.name)
                x = pool(x, 3 if config.pool.overlap else 2, config.pool.ceil, kind)
        x = _dropped(config, name, x)
    x = x.reshape(len(x), -1)
    for name in ("fc6", "fc7")[: model.hidden_layers]:
        weight, bias = _of(weights, name)
        x = _dropped(config, name, activation(x @ weight.T + bias))
    weight, bias = _of(weights, "fc8")
    logits = x @ weight.T + bias
    return activation(logits) if model.last_activation else logits


def _of(weights: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    return weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"].astype(np.float64)


def _convolution(
    config: Config, name: str, number: int, x: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """The image's zeros by `conv1_padding`; towers but for conv1 and the layers of `cross_talk` (3.2)."""
    model = config.model
    if number == 1:
        zeros = {"both": (2, 2), "end": (0, 3), "none": (0, 0)}[model.conv1_padding.name]
    else:
        zeros = model.paddings[number - 2], model.paddings[number - 2]
    stride = model.conv1_stride if number == 1 else 1
    if name in model.unshared:
        return local2d(x, weight, bias, model.kernel_sizes[number - 1], stride, zeros[0])
    groups = 1 if number == 1 or name in model.cross_talk else model.groups
    return conv2d(x, weight, bias, stride, zeros, groups)


def _norms(config: Config, name: str, x: np.ndarray) -> np.ndarray:
    """LRN of `lrn_scale` times the activities in its sum; behind that of conv2 the norm within a map, likewise."""
    model = config.model
    square = model.lrn_scale**2
    if model.lrn and name in model.lrn_after:
        towers = model.groups if model.lrn_per_tower else 1
        x = lrn(x, model.lrn_size, model.lrn_k, model.lrn_alpha * square, model.lrn_beta, towers)
    if model.same_map_norm and name == "conv2":
        x = same_map_norm(x, SAME_MAP_ALPHA * square)
    return x


def _dropped(config: Config, name: str, x: np.ndarray) -> np.ndarray:
    """At test all outputs times the chance to be kept (4.2), unless training made up for it."""
    model = config.model
    makes_up = name in model.dropout_after and model.dropout_scaling.name == "test"
    return x * (1 - model.dropout) if makes_up else x
