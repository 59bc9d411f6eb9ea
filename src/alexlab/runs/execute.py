"""Do a run unless it is done: claim its record, start a worker process, see how it ended."""

from __future__ import annotations

import json
import multiprocessing
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexlab.compose import to_yaml
from alexlab.config import Config
from alexlab.runs.identity import run_id
from alexlab.runs.record import FAILED, RUNNING, Record


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
            code = in_child(_train, record.path, title)
            if record.status().get("state") == RUNNING:  # it died without a word
                record.set_status(FAILED, failure="killed", message=f"its process ended by {_told(code)}")
        return record.status()


def in_child(function: Callable[..., None], *arguments: Any) -> int:
    """Call a function of this module in a fresh process, which has torch loaded already; return its exit code.

    The first call waits some seconds for the server that loads torch; this process never loads it itself.
    """
    if (
        multiprocessing.get_start_method(allow_none=True) == "loky"
    ):  # a worker of joblib's: children know no such method
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alexlab.runs.worker"])
    process = context.Process(target=function, args=arguments)
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:
        process.join()  # the terminal sent it the signal too: it saves what it has to and ends
        raise
    assert process.exitcode is not None
    return process.exitcode


def _told(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _train(folder: Path, title: str) -> None:
    from alexlab.runs.worker import train  # with torch, in the child alone

    train(folder, title)


def forecast(configs: list[Config]) -> list[tuple[float, int]]:
    """About how many seconds each run would take on this machine, and how many bytes its record."""
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        answer = Path(folder) / "forecast.json"
        code = in_child(_forecast, configs, answer)
        if code != 0:
            raise RuntimeError(f"timing some steps failed ({_told(code)})")
        return [tuple(pair) for pair in json.loads(answer.read_text())]


def _forecast(configs: list[Config], answer: Path) -> None:
    from alexlab.training.timing import record_bytes, seconds_per_run

    answer.write_text(json.dumps([(seconds_per_run(config), record_bytes(config)) for config in configs]))
