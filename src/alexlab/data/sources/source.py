"""Source data of any layout: the images of each split, their labels, and where their bytes are.

Only names are read here. `Source.splits` have the same order in every layout: by label, then by name. The same images
therefore give the same store, whether they come in tars, folders or tables.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alexlab.data.decode import IMAGE_SUFFIXES

MAX_FILE_BYTES = 256 * 2**20  # of an image: more than any photograph
MAX_LIST_BYTES = 64 * 2**20  # of a list of labels or names: ImageNet's longest has 3 MB
MAX_CLASSES = 100_000  # ImageNet's largest release has 21,841
PART_SIZE = 128  # images that a worker processes at a time

_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
_SYSTEM_FOLDERS = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information")
_BACKUP_SUFFIXES = ("~", ".bak", ".orig", ".swp", ".swo")


class RawError(ValueError):
    """Source data that cannot be used; the message names the file and the fix."""


class LeftOut(NamedTuple):
    """A file that did not become a stored image, and why."""

    split: str
    name: str
    reason: str


class Item(NamedTuple):
    """An image as the bytes of its file or as pixels uint8 [H, W, 3]; None with the reason if there is neither."""

    content: bytes | np.ndarray | None
    reason: str = ""


class Part(Protocol):
    """Images that are read together by one process."""

    def read(self) -> Iterator[Item]: ...


class Locations(Protocol):
    """Where the images of a split are."""

    def parts(self) -> list[np.ndarray]:
        """Row numbers in the order in which they are read fastest, cut into parts."""
        ...

    def part(self, rows: np.ndarray) -> Part: ...

    def state(self) -> Iterator[bytes]:
        """Sizes, times and offsets, which change when the files are replaced by others of the same names."""
        ...


@dataclass
class Listing:
    """The images of one split, by label, then by name."""

    names: list[str]  # such as n01440764/n01440764_10026.JPEG
    labels: np.ndarray  # int64 [N]
    locations: Locations

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Source:
    """Source data of one layout."""

    form: str  # the layout in words
    classes: list[str]
    splits: dict[str, Listing]
    words: dict[str, str] = field(default_factory=dict)  # readable class names, if a class is named by a number
    left_out: list[LeftOut] = field(default_factory=list)
    lost_classes: list[str] = field(default_factory=list)  # messages: classes of which no file can be read
    warnings: list[str] = field(default_factory=list)
    inputs: list[Path] = field(default_factory=list)  # files and folders that determine the source, existing or not


def warn_of_empty(source: Source) -> None:
    """Add a warning that names the classes of which a split has no image."""
    for split, listing in source.splits.items():
        counts = np.bincount(listing.labels, minlength=len(source.classes))
        empty = [name for name, count in zip(source.classes, counts, strict=True) if count == 0]
        if empty:
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            source.warnings.append(f"{split} has no images of {', '.join(empty[:3])}{more}; labels do not shift")


def chunks(rows: np.ndarray, size: int = PART_SIZE) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def sorted_rows(labels: list[int], names: list[str]) -> list[int]:
    """Rows by label, then by the last part of the name, so that the folders above make no difference."""
    return sorted(range(len(names)), key=lambda row: (labels[row], names[row].rpartition("/")[2], names[row]))


def is_ignored(name: str) -> bool:
    """Whether a file belongs to a system or an editor: hidden files, thumbnails, backups."""
    lower = name.lower()
    is_backup = lower.endswith(_BACKUP_SUFFIXES) or (len(name) > 2 and name[0] == name[-1] == "#")
    return name.startswith(".") or lower in _SYSTEM_FILES or is_backup


def is_ignored_folder(name: str) -> bool:
    """Whether a folder is hidden or belongs to a system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def is_ignored_path(path: str) -> bool:
    """Whether a file or a folder in its relative path is ignored."""
    *folders, name = path.removeprefix("./").split("/")
    return is_ignored(name) or any(is_ignored_folder(folder) for folder in folders)


def is_image(name: str, head: bytes) -> bool:
    """Whether a file is an image by its name, or a JPEG by its first bytes."""
    return name.lower().endswith(IMAGE_SUFFIXES) or head.startswith(b"\xff\xd8\xff")


def read_file(path: Path, limit: int = MAX_FILE_BYTES, head: int | None = None) -> Item:
    """The content of a regular file of at most `limit` bytes, or its first `head` bytes; otherwise the reason."""
    try:
        # Opening a pipe would wait for a writer forever, and a device may have no end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Item(None, "not a regular file")
            if head is not None:
                return Item(file.read(head))
            if status.st_size > limit:
                return Item(None, f"too large, {status.st_size // 2**20} MiB")
            return Item(file.read(limit + 1))
    except FileNotFoundError:
        return Item(None, "a broken link" if path.is_symlink() else "no such file")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        return Item(None, f"cannot be read ({getattr(error, 'strerror', None) or error})")


def read_list(path: Path) -> bytes:
    """The content of a list of labels or names.

    Raises:
        RawError: if it is not a regular file of a list's size.
    """
    item = read_file(path, MAX_LIST_BYTES)
    if not isinstance(item.content, bytes):
        raise RawError(f"{path}: {item.reason}")
    return item.content


def file_state(path: str | Path) -> bytes:
    """Size and time of a file."""
    try:
        found = Path(path).stat()
    except OSError:
        return b"none"
    return f"{found.st_size} {found.st_mtime_ns}\n".encode()


@dataclass(frozen=True)
class FilePart:
    paths: list[Path]

    def read(self) -> Iterator[Item]:
        for path in self.paths:
            yield read_file(path)


@dataclass
class Files:
    """Each image is a file."""

    root: Path
    paths: list[str]  # below the root

    def parts(self) -> list[np.ndarray]:
        return chunks(np.arange(len(self.paths)))

    def part(self, rows: np.ndarray) -> FilePart:
        return FilePart([self.root / self.paths[row] for row in rows])

    def state(self) -> Iterator[bytes]:
        return (file_state(self.root / path) for path in self.paths)


@dataclass(frozen=True)
class ByteRangePart:
    ranges: list[tuple[str, int, int]]  # file, offset, size

    def read(self) -> Iterator[Item]:
        opened, file = "", None
        try:
            for path, offset, size in self.ranges:
                if size > MAX_FILE_BYTES:
                    yield Item(None, f"too large, {size // 2**20} MiB")
                    continue
                if file is None or path != opened:
                    if file is not None:
                        file.close()
                    opened, file = path, Path(path).open("rb")  # noqa: SIM115
                file.seek(offset)
                content = file.read(size)
                yield Item(content) if len(content) == size else Item(None, "truncated by its archive's end")
        finally:
            if file is not None:
                file.close()


@dataclass
class ByteRanges:
    """Each image is a range of bytes of one of a few files, such as tars."""

    files: list[str]
    file: np.ndarray  # int32 [N]: index into files
    offset: np.ndarray  # int64 [N]
    size: np.ndarray  # int64 [N], bytes

    def parts(self) -> list[np.ndarray]:
        return chunks(np.lexsort((self.offset, self.file)))

    def part(self, rows: np.ndarray) -> ByteRangePart:
        ranges = [(self.files[self.file[row]], int(self.offset[row]), int(self.size[row])) for row in rows]
        return ByteRangePart(ranges)

    def state(self) -> Iterator[bytes]:
        yield from (file_state(path) for path in self.files)
        yield from (array.tobytes() for array in (self.file, self.offset, self.size))


@dataclass(frozen=True)
class PixelPart:
    pixels: np.ndarray

    def read(self) -> Iterator[Item]:
        for image in self.pixels:
            yield Item(image)


@dataclass
class Pixels:
    """Images that come as pixels, uint8 [N, H, W, 3]."""

    pixels: np.ndarray

    def parts(self) -> list[np.ndarray]:
        return chunks(np.arange(len(self.pixels)), 1000)

    def part(self, rows: np.ndarray) -> PixelPart:
        return PixelPart(self.pixels[rows])

    def state(self) -> Iterator[bytes]:
        yield self.pixels.tobytes()
