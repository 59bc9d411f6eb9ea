"""Do a run unless it is done: claim its record, start a worker process, see how it ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from alexlab.compose import to_yaml
from alexlab.config import Config, ConfigError
from alexlab.runs.identity import run_id
from alexlab.runs.record import FAILED, INTERRUPTED, RUNNING, Record


def execute(config: Config, labels: dict[str, str], title: str) -> dict[str, Any]:
    """Make sure that a run is done, and return its status; a finished one is not touched.

    With `trainer.fast_dev_run` the record is a temporary one, and gone afterwards.
    """
    if config.trainer.fast_dev_run:
        with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
            return _attempt(Record(folder, "fast_dev_run"), config, labels, title)
    return _attempt(Record(config.paths.runs, run_id(config)), config, labels, title)


def _attempt(record: Record, config: Config, labels: dict[str, str], title: str) -> dict[str, Any]:
    with record.claim():
        if not record.is_done:
            record.begin(to_yaml(config), labels)
            try:
                code = in_child(_train, record.path, title)
            except KeyboardInterrupt:
                if record.status().get("state") == RUNNING:  # it had not come as far as to say so itself
                    record.set_status(FAILED, failure="interrupted", message=INTERRUPTED)
                raise
            if record.status().get("state") == RUNNING:  # it died without a word
                record.set_status(FAILED, failure="killed", message=f"its process ended by {_told(code)}")
        return record.status()


def in_child(function: Callable[..., None], *arguments: Any) -> int:
    """Call a function of this module in a fresh process, which has torch loaded already; return its exit code.

    The first call waits some seconds for the server that loads torch; this process never loads it itself.
    """
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's worker, whose children know no loky
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexlab.runs.worker"])
    process = context.Process(target=function, args=arguments)
    with _deaf_to_interrupts():  # the server inherits this, so that Ctrl-C does not break it while it loads torch
        forkserver.ensure_running()
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:
        # The child is in a session of its own, so it hears of this from here alone, once, whoever was signalled.
        assert process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        process.join()
        raise
    assert process.exitcode is not None
    return process.exitcode


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change handlers, and hears of interrupts
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _told(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _train(folder: Path, title: str) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from alexlab.runs.worker import train  # with torch, in the child alone

    train(folder, title)


def forecast(configs: list[Config]) -> list[tuple[float, int]]:
    """About how many seconds each run would take on this machine, and how many bytes its record."""
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        answer = Path(folder) / "forecast.json"
        code = in_child(_forecast, configs, answer)
        if code != 0:
            raise ConfigError(f"--dry-run: timing some steps failed ({_told(code)})")
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
