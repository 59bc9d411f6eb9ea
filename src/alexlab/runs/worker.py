"""One attempt of one run, in a process of its own: reads its record's config.yaml, trains, writes the record.

It raises nothing: how it ended stands in status.json.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from alexlab.compose import read_config
from alexlab.config import Config, ConfigError, Logger
from alexlab.data.prepare import described
from alexlab.runs.environment import environment
from alexlab.runs.record import DONE, FAILED, INTERRUPTED, Record, write_whole
from alexlab.runs.tracking import finish, summarise, wandb_logger
from alexlab.training.evaluate import archive
from alexlab.training.fit import Outcome, fit
from alexlab.training.task import Diverged

log = logging.getLogger(__name__)


def train(folder: Path, title: str) -> None:
    """Run the training whose record is at `folder`."""
    _end_with_parent()
    record = Record(folder.parent, folder.name)
    handler = _log_to(record.file("train.log"))
    logger: WandbLogger | None = None
    started = time.time()
    try:
        config = read_config(record.file("config.yaml"))
        write_whole(record.file("environment.json"), json.dumps(environment(), indent=1) + "\n")
        if config.trainer.fast_dev_run:
            fit(config, None, title)
            record.set_status(DONE)
            return
        if config.logger.name is Logger.wandb:
            logger = wandb_logger(config, record)
        outcome = fit(config, record.path, title, logger)
        result = _result(record, config, outcome, time.time() - started)
        write_whole(record.file("predictions.npz"), archive(outcome.test))
        write_whole(record.file("result.json"), json.dumps(result, indent=1) + "\n")
        record.set_status(DONE, started=started, ended=time.time())
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: Lightning turns the one into the other
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not record.is_done:
            log.exception("the run failed")
            record.set_status(
                FAILED, failure=_failure(error), message=_message(error), started=started, ended=time.time()
            )
    # Only now, when nothing that W&B or an interruption does can touch the record.
    if logger is not None:
        summarise(logger, record.result()) if record.is_done else finish(logger, exit_code=1)
    handler.close()


def _failure(error: BaseException) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted"
    return "error"


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return INTERRUPTED
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ConfigError | Diverged) else f"{type(error).__name__}: {text}"


def _log_to(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    logging.captureWarnings(True)
    return handler


def _result(record: Record, config: Config, outcome: Outcome, seconds: float) -> dict[str, Any]:
    status = record.status()
    train = dict(outcome.train)
    return {
        "run_id": record.run_id,
        "status": DONE,
        "labels": status["labels"],
        "seed": config.seed,
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "seconds": round(seconds, 1),
        "seconds_fit": round(outcome.seconds["fit"], 1),
        "seconds_evaluate": round(outcome.seconds["evaluate"], 1),
        "parameters": outcome.parameters,
        "device": outcome.device,
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
    """Let this process end when the one that started it is gone, so that no run goes on without its claim."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
