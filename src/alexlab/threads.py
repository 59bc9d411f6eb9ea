"""Threads of the processes that compute: how they wait, and how many there are. Nothing else decides either. And one
that a block of code has beside it.

OpenMP threads that spin while they wait for one another take the cores that others need: with one busy process a core
beside it, a training step is five to sixteen times slower for it (benchmarks/README.md).
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
    """Let waiting threads soon sleep, here and in child processes; OpenMP and BLAS read it once, when they are loaded.

    NumPy's BLAS gets one thread: its products here are small. A variable that the user has set is left alone.
    """
    if not any(name in os.environ for name in WAITING):
        # GNU OpenMP: spin for some 25 microseconds, which spares most waits a wake-up, and then sleep.
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="1000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def is_set_by_user() -> bool:
    """Whether OMP_NUM_THREADS is set, which then holds for each process as it stands.

    To be asked in the process of the command: joblib and Ray set it in theirs.
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
    """Threads of a command that computes alone: all cores; None where OMP_NUM_THREADS says how many."""
    return None if is_set_by_user() else cores()


def use(number: int | None) -> None:
    """Compute with that many threads in this process; None leaves it to OMP_NUM_THREADS."""
    if number is not None:
        import torch

        torch.set_num_threads(number)


def keep_niceness() -> None:
    """Have a session's leader yield to other sessions as `nice` asked, where Linux groups processes by session.

    There (sched_autogroup_enabled, the default of desktops) niceness acts among the processes of one session alone.
    """
    niceness = os.nice(0)
    with suppress(OSError):  # no such grouping here
        if niceness:
            Path("/proc/self/autogroup").write_text(str(niceness))


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Context beside which a thread works; `work` returns soon once its event is set, which ends the block."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
