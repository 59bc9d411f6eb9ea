"""Start the processes of a run, wait until they end, and the folder by which a command tells them to stop."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from alexlab import threads
from alexlab.children import inherit_code
from alexlab.progress import BESIDE_OTHERS
from alexlab.runs.failure import HINTS

# What asks a command, or a run, to stop: submitit's SIGUSR2 and a closed terminal's SIGHUP, too.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
WORKER = "alexlab.runs.worker"  # by name, since it imports torch, which a command never does
STOPPED = "run the same command again to resume"


@dataclass(frozen=True)
class Launch:
    """One command, or a job of its launcher's, for the processes that do its runs.

    In `folder`, which is gone once the command is, `stop` has a byte for each time that it was told to stop, and
    `<process id>` says that this process trains; `jobs.json` has the overrides of each job of a sweep. `attempts`: how
    often runs had been tried before the command began, where they had. `threads`: of a run, over all of its processes;
    None where OMP_NUM_THREADS says how many each has.
    """

    folder: Path
    attempts: dict[str, int] = field(default_factory=dict)
    threads: int | None = None

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs.json"

    @property
    def requests(self) -> int:
        """How often it was told to stop."""
        try:
            next(self.folder.iterdir(), None)  # which makes NFS look at the folder anew
            return self.stop.stat().st_size
        except FileNotFoundError:
            return 0 if self.folder.is_dir() else 1

    @property
    def is_stopped(self) -> bool:
        return self.requests > 0


@dataclass(frozen=True)
class RankProcess:
    """One of the processes of a run over several devices; `folder` is where they find each other."""

    rank: int
    count: int
    folder: Path

    @property
    def failure(self) -> Path:
        """Where it says how it failed, and whether that is but an echo of another one's failure."""
        return self.folder / f"failure.{self.rank}.json"


_FAREWELL = 20.0  # seconds that the processes of a run have once one of them is gone
_LAST_WORDS = 60.0  # more for the first one, once it has seen that, for what W&B has not got yet
ENDED_BY_US = 256  # no exit code
# The exit codes of a worker that could not write its status.
EXITS = dict(enumerate(HINTS, 100))


def in_children(
    function: Callable[..., None],
    calls: list[tuple[Any, ...]],
    launch: Launch | None = None,
    is_ending: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Make calls of a function of a module at once, each in a fresh process, and return their exit codes.

    Where one of several fails, or the first one is done, the others have some seconds to see that, and are ended;
    where `is_ending()`, they have more.
    The processes have torch loaded already: the first call waits some seconds for the server that loads it; this
    process never does so itself. They share out the launch's threads, or all cores.
    """
    number = threads.of_command() if launch is None else launch.threads
    each = None if number is None else max(1, number // len(calls))
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's worker, whose children know no loky
        multiprocessing.set_start_method("forkserver", force=True)
        os.environ[BESIDE_OTHERS] = "1"
    start_server(WORKER)
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_call, args=(function, each, *arguments)) for arguments in calls]
    marks: list[Path] = []
    try:
        for process in processes:
            process.start()
            if launch is not None:
                marks.append(launch.folder / str(process.pid))
                marks[-1].touch()  # whoever is told to stop tells this process
                if launch.is_stopped and process.pid is not None:  # and was told just before
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGTERM)
        return _ends(processes, is_ending)
    except (EOFError, ConnectionError):  # the server was killed, as the kernel does where memory is short
        return [-signal.SIGKILL] * len(calls)
    finally:
        for process in processes:
            if process.pid is not None and process.is_alive():
                process.kill()
        for mark in marks:
            mark.unlink(missing_ok=True)


def _call(function: Callable[..., None], number: int | None, *arguments: Any) -> None:
    threads.use(number)
    function(*arguments)


def train(*arguments: Any) -> None:
    """Call `train` of the worker, in a process of `in_children` and a session of its own."""
    os.setsid()
    threads.keep_niceness()
    import_module(WORKER).train(*arguments)


def _ends(processes: Sequence[BaseProcess], is_ending: Callable[[], bool]) -> list[int]:
    """The exit codes of processes that are one run's."""
    codes: dict[int, int] = {}
    deadline = math.inf
    while len(codes) < len(processes):
        running = {process.sentinel: rank for rank, process in enumerate(processes) if rank not in codes}
        patience = None if deadline == math.inf else max(0.5, deadline - time.monotonic())
        for sentinel in connection.wait(list(running), patience):
            assert isinstance(sentinel, int)
            rank = running[sentinel]
            processes[rank].join()
            codes[rank] = processes[rank].exitcode or 0
            if codes[rank] or rank == 0:
                deadline = min(deadline, time.monotonic() + _FAREWELL)
        if time.monotonic() >= deadline + _LAST_WORDS * is_ending():
            for rank in running.values():
                if rank not in codes:
                    processes[rank].kill()
                    processes[rank].join()
                    codes[rank] = ENDED_BY_US
    return [codes[rank] for rank in range(len(processes))]


def start_server(module: str) -> None:
    """Start the server from which this process has others forked, that have a module loaded already.

    No signal reaches it, nor, until it asks for them, a process that it makes: so what is sent to all of a job's
    processes ends only those that know what to do.
    """
    inherit_code()
    multiprocessing.set_forkserver_preload(["alexlab.lean", module])
    # These would end the tracker, which lets all signals through.
    with _ignored(signal.SIGUSR1), _ignored(signal.SIGUSR2), _ignored(signal.SIGHUP):
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    """A process that is started meanwhile ignores a signal, too; only the main thread can have it so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
