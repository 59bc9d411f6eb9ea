"""The lease of a run: who works on it, one process at a time, on whatever machine, also without working file locks.

The owner has the file `claim.<n>` of the highest n in the record and touches it every so often. Who finds no such file,
or one whose owner is dead or silent, makes the next one; that succeeds for one process alone. An owner that was taken
for dead, having been paused, finds a higher number and stops before it writes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexlab import threads

HEARTBEAT = 10.0  # seconds between touches
EXPIRY = 180.0  # seconds without one after which an owner is taken for dead; NFS shows a touch up to 60 s late


class LeaseLost(BaseException):
    """Another process has taken the run over; this one must not write to its record any more."""


@dataclass(frozen=True)
class Lease:
    """A run that this process works on, or one that it started; it can be sent to other processes."""

    folder: Path
    number: int
    token: str

    @property
    def path(self) -> Path:
        return self.folder / f"claim.{self.number}"

    def check(self) -> None:
        """Raise LeaseLost unless the run is still ours, and OSError where that cannot be seen."""
        try:
            is_mine = json.loads(self.path.read_text())["token"] == self.token
        except FileNotFoundError:
            is_mine = False
        if not is_mine or _numbers(self.folder)[-1:] != [self.number]:
            raise LeaseLost(f"{self.folder.name} was taken over by another process")

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Show now and then that this process lives, as long as it is the owner."""

        def beat(ended: threading.Event) -> None:
            with suppress(LeaseLost):
                while not ended.wait(HEARTBEAT):
                    with suppress(OSError):  # a disk that does not answer now may answer the next time
                        self.check()
                        os.utime(self.path)

        with threads.beside(beat):
            yield

    def release(self) -> None:
        with suppress(LeaseLost, OSError, ValueError):
            self.check()
            self.path.unlink()


def take(folder: Path, attempts: int = 0) -> Lease | None:
    """Become the owner of a record, whose folder is made; None where another process is, or was faster.

    `attempts`: the highest number that is known to have been used, so that no number comes back.

    Raises:
        OSError: where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = _numbers(folder)
    if before and _owner(folder, before[-1]) is not None:
        return None
    lease = Lease(folder, max([attempts, *before]) + 1, uuid.uuid4().hex)
    me = {"host": socket.gethostname(), "machine": machine(), "pid": os.getpid(), "began": _began(os.getpid())}
    if not _make(lease.path, json.dumps({"token": lease.token, **me})):
        return None
    try:
        lease.check()
    except LeaseLost:
        lease.path.unlink(missing_ok=True)
        return None
    for number in _numbers(folder):
        if number < lease.number:  # also one that was made meanwhile, whose owner finds it gone before it writes
            (folder / f"claim.{number}").unlink(missing_ok=True)
    return lease


def _make(path: Path, content: str) -> bool:
    """Make a file with its content at once; False where there is one."""
    whole = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        whole.write_text(content)
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: the file is empty for a moment, and taken for alive
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
        return True
    finally:
        whole.unlink(missing_ok=True)


def holder(folder: Path) -> str | None:
    """Who works on a run, as `host, process 123`; None where nobody does."""
    numbers = _numbers(folder)
    return _owner(folder, numbers[-1]) if numbers else None


def _owner(folder: Path, number: int) -> str | None:
    path = folder / f"claim.{number}"
    owner = _read(path)
    try:
        silent = _now(folder) - _touched(path)
    except FileNotFoundError:
        return None  # it was just given up
    if silent > EXPIRY or (owner.get("machine") == machine() and not _lives(owner)):
        return None
    return f"{owner.get('host', 'another machine')}, process {owner.get('pid', 'unknown')}"


def _numbers(folder: Path) -> list[int]:
    found = (path.name.partition(".")[2] for path in folder.glob("claim.*"))
    return sorted(int(number) for number in found if number.isdecimal())


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # it is gone, or being written


def _touched(path: Path) -> float:
    with path.open("rb") as file:  # which makes NFS look at the server's time, and not at one that it remembers
        return os.fstat(file.fileno()).st_mtime


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which is not this machine's where that is a server's."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()  # who may not write here only looks
    finally:
        with suppress(OSError):
            probe.unlink()


def machine() -> str:
    """What tells process ids apart: the machine since it was started, and the container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 (no path, but pid:[4026531836])
    return " ".join(parts)


def _began(pid: int) -> str | None:
    """When a process was started, in the system's ticks; tells it from a later one of the same id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None  # no such process, or a system without /proc


def _lives(owner: dict[str, Any]) -> bool:
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, KeyError):
        return True
    return owner.get("began") == _began(int(owner["pid"]))
