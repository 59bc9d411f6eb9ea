"""What a form of raw data comes to: the images of each split with their labels, and where their bytes lie.

Nothing is read here but names. `Source.splits` are in one order whatever the form: by label, then by name. So the same
images give the same store, be they in tars, in folders or in tables.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# More than any photograph; a file that claims more is not read into memory.
MAX_FILE_BYTES = 256 * 2**20
PART = 128  # images that a worker takes at a time


class RawError(ValueError):
    """Raw data that cannot be used; the message names the file and the fix."""


class LeftOut(NamedTuple):
    """A file that did not become a stored image, and why."""

    split: str
    name: str
    reason: str


class Item(NamedTuple):
    """An image's file as bytes, its pixels uint8 [H, W, 3], or the reason why there is neither."""

    content: bytes | np.ndarray | None
    reason: str = ""


class Part(Protocol):
    """Images that are read together, in whatever process."""

    def read(self) -> Iterator[Item]: ...


class Places(Protocol):
    """Where the images of a split lie."""

    def parts(self) -> list[np.ndarray]:
        """Row numbers, in the order in which they are best read, cut into parts."""
        ...

    def part(self, rows: np.ndarray) -> Part: ...

    def state(self) -> Iterator[bytes]:
        """What tells these very files from others of the same names: sizes, times, offsets."""
        ...


@dataclass
class Listing:
    """The images of one split, by label, then by name."""

    names: list[str]  # such as n01440764/n01440764_10026.JPEG
    labels: np.ndarray  # int64 [N]
    places: Places

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class Source:
    """Raw data of one form."""

    form: str  # in words
    classes: list[str]
    splits: dict[str, Listing]
    words: dict[str, str] = field(default_factory=dict)  # what a class is called, where its name is a number
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def warn_of_empty(source: Source) -> None:
    """Name the classes that a split has no image of."""
    for split, listing in source.splits.items():
        counts = np.bincount(listing.labels, minlength=len(source.classes))
        empty = [name for name, count in zip(source.classes, counts, strict=True) if count == 0]
        if empty:
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            source.warnings.append(f"{split} has no images of {', '.join(empty[:3])}{more}; labels are not moved by it")


def chunks(rows: np.ndarray, size: int = PART) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def sorted_rows(labels: list[int], names: list[str]) -> list[int]:
    """Rows by label, then by the last part of the name, so that a folder above changes nothing."""
    return sorted(range(len(names)), key=lambda row: (labels[row], names[row].rpartition("/")[2], names[row]))


@dataclass(frozen=True)
class FilePart:
    paths: list[Path]

    def read(self) -> Iterator[Item]:
        for path in self.paths:
            yield _whole_file(path)


@dataclass
class Files:
    """Each image is a file of its own."""

    root: Path
    paths: list[str]  # below the root

    def parts(self) -> list[np.ndarray]:
        return chunks(np.arange(len(self.paths)))

    def part(self, rows: np.ndarray) -> FilePart:
        return FilePart([self.root / self.paths[row] for row in rows])

    def state(self) -> Iterator[bytes]:
        return (file_state(self.root / path) for path in self.paths)


def file_state(path: str | Path) -> bytes:
    """Size and time of a file."""
    try:
        found = Path(path).stat()
    except OSError:
        return b"none"
    return f"{found.st_size} {found.st_mtime_ns}\n".encode()


def _whole_file(path: Path) -> Item:
    try:
        # Opening a pipe would wait for its writer for ever, and a device may never end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return Item(None, "not a regular file")
            if found.st_size > MAX_FILE_BYTES:
                return Item(None, f"a file of {found.st_size // 2**20} MiB")
            return Item(file.read(MAX_FILE_BYTES + 1))
    except FileNotFoundError:
        return Item(None, "a link to nothing" if path.is_symlink() else "no such file")
    except OSError as error:
        return Item(None, f"cannot be read ({error.strerror})")


@dataclass(frozen=True)
class StretchPart:
    stretches: list[tuple[str, int, int]]

    def read(self) -> Iterator[Item]:
        opened, file = "", None
        try:
            for path, offset, size in self.stretches:
                if size > MAX_FILE_BYTES:
                    yield Item(None, f"a file of {size // 2**20} MiB")
                    continue
                if file is None or path != opened:
                    if file is not None:
                        file.close()
                    opened, file = path, Path(path).open("rb")  # noqa: SIM115
                file.seek(offset)
                content = file.read(size)
                yield Item(content) if len(content) == size else Item(None, "cut off by its archive's end")
        finally:
            if file is not None:
                file.close()


@dataclass
class Stretches:
    """Each image is a stretch of bytes of one of a few files, such as tars."""

    files: list[str]
    file: np.ndarray  # int32 [N]: which of the files
    offset: np.ndarray  # int64 [N]
    size: np.ndarray  # int64 [N], bytes

    def parts(self) -> list[np.ndarray]:
        return chunks(np.lexsort((self.offset, self.file)))

    def part(self, rows: np.ndarray) -> StretchPart:
        return StretchPart([(self.files[self.file[row]], int(self.offset[row]), int(self.size[row])) for row in rows])

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
