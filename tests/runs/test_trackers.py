"""W&B never stands in a run's way, holds each step once and no secret, and without it nothing is sent anywhere."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import wandb

from alexlab.compose import to_yaml
from alexlab.config import PROJECT_DIR, Config
from alexlab.runs import tracked, worker
from alexlab.runs.names import run_name
from alexlab.runs.record import DONE, FAILED, Record
from alexlab.runs.trackers import Copies, send
from alexlab.runs.wandb_copy import group_name, wandb_mode
from support import hand_made
from support.commands import finish, start
from support.settings import composed

LABELS = {"protocol": "paper", "recipe": "demo", "model": "alexnet", "ablation": "none", "arm": "0123456789ab"}


def begun(config: Config) -> Record:
    record = Record(config.paths.runs, "0123456789ab")
    record.path.mkdir(parents=True)
    record.begin(to_yaml(config), LABELS)
    return record


class Server:
    """W&B as it is seen from here: runs by id; a step is taken once, and a deleted id never again."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        self.dies_at: int | None = None
        self.answers = threading.Event()
        self.answers.set()

    def init(self, id: str, **named: Any) -> ServedRun:
        if id in self.deleted:
            raise wandb.errors.CommError(f"run {id} was previously created and deleted; try a new run name")  # pyright: ignore[reportAttributeAccessIssue]
        self.runs.setdefault(id, {"steps": {}, "summary": {}, "named": named, "ends": []})
        return ServedRun(self, self.runs[id])


class ServedRun:
    def __init__(self, server: Server, run: dict[str, Any]) -> None:
        self._server, self._run, self.summary = server, run, run["summary"]
        self.starting_step = max(run["steps"], default=-1) + 1

    def log(self, row: dict[str, Any], step: int) -> None:
        if self._server.dies_at is not None and step >= self._server.dies_at:
            raise BrokenPipeError("the service is gone")
        assert step >= self.starting_step, "W&B would drop it"
        self._run["steps"][step] = {**self._run["steps"].get(step, {}), **row}

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self._run.setdefault("axes", {})[name] = step_metric

    def mark_preempting(self) -> None:
        self._run["ends"].append("preempting")

    def finish(self, exit_code: int) -> None:
        self._server.answers.wait()
        self._run["ends"].append(exit_code)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    served = Server()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", served.init)
    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)
    return served


def rows(record: Record) -> list[str]:
    return record.file("metrics.csv").read_text().splitlines()[1:]


def refuse(*_: object, **__: object) -> None:
    raise ValueError("this key\nis none")


@pytest.mark.parametrize("broken", ["login", "init"])
def test_a_wandb_that_does_not_start_is_one_line(tiny, monkeypatch, capsys, broken):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, broken, refuse)
    config = composed([*tiny, "logger=wandb"])
    copy = Copies(config, begun(config))
    copy.start()
    copy.row({"step": 3, "epoch": 1})
    copy.finish()
    assert capsys.readouterr().out.splitlines()[-1] == (
        "logger=wandb: W&B did not start (this key is none); the record is complete, `alexlab runs copy "
        "logger=wandb` sends it later"
    )


@pytest.mark.parametrize(("given", "mode"), [("dryrun", "offline"), ("offline", "offline"), ("online", "online")])
def test_mode(monkeypatch: pytest.MonkeyPatch, given: str, mode: str):
    monkeypatch.setenv("WANDB_MODE", given)
    assert wandb_mode() == mode


def test_a_key_with_the_end_of_a_line_is_a_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", f"{'k' * 40}\r\n")
    monkeypatch.setattr(wandb, "login", lambda **_: os.environ["WANDB_API_KEY"] == "k" * 40)
    assert wandb_mode() == "online"


def test_a_key_that_is_none_is_one_line_without_it(tmp_path: Path):
    env = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    line = [sys.executable, "src/runs.py", "wandb", f"paths.runs={tmp_path}"]
    env["WANDB_API_KEY"] = "secret\nsecret"
    done = subprocess.run(line, cwd=PROJECT_DIR, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: W&B's key cannot be used (")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stdout + done.stderr


def test_variables_of_an_outer_run_do_not_merge_runs(tiny: list[str], tmp_path: Path):
    """Below `wandb agent`, W&B ignored the ids of a sweep's runs, so that all of them were the agent's one."""
    config = composed([*tiny, "logger=wandb", f"paths.runs={tmp_path}"])
    for run_id in ("0123456789ab", "ba9876543210"):
        record = Record(tmp_path, run_id)
        record.path.mkdir()
        record.begin(to_yaml(config), LABELS)
        record.write("metrics.csv", "step,epoch,train_loss\n3,1,0.5\n")
        record.set_status(FAILED)
    outer = {
        "WANDB_RUN_ID": "outer",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_RUN_GROUP": "g",
        "WANDB_RESUME_FROM": "o?_step=1",
    }
    status, output = finish(
        start(["wandb", f"paths.runs={tmp_path}"], {"WANDB_MODE": "offline", **outer}, script="runs.py")
    )
    assert status == 0, output
    assert "2 of 2 runs sent" in output
    assert (
        " ".join(output.split()).count("WANDB_RUN_ID, WANDB_RUN_GROUP, WANDB_RESUME_FROM, WANDB_SWEEP_ID in the") == 1
    )
    for run_id in ("0123456789ab", "ba9876543210"):
        [folder] = (tmp_path / run_id / "wandb").glob("offline-run-*")
        assert folder.name.endswith(f"-{run_id}")


def test_a_run_and_its_end(tiny, server):
    config = composed([*tiny, "logger=wandb"])
    record = begun(config)
    worker.train(record.path, "run", config)
    run = server.runs["0123456789ab"]
    assert list(run["steps"]) == [3, 6]
    assert run["steps"][6]["epoch"] == 2
    assert run["summary"]["test/ten/top1_error"] == record.result()["test"]["ten"]["top1_error"]
    assert run["ends"] == [0]
    assert run["axes"] == {"epoch": None, "*": "epoch"}
    assert isinstance(run["named"]["config"]["optim.lr"], float)
    assert run["named"]["name"] == "none seed=0"
    assert run["named"]["config"]["model.remove"] == []
    assert record.read("wandb.json") == {"id": "0123456789ab", "mode": "online", "complete": True}


def test_a_resumed_run_loses_and_doubles_no_step(tiny, server, monkeypatch):
    """W&B has seen one epoch more than the state that the run goes on from, and has missed one before it."""
    config = composed([*tiny, "logger=wandb", "trainer.max_epochs=4", "checkpoint.every_steps=5"])
    record = begun(config)

    class Break(BaseException):
        pass

    with monkeypatch.context() as context:
        row = Copies.row

        def breaks(copies: Copies, values: dict[str, Any]) -> None:
            row(copies, values)
            if values["epoch"] == 2:
                raise Break

        context.setattr(Copies, "row", breaks)
        worker.train(record.path, "run", config)
    assert record.status()["state"] == FAILED
    assert list(server.runs["0123456789ab"]["steps"]) == [3, 6]
    for seen in ([3, 6], [3], []):
        server.runs["0123456789ab"]["steps"] = {step: {} for step in seen}
        record.begin(to_yaml(config), LABELS)
        worker.train(record.path, "run", config)
        assert list(server.runs["0123456789ab"]["steps"]) == [3, 6, 9, 12]
        assert len(rows(record)) == 4
        record.set_status(FAILED, failure="error", message="")  # and once more from its last state
    assert len(server.runs) == 1


def test_a_deleted_id_is_not_asked_for_again(tiny, server):
    config = composed([*tiny, "logger=wandb", "trainer.max_epochs=1"])
    record = begun(config)
    server.deleted |= {"0123456789ab", "0123456789ab-2"}
    worker.train(record.path, "run", config)
    assert list(server.runs) == ["0123456789ab-3"]
    assert record.read("wandb.json")["id"] == "0123456789ab-3"
    assert send("wandb", config, record)
    assert list(server.runs) == ["0123456789ab-3"]


def test_a_service_that_dies_ends_nothing_but_the_copy(tiny, server, capsys):
    config = composed([*tiny, "logger=wandb"])
    record = begun(config)
    server.dies_at = 6
    worker.train(record.path, "run", config)
    assert record.status()["state"] == DONE
    out = capsys.readouterr().out
    assert out.count("logger=wandb: ") == 1
    assert "stopped accepting data (the service is gone); the record is complete" in out
    server.dies_at = None
    for _ in range(2):  # later, and not twice
        assert send("wandb", config, record)
        assert list(server.runs["0123456789ab"]["steps"]) == [3, 6]
        assert server.runs["0123456789ab"]["summary"]["seconds"] == record.result()["seconds"]


def test_a_network_that_is_gone_at_the_end_is_not_waited_for(tiny, server, monkeypatch, capsys):
    monkeypatch.setattr(tracked, "_LAST_SECONDS", 0.1)
    server.answers.clear()
    config = composed([*tiny, "logger=wandb", "trainer.max_epochs=1"])
    record = begun(config)
    worker.train(record.path, "run", config)
    assert record.status()["state"] == DONE
    assert "W&B did not accept everything (no answer in 0 s)" in capsys.readouterr().out
    assert record.read("wandb.json")["complete"] is False
    server.answers.set()


def test_a_failed_run_is_marked_failed(tiny, server):
    config = composed([*tiny, "logger=wandb", "optim.lr=1e9"])
    record = begun(config)
    worker.train(record.path, "run", config)
    assert record.status()["state"] == FAILED
    assert server.runs["0123456789ab"]["ends"] == [1]


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_what_wandb_does_at_the_end_leaves_a_finished_run_done(tiny, server, monkeypatch):
    config = composed([*tiny, "logger=wandb", "trainer.max_epochs=1"])
    record = begun(config)
    monkeypatch.setattr(ServedRun, "finish", refuse)
    worker.train(record.path, "run", config)
    assert record.status()["state"] == DONE
    assert record.result()["epochs"] == 1


def test_without_it_no_connection_is_made(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    config = composed([*tiny, "trainer.max_epochs=1"])
    record = begun(config)

    tried: list[object] = []  # what is raised here may be caught there
    connect = socket.socket.connect

    def connected(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)
        return note(address)

    def note(*asked: object, **more: object) -> None:
        tried.append((asked, more))
        raise OSError("no network here")

    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)
    monkeypatch.setattr(socket.socket, "connect", connected)
    monkeypatch.setattr(socket, "getaddrinfo", note)
    monkeypatch.setattr(wandb, "init", note)  # another process makes its connections
    worker.train(record.path, "run", config)
    assert record.status()["state"] == DONE, record.status()
    assert tried == []
    assert not record.file("wandb").exists()


def test_a_groups_name_is_its_arms_alone():
    assert group_name(LABELS, run_name("none")) == "demo/paper/alexnet/none"
    long = group_name(LABELS, run_name("model.init_stds=[" + "conv1:0.01, " * 20 + "]"))
    assert len(long) == 128
    assert long.endswith("-0123456789ab")


def test_arms_of_a_shorter_recipe_keep_their_names():
    """As in W&B's side bar: what was varied first; what all runs share in a hash, and apart from longer ones."""
    short = "data.train_images=300 model.lrn=false trainer.max_epochs=2"
    group = group_name(LABELS, run_name(short))
    assert group.startswith("demo/paper/alexnet/no_lrn +2 settings ")
    base = group_name(LABELS, run_name("data.train_images=300 trainer.max_epochs=2"))
    assert base.split(" +")[1] == group.split(" +")[1]
    assert group_name(LABELS, run_name(short.replace("=2", "=3"))) != group


def test_a_record_is_where_it_was_asked_for_and_says_nothing_of_its_copy(tiny: list[str]):
    config = composed([*tiny, "logger=wandb", "logger.entity=private"])
    record = begun(config)
    assert record.path.parent == Path(config.paths.runs)
    assert "private" not in record.file("config.yaml").read_text()
    assert "private" not in json.dumps(tracked.public_config(config))
    assert not any(name.startswith("study.") for name in tracked.public_config(config))


def test_the_loop_for_any_other_tracker(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As docs/how-to/trackers.md has it, with a tracker that notes what it gets."""
    page = (PROJECT_DIR / "docs" / "how-to" / "trackers.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page.partition("## Any other tracker")[2], re.DOTALL)
    config = composed(tiny)
    hand_made.complete(hand_made.begin(config))
    hand_made.begin(config, "ba9876543210")  # which has not ended
    monkeypatch.chdir(tmp_path)
    tracker = MagicMock()
    monkeypatch.setitem(sys.modules, "my_tracker", tracker)
    exec(code, {})
    [started] = tracker.start.call_args_list
    assert (started.kwargs["id"], started.kwargs["name"]) == (hand_made.RUN_ID, "none seed=0")
    assert started.kwargs["config"]["config.model.lrn"] is True
    logged = tracker.start.return_value.log.call_args_list
    losses = [(call.kwargs["step"], call.args[0]["train_loss"]) for call in logged]
    assert losses == [(row["step"], row["train_loss"]) for row in hand_made.ROWS]
    [ended] = tracker.start.return_value.finish.call_args_list
    assert ended.kwargs["summary"]["test.ten.top1_error"] == 0.5
