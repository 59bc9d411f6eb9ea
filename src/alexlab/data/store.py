"""A store: prepared images as memory-mapped uint8 arrays, with what was computed over them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, S, S, 3], mapped from disk, and labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Store:
    """An opened store.

    `mean` is the training split's mean image, float32 [S, S, 3] in grey levels. `components` holds the principal
    components of its RGB values on the 0-1 scale as columns, float64 [3, 3], and `variances` theirs, largest first.
    """

    path: Path
    manifest: dict
    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray

    @property
    def classes(self) -> list[str]:
        return self.manifest["classes"]

    def split(self, name: str) -> Split:
        # "c": pages are private copies on write, so that torch may wrap the map without a warning; none is written.
        images = np.load(self.path / f"{name}.npy", mmap_mode="c")
        return Split(images, np.load(self.path / f"{name}_labels.npy"))


def open_store(path: Path) -> Store:
    """Open a finished store.

    Raises:
        ValueError: where the folder is no store, or one of another format.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        version = manifest["format_version"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{path} is not a finished store ({error}); remove it to have it made again") from error
    if version != FORMAT_VERSION:
        raise ValueError(f"{path} has store format {version}, this code reads {FORMAT_VERSION}; remove it")
    return Store(
        path,
        manifest,
        np.load(path / "mean.npy"),
        np.array(manifest["rgb"]["components"]),
        np.array(manifest["rgb"]["variances"]),
    )


def principal_components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components as columns and their variances, largest first; each column's largest entry is positive."""
    variances, components = np.linalg.eigh(covariance)
    variances, components = np.maximum(variances[::-1], 0), components[:, ::-1]
    largest = components[np.abs(components).argmax(axis=0), range(3)]
    return components * np.sign(largest), variances
