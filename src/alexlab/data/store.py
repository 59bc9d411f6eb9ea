"""A store: prepared images in one of two formats with one reader, and their statistics.

manifest.json         description, findings of the preparation, hash
mean.npy              the training split's mean image
<split>.npy           format uint8, called raw in data.format: [rows, S, S, 3], memory-mapped
<split>.jpegs         format jpeg: JPEG files, concatenated
<split>_places.npy    the position of each image: its row, or its first byte and its length
<split>_labels.npy    its class
<split>_content.npy   hash of its source file
<split>_stored.npy    hash of the stored image
<split>_names.txt     name of its source file
source_files.json     sizes and times of the source files; not in stores made before 0.2
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import mmap
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import simplejpeg
from loky import cpu_count

from alexlab.data.names import readable
from alexlab.data.parallel import in_order
from alexlab.errors import UserError
from alexlab.files import sync_file, sync_folder
from alexlab.progress import Progress

FORMAT_VERSION = 2
UINT8, JPEG = "raw", "jpeg"  # as data.format and manifests call them
SUFFIXES = {UINT8: ".npy", JPEG: ".jpegs"}
SPLITS = ("train", "val", "test")
SOURCE_FILES = "source_files.json"
DIGEST_BYTES = 16
_MAX_MANIFEST = 256 * 2**20
_MAX_CLASSES = 100_000
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def digest(content: Any) -> bytes:
    """The hash that identifies files and stored images, of an object with the buffer interface."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


class BadData(UserError):
    """A store, or an image in it, is corrupt or unreadable; the message names the file, and the image in it."""


class Split:
    """Stored images with labels int64 [N]; `image(index)` reads one.

    `rows`: which images of the file these are, if not all.
    """

    def __init__(
        self, path: Path, is_uint8: bool, labels: np.ndarray, positions: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        self._path, self._is_uint8, self._positions, self._rows = path, is_uint8, positions, rows
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """One image, uint8 [S, S, 3]: a view of the memory map, or decoded from JPEG.

        Raises:
            BadData: if it is visibly corrupt, or the file ends before it.
        """
        try:
            if self._is_uint8:
                return self._map[self._positions[index]]
            return simplejpeg.decode_jpeg(self.stored(index), "RGB")
        except (ValueError, IndexError, OSError) as error:
            raise BadData(f"{self._path}: image {self.row(index)} cannot be read ({error})") from error

    def row(self, index: int) -> int:
        """The index of an image in the file, as `find_corruption` reports it."""
        return int(index if self._rows is None else self._rows[index])

    def stored(self, index: int) -> Any:
        """The bytes of an image on disk, as an object with the buffer interface."""
        if self._is_uint8:
            return self._map[self._positions[index]]
        start, length = self._positions[index]
        return self._map[start : start + length]

    def subset(self, indices: np.ndarray) -> Split:
        return Split(self._path, self._is_uint8, self.labels[indices], self._positions[indices], indices)

    @cached_property
    def _map(self) -> Any:
        if self._is_uint8:
            # Read-only: a writable map is refused if it is larger than the memory. A plain array is faster to index
            # than a memmap.
            return np.load(self._path, mmap_mode="r").view(np.ndarray)
        with self._path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the map, which a loader process opens again: pickled, it would contain all images."""
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
        """The classes by label, as the source names them: folders' names, WordNet ids."""
        return self.manifest["classes"]

    @property
    def class_names(self) -> list[str]:
        """Readable names of the classes by label: "tench" for n01440764."""
        return readable(self.classes, self.manifest["words"])

    def split(self, name: str) -> Split:
        """A split as the data set's authors made it."""
        kind = self.manifest["format"]
        try:
            labels, positions = (_load(self.path, name, what) for what in ("labels", "places"))
        except ValueError as error:
            raise BadData(f"{self.path}: the lists of {name} cannot be read ({error})") from error
        return Split(self.path / f"{name}{SUFFIXES[kind]}", kind == UINT8, labels, positions)

    def role(self, role: str, holdout: int = 0) -> Split:
        """A split as a run uses it: `train`, `val` on which choices are made, `test` which is reported.

        With `holdout`, that many images of each training class are set aside as `val`.
        """
        split = self.split(role_origin(self.manifest, role, holdout))
        if holdout == 0 or role == "test":
            return split
        is_held = held_out(split.labels, _load(self.path, "train", "content"), holdout)
        return split.subset(np.flatnonzero(is_held if role == "val" else ~is_held))


def class_difference(expected: Sequence[str], found: Sequence[str]) -> str:
    """The first difference between two lists of class names, such as a checkpoint's and a store's; empty if equal."""
    for label, (first, second) in enumerate(zip(expected, found, strict=False)):
        if first != second:
            return f"class {label} is '{second}', not '{first}'"
    return "" if len(expected) == len(found) else f"there are {len(found)} classes, not {len(expected)}"


def role_origin(manifest: dict, role: str, holdout: int) -> str:
    """The split that a role's images come from.

    `test` is the test split, or the validation split if the labels of the former are not public. Without `holdout`,
    `val` is the validation split, or the test split if there is none: then choices are made on the reported images.

    Raises:
        ValueError: if the store has neither.
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
    """Whether each image is set aside, bool [N]: in each class those with the smallest content hashes.

    The choice therefore does not depend on the images' order, and copies within a class stay together.
    """
    keys = np.ascontiguousarray(content[:, :8]).view(">u8").ravel().astype(np.uint64)
    order = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    ends = np.cumsum(counts) - counts + np.minimum(holdout, counts) - 1
    cutoff = np.where(counts > 0, keys[order[np.maximum(ends, 0)]], 0)
    return keys <= cutoff[labels]


@cache
def counts_held_out(path: Path, store_hash: str, holdout: int) -> tuple[np.ndarray, np.ndarray]:
    """Training images of each class that are kept and that are set aside, int64 [K] each.

    Raises:
        BadData: if the store is corrupt.
    """
    if wrong := _wrong_lists(path):
        raise BadData(_corrupt(path, wrong))
    labels = _load(path, "train", "labels")
    is_held = held_out(labels, _load(path, "train", "content"), holdout)
    num_classes = int(labels.max()) + 1
    return np.bincount(labels[~is_held], minlength=num_classes), np.bincount(labels[is_held], minlength=num_classes)


# {list of a split: its type, the shapes that an entry can have}
_LISTS: dict[str, tuple[type, tuple[tuple[int, ...], ...]]] = {
    "labels": (np.int64, ((),)),
    "places": (np.int64, ((), (2,))),
    "content": (np.uint8, ((DIGEST_BYTES,),)),
    "stored": (np.uint8, ((DIGEST_BYTES,),)),
}


def _load(path: Path, split: str, what: str) -> np.ndarray:
    """A list of a split: labels, content, stored, or places (the positions of images, as they are called on disk).

    Raises:
        ValueError: if it is not the list that a store has.
    """
    dtype, row_shapes = _LISTS[what]
    array = _load_array(path / f"{split}_{what}.npy")
    if array.dtype != dtype or array.ndim == 0 or array.shape[1:] not in row_shapes:
        raise ValueError(f"{split}_{what}.npy is {array.dtype} {array.shape}")
    return array


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in an opened .npy file, which is left at its first value.

    NumPy's own memory map divides by zero for types of zero bytes, which crashes the process.
    """
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not version 1.0, which every store has")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # a corrupt header can make NumPy raise anything
        raise ValueError(f"its header cannot be read ({error})") from error
    count = math.prod(shape)
    if is_fortran or dtype.hasobject or dtype.itemsize == 0 or count < 0:
        raise ValueError(f"it is {dtype} {shape}")
    if os.fstat(file.fileno()).st_size - file.tell() < count * dtype.itemsize:
        raise ValueError("it is truncated")
    return shape, dtype


def _load_array(path: Path) -> np.ndarray:
    """Read the array in a .npy file; takes no more memory than the file has bytes."""
    try:
        with path.open("rb") as file:
            shape, dtype = _read_header(file)
            return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from error


@cache
def _read_manifest(path: Path, changed: int) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_matrix(value: Any, *shape: int) -> bool:
    if not shape:
        return isinstance(value, int | float) and abs(value) < 1e9  # neither infinite nor NaN
    return isinstance(value, list) and len(value) == shape[0] and all(_is_matrix(item, *shape[1:]) for item in value)


# {key of a manifest: whether a value is valid for it}; all of these are required.
_MANIFEST: dict[str, Callable[[Any], bool]] = {
    "format_version": lambda value: value == FORMAT_VERSION,
    "name": lambda value: isinstance(value, str) and len(value) < 100,
    "raw": lambda value: value is None or isinstance(value, str),
    "known_images": lambda value: isinstance(value, dict) and all(_is_count(count) for count in value.values()),
    "format": lambda value: isinstance(value, str) and value in SUFFIXES,
    "size": lambda value: _is_count(value) and 0 < value < 2**15,
    "resize": lambda value: isinstance(value, str),
    "images": lambda value: (
        isinstance(value, dict)
        and "train" in value
        and value.keys() <= {*SPLITS}
        and all(_is_count(count) for count in value.values())
    ),
    "rgb": lambda value: (
        isinstance(value, dict) and _is_matrix(value.get("components"), 3, 3) and _is_matrix(value.get("variances"), 3)
    ),
    "source": lambda value: isinstance(value, str),
    "warnings": _is_list_of_text,
    "converted": lambda value: isinstance(value, dict) and all(_is_list_of_text(names) for names in value.values()),
    "left_out": lambda value: (
        isinstance(value, list)
        and all(
            isinstance(item, dict) and {*item} == {"split", "name", "reason"} and _is_list_of_text([*item.values()])
            for item in value
        )
    ),
    "duplicates": lambda value: (
        isinstance(value, dict)
        and {*value} == {"within", "across"}
        and all(isinstance(groups, list) and all(map(_is_list_of_text, groups)) for groups in value.values())
    ),
    "class_counts": lambda value: (
        isinstance(value, dict)
        and all(isinstance(counts, list) and counts and all(map(_is_count, counts)) for counts in value.values())
    ),
    "classes": lambda value: _is_list_of_text(value) and 0 < len(value) <= _MAX_CLASSES,
    "words": lambda value: isinstance(value, dict) and _is_list_of_text([*value.values()]),
    "hash": lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)),  # names folders
}


def read_manifest(path: Path) -> dict:
    """A store's manifest.

    Raises:
        BadData: if the folder is not a store, or has another format.
    """
    file = path / "manifest.json"
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_MANIFEST:  # reading a pipe would block
            raise ValueError("manifest.json is not a regular file of a manifest's size")
        manifest = _read_manifest(file, status.st_mtime_ns)
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadData(f"{path} is not a finished store ({error}); remove it to have it made again") from error
    if version != FORMAT_VERSION:
        raise BadData(f"{path} has store format {str(version)[:20]}, this code reads {FORMAT_VERSION}; remove it")
    for key, is_valid in _MANIFEST.items():
        if key not in manifest or not is_valid(manifest[key]):
            raise BadData(
                f"{path} is not a finished store (its manifest's {key} is missing or not valid); "
                "remove it to have it made again"
            )
    if manifest["class_counts"].keys() != manifest["images"].keys():
        raise BadData(f"{path} is not a finished store (its counts differ); remove it to have it made again")
    return manifest


def open_store(path: Path) -> Store:
    """Open a finished store.

    Raises:
        BadData: if the folder is not a store, has another format, or its lists were changed.
    """
    manifest = read_manifest(path)
    if wrong := _wrong_lists(path):
        raise BadData(_corrupt(path, wrong))
    rgb = manifest["rgb"]
    components, variances = np.array(rgb["components"], float), np.array(rgb["variances"], float)
    return Store(path, manifest, _load_array(path / "mean.npy"), components, variances)


def _corrupt(path: Path, wrong: str) -> str:
    return f"{path} is corrupt ({wrong}); remove it to have it made again"


def principal_components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components as columns and their variances, largest first; each column's largest entry is positive."""
    variances, components = np.linalg.eigh(covariance)
    variances, components = np.maximum(variances[::-1], 0), components[:, ::-1]
    largest = components[np.abs(components).argmax(axis=0), range(3)]
    return components * np.sign(largest), variances


def positions_hash(path: Path, manifest: dict) -> str:
    """The hash of the positions of a store's images in its files, and of their number; results do not depend on it."""
    total = hashlib.sha256(json.dumps(manifest["images"], sort_keys=True).encode())
    for split in sorted(manifest["images"]):
        total.update(_load(path, split, "places").data)
    return total.hexdigest()


def _wrong_lists(path: Path) -> str:
    """The fault in a store's lists, by their hashes in the manifest; empty if there is none.

    The images are not read: `python src/prepare.py check` does that.
    """
    try:
        return _wrong_lists_of(path, _changes(path))
    except (OSError, ValueError) as error:
        return str(error)


@cache
def _wrong_lists_of(path: Path, changed: tuple[tuple[str, int, int], ...]) -> str:
    """`_wrong_lists`, cached until a file of the store changes."""
    manifest, wrong = read_manifest(path), ""
    size = manifest["size"]
    mean = _load_array(path / "mean.npy")
    if mean.shape != (size, size, 3) or mean.dtype != np.float32:
        return f"mean.npy is {mean.dtype} {mean.shape}"
    if store_hash(path, manifest) != manifest["hash"]:
        wrong = "its lists or its mean image were changed"
    elif "places_hash" in manifest and positions_hash(path, manifest) != manifest["places_hash"]:  # not in older ones
        wrong = "its lists of positions were changed"
    for split, count in manifest["images"].items():
        labels, positions = (_load(path, split, what) for what in ("labels", "places"))
        is_uint8 = manifest["format"] == UINT8
        file = path / f"{split}{SUFFIXES[manifest['format']]}"
        counts = {len(_load(path, split, what)) for what in _LISTS}
        if is_uint8:
            try:
                with file.open("rb") as opened:
                    (rows, *pixels), dtype = _read_header(opened)
            except ValueError as error:
                return f"{file.name} cannot be read ({error})"
            if pixels != [size, size, 3] or dtype != np.uint8:
                return f"{file.name} is {dtype} {[rows, *pixels]}"
            ends, limit = positions + 1, rows
        else:
            ends, limit = positions.sum(axis=-1), file.stat().st_size
        if counts != {count}:
            wrong = f"the manifest has {count} images of {split}, its lists {' or '.join(map(str, counts - {count}))}"
        elif positions.ndim != (1 if is_uint8 else 2):
            wrong = f"the positions of {split} do not fit its format"
        elif count and not 0 <= labels.min() <= labels.max() < len(manifest["classes"]):
            wrong = f"a label of {split} has no class"
        elif count and not 0 <= positions.min() <= max(positions.max(), ends.max()) <= limit:
            wrong = f"an image of {split} lies outside of {file}"
    return wrong


def _changes(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, modification times and sizes of a store's files, which change when they do.

    Raises:
        ValueError: if one is not a regular file: reading a pipe would block.
    """
    stats = [(file.name, file.stat()) for file in sorted(path.iterdir())]
    strange = next((name for name, status in stats if not stat.S_ISREG(status.st_mode)), None)
    if strange:
        raise ValueError(f"{strange} is not a regular file")
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in stats)


def store_hash(path: Path, manifest: dict) -> str:
    """The hash of everything in a store that can affect a result; the names of source files are not part of it."""
    parts = {name: manifest[name] for name in ("format_version", "format", "size", "resize", "classes", "rgb")}
    total = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    total.update(_load_array(path / "mean.npy").data)
    for split in sorted(manifest["images"]):
        for what in ("labels", "stored", "content"):
            total.update(f"{split} {what}".encode())
            total.update(_load(path, split, what).data)
    return total.hexdigest()


def find_corruption(path: Path, processes: int, advance: Callable[[int], None] = lambda done: None) -> list[str]:
    """The faults in a store, by its hashes: lines that name a list or an image; empty if there are none.

    `advance(n)` is called when n more images are checked.
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
    for job, corrupt in zip(jobs, in_order(_corrupt_images, jobs, processes), strict=True):
        found += corrupt
        advance(job[3] - job[2])
    return found


def _corrupt_images(path: Path, split_name: str, start: int, stop: int) -> list[str]:
    try:
        split = open_store(path).split(split_name)
        expected = _load(path, split_name, "stored")
    except ValueError as error:
        return [f"{split_name}: a file is missing or corrupt ({error})"]
    found = []
    for index in range(start, stop):
        try:
            is_complete = digest(split.stored(index)) == expected[index].tobytes()
        except (IndexError, ValueError, OSError, EOFError):  # the file is shorter than it was
            is_complete = False
        if not is_complete:
            found.append(f"{split_name} image {index}")
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; other processes and threads wait for it, and print that they do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, how)  # O_CREAT is refused in a sticky folder if the file is another user's
    except FileNotFoundError:
        descriptor = os.open(path, how | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that holds {path} ...", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(
                f"{path.parent}: this file system has no locks ({error.strerror}); continuing without: "
                "do not start a second command that makes the same store",
                file=sys.stderr,
                flush=True,
            )
        yield
    finally:
        os.close(descriptor)


def staged(path: Path, folder: Path) -> Path:
    """A verified copy of a store below `folder`, made if it is not there yet.

    Another user's copy is only read, and all of it is verified each time: anyone could make one of that name.

    Raises:
        BadData: if the copy is not what it was copied from.
        OSError: if the disk is full.
    """
    manifest = read_manifest(path)
    copy = folder / f"{path.name}-{manifest['hash'][:12]}"
    if copy.exists() and copy.stat().st_uid != os.getuid():
        with Progress(f"Checking another user's {copy}", sum(manifest["images"].values())) as progress:
            if _is_copy(copy, path) and not find_corruption(copy, cpu_count(), progress.advance):
                return copy
        raise BadData(f"{copy}: is another user's copy and is corrupt; set data.stage to a folder of your own")
    with locked(copy.with_suffix(".lock")):
        if copy.exists():
            if _is_copy(copy, path):
                return copy
            print(f"{copy} is corrupt; copying it again", file=sys.stderr, flush=True)
            shutil.rmtree(copy)
        temporary = copy.with_suffix(".unfinished")
        shutil.rmtree(temporary, ignore_errors=True)
        needed = sum(file.stat().st_size for file in path.iterdir())
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(f"data.stage={folder}: the store needs {gigabytes(needed)}, {gigabytes(free)} are free")
        with Progress(f"Copying {path.name} to {folder}", sum(manifest["images"].values())) as progress:
            temporary.mkdir()
            for file in path.iterdir():
                shutil.copyfile(file, temporary / file.name)  # the bytes alone, since the store may be read-only
                sync_file(temporary / file.name)
            sync_folder(temporary)
            wrong = find_corruption(temporary, cpu_count(), progress.advance)
        if wrong:
            raise BadData(f"{temporary}: the copy differs from {path} ({wrong[0]}); check both disks")
        rename_folder(temporary, copy)
    return copy


def rename_folder(old: Path, new: Path) -> None:
    """Rename a folder whose files are on the disk, and sync its parents, so that the new name survives a power cut."""
    old.rename(new)
    for parent in new.absolute().parents:
        sync_folder(parent)


def _is_copy(copy: Path, path: Path) -> bool:
    """Whether a copy has the store's files at the same sizes, and lists that match their hashes."""
    sizes = [{file.name: file.stat().st_size for file in each.iterdir()} for each in (copy, path)]
    try:
        return sizes[0] == sizes[1] and open_store(copy).manifest == read_manifest(path)
    except BadData:
        return False


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
