"""A store: prepared images in one of two formats behind one reader, with what was computed over them.

manifest.json         what it is, what was found on the way, its hash
mean.npy              the training split's mean image
<split>.npy           format raw: uint8 [rows, S, S, 3], mapped from disk
<split>.jpegs         format jpeg: JPEG files, one behind the other
<split>_places.npy    where each image lies: its row, or its first byte and its length
<split>_labels.npy    its class
<split>_content.npy   hash of the file that it was made from
<split>_stored.npy    hash of what is stored of it
<split>_names.txt     what that file was called
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from loky import cpu_count

from alexlab.data.parallel import in_order
from alexlab.files import sync_file, sync_folder
from alexlab.progress import Progress

FORMAT_VERSION = 2
RAW, JPEG = "raw", "jpeg"
SUFFIXES = {RAW: ".npy", JPEG: ".jpegs"}
DIGEST_BYTES = 16


def digest(content: Any) -> bytes:
    """The hash by which files and stored images are known, of an object with the buffer interface."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


class BadData(ValueError):
    """A store, or an image in it, is not as it was made; the message names the file, and the image in it."""


class Split:
    """Stored images with labels int64 [N]; `image(index)` reads one.

    `rows`: which images of the file these are, where not all.
    """

    def __init__(
        self, path: Path, is_raw: bool, labels: np.ndarray, places: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        self._path, self._is_raw, self._places, self._rows = path, is_raw, places, rows
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """One image, uint8 [S, S, 3]: of a raw store a view of the map, of a JPEG store decoded.

        Raises:
            BadData: where it is damaged, as far as that shows, or the file ends before it.
        """
        try:
            if self._is_raw:
                return self._map[self._places[index]]
            return simplejpeg.decode_jpeg(self.stored(index), "RGB")
        except (ValueError, IndexError, OSError) as error:
            raise BadData(f"{self._path}: image {self.row(index)} cannot be read ({error})") from error

    def row(self, index: int) -> int:
        """Which image of the file one is, as the check of a store tells them."""
        return int(index if self._rows is None else self._rows[index])

    def stored(self, index: int) -> Any:
        """An image as it lies on disk, an object with the buffer interface."""
        if self._is_raw:
            return self._map[self._places[index]]
        start, length = self._places[index]
        return self._map[start : start + length]

    def subset(self, indices: np.ndarray) -> Split:
        return Split(self._path, self._is_raw, self.labels[indices], self._places[indices], indices)

    @cached_property
    def _map(self) -> Any:
        if self._is_raw:
            # Only to be read: a map that could be written is refused where it is larger than the memory. As a plain
            # array, which is faster to index than a memmap.
            return np.load(self._path, mmap_mode="r").view(np.ndarray)
        with self._path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __getstate__(self) -> dict[str, Any]:
        """A loader's process opens the map anew: pickled, it would be all images."""
        return {name: value for name, value in self.__dict__.items() if name != "_map"}


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
        """A split as the data set's authors made it."""
        kind = self.manifest["format"]
        try:
            labels, places = (np.load(self.path / f"{name}_{what}.npy") for what in ("labels", "places"))
        except (OSError, ValueError, EOFError) as error:
            raise BadData(f"{self.path}: the lists of {name} cannot be read ({error})") from error
        return Split(self.path / f"{name}{SUFFIXES[kind]}", kind == RAW, labels, places)

    def role(self, role: str, holdout: int = 0) -> Split:
        """A split as a run uses it: `train`, `val` on which choices are made, `test` which is reported.

        With `holdout`, as many images of each training class are set aside to be `val`.
        """
        split = self.split(role_origin(self.manifest, role, holdout))
        if holdout == 0 or role == "test":
            return split
        is_held = held_out(split.labels, np.load(self.path / "train_content.npy", mmap_mode="r"), holdout)
        return split.subset(np.flatnonzero(is_held if role == "val" else ~is_held))


def role_origin(manifest: dict, role: str, holdout: int) -> str:
    """The split that a role's images come from.

    `test` is the test split, or where its labels are not public the validation split. Without `holdout`, `val` is the
    validation split, or where there is none the test split: then what is reported was also chosen on.

    Raises:
        ValueError: where the store has neither.
    """
    splits = manifest["images"]
    if role == "train" or (role == "val" and holdout > 0):
        return "train"
    first, second = ("test", "val") if role == "test" else ("val", "test")
    found = first if first in splits else second
    if found not in splits:
        raise ValueError(f"the store of {manifest['name']} has neither val nor test: there is nothing to report on")
    return found


def held_out(labels: np.ndarray, content: np.ndarray, holdout: int) -> np.ndarray:
    """Which images are set aside, bool [N]: of each class those with the smallest content hashes.

    So they stay the same whatever the order or the rest of the images, and copies within a class stay together.
    """
    keys = np.ascontiguousarray(content[:, :8]).view(">u8").ravel().astype(np.uint64)
    order = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    ends = np.cumsum(counts) - counts + np.minimum(holdout, counts) - 1
    cutoff = np.where(counts > 0, keys[order[np.maximum(ends, 0)]], 0)
    return keys <= cutoff[labels]


@cache
def counts_held_out(path: Path, store_hash: str, holdout: int) -> tuple[np.ndarray, np.ndarray]:
    """Training images of each class that are kept and that are set aside, int64 [K] each."""
    labels = np.load(path / "train_labels.npy")
    is_held = held_out(labels, np.load(path / "train_content.npy", mmap_mode="r"), holdout)
    num_classes = int(labels.max()) + 1
    return np.bincount(labels[~is_held], minlength=num_classes), np.bincount(labels[is_held], minlength=num_classes)


@cache
def _read_manifest(path: Path, changed: int) -> dict:
    return json.loads(path.read_text())


def read_manifest(path: Path) -> dict:
    """A store's manifest.

    Raises:
        BadData: where the folder is no store, or one of another format.
    """
    file = path / "manifest.json"
    try:
        manifest = _read_manifest(file, file.stat().st_mtime_ns)
        version = manifest["format_version"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise BadData(f"{path} is not a finished store ({error}); remove it to have it made again") from error
    if version != FORMAT_VERSION:
        raise BadData(f"{path} has store format {version}, this code reads {FORMAT_VERSION}; remove it")
    if not re.fullmatch("[0-9a-f]{64}", str(manifest.get("hash"))):  # which names folders
        raise BadData(f"{path} is not a finished store (its hash is not one); remove it to have it made again")
    return manifest


def open_store(path: Path) -> Store:
    """Open a finished store.

    Raises:
        BadData: where the folder is no store, one of another format, or one whose lists were changed.
    """
    manifest = read_manifest(path)
    if wrong := _wrong_lists(path):
        raise BadData(f"{path} is damaged ({wrong}); remove it to have it made again")
    try:
        mean, rgb = np.load(path / "mean.npy"), manifest["rgb"]
        return Store(path, manifest, mean, np.array(rgb["components"]), np.array(rgb["variances"]))
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise BadData(f"{path} is damaged ({error}); remove it to have it made again") from error


def principal_components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components as columns and their variances, largest first; each column's largest entry is positive."""
    variances, components = np.linalg.eigh(covariance)
    variances, components = np.maximum(variances[::-1], 0), components[:, ::-1]
    largest = components[np.abs(components).argmax(axis=0), range(3)]
    return components * np.sign(largest), variances


def places_hash(path: Path, manifest: dict) -> str:
    """The hash over where a store's images are in its files, and how many there are; results do not follow from it."""
    total = hashlib.sha256(json.dumps(manifest["images"], sort_keys=True).encode())
    for split in sorted(manifest["images"]):
        total.update(np.load(path / f"{split}_places.npy").data)
    return total.hexdigest()


def _wrong_lists(path: Path) -> str:
    """What is wrong with a store's lists, by the hashes that were made of them; empty where nothing is.

    Its images are not read: `python src/prepare.py check` does that.
    """
    try:
        return _wrong_lists_of(path, _changes(path))
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        return str(error)


@cache
def _wrong_lists_of(path: Path, changed: tuple[tuple[str, int, int], ...]) -> str:
    """As `_wrong_lists`, once for each change of a store's files."""
    manifest, wrong = read_manifest(path), ""
    if store_hash(path, manifest) != manifest["hash"]:
        wrong = "its lists or its mean image were changed"
    elif "places_hash" in manifest and places_hash(path, manifest) != manifest["places_hash"]:  # older ones have none
        wrong = "its lists of places were changed"
    for split, count in manifest["images"].items():
        labels, places = (np.load(path / f"{split}_{what}.npy") for what in ("labels", "places"))
        file = path / f"{split}{SUFFIXES[manifest['format']]}"
        ends = places.sum(axis=1) if places.ndim == 2 else (places + 1) * 3 * manifest["size"] ** 2
        if not len(labels) == len(places) == count:
            wrong = f"the manifest has {count} images of {split}, its lists {len(labels)}"
        elif count and not 0 <= labels.min() <= labels.max() < len(manifest["classes"]):
            wrong = f"a label of {split} is of no class"
        elif count and (places.min() < 0 or ends.max() > file.stat().st_size):
            wrong = f"an image of {split} lies outside of {file}"
    return wrong


def _changes(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a file of a store was changed."""
    stats = [(file.name, file.stat()) for file in sorted(path.iterdir())]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def store_hash(path: Path, manifest: dict) -> str:
    """The hash over all of a store that a result can follow from; what files were called is not part of it."""
    parts = {name: manifest[name] for name in ("format_version", "format", "size", "resize", "classes", "rgb")}
    total = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    total.update(np.load(path / "mean.npy").data)
    for split in sorted(manifest["images"]):
        for what in ("labels", "stored", "content"):
            total.update(f"{split} {what}".encode())
            total.update(np.load(path / f"{split}_{what}.npy").data)
    return total.hexdigest()


def damage(path: Path, processes: int, advance: Callable[[int], None] = lambda done: None) -> list[str]:
    """What is wrong with a store, by its hashes: nothing, or lines that name images.

    `advance(n)` is called as n more images are checked.
    """
    manifest = read_manifest(path)
    if wrong := _wrong_lists(path):
        return [wrong]
    jobs = [
        (path, split, start, min(start + 1000, count))
        for split, count in manifest["images"].items()
        for start in range(0, count, 1000)
    ]
    found: list[str] = []
    for job, damaged in zip(jobs, in_order(_damaged, jobs, processes), strict=True):
        found += damaged
        advance(job[3] - job[2])
    return found


def _damaged(path: Path, split_name: str, start: int, stop: int) -> list[str]:
    try:
        split = open_store(path).split(split_name)
        wanted = np.load(path / f"{split_name}_stored.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        return [f"{split_name}: a file is missing or damaged ({error})"]
    found = []
    for index in range(start, stop):
        try:
            is_whole = digest(split.stored(index)) == wanted[index].tobytes()
        except (IndexError, ValueError, OSError, EOFError):  # the file is shorter than it was
            is_whole = False
        if not is_whole:
            found.append(f"{split_name} image {index}")
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file that other processes, and threads, wait for; one that waits says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that has {path} ...", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def staged(path: Path, folder: Path) -> Path:
    """A checked copy of a store below `folder`, made where it is not there yet.

    Raises:
        BadData: where the copy is not what it was copied from.
        OSError: where the disk is full.
    """
    manifest = read_manifest(path)
    copy = folder / f"{path.name}-{manifest['hash'][:12]}"
    with locked(copy.with_suffix(".lock")):
        if (copy / "manifest.json").is_file():
            if copy.stat().st_uid != os.getuid():  # whose name anyone could have foreseen
                raise BadData(f"{copy}: is another user's copy; name a folder of your own in data.stage")
            if _is_copy(copy, path):
                return copy
            print(f"{copy} is damaged; it is copied again", file=sys.stderr, flush=True)
            shutil.rmtree(copy)
        half = copy.with_suffix(".unfinished")
        shutil.rmtree(half, ignore_errors=True)
        needed = sum(file.stat().st_size for file in path.iterdir())
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(f"data.stage={folder}: the store needs {gigabytes(needed)}, {gigabytes(free)} are free")
        with Progress(f"Copying {path.name} to {folder}", sum(manifest["images"].values())) as progress:
            half.mkdir()
            for file in path.iterdir():
                shutil.copyfile(file, half / file.name)  # the bytes alone, since the store may be read-only
                sync_file(half / file.name)
            sync_folder(half)
            wrong = damage(half, cpu_count(), progress.advance)
        if wrong:
            raise BadData(f"{half}: the copy differs from {path} ({wrong[0]}); check both disks")
        half.rename(copy)
        sync_folder(folder)
    return copy


def _is_copy(copy: Path, path: Path) -> bool:
    """Whether a copy has the store's files in their sizes, and lists that fit their hashes."""
    sizes = [{file.name: file.stat().st_size for file in place.iterdir()} for place in (copy, path)]
    try:
        return sizes[0] == sizes[1] and open_store(copy).manifest == read_manifest(path)
    except BadData:
        return False


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
