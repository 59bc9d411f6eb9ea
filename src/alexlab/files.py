"""Files that are there whole or not at all, also after a crash of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; what was there before stays until then."""
    with written_whole(path) as half:
        half.file.write(content.encode() if isinstance(content, str) else content)


@dataclass
class Half:
    """A file that is being written, and where it goes, which may be changed until then."""

    file: BinaryIO
    path: Path


@contextmanager
def written_whole(path: Path) -> Iterator[Half]:
    """A file to write to, which takes the place of `path` at the end, and is gone where that is not reached.

    It lies in the same folder, since a rename is atomic only within a file system, and is on the disk before it is
    renamed; so is the rename before this returns.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            half = Half(file, path)
            yield half
            file.flush()
            os.fsync(file.fileno())
        beside.replace(half.path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()  # on a full disk, room for those who tell of it
        raise
    sync_folder(path.parent)


def remove_halves(folder: Path) -> None:
    """Remove what was being written in a folder when its process was killed."""
    for path in folder.glob(".*"):
        with suppress(OSError):
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Let what was renamed or removed in a folder survive a crash of the machine, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
