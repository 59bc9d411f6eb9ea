"""What happens to a batch on its device, against NumPy float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexlab.config import AugmentConfig, DataConfig, Mean, PcaUnit
from alexlab.data.augment import (
    Normalisation,
    _all_at_once,
    colour_shifts,
    normalisation,
    read_crops,
    training_input,
    view_input,
)
from alexlab.data.sampling import Window, draw, training_windows, view_windows
from alexlab.data.store import Store, principal_components
from support.settings import raw_split


def store_of(pixels: np.ndarray) -> Store:
    """A store whose colour statistics are those of pixels [N, 3] in grey levels."""
    components, variances = principal_components(np.cov(pixels.T / 255, bias=True))
    return Store(Path(), {}, np.zeros((1, 1, 3), np.float32), components, variances)


def test_colour_shift_of_half_dark_half_light_images():
    """Half the images at .25, half at .75: the first variance is .1875, a channel's deviation .0108, or 2.8 levels."""
    store = store_of(np.repeat([[63.75] * 3, [191.25] * 3], 50, axis=0))
    np.testing.assert_allclose(store.variances, [0.1875, 0, 0], atol=1e-12)
    shifts = colour_shifts(np.random.default_rng(0).standard_normal((100_000, 3)), AugmentConfig(), store)
    np.testing.assert_allclose(shifts.std(0), 2.76, rtol=0.02)


def test_colour_shift_follows_the_formula():
    """[p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T, one a for an image (4.1)."""
    rng = np.random.default_rng(0)
    pixels = np.clip(
        rng.multivariate_normal([120, 110, 100], [[4000, 3500, 3000], [3500, 4100, 3600], [3000, 3600, 4500]], 5000),
        0,
        255,
    )
    variances, vectors = np.linalg.eigh(np.cov(pixels.T / 255, bias=True))
    normals = rng.standard_normal((4, 3))
    expected = [
        sum(
            255
            * vectors[:, 2 - i]
            * np.sign(vectors[:, 2 - i][np.abs(vectors[:, 2 - i]).argmax()])
            * 0.1
            * a[i]
            * variances[2 - i]
            for i in range(3)
        )
        for a in normals
    ]
    np.testing.assert_allclose(colour_shifts(normals, AugmentConfig(), store_of(pixels)), expected, rtol=1e-9)


def test_training_input_follows_numpy(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    mean = rng.uniform(80, 140, (20, 20, 3)).astype(np.float32)
    indices = np.array([3, 0, 3, 1])
    windows = [Window(0, 0, False), Window(4, 2, True), Window(1, 4, False), Window(4, 4, True)]
    shifts = rng.normal(0, 3, (4, 3)).astype(np.float32)
    crops = read_crops(raw_split(tmp_path, images), indices, windows, 16)
    norm = Normalisation(torch.from_numpy(mean), 0.5, False)
    actual = training_input(crops, torch.tensor(windows), torch.from_numpy(shifts), 1.0, norm)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    for i, (y, x, flip) in enumerate(windows):
        centred = images[indices[i]].astype(np.float64) - mean.astype(np.float64)
        crop = centred[y : y + 16, x : x + 16]
        crop = (crop[:, ::-1] if flip else crop) + shifts[i]
        np.testing.assert_allclose(actual[i].numpy(), 0.5 * crop.transpose(2, 0, 1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("crop", [224, 256, 97])
def test_mean_image_is_taken_from_each_pixel(tmp_path: Path, crop: int):
    """All training images the same lopsided one: every crop, mirrored or not, and every view is 0."""
    image = np.add.outer(np.arange(256), np.linspace(0, 90, 256))[..., None].astype(np.uint8).repeat(3, 2)
    images = image[None].repeat(8, 0)
    norm = Normalisation(torch.from_numpy(image.astype(np.float32)), 1.0, False)
    windows = training_windows(draw(0, 0, 0, 8), 256, crop, AugmentConfig())
    assert {w.flip for w in windows} == {False, True}
    crops = read_crops(raw_split(tmp_path, images), np.arange(8), windows, crop)
    assert training_input(crops, torch.tensor(windows), torch.zeros(8, 3), 1.0, norm).abs().max() == 0
    for window in view_windows("ten", 256, crop):
        assert view_input(torch.from_numpy(images), window, crop, norm).abs().max() == 0


def test_a_training_crop_at_a_views_window_is_the_view(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 110, 110, 3), dtype=np.uint8)
    norm = Normalisation(torch.from_numpy(rng.uniform(0, 255, (110, 110, 3)).astype(np.float32)), 1 / 60, False)
    for window in view_windows("ten", 110, 96):
        crops = read_crops(raw_split(tmp_path, images), np.zeros(1, int), [window], 96)
        trained = training_input(crops, torch.tensor([window]), torch.zeros(1, 3), 1.0, norm)
        torch.testing.assert_close(trained, view_input(torch.from_numpy(images), window, 96, norm))


@pytest.mark.parametrize("kind", Mean)
def test_a_gpus_way_has_the_bits_of_a_cpus(tmp_path: Path, kind: Mean):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    store = replace(store_of(rng.uniform(0, 255, (50, 3))), mean=rng.uniform(80, 140, (20, 20, 3)).astype(np.float32))
    windows = [Window(0, 0, False), Window(4, 2, True), Window(1, 4, False), Window(4, 4, True), Window(0, 4, True)]
    crops = read_crops(raw_split(tmp_path, images), np.arange(5), windows, 16)
    shifts = torch.from_numpy(rng.normal(0, 3, (5, 3)).astype(np.float32))
    norm = normalisation(DataConfig(mean=kind, pixel_scale=0.7), store)
    inputs = training_input(crops, torch.tensor(windows), shifts, 1.1, norm)
    at_once = _all_at_once(crops, torch.tensor(windows), shifts, norm.scale / 1.1, norm)
    assert torch.equal(at_once.permute(0, 3, 1, 2), inputs)


def test_colour_shift_by_deviations():
    """The released code's: the roots of the eigenvalues, 12.2 levels along the first axis for its 121.8."""
    store = store_of(np.repeat([[63.75] * 3, [191.25] * 3], 50, axis=0))
    normals = np.random.default_rng(0).standard_normal((100_000, 3))
    shifts = colour_shifts(normals, AugmentConfig(pca_unit=PcaUnit.deviation), store)
    np.testing.assert_allclose(shifts.std(0), 0.1 * 63.75, rtol=0.02)  # sqrt(.1875) / sqrt(3) of 255


def test_means_of_every_kind(tmp_path: Path):
    """Against NumPy float64, for a mirrored crop at (3, 1)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 20, 20, 3), dtype=np.uint8)
    store = store_of(rng.uniform(0, 255, (50, 3)))
    store = replace(store, mean=rng.uniform(80, 140, (20, 20, 3)).astype(np.float32))
    window = Window(3, 1, True)
    mirrored = images[0, 3:19, 1:17].astype(np.float64)[:, ::-1]
    mean = store.mean.astype(np.float64)
    wanted = {
        Mean.image: mirrored - mean[3:19, 1:17][:, ::-1],
        Mean.center: mirrored - mean[2:18, 2:18],
        Mean.channel: mirrored - mean.mean((0, 1)),
        Mean.torchvision: (mirrored / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    }
    for kind, expected in wanted.items():
        norm = normalisation(DataConfig(mean=kind), store)
        viewed = view_input(torch.from_numpy(images), window, 16, norm)[0].permute(1, 2, 0)
        np.testing.assert_allclose(viewed.numpy(), expected, rtol=1e-5, atol=1e-4)
        crops = read_crops(raw_split(tmp_path, images), np.zeros(1, int), [window], 16)
        trained = training_input(crops, torch.tensor([window]), torch.full((1, 3), 5.0), 1.1, norm)[0].permute(1, 2, 0)
        shift = 5 / 255 / np.array([0.229, 0.224, 0.225]) if kind is Mean.torchvision else 5.0
        np.testing.assert_allclose(trained.numpy(), (expected + shift) / 1.1, rtol=1e-5, atol=1e-4)
