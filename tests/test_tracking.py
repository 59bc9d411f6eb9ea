"""W&B never stands in a run's way, and without it nothing is sent anywhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger

from alexlab.config import Config, load
from alexlab.runs import worker
from alexlab.runs.record import DONE, Record
from alexlab.runs.tracking import group_name, wandb_logger, wandb_mode

LABELS = {"protocol": "paper", "recipe": "demo", "model": "alexnet", "ablation": "none", "arm": "0123456789ab"}


def begun(config: Config) -> Record:
    from alexlab.compose import to_yaml

    record = Record(config.paths.runs, "0123456789ab")
    record.path.mkdir(parents=True)
    record.begin(to_yaml(config), LABELS)
    return record


def refuse(*_: object, **__: object) -> None:
    raise ValueError("this key\nis none")


@pytest.mark.parametrize("broken", ["login", "init"])
def test_a_wandb_that_does_not_start_is_one_line(tiny_config, monkeypatch, capsys, broken):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, broken, refuse)
    assert wandb_logger(tiny_config, begun(tiny_config)) is None
    told = [line for line in capsys.readouterr().out.splitlines() if "did not start" in line]
    assert told == ["logger=wandb: W&B did not start (this key is none); the run goes on with its local record"]


@pytest.mark.parametrize(("given", "mode"), [("dryrun", "offline"), ("offline", "offline"), ("online", "online")])
def test_mode(monkeypatch: pytest.MonkeyPatch, given: str, mode: str):
    monkeypatch.setenv("WANDB_MODE", given)
    assert wandb_mode() == mode


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_what_wandb_does_at_the_end_leaves_a_finished_run_done(tiny, tmp_path, monkeypatch):
    config = load([*tiny, "logger=wandb", "trainer.max_epochs=1"])
    record = begun(config)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)
    monkeypatch.setattr(worker, "wandb_logger", lambda *_: CSVLogger(tmp_path))  # any logger will do
    monkeypatch.setattr(worker, "summarise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.train(record.path, "run")
    assert record.status()["state"] == DONE
    assert record.result()["epochs"] == 1


def test_without_it_no_connection_is_made(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    config = load([*tiny, "trainer.max_epochs=1"])
    record = begun(config)

    def connect(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    worker.train(record.path, "run")
    assert record.status()["state"] == DONE, record.status()


def test_a_groups_name_is_its_arms_alone():
    assert group_name(LABELS) == "demo/paper/alexnet/none"
    long = group_name({**LABELS, "ablation": "model.lrn=false " * 20})
    assert len(long) == 128
    assert long.endswith("-0123456789ab")


def test_a_record_is_where_it_was_asked_for(tiny_config: Config):
    assert begun(tiny_config).path.parent == Path(tiny_config.paths.runs)
