"""Atomic writes that survive a crash of the machine, reads of untrusted files, and private folders."""

from __future__ import annotations

import fcntl
import grp
import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import BinaryIO

from alexlab.errors import UserError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
# Files that file managers, editors and notebooks leave in any folder: hidden ones, such as .DS_Store and ._x; backups.
_FOREIGN = re.compile(r"\..*|.*~|#.*#|.*\.(bak|orig|sw[a-p])|Thumbs\.db|ehthumbs\.db|desktop\.ini|Icon\r|__MACOSX")

_TEMPORARY_FOLDER = "alexlab-tmp."  # a name that no folder of the user's has, since abandoned ones are removed


def is_foreign(name: str) -> bool:
    """Whether a file name is hidden or belongs to another program: `.DS_Store`, `Thumbs.db`, `x.json~`."""
    return _FOREIGN.fullmatch(name) is not None


def json_files(folder: Path) -> list[Path]:
    """The `.json` files of a folder by name, except those of other programs; empty if there is no such folder."""
    return sorted(path for path in folder.glob("*.json") if not is_foreign(path.name))


def read_regular(path: Path, limit: int) -> bytes:
    """Read an untrusted file.

    Raises:
        ValueError: if it is a pipe or a device, which may never end, or has more than `limit` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else opening a pipe would wait for its writer
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is not a regular file")
        if found.st_size > limit:
            raise ValueError(f"has {found.st_size:,} bytes, more than the limit of {limit:,}")
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
    """A temporary file, and its final path, which may be changed until the rename."""

    file: BinaryIO
    path: Path


@contextmanager
def open_atomic(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[Temporary]:
    """Context with a temporary file, which atomically replaces `path` at the end, and is removed on an exception.

    It is in the same folder, since a rename is atomic only within a file system. It is synced before the rename, and
    the folder afterwards. Its name is unique over machines and containers, which may share process ids. `check` is
    called right before the rename and may prevent it by raising: a process that was paused while writing may have lost
    the right to write.
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
    """Make renames and removals in a folder survive a crash of the machine, if the file system supports it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder that only this user can enter, below `parent` or in TMPDIR; it is removed at the end.

    In TMPDIR the process holds a lock on it, and folders of killed processes, whose lock is free, are removed first.
    """
    if parent is not None:
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY_FOLDER, dir=parent) as name:
            yield Path(name)
        return
    _remove_abandoned()
    with ExitStack() as stack:
        while True:  # once, unless another process just took the new folder for abandoned
            folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY_FOLDER))
            try:
                if stack.enter_context(_lock(folder)):
                    break
            except OSError:
                break  # no locks here, so no process takes it for abandoned
        stack.callback(_remove, folder, os.getpid())
        yield folder


def process_folder(parent: Path | None = None) -> Path:
    """A new folder like that of `temporary_folder`, which lasts until this process ends."""
    stack = ExitStack()
    folder = stack.enter_context(temporary_folder(parent))
    Finalize(None, stack.close, exitpriority=-100)  # also in a child of multiprocessing, which runs no atexit handlers
    return folder


def _remove(folder: Path, owner: int) -> None:
    """Remove a process's folder, except in a fork, where garbage collection of the context's generator ends it too."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_FOLDER}{8 * '[a-z0-9_]'}"):  # as mkdtemp names them
        with suppress(OSError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                with _lock(folder) as is_locked:
                    if is_locked:
                        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Context with the lock of a folder; False if another process has it, or has removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_locked = folder.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def make_private(folder: Path, top: Path) -> None:
    """Create a folder for files that run code when they are read, such as pickles.

    Raises:
        UserError: if another user owns it or may write to it, or to a folder above it up to `top`, which would let
            them replace it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder, *folder.parents):
        found = path.stat()
        if found.st_uid not in (os.geteuid(), 0):
            who = f"user {found.st_uid} owns it"
        elif found.st_mode & _writable(found.st_gid) and (path == folder or not found.st_mode & stat.S_ISVTX):
            who = "other users may write there"
        else:
            who = None
        if who is not None:
            raise UserError(
                f"{path}: {who}, so they could run code in jobs, whose pickles are below it; set paths.runs or "
                "hydra.launcher.submitit_folder to a folder of yours, or run chmod go-w on this one"
            )
        if path == top or top not in path.parents:
            return


def _writable(group: int) -> int:
    """The bits that let other users write; those of the group unless it is this user's alone."""
    with suppress(KeyError):
        me, members = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
        if members.gr_name == me and set(members.gr_mem) <= {me}:
            return stat.S_IWOTH
    return stat.S_IWOTH | stat.S_IWGRP


def is_first_time(folder: Path | None, text: str) -> bool:
    """Whether this is the first call in any process with this folder and text; always true without a folder."""
    if folder is None:
        return True
    try:
        (folder / f"message_{hashlib.sha256(text.encode()).hexdigest()[:12]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # the folder is gone, or cannot be written
        return True
    return True
