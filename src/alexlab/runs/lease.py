"""The lease of a run: the right of one process at a time to work on it, on any machine, even without file locks.

The owner has the file `claim.<n>` with the highest n in the record and touches it as a heartbeat. A process that finds
no such file, or one whose owner is dead or whose heartbeat has expired, creates the next one, which succeeds for only
one process. An owner that was paused past the expiry finds a higher number, and stops before it writes.

filelock's SoftFileLease does not fit: a silent owner on another machine expires only for a process that watches it that
long, so each command would wait three minutes, and `runs list` would never know. Nor can a worker check its parent's.
"""

from __future__ import annotations

import json
import os
import re
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
from alexlab.tree import INTEGER, NULL, TEXT, read_json

HEARTBEAT = 10.0  # seconds between heartbeats
EXPIRY = 180.0  # seconds without one after which the lease is free; NFS shows a touch up to 60 s late
_FILE = re.compile(r"claim\.(\d{1,9})")
_SCHEMA = {"token": TEXT, "host": TEXT, "machine": TEXT, "pid": INTEGER, "began": TEXT | NULL}


class LeaseLost(BaseException):
    """Another process has taken the run over, so this one must not write to its record any more."""


@dataclass(frozen=True)
class Lease:
    """The lease of a process, which it can pass to its child processes."""

    folder: Path
    number: int
    token: str

    @property
    def path(self) -> Path:
        return self.folder / f"claim.{self.number}"

    def check(self) -> None:
        """Raise LeaseLost unless the lease is still held, and OSError if its file cannot be read."""
        try:
            is_mine = json.loads(self.path.read_text())["token"] == self.token
        except FileNotFoundError:
            is_mine = False
        if not is_mine or _numbers(self.folder)[-1:] != [self.number]:
            raise LeaseLost(f"{self.folder.name} was taken over by another process")

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Context in which a thread touches the lease's file, until the lease is lost."""

        def renew(ended: threading.Event) -> None:
            with suppress(LeaseLost):
                while not ended.wait(HEARTBEAT):
                    with suppress(OSError):  # a network file system may answer next time
                        self.check()
                        os.utime(self.path)

        with threads.background(renew):
            yield

    def release(self) -> None:
        with suppress(LeaseLost, OSError, ValueError):
            self.check()
            self.path.unlink()


def take(folder: Path, attempts: int = 0) -> Lease | None:
    """Take the lease of a record, whose folder is created; None if another process holds it, or was faster.

    `attempts`: the highest number that is known to have been used, so that none is used twice.

    Raises:
        OSError: if the folder cannot be written.
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
        if number < lease.number:  # also one created meanwhile, whose owner finds it gone before it writes
            (folder / f"claim.{number}").unlink(missing_ok=True)
    return lease


def _make(path: Path, content: str) -> bool:
    """Create a file with its content atomically; False if it already exists."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here: the file is empty for a moment, its owner presumed alive
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def holder(folder: Path) -> str | None:
    """The process that holds a run's lease, as `host, process 123`; None if there is none."""
    numbers = _numbers(folder)
    return _owner(folder, numbers[-1]) if numbers else None


def remove_dead(folder: Path) -> None:
    """Remove the lease files of processes that are gone."""
    for number in _numbers(folder):
        if _owner(folder, number) is None:
            (folder / f"claim.{number}").unlink(missing_ok=True)


def _owner(folder: Path, number: int) -> str | None:
    path = folder / f"claim.{number}"
    owner = _read(path)
    try:
        silent = _now(folder) - _touched(path)
    except FileNotFoundError:
        return None  # it was just released
    if abs(silent) > EXPIRY or (owner.get("machine") == machine() and not _lives(owner)):
        return None
    return f"{owner.get('host', 'another machine')}, process {owner.get('pid', 'unknown')}"


def _numbers(folder: Path) -> list[int]:
    found = (_FILE.fullmatch(path.name) for path in folder.glob("claim.*"))
    return sorted(int(match[1]) for match in found if match is not None)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, _SCHEMA)
    except (OSError, ValueError):
        return {}  # it is gone, or being written


def _touched(path: Path) -> float:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opened, so that NFS asks the server and not its cache
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def _now(folder: Path) -> float:
    """The time by the file system's clock, which on a network file system is the server's."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()  # the folder cannot be written
    finally:
        with suppress(OSError):
            probe.unlink()


def machine() -> str:
    """The scope in which process ids are unique: the machine since its last boot, and the container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 (no path, but pid:[4026531836])
    return " ".join(parts)


def _began(pid: int) -> str | None:
    """The start time of a process in clock ticks, which distinguishes it from a later one with the same id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None  # no such process, or a system without /proc


def _lives(owner: dict[str, Any]) -> bool:
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, KeyError, OverflowError):
        return True  # as far as can be seen
    return owner.get("began") == _began(int(owner["pid"]))
