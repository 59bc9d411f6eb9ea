"""Threads of computing processes: their number and how they wait, which is decided only here; and a helper thread.

OpenMP threads that spin while they wait for one another take the cores that others need: with one other busy process
per core, spinning makes a training step five to sixteen times slower (benchmarks/README.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# GNU, LLVM and Intel OpenMP.
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
_NUMBER = "OMP_NUM_THREADS"


def set_environment() -> None:
    """Make waiting threads sleep soon, here and in child processes; OpenMP and BLAS read this once, on loading.

    NumPy's BLAS gets one thread: its products here are small. A variable that the user has set is left alone.
    """
    if not any(name in os.environ for name in WAITING):
        # GNU OpenMP: spin for some 25 microseconds, which spares most waits a wake-up, and then sleep.
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="1000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def is_set_by_user() -> bool:
    """Whether OMP_NUM_THREADS is set, which then applies to each process unchanged.

    To be called in the command's process: joblib and Ray set the variable in theirs.
    """
    return _NUMBER in os.environ


def cores(of_launcher: bool = False) -> int:
    """Physical cores that this process may use: CPU affinity, cgroup quota and SLURM's --cpus-per-task.

    `of_launcher`: OMP_NUM_THREADS is a limit as well, as Ray sets it to the cores that it grants.
    """
    from loky import cpu_count

    found = [str(cpu_count(only_physical_cores=True)), os.environ.get("SLURM_CPUS_PER_TASK", "")]
    if of_launcher:
        found.append(os.environ.get(_NUMBER, ""))
    return max(1, min(int(number) for number in found if number.isdecimal()))


def of_command() -> int | None:
    """Threads of a command that computes alone: all cores; None if OMP_NUM_THREADS sets the number."""
    return None if is_set_by_user() else cores()


def use(number: int | None) -> None:
    """Compute with that many threads in this process; None leaves it to OMP_NUM_THREADS."""
    if number is not None:
        import torch

        torch.set_num_threads(number)


def keep_niceness() -> None:
    """Apply a session leader's niceness to its whole session, where Linux schedules processes by session.

    There (sched_autogroup_enabled, the default on desktops) niceness only acts among the processes of one session.
    """
    niceness = os.nice(0)
    with suppress(OSError):  # no such grouping here
        if niceness:
            Path("/proc/self/autogroup").write_text(str(niceness))


@contextmanager
def background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Context during which a thread runs `work`, which must return soon once its event is set, at the end."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
