"""Atomic writes that survive a crash of the machine, and reads of files that may come from anyone."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
# What file managers, editors and notebooks leave in any folder: hidden files, .DS_Store and ._x among them; backups.
_FOREIGN = re.compile(r"\..*|.*~|#.*#|.*\.(bak|orig|sw[a-p])|Thumbs\.db|ehthumbs\.db|desktop\.ini|Icon\r|__MACOSX")


def is_foreign(name: str) -> bool:
    """Whether a name in a folder of ours is hidden, or another program's: `.DS_Store`, `Thumbs.db`, `x.json~`."""
    return _FOREIGN.fullmatch(name) is not None


def read_regular(path: Path, limit: int) -> bytes:
    """Read a file that may come from anyone.

    Raises:
        ValueError: if it is a pipe or a device, which may never end, or has more than `limit` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else opening a pipe waits for its writer
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is not a regular file")
        if found.st_size > limit:
            raise ValueError(f"has {found.st_size:,} bytes, and such a file at most {limit:,}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes, check: Callable[[], None] = lambda: None) -> None:
    """Replace a file atomically; `check` as for `open_atomic`."""
    with open_atomic(path, check) as temporary:
        temporary.file.write(content.encode() if isinstance(content, str) else content)


@dataclass
class Temporary:
    """A temporary file, and the path that it will have, which may be changed until then."""

    file: BinaryIO
    path: Path


@contextmanager
def open_atomic(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[Temporary]:
    """A temporary file to write to, which atomically replaces `path` at the end, and is removed on an exception.

    It is in the same folder, since a rename is atomic only within a file system. It is synced before the rename, and
    the folder afterwards. Its name is unique over machines and containers, which may share process ids. `check` is
    called right before the rename, and what it raises prevents it: a process that was paused while it wrote may have
    lost the right to.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with unfinished.open("xb") as file:
            temporary = Temporary(file, path)
            yield temporary
            file.flush()
            os.fsync(file.fileno())
        check()
        unfinished.replace(temporary.path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()  # on a full disk, this makes room for the error message
        raise
    sync_folder(path.parent)


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


def is_first_time(folder: Path | None, text: str) -> bool:
    """Whether no process has asked this before with the same folder and text; always, without a folder."""
    if folder is None:
        return True
    try:
        (folder / f"message_{hashlib.sha256(text.encode()).hexdigest()[:12]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # the folder is gone, or is not to be written
        return True
    return True
