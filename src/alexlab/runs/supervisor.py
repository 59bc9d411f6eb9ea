"""Do a run unless it is done: claim its record, start a worker process, see how it ended."""

from __future__ import annotations

import json
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
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from alexlab import threads
from alexlab.children import inherit_code
from alexlab.compose import to_yaml
from alexlab.config import Config, ConfigError, Retry
from alexlab.progress import BESIDE_OTHERS
from alexlab.runs.failure import DISK, DIVERGED, ERROR, KILLED, MEMORY, MENDS, ended_by, is_retried, oom_kills
from alexlab.runs.identity import run_id
from alexlab.runs.lease import Claim, LostClaim, holder, take
from alexlab.runs.record import DONE, FAILED, PREEMPTED, RUNNING, Record

# What asks a command, or a run, to stop; the last is submitit's.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
HELD = "HELD"  # not a record's state: another process works on the run
STOPPED = "the same command goes on from where it was"


@dataclass(frozen=True)
class Launch:
    """One command, or a job of its launcher's, for the processes that do its runs.

    In `folder`, which is gone once the command is, `stop` has a byte for each time that it was told to stop, and
    `<process id>` says that this process trains; `jobs.json` has the overrides of each job of a study. `attempts`: how
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
class Member:
    """One of the processes of a run over several devices; `folder` is where they find each other."""

    rank: int
    count: int
    folder: Path

    @property
    def failure(self) -> Path:
        """Where it says how it failed, and whether that is but an echo of another one's failure."""
        return self.folder / f"failure.{self.rank}.json"


def needs_work(status: dict[str, Any], retry: Retry, attempts: int | None = None) -> bool:
    """Whether a run is to be done, nobody working on it; one that has failed since `attempts` has had its turn."""
    if status.get("state") == FAILED:
        return is_retried(status.get("failure"), retry) and (attempts is None or status.get("attempt", 0) <= attempts)
    return status.get("state") != DONE


def execute(config: Config, labels: dict[str, str], title: str, launch: Launch) -> dict[str, Any]:
    """Make sure that a run is done, and return its status; a finished one is not touched.

    With `trainer.fast_dev_run` the record is a temporary one, and gone afterwards.
    """
    if config.trainer.fast_dev_run:
        with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
            return _attempt(Path(folder), "fast_dev_run", config, labels, title, launch)
    return _attempt(Path(config.paths.runs), run_id(config), config, labels, title, launch)


def _attempt(
    runs: Path, name: str, config: Config, labels: dict[str, str], title: str, launch: Launch
) -> dict[str, Any]:
    before = Record(runs, name).status()
    if not needs_work(before, config.retry, launch.attempts.get(name, 0)):
        return before
    claim = take(runs / name, before.get("attempt", 0))
    if claim is None:
        return {"state": HELD, "message": f"{holder(runs / name) or 'another process'} works on it"}
    record = Record(runs, name, claim)
    try:
        status = record.status()  # somebody may have done it in the meantime
        if not needs_work(status, config.retry, launch.attempts.get(name, 0)):
            return status
        if status.get("failure") == DIVERGED:
            record.forget()  # its last state leads to the same end
        record.begin(to_yaml(config), labels, started=time.time())
        with claim.kept():
            kills = oom_kills()
            arguments = (record.path, title, config, claim, launch.stop)
            codes, told = _train_all(config.trainer.devices, arguments, launch)
            status = _settled(record, codes, told, launch, oom_kills() > kills)
        return status
    except LostClaim as error:
        return {"state": HELD, "message": str(error)}
    finally:
        claim.release()


def _train_all(count: int, arguments: tuple[Any, ...], launch: Launch) -> tuple[list[int], dict[int, dict[str, Any]]]:
    """Train in `count` processes; return their exit codes, and what those of several have said that failed."""
    if count == 1:
        return in_children(_train, [arguments], launch), {}
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        members = [Member(rank, count, Path(folder)) for rank in range(count)]
        calls = [(*arguments, member) for member in members]
        codes = in_children(_train, calls, launch, members[0].failure.exists)
        told = {}
        for member in members:
            with suppress(OSError, ValueError):  # it has said nothing, or the disk had no room for it
                told[member.rank] = json.loads(member.failure.read_text())
    return codes, told


def _settled(
    record: Record, codes: list[int], told: dict[int, dict[str, Any]], launch: Launch, is_memory: bool
) -> dict[str, Any]:
    """The status of a run whose processes have ended, written where they could not, or knew not why they ended."""
    status = record.status()
    if status.get("state") in (DONE, PREEMPTED):
        return status
    is_unsaid = status.get("state") == RUNNING
    causes = [rank for rank in sorted(told) if not told[rank]["is_echo"]]
    failed = [rank for rank, code in enumerate(codes) if code not in (0, ENDED_BY_US)]
    died = [rank for rank in failed if rank not in told]
    if causes and (is_unsaid or causes[0] > 0):  # the first process has seen another one's end alone
        cause = told[causes[0]]["status"]
        if causes[0] > 0 and cause["state"] == FAILED:
            cause["message"] = f"rank {causes[0]}: {cause['message']}"
        return _write(record, cause)
    if is_unsaid or (died and not causes and len(codes) > 1):
        return _ended(record, codes[(died or failed or [0])[0]], launch.is_stopped, is_memory)
    return status


def _write(record: Record, status: dict[str, Any]) -> dict[str, Any]:
    with suppress(OSError):
        record.set_status(**status, ended=time.time())
    return {**record.status(), **status}


def _ended(record: Record, code: int, is_stopped: bool, is_memory: bool) -> dict[str, Any]:
    """The status of a run whose process could not say how it ended."""
    if is_stopped and code == -signal.SIGKILL:
        state, told = PREEMPTED, {"message": f"stopped at once; {STOPPED}"}
    else:
        was_killed = code in (-signal.SIGKILL, -signal.SIGTERM, _SERVER_IS_GONE)
        failure = EXITS.get(code, ERROR if not was_killed else MEMORY if is_memory else KILLED)
        message = f"its process ended by {ended_by(code)}"
        if failure == MEMORY and was_killed:
            message = "the kernel killed its process, since the memory was used up"
        elif failure == DISK:
            message = "no room was left, even for saying so"
        state, told = FAILED, {"failure": failure, "message": message, "mend": MENDS[failure]}
    return _write(record, {"state": state, **told})


_FAREWELL = 20.0  # seconds that the processes of a run have once one of them is gone
_LAST_WORDS = 60.0  # more for the first one, once it has seen that, for what W&B has not got yet
ENDED_BY_US = 256  # no exit code
_SERVER_IS_GONE = 255  # what multiprocessing says where its server, not its process, was killed
# The exit codes of a worker that could not write its status.
EXITS = dict(enumerate(MENDS, 100))


def in_children(
    function: Callable[..., None],
    calls: list[tuple[Any, ...]],
    launch: Launch | None = None,
    is_ending: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Make calls of a function of this module at once, each in a fresh process, and return their exit codes.

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
    start_server("alexlab.runs.worker")
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
    # The tracker, which lets all signals through, would be ended by these two.
    with _ignored(signal.SIGUSR1), _ignored(signal.SIGUSR2):
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


def _train(folder: Path, title: str, config: Config, claim: Claim, stop: Path, member: Member | None = None) -> None:
    os.setsid()
    from alexlab.runs.worker import train  # with torch, in the child alone

    train(folder, title, config, claim, stop, member)


def forecast(configs: list[Config]) -> list[tuple[float, int]]:
    """About how many seconds each run would take on this machine, and how many bytes its record."""
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        answer = Path(folder) / "forecast.json"
        [code] = in_children(_forecast, [(configs, answer)])
        if code != 0:
            raise ConfigError(f"--dry-run: timing some steps failed ({ended_by(code)})")
        told = json.loads(answer.read_text())
        if isinstance(told, str):
            raise ConfigError(f"--dry-run: some steps cannot be timed: {told}")
        return [tuple(pair) for pair in told]


def _forecast(configs: list[Config], answer: Path) -> None:
    from alexlab.training.estimate import record_bytes, seconds_per_run

    try:
        told: object = [(seconds_per_run(config), record_bytes(config)) for config in configs]
    except Exception as error:  # no such device, no memory for such a net
        told = " ".join(str(error).split())
    answer.write_text(json.dumps(told))
