"""What happens to a batch on its device: minus the mean, colour, scale, float.

Legend: B batch, S side of the stored image, H = W crop.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alexlab.config import AugmentConfig, DataConfig, Mean, PcaUnit
from alexlab.data.order import Window
from alexlab.data.store import Split, Store

# What torchvision's published weights were trained with, on pixels of 0 to 1.
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)


def colour_shifts(normals: np.ndarray, augment: AugmentConfig, store: Store) -> np.ndarray:
    """RGB shifts in grey levels, [B, 3]: the sum over components of a * variance * component, a ~ N(0, std) (4.1).

    The variances are of pixels on the 0-1 scale, and the sum is put back on the 0-255 scale. Taken on the 0-255 scale
    itself the same formula would shift by hundreds of levels. `augment.pca_unit=deviation` takes their roots, which
    mean the same on either scale.
    """
    spread = store.variances if augment.pca_unit is PcaUnit.variance else np.sqrt(store.variances)
    return 255 * (augment.pca_std * normals * spread) @ store.components.T


def read_crops(split: Split, indices: np.ndarray, windows: list[Window], crop_size: int) -> Tensor:
    """Crops straight from the stored images into one uint8 batch [B, H, W, 3], mirrored where asked."""
    crops = torch.empty((len(indices), crop_size, crop_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing is written to it
        for out, index, (y, x, flip) in zip(crops, indices, windows, strict=True):
            crop = torch.from_numpy(split.image(index)[y : y + crop_size, x : x + crop_size])
            # torch's flip copies row by row; NumPy's negative strides would make the copy six times slower
            out.copy_(crop.flip(1) if flip else crop)
    return crops


@dataclass(frozen=True)
class Normalisation:
    """What is taken from each pixel and what it is then multiplied by (`data.mean`, `data.pixel_scale`)."""

    mean: Tensor  # grey levels [S, S, 3]
    scale: float | Tensor  # for all colours, or one each
    is_centred: bool  # the mean's centre is taken from every crop, and not mirrored with it

    def mean_crop(self, window: Window, crop_size: int) -> Tensor:
        """The part of the mean that is taken from a crop [H, W, 3]."""
        y, x, flip = window
        if self.is_centred:
            y = x = (len(self.mean) - crop_size) // 2
        crop = self.mean[y : y + crop_size, x : x + crop_size]
        return crop.flip(1) if flip and not self.is_centred else crop

    def to(self, device: torch.device) -> Normalisation:
        scale = self.scale.to(device) if isinstance(self.scale, Tensor) else self.scale
        return replace(self, mean=self.mean.to(device), scale=scale)


def normalisation(data: DataConfig, store: Store) -> Normalisation:
    """`data.mean` and `data.pixel_scale` for a store."""
    mean, scale = torch.from_numpy(store.mean), data.pixel_scale
    if data.mean is Mean.channel:
        mean = mean.double().mean((0, 1)).float().expand_as(mean)
    elif data.mean is Mean.torchvision:
        mean = (255 * torch.tensor(TORCHVISION_MEAN)).expand_as(mean)
        return Normalisation(mean, scale / (255 * torch.tensor(TORCHVISION_STD)), False)
    return Normalisation(mean, scale, data.mean is Mean.center)


def training_input(crops: Tensor, windows: list[Window], shifts: Tensor, divisor: float, norm: Normalisation) -> Tensor:
    """Network input [B, 3, H, W] (channels last in memory) from crops made by `read_crops`.

    The mean image [S, S, 3] is cut and mirrored as each image was, so that it is taken "from each pixel" (2).
    """
    inputs = torch.empty(crops.shape, dtype=torch.float32, device=crops.device)
    for out, crop, window in zip(inputs, crops, windows, strict=True):
        torch.sub(crop, norm.mean_crop(window, crops.shape[1]), out=out)
    return inputs.add_(shifts[:, None, None, :]).mul_(norm.scale / divisor).permute(0, 3, 1, 2)


def view_input(images: Tensor, window: Window, crop_size: int, norm: Normalisation) -> Tensor:
    """Network input [B, 3, H, W] from whole stored images [B, S, S, 3], the same crop of each."""
    y, x, flip = window
    crops = images[:, y : y + crop_size, x : x + crop_size]
    inputs = (crops.flip(2) if flip else crops) - norm.mean_crop(window, crop_size)
    return inputs.mul_(norm.scale).permute(0, 3, 1, 2)
