"""From image files to a store: resize, cut out, collect the training split's statistics.

`prepare(data)` is what everything calls: it returns the finished store, made on the first call. Two processes that
call it at once make it once; an interrupted one leaves nothing that a later call would take for finished.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from loky import cpu_count
from PIL import Image

from alexlab.config import DataConfig, Resize
from alexlab.data.parallel import in_order
from alexlab.data.shapes import CLASSES, GENERATOR_VERSION, SPLITS, draw_shapes
from alexlab.data.store import FORMAT_VERSION, Store, open_store, principal_components
from alexlab.progress import Progress

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


def fingerprint(data: DataConfig) -> str:
    """What a store's content follows from, as one line: part of every run id."""
    counts = "+".join(str(count) for count in _counts(data).values())
    return f"{data.name.name}-v{GENERATOR_VERSION}-{data.num_classes}-{counts}-seed{data.files_seed}"


def store_path(data: DataConfig) -> Path:
    stretched = "-stretched" if data.resize is Resize.stretch else ""
    return Path(data.cache) / "stores" / f"{fingerprint(data)}-{data.size}px{stretched}"


def prepare(data: DataConfig) -> Store:
    """The store of a data set, made where it is not there yet.

    Raises:
        ValueError: where an image file cannot be read (names it), or the folder holds a store of another format.
        OSError: where the cache cannot be written.
    """
    path = store_path(data)
    if not (path / "manifest.json").is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        # One lock for all sizes of a data set, since they are made from the same files.
        with _lock(path.parent / f"{fingerprint(data)}.lock"):
            if not (path / "manifest.json").is_file():  # another process may have made it while this one waited
                _make(data, path)
    store = open_store(path)
    found = {"images": store.manifest["images"], "classes": len(store.classes)}
    wanted = {"images": _counts(data), "classes": data.num_classes}
    if found != wanted:
        raise ValueError(f"{path} holds {found}, not {wanted}: remove it and {_files(data)} to have both made again")
    return store


def _files(data: DataConfig) -> Path:
    return Path(data.cache) / "files" / fingerprint(data)


def _counts(data: DataConfig) -> dict[str, int]:
    return dict(zip(SPLITS, (data.train_images, data.val_images, data.test_images), strict=True))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(data: DataConfig, path: Path) -> None:
    processes = cpu_count()
    root, counts = _files(data), _counts(data)
    if not root.is_dir():
        half = root.with_suffix(".unfinished")
        shutil.rmtree(half, ignore_errors=True)
        with Progress(f"Drawing the images of '{data.name.name}'", sum(counts.values())) as progress:
            draw_shapes(half, list(CLASSES)[: data.num_classes], counts, data.files_seed, processes, progress.advance)
        half.rename(root)
    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    build_store(root, unfinished, data.size, data.name.name, processes, data.resize)
    unfinished.rename(path)


@dataclass
class _Sums:
    """Exact sums over training images: whole numbers below 2**53, so that any order of adding gives the same."""

    image: np.ndarray  # int64 [S, S, 3]
    outer: np.ndarray  # float64 [3, 3], of whole numbers
    count: int

    def add(self, other: _Sums) -> None:
        self.image += other.image
        self.outer += other.outer
        self.count += other.count


def build_store(root: Path, path: Path, size: int, name: str, processes: int = 1, resize: Resize = Resize.crop) -> None:
    """Write a store from `root/<split>/<class>/<image>`.

    Labels are positions in the sorted list of the training split's class folders, in every split. Hidden files and
    folders do not count.
    """
    classes = sorted(folder.name for folder in (root / "train").iterdir() if _visible(folder) and folder.is_dir())
    splits: dict[str, list[tuple[Path, int]]] = {}
    for split in SPLITS:
        found = sorted(folder.name for folder in (root / split).iterdir() if _visible(folder) and folder.is_dir())
        unknown = set(found) - set(classes)
        if unknown:
            raise ValueError(f"{root / split}: class {sorted(unknown)[0]!r} is not among the training classes")
        splits[split] = [
            (file, classes.index(folder))
            for folder in found
            for file in sorted((root / split / folder).iterdir())
            if _visible(file) and file.suffix.lower() in IMAGE_SUFFIXES
        ]
    sums = _Sums(np.zeros((size, size, 3), np.int64), np.zeros((3, 3)), 0)
    jobs = []
    for split, files in splits.items():
        shape = (len(files), size, size, 3)
        np.lib.format.open_memmap(path / f"{split}.npy", "w+", np.uint8, shape).flush()
        np.save(path / f"{split}_labels.npy", np.array([label for _, label in files], np.int64))
        chunk = 128
        for start in range(0, len(files), chunk):
            paths = [file for file, _ in files[start : start + chunk]]
            jobs.append((path / f"{split}.npy", start, paths, size, resize, split == "train"))
    total = sum(len(files) for files in splits.values())
    with Progress("Preparing them", total) as progress:
        for job, result in zip(jobs, in_order(_write_images, jobs, processes), strict=True):
            sums.add(result)
            progress.advance(len(job[2]))

    pixels = sums.count * size * size
    mean_rgb = sums.image.sum((0, 1)) / pixels
    components, variances = principal_components((sums.outer / pixels - np.outer(mean_rgb, mean_rgb)) / 255**2)
    np.save(path / "mean.npy", (sums.image / sums.count).astype(np.float32))
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "size": size,
        "classes": classes,
        "images": {split: len(files) for split, files in splits.items()},
        "rgb": {
            "mean": (mean_rgb / 255).tolist(),
            "components": components.tolist(),
            "variances": variances.tolist(),
        },
    }
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _write_images(array: Path, start: int, files: list[Path], size: int, resize: Resize, collect: bool) -> _Sums:
    images = np.load(array, mmap_mode="r+")
    sums = _Sums(np.zeros((size, size, 3), np.int64), np.zeros((3, 3)), 0)
    for index, file in enumerate(files, start):
        try:
            images[index] = read_square(file, size, resize)
        except OSError as error:
            raise ValueError(f"{file}: cannot be read as an image ({error})") from error
        if collect:
            pixels = images[index].reshape(-1, 3).astype(np.float64)
            sums.add(_Sums(images[index].astype(np.int64), pixels.T @ pixels, 1))
    images.flush()
    return sums


def read_square(file: Path, size: int, resize: Resize = Resize.crop) -> np.ndarray:
    """Read an image as RGB, its shorter side resized to `size`, the centre cut out: uint8 [size, size, 3] (2).

    `stretch` resizes both sides instead, as Caffe's instructions did.
    """
    with Image.open(file) as image:
        rgb = image.convert("RGB")
    if resize is Resize.stretch:
        return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR))
    width, height = rgb.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Resizing just the central square gives what resizing all and then cutting would, without the large middle step.
    box = (left, top, left + side, top + side)
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR, box=box))
