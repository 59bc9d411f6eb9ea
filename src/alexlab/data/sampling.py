"""The random numbers of an epoch: image order and augmentation, each a pure function of seeds and counters.

A complete global batch is drawn at once, so that neither loader processes nor the number of devices change anything,
and a resumed run draws the same numbers. Every number is drawn, used or not, so that two ablations that differ in one
augmentation share the draws of all the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alexlab.config import AugmentConfig
from alexlab.streams import stream_seed


class Window(NamedTuple):
    """A crop's upper left corner in the stored image, and whether the crop is mirrored."""

    y: int
    x: int
    flip: bool


@dataclass(frozen=True)
class Draws:
    """Numbers for B images: crop and flip as uniforms in 0-1, colour as standard normals."""

    crop: np.ndarray  # [B, 2]
    flip: np.ndarray  # [B]
    colour: np.ndarray  # [B, 3]


def image_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """The order in which an epoch visits the training images, int64 [num_images]."""
    return np.random.default_rng(stream_seed(seed, "order", epoch)).permutation(num_images)


def draw(seed: int, epoch: int, step: int, batch_size: int) -> Draws:
    """All random numbers of one global batch."""
    rng = np.random.default_rng(stream_seed(seed, "augment", epoch, step))
    return Draws(rng.random((batch_size, 2)), rng.random(batch_size), rng.standard_normal((batch_size, 3)))


def training_windows(draws: Draws, size: int, crop_size: int, augment: AugmentConfig) -> list[Window]:
    """Crops of a batch: offsets 0 .. size - crop_size - 1, which makes the paper's 32 * 32 * 2 = 2048 (4.1).

    With `augment.inclusive_offsets` one more in each direction: 33 * 33 * 2 = 2178.
    """
    choices = size - crop_size + 1 if augment.inclusive_offsets else max(1, size - crop_size)
    shared = np.arange(len(draws.crop)) // augment.shared_by * augment.shared_by
    offsets = (draws.crop[shared] * choices).astype(int)
    if not augment.crop:
        offsets = np.full_like(offsets, (size - crop_size) // 2)
    flips = (draws.flip[shared] < 0.5) & augment.flip
    return [Window(int(y), int(x), bool(f)) for (y, x), f in zip(offsets, flips, strict=True)]


def view_windows(kind: str, size: int, crop_size: int) -> list[Window]:
    """The crops of a test view: `center` is one; `ten` is four corners and the centre, each also mirrored (4.1)."""
    end, middle = size - crop_size, (size - crop_size) // 2
    if kind == "center":
        return [Window(middle, middle, False)]
    corners = [(0, 0), (0, end), (end, 0), (end, end), (middle, middle)]
    return [Window(y, x, flip) for flip in (False, True) for y, x in corners]
