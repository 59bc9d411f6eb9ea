"""Records: written whole, never begun twice, never misread."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from alexlab.config import ConfigError
from alexlab.evidence import load_runs
from alexlab.files import write_whole, written_whole
from alexlab.runs.lease import LeaseLost
from alexlab.runs.record import DONE, FAILED, RECORD_VERSION, Record
from conftest import composed


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path, "0123456789ab")
    record.path.mkdir()
    return record


def test_an_attempt_goes_on_from_what_is_there(record: Record):
    record.begin("seed: 0\n", {"recipe": "demo"}, started=5.0)
    record.file("metrics.csv").write_text("half")
    (record.path / "checkpoints").mkdir()
    record.set_status(FAILED, failure="killed", message="x")
    record.begin("seed: 0\n", {"recipe": "demo"}, started=7.0)
    assert record.status() == {
        "run_id": "0123456789ab",
        "version": RECORD_VERSION,
        "state": "RUNNING",
        "attempt": 2,
        "labels": {"recipe": "demo"},
        "started": 7.0,
    }
    kept = ["checkpoints", "config.yaml", "metrics.csv", "status.json"]
    assert sorted(path.name for path in record.path.iterdir()) == kept
    record.forget()
    assert [path.name for path in record.path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("version", [None, 1, RECORD_VERSION + 1])
def test_a_record_of_another_version_is_refused(record: Record, version: int | None):
    record.begin("seed: 0\n", {})
    record.set_status(DONE)
    status = {**record.status(), "version": version}
    if version is None:
        del status["version"]
    record.file("status.json").write_text(json.dumps(status))
    message = rf"0123456789ab: is a record of version {version or 1}, this code reads version {RECORD_VERSION}; set"
    for read in (record.status, lambda: record.is_done, lambda: record.begin("", {})):
        with pytest.raises(ConfigError, match=message):
            read()
    with pytest.raises(ConfigError, match=message):
        load_runs(record.path.parent)


def test_the_hint_of_an_older_record_is_read(record: Record):
    record.set_status(FAILED, failure="disk full", message="full")
    path = record.file("status.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "mend": "make room"}))
    assert record.status()["hint"] == "make room"
    assert "mend" not in record.status()


def test_a_finished_run_is_never_begun_again(record: Record):
    record.set_status(DONE)
    with pytest.raises(AssertionError):
        record.begin("", {})


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "result.json"
    write_whole(path, "old")

    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="power cut"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # the half is gone


def test_a_process_that_was_paused_while_it_wrote_replaces_nothing(tmp_path: Path):
    """What it had to check before it wrote may have changed meanwhile."""
    path = tmp_path / "status.json"
    write_whole(path, "the new owner's")

    def lost() -> None:
        raise LeaseLost("taken over")

    with pytest.raises(LeaseLost):
        write_whole(path, "the old owner's", lost)
    assert path.read_text() == "the new owner's"
    assert list(tmp_path.iterdir()) == [path]


def test_processes_of_two_containers_write_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both may be process 1 there."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "sweep.json"
    with written_whole(path) as one, written_whole(path) as other:
        one.file.write(b"one")
        other.file.write(b"other")
    assert path.read_text() == "one"  # whose block ended last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", "checkpoints", "wandb", "train.log", "metrics.csv"])
def test_a_record_that_leads_elsewhere_is_not_written(record: Record, tmp_path: Path, name: str):
    """A record from others, whose links would have us delete, replace or lengthen files of the reader's."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bashrc").write_text("mine")
    if name:
        record.path.mkdir(parents=True, exist_ok=True)
        record.file(name).symlink_to(home if "." not in name else home / ".bashrc")
    else:
        shutil.rmtree(record.path, ignore_errors=True)
        record.path.parent.mkdir(parents=True, exist_ok=True)
        record.path.symlink_to(home)
    with pytest.raises(ConfigError, match=f"{re.escape(str(record.file(name) if name else record.path))}: is a link"):
        record.begin("seed: 0\n", {})
    assert {path.name: path.read_text() for path in home.iterdir()} == {".bashrc": "mine"}


def test_a_damaged_status_is_told_and_nothing_is_begun(record: Record):
    record.file("status.json").write_text("")
    with pytest.raises(ConfigError, match=r"status.json: is damaged .* remove .*0123456789ab"):
        record.begin("", {})


@pytest.mark.parametrize("content", ["[]", "null", '"x"', '{"version": 2}', '{"version": 2, "state": "GONE"}', "{"])
def test_a_status_that_says_nothing_is_one_line(record: Record, content: str):
    record.file("status.json").write_text(content)
    with pytest.raises(
        ConfigError, match=r"status.json: is damaged \(.*\); remove .*0123456789ab to have the run done"
    ):
        record.status()


@pytest.mark.parametrize("content", ["", "a: [", "3"])
def test_a_damaged_configuration_is_one_line(record: Record, content: str):
    record.begin("seed: 0\n", {})
    record.file("config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"config.yaml: is damaged \(.*\); remove"):
        load_runs(record.path.parent)


def test_load_runs(tmp_path: Path):
    assert load_runs(tmp_path).empty
    with pytest.raises(FileNotFoundError, match="no such folder of records"):
        load_runs(tmp_path / "none")
    from alexlab.compose import to_yaml

    for name, state, seed in (("aaaaaaaaaaaa", DONE, 0), ("bbbbbbbbbbbb", FAILED, 1)):
        record = Record(tmp_path, name)
        record.path.mkdir()
        record.begin(
            to_yaml(composed([f"seed={seed}", "model.remove=[conv3]"])), {"recipe": "demo", "ablation": "no_conv3"}
        )
        if state == DONE:
            result = {"run_id": name, "seed": 0, "test": {"ten": {"top1_error": 0.25}}, "seconds": 9.5}
            record.file("result.json").write_text(json.dumps(result))
        record.set_status(state)
    runs = load_runs(tmp_path).set_index("run_id")
    assert runs.loc["aaaaaaaaaaaa", "test.ten.top1_error"] == 0.25
    assert runs["test.ten.top1_error"].isna().tolist() == [False, True]
    assert runs["seed"].tolist() == [0, 1]
    assert runs["ablation"].tolist() == ["no_conv3", "no_conv3"]
    assert runs.loc["bbbbbbbbbbbb", "config.model.remove"] == ["conv3"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "holds an alias within an anchored value"),
        ("a: &a x\nb: [" + "*a, " * 101 + "x]\n", "or more than 100 aliases"),
        ("a: " + "[" * 1000 + "]" * 1000, "is damaged"),
        ("a: " + "[" * 100_000, "has more than 2,000 lists"),
        ("a: b\n" * 300_000, "has 1,500,000 bytes, and a configuration at most 1,048,576"),
        ("a: \x07", "is damaged"),
    ],
    ids=["aliases", "many aliases", "depth", "lists", "length", "control"],
)
def test_a_hostile_configuration_is_one_line(record: Record, content: str, why: str):
    """A kilobyte of aliases of aliases is as much as all memory."""
    record.begin("seed: 0\n", {})
    record.file("config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=why) as error:
        record.keys()
    assert "\n" not in str(error.value)


def test_a_pipe_in_a_configurations_place_is_not_waited_for(record: Record):
    record.begin("seed: 0\n", {})
    record.file("config.yaml").unlink()
    os.mkfifo(record.file("config.yaml"))
    with pytest.raises(ConfigError, match="is not a regular file"):
        record.keys()
