"""The machine's limits for loader processes: shared memory, through which batches are sent, and open files.

A container has 64 MB of shared memory by default and may have a low limit on open files. Both are checked before a run
starts; otherwise it would fail once enough batches are queued, perhaps only in the final evaluation.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from alexlab.data.store import gigabytes

SHARED = Path("/dev/shm")


class NoSharedMemory(ValueError):
    """The shared memory is too small for the queued batches."""


class TooManyFiles(ValueError):
    """The limit on open files is too low for the loaders."""


def check_shared_memory(num_workers: int, batch_bytes: int) -> None:
    """Refuse loaders whose batches would not fit: each prefetches two, and training holds some.

    Raises:
        NoSharedMemory: if fewer bytes are free.
    """
    if not SHARED.is_dir():  # macOS has no such folder
        return
    found = os.statvfs(SHARED)
    free, needed = found.f_bavail * found.f_frsize, (2 * num_workers + 4) * batch_bytes
    if needed > free:
        raise NoSharedMemory(
            f"data.num_workers={num_workers}: batches need {gigabytes(needed)} of shared memory, "
            f"{SHARED} has {gigabytes(free)} free"
        )


def allow_open_files(num_workers: int) -> None:
    """Raise this process's limit on open files to what loaders need; processes started later inherit it.

    Measured: 25, and 11 per loader, not counting CUDA's.

    Raises:
        TooManyFiles: if the limit cannot be raised that far.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 100 + 12 * num_workers
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise TooManyFiles(f"data.num_workers={num_workers}: needs {needed} open files, `ulimit -n` allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
