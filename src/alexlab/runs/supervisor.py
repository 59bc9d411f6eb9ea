"""Make sure that a run is done: take its lease, start a worker process, settle its status."""

from __future__ import annotations

import json
import logging
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from alexlab import own_net
from alexlab.compose import to_yaml
from alexlab.config import Config, ConfigError, Retry
from alexlab.errors import UserError, one_line
from alexlab.files import temporary_folder
from alexlab.runs import process
from alexlab.runs.device import Device, find_device
from alexlab.runs.failure import DISK, DIVERGED, ERROR, HINTS, KILLED, MEMORY, ended_by, is_retried, oom_kills
from alexlab.runs.identity import run_id
from alexlab.runs.lease import LeaseLost, holder, take
from alexlab.runs.process import ENDED_BY_US, EXITS, STOPPED, Launch, RankProcess, in_children
from alexlab.runs.record import DONE, FAILED, PREEMPTED, RUNNING, Record

HELD = "HELD"  # not a record's state: another process works on the run
_SERVER_IS_GONE = 255  # multiprocessing's exit code if its server, not its process, was killed


def needs_work(status: dict[str, Any], retry: Retry, attempts: int | None = None) -> bool:
    """Whether a run is still to be done; a run that failed after attempt number `attempts` is not retried."""
    if status.get("state") == FAILED:
        return is_retried(status.get("failure"), retry) and (attempts is None or status.get("attempt", 0) <= attempts)
    return status.get("state") != DONE


def execute(config: Config, labels: dict[str, str], title: str, launch: Launch) -> dict[str, Any]:
    """Make sure that a run is done, and return its status; a finished one is not touched.

    The record of a try-out (`Config.is_tryout`) is temporary.
    """
    if config.is_tryout:
        with temporary_folder() as folder:
            return _attempt(folder, "trial", config, labels, title, launch)
    return _attempt(Path(config.paths.runs), run_id(config), config, labels, title, launch)


def _attempt(
    runs: Path, name: str, config: Config, labels: dict[str, str], title: str, launch: Launch
) -> dict[str, Any]:
    before = Record(runs, name).status()
    if not needs_work(before, config.retry, launch.attempts.get(name, 0)):
        return before
    lease = take(runs / name, before.get("attempt", 0))
    if lease is None:
        return {"state": HELD, "message": f"{holder(runs / name) or 'another process'} works on it"}
    record = Record(runs, name, lease)
    try:
        record.fence()
        status = record.status()  # another process may have done it in the meantime
        if not needs_work(status, config.retry, launch.attempts.get(name, 0)):
            return status
        if status.get("failure") == DIVERGED:
            record.forget()  # its last state would diverge again
        net = None if config.model.build is None else own_net.source(config)
        record.begin(to_yaml(config), labels, net, started=time.time())
        with lease.heartbeat():
            kills = oom_kills()
            arguments = (record.path, title, config, lease, launch.stop)
            codes, reports = _train_all(config.trainer.devices, arguments, launch)
            status = _settled(record, codes, reports, launch, oom_kills() > kills)
        return status
    except LeaseLost as error:
        return {"state": HELD, "message": str(error)}
    finally:
        lease.release()


def _train_all(count: int, arguments: tuple[Any, ...], launch: Launch) -> tuple[list[int], dict[int, dict[str, Any]]]:
    """Train in `count` processes; return their exit codes and, of several, the failure reports by rank."""
    if count == 1:
        return in_children(process.train, [(*arguments, None, launch.messages)], launch), {}
    with temporary_folder() as folder:
        members = [RankProcess(rank, count, folder) for rank in range(count)]
        calls = [(*arguments, member, launch.messages) for member in members]
        codes = in_children(process.train, calls, launch, members[0].failure.exists)
        reports = {}
        for member in members:
            with suppress(OSError, ValueError):  # it reported nothing, or the disk was full
                reports[member.rank] = json.loads(member.failure.read_text())
    return codes, reports


def _settled(
    record: Record, codes: list[int], reports: dict[int, dict[str, Any]], launch: Launch, is_memory: bool
) -> dict[str, Any]:
    """The status of a run whose processes have ended, written here if they could not or did not know the cause."""
    status = record.status()
    if status.get("state") in (DONE, PREEMPTED):
        return status
    is_unsettled = status.get("state") == RUNNING
    causes = [rank for rank in sorted(reports) if not reports[rank]["is_echo"]]
    failed = [rank for rank, code in enumerate(codes) if code not in (0, ENDED_BY_US)]
    died = [rank for rank in failed if rank not in reports]
    if causes and (is_unsettled or causes[0] > 0):  # the first process saw only that another one ended
        cause = reports[causes[0]]["status"]
        if causes[0] > 0 and cause["state"] == FAILED:
            cause["message"] = f"rank {causes[0]}: {cause['message']}"
        return _write(record, cause)
    if is_unsettled or (died and not causes and len(codes) > 1):
        return _ended(record, codes[(died or failed or [0])[0]], launch.is_stopped, is_memory)
    return status


def _write(record: Record, status: dict[str, Any]) -> dict[str, Any]:
    with suppress(OSError):
        record.set_status(**status, ended=time.time())
    return {**record.status(), **status}


def _ended(record: Record, code: int, is_stopped: bool, is_memory: bool) -> dict[str, Any]:
    """The status of a run whose process did not write one."""
    if is_stopped and code == -signal.SIGKILL:
        state, details = PREEMPTED, {"message": f"stopped at once; {STOPPED}"}
    else:
        was_killed = code in (-signal.SIGKILL, -signal.SIGTERM, _SERVER_IS_GONE)
        failure = EXITS.get(code, ERROR if not was_killed else MEMORY if is_memory else KILLED)
        message = f"its process ended ({ended_by(code)})"
        if failure == MEMORY and was_killed:
            message = "the kernel killed its process because memory ran out"
        elif failure == DISK:
            message = "no space left to write the status file"
        state, details = FAILED, {"failure": failure, "message": message, "hint": HINTS[failure]}
    return _write(record, {"state": state, **details})


def check(configs: list[Config], is_here: bool) -> Device | None:
    """Check with torch, before runs start, their weights and, if they train here, their device.

    Returns the device of the first run; None if they train elsewhere, or if the checking process was killed.

    Raises:
        ConfigError: for the first run that cannot start.
    """
    with temporary_folder() as folder:
        answer = folder / "checked.json"
        [code] = in_children(_check, [(configs, is_here, answer)])
        if code != 0:
            return None  # if this was more than an accident, the runs will report it
        found = json.loads(answer.read_text())
        if isinstance(found, str):
            raise ConfigError(found)
        return Device(**found) if found else None


def _check(configs: list[Config], is_here: bool, answer: Path) -> None:
    found: object = None
    try:
        import_module(process.WORKER)  # imports everything that training needs
        from alexlab.models import build_model
        from alexlab.training.weights import load_weights

        if is_here:
            trainers = {repr(config.trainer): config.trainer for config in configs}
            devices = [find_device(trainer) for trainer in trainers.values()]
            found = asdict(devices[0])
        for config in configs:
            if config.weights is not None:
                logging.disable(logging.WARNING)  # the run itself warns if its last layer is not loaded
                load_weights(build_model(config), config.weights)
    except UserError as error:
        found = str(error)
    except ImportError as error:
        found = f"this installation cannot train: {type(error).__name__}: {one_line(error)}"
    answer.write_text(json.dumps(found))


def forecast(configs: list[Config]) -> list[tuple[tuple[float, float, float], int]]:
    """Forecast the seconds that each run would take on this machine, and the approximate bytes of its record.

    Seconds are given by the lower quartile, the median and the upper quartile of timed steps, which are measured in a
    process of its own that loads torch.

    Raises:
        UserError: if no step can be timed, such as without the requested device.
    """
    with temporary_folder() as folder:
        answer = folder / "forecast.json"
        [code] = in_children(_forecast, [(configs, answer)])
        if code != 0:
            raise UserError(f"the hours cannot be forecast: timing some steps failed ({ended_by(code)})")
        found = json.loads(answer.read_text())
        if isinstance(found, str):
            raise UserError(f"the hours cannot be forecast: no step can be timed: {found}")
        return [((low, middle, high), size) for (low, middle, high), size in found]


def _forecast(configs: list[Config], answer: Path) -> None:
    from alexlab.runs.worker import keep_memory
    from alexlab.training.estimate import record_bytes, seconds_of_runs

    keep_memory()  # as a run does
    try:
        found: object = [*zip(seconds_of_runs(configs), map(record_bytes, configs), strict=True)]
    except Exception as error:  # such as a missing device, or a net too large for memory
        found = one_line(error)
    answer.write_text(json.dumps(found))
