"""Files that are there whole or not at all, also after a crash of the machine."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def write_whole(path: Path, content: str | bytes, check: Callable[[], None] = lambda: None) -> None:
    """Write a file whole or not at all; what was there before stays until then. `check` as for `written_whole`."""
    with written_whole(path, check) as half:
        half.file.write(content.encode() if isinstance(content, str) else content)


@dataclass
class Half:
    """A file that is being written, and where it goes, which may be changed until then."""

    file: BinaryIO
    path: Path


@contextmanager
def written_whole(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[Half]:
    """A file to write to, which takes the place of `path` at the end, and is gone where that is not reached.

    It lies in the same folder, since a rename is atomic only within a file system, and is on the disk before it is
    renamed; so is the rename before this returns. Its name is unique over machines and containers, which may share
    process ids. `check` is called right before the rename, and what it raises prevents it: a process that was paused
    while it wrote may have lost the right to.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("xb") as file:
            half = Half(file, path)
            yield half
            file.flush()
            os.fsync(file.fileno())
        check()
        beside.replace(half.path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()  # on a full disk, room for those who tell of it
        raise
    sync_folder(path.parent)


def remove_halves(folder: Path) -> None:
    """Remove what was being written in a folder when its process was killed, and nothing else that is there."""
    for path in folder.glob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


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
