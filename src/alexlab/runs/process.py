"""Start the processes of a run and wait for them; and the folder through which a command asks them to stop."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import tempfile
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
from alexlab.errors import UserError
from alexlab.files import process_folder
from alexlab.output import show_notice, take_over_notice
from alexlab.progress import BESIDE_OTHERS, is_live
from alexlab.runs.failure import HINTS
from alexlab.signals import SIGNALS

WORKER = "alexlab.runs.worker"  # by name, since it imports torch, which a command never does
STOPPED = "run the same command again to resume"


@dataclass(frozen=True)
class Launch:
    """A command, or one of its launcher's jobs, as the processes of its runs see it.

    `folder` is removed when the command ends. In it, the file `stop` has a byte for each request to stop, a file
    `<process id>` exists for each process that trains, and `job_<number>.json` is a job (`alexlab.hydra_compat`). The
    file `failure` has the message of a failure that all runs share; the file `spent` exists when the command's hours
    (`max_hours`) are about to end. No run is started once either of the two exists.
    `attempts`: each run's attempts before the command started. `threads`: of a run, over all of its processes; None if
    OMP_NUM_THREADS sets those of each process. `of_command`: for a launcher's job, the command's own folder.
    """

    folder: Path
    attempts: dict[str, int] = field(default_factory=dict)
    threads: int | None = None
    of_command: Path | None = None

    @property
    def messages(self) -> Path:
        """The folder that marks which messages of the whole command were printed (`alexlab.files.is_first_time`)."""
        return self.of_command or self.folder

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    @property
    def failure(self) -> Path:
        return self.folder / "failure"

    @property
    def spent(self) -> Path:
        return self.folder / "spent"

    @property
    def requests(self) -> int:
        """The number of requests to stop so far."""
        try:
            next(self.folder.iterdir(), None)  # which makes NFS refresh the folder
            return self.stop.stat().st_size
        except FileNotFoundError:
            return 0 if self.folder.is_dir() else 1

    @property
    def is_stopped(self) -> bool:
        return self.requests > 0

    @property
    def is_ending(self) -> bool:
        """Whether no further run may be started."""
        return self.is_stopped or self.spent.exists()


@dataclass(frozen=True)
class RankProcess:
    """One of the processes of a run over several devices; `folder` is where they find each other."""

    rank: int
    count: int
    folder: Path

    @property
    def failure(self) -> Path:
        """The file with its report of its failure, and whether that is only an echo of another process's failure."""
        return self.folder / f"failure.{self.rank}.json"


_GRACE = 20.0  # seconds that the other processes of a run have to end once one of them is gone
_UPLOAD_GRACE = 60.0  # more for the first one, to finish its upload to W&B
_LONGEST_SOCKET_FOLDER = 70  # bytes; multiprocessing adds `/pymp-xxxxxxxx/listener-xxxxxxxx`
ENDED_BY_US = 256  # not a possible exit code
# The exit codes of a worker that could not write its status.
EXITS = dict(enumerate(HINTS, 100))


def in_children(
    function: Callable[..., None],
    calls: list[tuple[Any, ...]],
    launch: Launch | None = None,
    is_ending: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Call a module's function in parallel, each call in a fresh process, and return the exit codes.

    If one of several processes fails, or the first one is done, the others have some seconds to end before they are
    killed, and more if `is_ending()`.
    The processes have torch loaded already: the first call waits some seconds for the fork server to load it; this
    process never loads it. They divide the launch's threads, or all cores, among themselves.
    """
    number = threads.of_command() if launch is None else launch.threads
    each = None if number is None else max(1, number // len(calls))
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # a joblib worker, whose children do not know loky
        multiprocessing.set_start_method("forkserver", force=True)
        os.environ[BESIDE_OTHERS] = "1"
    if launch is not None and is_live():
        show_notice("starting: loading PyTorch ...")
    start_server(WORKER)
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_call, args=(function, each, *arguments)) for arguments in calls]
    marks: list[Path] = []
    try:
        for process in processes:
            process.start()
            if launch is not None:
                marks.append(launch.folder / str(process.pid))
                marks[-1].touch()  # a request to stop is passed on to this process
                if launch.is_stopped and process.pid is not None:  # the request came just before
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGTERM)
        return _ends(processes, is_ending)
    except (EOFError, ConnectionError):  # the server was killed, as the kernel does if memory runs out
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
    if is_live():
        take_over_notice()
    os.setsid()
    threads.keep_niceness()
    import_module(WORKER).train(*arguments)


def _ends(processes: Sequence[BaseProcess], is_ending: Callable[[], bool]) -> list[int]:
    """Wait for the processes of one run; return their exit codes."""
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
                deadline = min(deadline, time.monotonic() + _GRACE)
        if time.monotonic() >= deadline + _UPLOAD_GRACE * is_ending():
            for rank in running.values():
                if rank not in codes:
                    processes[rank].kill()
                    processes[rank].join()
                    codes[rank] = ENDED_BY_US
    return [codes[rank] for rank in range(len(processes))]


def start_server(module: str) -> None:
    """Start the fork server, whose child processes have a module loaded already.

    It blocks signals, and so does each child until it unblocks them: a signal to all of a job's processes ends only
    those that handle it.
    """
    inherit_code()
    multiprocessing.set_forkserver_preload(["alexlab.lean", module])
    options = multiprocessing.current_process()._config  # pyright: ignore[reportAttributeAccessIssue]
    if "tempdir" not in options:  # of its sockets: the default, pymp-*, remains if this process is killed
        options["tempdir"] = str(_folder_of_sockets())
    # These would end the resource tracker, which blocks no signals.
    with _ignored(signal.SIGUSR1), _ignored(signal.SIGUSR2), _ignored(signal.SIGHUP):
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _folder_of_sockets() -> Path:
    """A new folder for multiprocessing's sockets, here and in child processes; it is removed when this process ends.

    A socket's path has at most 107 bytes (unix(7)), and TMPDIR alone may be as long.
    """
    given = tempfile.gettempdir()
    if len(os.fsencode(given)) <= _LONGEST_SOCKET_FOLDER:
        return process_folder()
    try:
        return process_folder(Path("/tmp"))
    except OSError as error:
        raise UserError(f"TMPDIR={given}: is too long for sockets, and /tmp cannot be used; shorten it") from error


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    """Context in which processes that are started ignore a signal; without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
