"""What loaders' processes need of the machine: shared memory, in which they hand batches over, and open files.

A container has 64 MB of the one unless it is told otherwise, and may have few of the other. Both are looked at before
a run begins, since it would fail only once enough batches wait, which may be the evaluation at its end.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from alexlab.data.store import gigabytes

SHARED = Path("/dev/shm")


class NoSharedMemory(ValueError):
    """The shared memory is too small for the batches that wait in it."""


class TooManyFiles(ValueError):
    """The limit of open files is too low for the loaders."""


def check_shared_memory(num_workers: int, batch_bytes: int) -> None:
    """Refuse loaders whose batches would not fit: each prepares two ahead, and the training holds some.

    Raises:
        NoSharedMemory: where fewer bytes are free.
    """
    if not SHARED.is_dir():  # a Mac has its own
        return
    found = os.statvfs(SHARED)
    free, needed = found.f_bavail * found.f_frsize, (2 * num_workers + 4) * batch_bytes
    if needed > free:
        raise NoSharedMemory(
            f"data.num_workers={num_workers}: batches need {gigabytes(needed)} of shared memory, "
            f"{SHARED} has {gigabytes(free)} free"
        )


def allow_open_files(num_workers: int) -> None:
    """Raise this process's limit of open files to what loaders need; those started later inherit it.

    Measured: 25, 11 a loader, and what CUDA opens.

    Raises:
        TooManyFiles: where the limit may not be raised so far.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 100 + 12 * num_workers
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise TooManyFiles(f"data.num_workers={num_workers}: needs {needed} open files, `ulimit -n` allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
