"""Weights & Biases as a copy of the record: one W&B run for each attempt of a run, grouped by arm."""

from __future__ import annotations

import logging
import os
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from alexlab.config import Config, flat
from alexlab.runs.record import Record

log = logging.getLogger(__name__)
_LONGEST_NAME, _LONGEST_TAG = 128, 64  # W&B refuses longer ones


def wandb_logger(config: Config, record: Record) -> WandbLogger | None:
    """The run's W&B logger: online with a key, offline without; None, with one warning, where W&B does not start.

    The id is run id and attempt, since W&B never takes a deleted id again.
    """
    import wandb

    status = record.status()
    labels = status["labels"]
    try:
        mode = wandb_mode()
    except Exception as error:  # a key that W&B cannot read, say
        return _without(error)
    if mode == "offline" and "WANDB_MODE" not in os.environ:
        print(
            f"logger=wandb: no W&B key, so this run is kept offline; later: wandb sync {record.file('wandb')}/offline-*"
        )
    elif mode == "disabled":
        return None
    try:
        run = wandb.init(
            project=config.logger.project,
            entity=config.logger.entity,
            dir=record.path,
            id=f"{record.run_id}-{status['attempt']}",
            resume="allow",
            name=f"{labels['ablation']} seed={config.seed}"[:_LONGEST_NAME],
            group=group_name(labels),
            job_type=labels["recipe"],
            tags=[labels["protocol"], labels["recipe"], labels["model"], labels["ablation"][:_LONGEST_TAG]],
            config=public_config(config),
            mode="offline" if mode == "offline" else "online",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    except Exception as error:  # whatever W&B raises, the record is what counts
        return _without(error)
    return WandbLogger(experiment=run)


def _without(error: Exception) -> None:
    said = f"logger=wandb: W&B did not start ({' '.join(str(error).split())}); the run goes on with its local record"
    log.warning(said)
    print(said, flush=True)


def group_name(labels: dict[str, str]) -> str:
    """An arm's group: its recipe, protocol, model and ablation, ended by its hash where that is too long for W&B."""
    name = "/".join(labels[part] for part in ("recipe", "protocol", "model", "ablation"))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 13]}-{labels['arm']}"


def public_config(config: Config) -> dict[str, Any]:
    """The configuration, flat, with numbers as numbers and lists as lists; folders of this machine stay here."""
    places = ("paths.runs", "data.cache", "data.raw", "data.root", "data.stage")
    return {name: value for name, value in flat(config).items() if name not in places}


def wandb_mode() -> str:
    """`online`, `offline` or `disabled`: what WANDB_MODE says, else online only where there is a key."""
    import wandb

    if mode := os.environ.get("WANDB_MODE"):
        return "offline" if mode == "dryrun" else mode
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def summarise(logger: WandbLogger, result: dict[str, Any]) -> None:
    """Put the final errors into the W&B run's summary and end it."""
    try:
        run = logger.experiment
        for split in ("test", "train"):
            for kind in ("center", "ten"):
                for name, value in result[split].get(kind, {}).items():
                    run.summary[f"{split}/{kind}/{name}"] = value
        run.summary["seconds"] = result["seconds"]
    except Exception as error:  # the record is written already
        log.warning("logger=wandb: the summary was not sent (%s)", error)
    finish(logger)


def finish(logger: WandbLogger, exit_code: int = 0) -> None:
    """End the W&B run, marked failed where the exit code is not 0."""
    try:
        logger.experiment.finish(exit_code=exit_code)
    except Exception as error:
        log.warning("logger=wandb: W&B did not end well (%s)", error)
