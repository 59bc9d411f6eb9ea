"""Do a run unless it is done: claim its record, start a worker process, see how it ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from alexlab.compose import to_yaml
from alexlab.config import Config, ConfigError, Retry
from alexlab.runs.claim import Claim, LostClaim, holder, take
from alexlab.runs.failure import DISK, DIVERGED, ERROR, KILLED, MEMORY, MENDS, ended_by, is_retried, oom_kills
from alexlab.runs.identity import run_id
from alexlab.runs.record import DONE, FAILED, PREEMPTED, RUNNING, Record

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # what asks a command, or a run, to stop
HELD = "HELD"  # not a record's state: another process works on the run
STOPPED = "the same command goes on from where it was"


@dataclass(frozen=True)
class Launch:
    """One command, for the processes that do its runs.

    `folder` is shared by those on one machine: `stop` in it says that the command was told to stop, `<process id>` that
    this process trains. `attempts`: how often runs had been tried before the command began, where they had.
    """

    folder: Path
    attempts: dict[str, int] = field(default_factory=dict)

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    @property
    def is_stopped(self) -> bool:
        return self.stop.exists()


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
            code = in_child(_train, record.path, title, config, claim, launch.stop, launch=launch)
            status = record.status()
            if status.get("state") == RUNNING:  # it died without a word, or had no room for one
                status = _ended(record, code, launch.is_stopped, oom_kills() > kills)
        return status
    except LostClaim as error:
        return {"state": HELD, "message": str(error)}
    finally:
        claim.release()


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
    with suppress(OSError):
        record.set_status(state, **told, ended=time.time())
    return {**record.status(), "state": state, **told}


_SERVER_IS_GONE = 255  # what multiprocessing says where its server, not its process, was killed
# The exit codes of a worker that could not write its status.
EXITS = dict(enumerate(MENDS, 100))


def in_child(function: Callable[..., None], *arguments: Any, launch: Launch | None = None) -> int:
    """Call a function of this module in a fresh process, which has torch loaded already; return its exit code.

    The first call waits some seconds for the server that loads torch; this process never loads it itself.
    """
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's worker, whose children know no loky
        multiprocessing.set_start_method("forkserver", force=True)
    start_server("alexlab.runs.worker")
    process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
    try:
        process.start()
    except (EOFError, ConnectionError):  # the server was killed, as the kernel does where memory is short
        return -signal.SIGKILL
    mark = launch.folder / str(process.pid) if launch is not None and launch.folder.is_dir() else None
    if mark is not None:  # on another machine, what starts processes there is told to stop, and not the command
        mark.touch()  # whoever is told to stop tells this process
        if launch is not None and launch.is_stopped and process.pid is not None:  # and was told just before
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
    try:
        process.join()
    except BaseException:
        process.kill()
        raise
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
    assert process.exitcode is not None
    return process.exitcode


def start_server(module: str) -> None:
    """Start the server from which this process has others forked, that have a module loaded already.

    No signal reaches it, nor, until it asks for them, a process that it makes: so what is sent to all of a job's
    processes ends only those that know what to do.
    """
    multiprocessing.set_forkserver_preload([module])
    with _ignored(signal.SIGUSR1):  # the tracker, which lets all signals through, would be ended by this one
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


def _train(folder: Path, title: str, config: Config, claim: Claim, stop: Path) -> None:
    os.setsid()
    from alexlab.runs.worker import train  # with torch, in the child alone

    train(folder, title, config, claim, stop)


def forecast(configs: list[Config]) -> list[tuple[float, int]]:
    """About how many seconds each run would take on this machine, and how many bytes its record."""
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        answer = Path(folder) / "forecast.json"
        code = in_child(_forecast, configs, answer)
        if code != 0:
            raise ConfigError(f"--dry-run: timing some steps failed ({ended_by(code)})")
        told = json.loads(answer.read_text())
        if isinstance(told, str):
            raise ConfigError(f"--dry-run: some steps cannot be timed: {told}")
        return [tuple(pair) for pair in told]


def _forecast(configs: list[Config], answer: Path) -> None:
    from alexlab.training.timing import record_bytes, seconds_per_run

    try:
        told: object = [(seconds_per_run(config), record_bytes(config)) for config in configs]
    except Exception as error:  # no such device, no memory for such a net
        told = " ".join(str(error).split())
    answer.write_text(json.dumps(told))
