"""What happens to a batch on its device: minus the mean, colour, scale, float.

Legend: B batch, S side of the stored image, H = W crop.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alexlab.data.order import Window
from alexlab.data.store import Store


def colour_shifts(normals: np.ndarray, std: float, store: Store) -> np.ndarray:
    """RGB shifts in grey levels, [B, 3]: the sum over components of a * variance * component, a ~ N(0, std) (4.1).

    The variances are of pixels on the 0-1 scale, and the sum is put back on the 0-255 scale. Taken on the 0-255 scale
    itself the same formula would shift by hundreds of levels.
    """
    return 255 * (std * normals * store.variances) @ store.components.T


def read_crops(images: np.ndarray, indices: np.ndarray, windows: list[Window], crop_size: int) -> Tensor:
    """Crops straight from the stored images [N, S, S, 3] into one uint8 batch [B, H, W, 3], mirrored where asked."""
    source = torch.from_numpy(images)
    crops = torch.empty((len(indices), crop_size, crop_size, 3), dtype=torch.uint8)
    for out, index, (y, x, flip) in zip(crops, indices, windows, strict=True):
        crop = source[index, y : y + crop_size, x : x + crop_size]
        # torch's flip copies row by row; NumPy's negative strides would make the copy six times slower
        out.copy_(crop.flip(1) if flip else crop)
    return crops


def training_input(crops: Tensor, windows: list[Window], shifts: Tensor, mean: Tensor, scale: float) -> Tensor:
    """Network input [B, 3, H, W] (channels last in memory) from crops made by `read_crops`.

    The mean image [S, S, 3] is cut and mirrored as each image was, so that it is taken "from each pixel" (2).
    """
    size = crops.shape[1]
    inputs = torch.empty(crops.shape, dtype=torch.float32, device=crops.device)
    for out, crop, (y, x, flip) in zip(inputs, crops, windows, strict=True):
        mean_crop = mean[y : y + size, x : x + size]
        torch.sub(crop, mean_crop.flip(1) if flip else mean_crop, out=out)
    return inputs.add_(shifts[:, None, None, :]).mul_(scale).permute(0, 3, 1, 2)


def view_input(images: Tensor, window: Window, crop_size: int, mean: Tensor, scale: float) -> Tensor:
    """Network input [B, 3, H, W] from whole stored images [B, S, S, 3], the same crop of each."""
    y, x, flip = window
    area = slice(y, y + crop_size), slice(x, x + crop_size)
    inputs = (images[:, *area] - mean[area]).mul_(scale)
    return (inputs.flip(2) if flip else inputs).permute(0, 3, 1, 2)
