"""One attempt of one run, in a process of its own, which trains and writes the record.

It raises nothing: status.json says how it ended or, if that cannot be written, the exit code does.
"""

from __future__ import annotations

import ctypes
import io
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext, suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import torch._dynamo  # noqa: F401  (every optimiser imports it: here, once for all runs)

from alexlab import distributed
from alexlab.config import Config, Debug, Keep
from alexlab.data.limits import allow_open_files
from alexlab.data.locate import described
from alexlab.output import survive_closed
from alexlab.runs.environment import changes, environment, with_earlier
from alexlab.runs.failure import HINTS, failure_of, is_echo, message_of, oom_kills
from alexlab.runs.lease import Lease, LeaseLost
from alexlab.runs.process import EXITS, STOPPED, RankProcess, start_server
from alexlab.runs.record import DONE, FAILED, PREEMPTED, RECORD_VERSION, Record
from alexlab.runs.trackers import Copies
from alexlab.signals import SIGNALS
from alexlab.training import preemption
from alexlab.training.checkpoint import States
from alexlab.training.device import device_type
from alexlab.training.evaluate import archive
from alexlab.training.fit import Outcome, fit
from alexlab.training.module import Diverged
from alexlab.training.preemption import Preempted

log = logging.getLogger(__name__)

changes()  # cached on import: the tree may change while runs train

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of <malloc.h>


def train(
    folder: Path,
    title: str,
    config: Config,
    lease: Lease | None = None,
    stop: Path | None = None,
    member: RankProcess | None = None,
    messages: Path | None = None,
) -> None:
    """Start or resume the training whose record is at `folder`.

    `stop`: a file that exists once the command was asked to stop. `member`: which of the run's processes this is, if it
    has several; the first one writes the record, and prints progress. `messages`: the folder that marks which messages
    of a whole sweep were printed.
    """
    survive_closed()
    _end_with_parent()
    keep_memory()
    is_first = member is None or member.rank == 0
    if not is_first:
        lease = None
        _hide(folder / "train.log")
    record = Record(folder.parent, folder.name, lease)
    handler = _log_to(record.file("train.log"), "" if member is None else f"[rank {member.rank}] ")
    copies = Copies(config, record, messages)
    kills, code = oom_kills(), 0
    try:
        with lease.heartbeat() if lease is not None else nullcontext():
            try:
                preemption.install()
                if stop is not None and stop.exists():
                    preemption.request()
                if member is not None:
                    is_on_gpu = device_type(config.trainer.accelerator) == "cuda"
                    distributed.connect(member.rank, member.count, member.folder, is_on_gpu)
                if config.data.num_workers > 0:
                    allow_open_files(config.data.num_workers)
                    start_server("alexlab.data.datamodule")  # for the loaders
                if is_first:
                    _train(record, config, title, copies)
                else:
                    fit(config, None if config.is_tryout else record.path, title)
                distributed.leave()
            except LeaseLost:
                raise
            except BaseException as error:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
                with suppress(OSError):  # if the lease cannot be read, report the failure
                    record.may_write()  # a new owner has removed what this process was writing
                if preemption.requested() and is_echo(error):
                    error = Preempted()  # the others have stopped
                killed = oom_kills() - kills
                if member is not None:
                    code = _report_ending(member, error, killed)
                if is_first and not record.is_done:
                    code = _write_ending(record, error, killed)
    except LeaseLost as error:
        log.warning("%s; this process ends and writes nothing", error)
        copies.abandon()
    else:
        copies.finish()
    for loader in multiprocessing.active_children():
        loader.kill()  # of an interrupted epoch; this process would wait for it
    logging.getLogger().removeHandler(handler)
    with suppress(OSError):  # as on a full disk
        handler.close()
    if code:
        sys.exit(code)


def _train(record: Record, config: Config, title: str, copies: Copies) -> None:
    if config.is_tryout:
        outcome = fit(config, None, title)
        if config.debug.name is Debug.limit:
            print(f"{title}: {_summary(outcome)}", flush=True)
        record.set_status(DONE)
        return
    record.write("environment.json", _environment(record, config))
    copies.start()
    outcome = fit(config, record.path, title, copies.row, record.may_write)
    with preemption.held():  # only writing is left
        record.write("predictions.npz", archive(outcome.test))
        if outcome.conv1 is not None:
            record.write("conv1.npy", _array(outcome.conv1))
        record.write("result.json", _result(record, config, outcome))
        record.set_status(DONE, ended=time.time())
        States(record.file("checkpoints")).clear(but_newest=config.checkpoint.keep is Keep.all)


def _summary(outcome: Outcome) -> str:
    """The report of a try-out: its speed and errors."""
    center, train = outcome.test["center"], outcome.train
    test_error, train_error = 100 * center.errors()["top1_error"], 100 * train["top1_error"]
    return (
        f"{outcome.steps} steps in {outcome.seconds['fit']:.1f} s; top-1 error {test_error:.1f} % of "
        f"{len(center.labels)} test images, {train_error:.1f} % of {train['images']} training images"
    )


def _array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _write_ending(record: Record, error: BaseException, kills: int) -> int:
    """Write the status of a run that is not done; return an exit code if even that fails."""
    if isinstance(error, Preempted):
        with suppress(OSError):  # else it counts as killed, and is also resumed
            record.set_status(PREEMPTED, message=STOPPED, ended=time.time())
        return 0
    log.exception("the run failed")
    failure, message = failure_of(error, kills), message_of(error)
    try:
        if isinstance(error, Diverged):
            record.write("diverged.json", {"message": message, **error.details})
        record.set_status(FAILED, failure=failure, message=message, hint=HINTS[failure], ended=time.time())
    except OSError:
        return next(code for code, name in EXITS.items() if name == failure)
    return 0


def keep_memory() -> None:
    """Make this process keep the memory of one training step for the next.

    glibc returns large blocks to the system, which then clears each page again: 700 per step of the demo, a tenth of
    its time. If the environment configures the allocator (MALLOC_...), or without glibc, nothing changes.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None)
        # Older releases accept at most 32 MiB. If neither is accepted, the trim threshold would make it worse.
        if allocator.mallopt(_MMAP_THRESHOLD, 2**31 - 1) or allocator.mallopt(_MMAP_THRESHOLD, 2**25):
            allocator.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def _hide(path: Path) -> None:
    """Print nothing from this process; output that libraries write without Python goes to the log."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    with suppress(OSError), path.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _report_ending(member: RankProcess, error: BaseException, kills: int) -> int:
    """Report how this process ended to its parent, which determines the run's status from all reports."""
    if isinstance(error, Preempted):
        status = {"state": PREEMPTED, "message": STOPPED}
    else:
        if member.rank > 0 and is_echo(error):
            log.warning("another process of the run is gone: %s", message_of(error))
        elif member.rank > 0:
            log.exception("this process of the run failed")
        failure, message = failure_of(error, kills), message_of(error)
        status = {"state": FAILED, "failure": failure, "message": message, "hint": HINTS[failure]}
    with suppress(OSError):
        member.failure.write_text(json.dumps({"is_echo": is_echo(error), "status": status}))
    return 1


def _log_to(path: Path, prefix: str = "") -> logging.Handler:
    try:
        handler: logging.Handler = _ToFile(path)
    except OSError as error:  # a run does not need a log
        print(f"{path}: {error}; the run continues without its log", flush=True)
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {prefix}%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    logging.captureWarnings(True)
    return handler


class _ToFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: a log that cannot be written, as on a full disk, must not end the run."""


def _environment(record: Record, config: Config) -> dict[str, Any]:
    """The environments of this attempt and of earlier ones."""
    now = environment(config.trainer)
    log.info("threads: %d of %d cores", now["threads"], now["cpus"])
    found, changed = with_earlier(now, record.read("environment.json"))
    if changed:
        log.warning("the run resumes with a different %s: results may differ in their bits", ", ".join(changed))
    return found


def _result(record: Record, config: Config, outcome: Outcome) -> dict[str, Any]:
    status = record.status()
    train, first_step, started = dict(outcome.train), outcome.first_step_at, status.get("started")  # of this attempt
    return {
        "run_id": record.run_id,
        "version": RECORD_VERSION,
        "status": DONE,
        "attempt": status["attempt"],
        "labels": status["labels"],
        "seed": config.seed,
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "ended_by": outcome.ended_by,
        "seconds": round(sum(outcome.seconds.values()), 1),
        "seconds_start": None if first_step is None or started is None else round(first_step - started, 2),
        "seconds_fit": round(outcome.seconds["fit"], 1),
        "seconds_evaluate": round(outcome.seconds["evaluate"], 1),
        "parameters": outcome.parameters,
        "device": outcome.device,
        "devices": config.trainer.devices,
        "strategy": config.trainer.strategy.name if config.trainer.devices > 1 else None,
        "bytes_sent_per_step": outcome.sent_per_step,
        "precision": config.trainer.precision,
        "data": described(config.data),
        "checkpoint": config.evaluate.checkpoint.name,
        "test": {
            "images": len(outcome.test["ten"].labels),
            **{kind: predictions.errors() for kind, predictions in outcome.test.items()},
        },
        "train": {"images": train.pop("images"), "center": train},
    }


def _end_with_parent() -> None:
    """End this process with the one that started it, so that no run continues without its lease."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
