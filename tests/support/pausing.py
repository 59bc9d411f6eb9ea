"""Pauses a process, or a thread, right before one of its file operations below a folder, as numbered."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from alexlab.runs import process

# Python's audit events of what opens or changes files. os.fsync has none, and is replaced.
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir", "os.utime")


@dataclass
class Operations:
    """Counts the operations of one thread; calls `pause` before the one of that number, the first being 1."""

    folder: str
    number: int
    pause: Callable[[], None]
    count: int = 0

    def note(self) -> None:
        self.count += 1
        if self.count == self.number:
            self.pause()


_of_threads: dict[int, Operations] = {}
_fsync = os.fsync


def count_here(operations: Operations) -> None:
    """Count the operations of this thread from now on."""
    if os.fsync is _fsync:  # once, since an audit hook cannot be removed
        sys.addaudithook(_audit)
        os.fsync = _counted_fsync
    _of_threads[threading.get_ident()] = operations


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    operations = _of_threads.get(threading.get_ident())
    if operations is None or event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
        return
    if os.fspath(arguments[0]).startswith(operations.folder):
        operations.note()


def _counted_fsync(descriptor: int) -> None:
    operations = _of_threads.get(threading.get_ident())
    if operations is not None:
        operations.note()
    _fsync(descriptor)


def train(folder: str, number: int, mark: str, *arguments: Any) -> None:
    """A run's process that stops itself before an operation, its id in the file `mark`; their count ends up there."""

    def stop() -> None:
        Path(f"{mark}.new").write_text(str(os.getpid()))
        Path(f"{mark}.new").rename(mark)
        os.kill(os.getpid(), signal.SIGSTOP)

    count_here(operations := Operations(folder, number, stop))
    try:
        import_module(process.WORKER).train(*arguments)  # in the session of the tests, whose niceness it shares
    finally:
        Path(f"{mark}.count").write_text(str(operations.count))
