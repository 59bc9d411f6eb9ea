"""The transformation of a batch on its device: subtract the mean, shift colours, scale, convert to float.

Legend: B batch, S side of the stored image, H = W crop.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from alexlab.config import AugmentConfig, DataConfig, Mean, PcaUnit
from alexlab.data.sampling import Window
from alexlab.data.store import Split, Store

# Used to train torchvision's published weights, on pixels of 0 to 1.
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)


def colour_shifts(normals: np.ndarray, augment: AugmentConfig, store: Store) -> np.ndarray:
    """RGB shifts in grey levels, [B, 3]: the sum over components of a * variance * component, a ~ N(0, std) (4.1).

    The variances are of pixels on the 0-1 scale, and the sum is converted back to the 0-255 scale. On the 0-255 scale
    itself the formula would shift by hundreds of levels. `augment.pca_unit=deviation` uses standard deviations instead,
    which give the same shift on either scale.
    """
    spread = store.variances if augment.pca_unit is PcaUnit.variance else np.sqrt(store.variances)
    return 255 * (augment.pca_std * normals * spread) @ store.components.T


def read_crops(split: Split, indices: np.ndarray, windows: list[Window], crop_size: int) -> Tensor:
    """Copy crops from the stored images into one uint8 batch [B, H, W, 3], mirrored if their windows are."""
    crops = _empty((len(indices), crop_size, crop_size, 3))
    with warnings.catch_warnings(), _one_thread():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing is written to it
        for out, index, (y, x, flip) in zip(crops, indices, windows, strict=True):
            crop = torch.from_numpy(split.image(index)[y : y + crop_size, x : x + crop_size])
            # torch's flip copies row by row; NumPy's negative strides would make the copy six times slower
            out.copy_(crop.flip(1) if flip else crop)
    return crops


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: crops are too small to divide, and threads wait for each other if the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _empty(shape: tuple[int, ...]) -> Tensor:
    """An uninitialised uint8 tensor; in a loader process it is in shared memory, which saves a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(math.prod(shape), device="cpu")
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)  # pyright: ignore[reportCallIssue, reportArgumentType]


@dataclass(frozen=True)
class Normalisation:
    """The mean subtracted from each pixel and the factor applied after that (`data.mean`, `data.pixel_scale`)."""

    mean: Tensor  # grey levels [S, S, 3]
    scale: float | Tensor  # for all channels, or one each
    is_centred: bool  # the mean's centre is subtracted from every crop, never mirrored

    def mean_crop(self, window: Window, crop_size: int) -> Tensor:
        """The part of the mean to subtract from a crop, as rows [H, W * 3]."""
        y, x, flip = window
        size = len(self.mean)
        if self.is_centred:
            y = x = (size - crop_size) // 2
        elif flip:
            return self._mirrored_rows[y : y + crop_size, 3 * (size - crop_size - x) : 3 * (size - x)]
        return self._rows[y : y + crop_size, 3 * x : 3 * (x + crop_size)]

    def mean_crops(self, windows: Tensor, crop_size: int) -> Tensor:
        """The part of the mean to subtract from each crop [B, H, W, 3], or [H, W, 3] if it is the same for all."""
        if self.is_centred:
            return self.mean_crop(Window(0, 0, False), crop_size).unflatten(1, (-1, 3))
        offsets = torch.arange(crop_size, device=windows.device)
        y, x, flip = windows[:, :, None].unbind(1)
        return self.mean[(y + offsets)[:, :, None], (x + torch.where(flip > 0, offsets.flip(0), offsets))[:, None]]

    @cached_property
    def _rows(self) -> Tensor:
        return self.mean.reshape(len(self.mean), -1)

    @cached_property
    def _mirrored_rows(self) -> Tensor:
        return self.mean.flip(1).reshape(len(self.mean), -1)

    def to(self, device: torch.device) -> Normalisation:
        scale = self.scale.to(device) if isinstance(self.scale, Tensor) else self.scale
        return replace(self, mean=self.mean.to(device), scale=scale)


def normalisation(data: DataConfig, store: Store) -> Normalisation:
    """`data.mean` and `data.pixel_scale` for a store."""
    mean, scale = torch.from_numpy(store.mean), data.pixel_scale
    if data.mean is Mean.channel:
        mean = mean.double().mean((0, 1)).float().expand_as(mean)
    elif data.mean is Mean.none:
        return Normalisation(torch.zeros_like(mean), scale, True)
    elif data.mean is Mean.torchvision:
        mean = (255 * torch.tensor(TORCHVISION_MEAN)).expand_as(mean)
        return Normalisation(mean, scale / (255 * torch.tensor(TORCHVISION_STD)), False)
    return Normalisation(mean, scale, data.mean is Mean.center)


def training_input(crops: Tensor, windows: Tensor, shifts: Tensor, divisor: float, norm: Normalisation) -> Tensor:
    """Network input [B, 3, H, W] (channels last in memory) from crops made by `read_crops` at windows, int64 [B, 3].

    The mean image [S, S, 3] is cut and mirrored as each image was, so that it is subtracted "from each pixel" (2).
    """
    make = _image_by_image if crops.device.type == "cpu" else _all_at_once
    return make(crops, windows, shifts, norm.scale / divisor, norm).permute(0, 3, 1, 2)


def _image_by_image(
    crops: Tensor, windows: Tensor, shifts: Tensor, scale: float | Tensor, norm: Normalisation
) -> Tensor:
    """For a CPU: each image stays in the cache throughout. Works on rows, since inner loops over 3 numbers are slow."""
    batch, height, width, _ = crops.shape
    inputs = torch.empty(crops.shape, dtype=torch.float32)
    rows, crop_rows, added = (
        inputs.view(batch, height, -1),
        crops.view(batch, height, -1),
        shifts.repeat(1, width)[:, None],
    )
    if isinstance(scale, Tensor):
        scale = scale.repeat(width)
    for out, crop, window, shift in zip(rows, crop_rows, windows.tolist(), added, strict=True):
        torch.sub(crop, norm.mean_crop(Window(*window), height), out=out).add_(shift)
        if isinstance(scale, Tensor) or scale != 1:
            out.mul_(scale)
    return inputs


def _all_at_once(crops: Tensor, windows: Tensor, shifts: Tensor, scale: float | Tensor, norm: Normalisation) -> Tensor:
    """For a GPU: a few large kernels, without synchronisation; gives the same bits."""
    return (crops - norm.mean_crops(windows, crops.shape[1])).add_(shifts[:, None, None]).mul_(scale)


def view_input(images: Tensor, window: Window, crop_size: int, norm: Normalisation) -> Tensor:
    """Network input [B, 3, H, W] from stored images [B, S, S, 3], the same crop of each."""
    y, x, flip = window
    crops = images[:, y : y + crop_size, x : x + crop_size]
    mean = norm.mean_crop(window, crop_size).unflatten(1, (-1, 3))
    inputs = (crops.flip(2) if flip else crops) - mean
    return inputs.mul_(norm.scale).permute(0, 3, 1, 2)
