"""Records: written whole, never begun twice, never misread."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexlab.cli import runs
from alexlab.errors import UserError
from alexlab.evidence import load_runs
from alexlab.files import open_atomic, write_atomic
from alexlab.runs.lease import Lease, LeaseLost, take
from alexlab.runs.record import DONE, FAILED, RECORD_VERSION, Record, find_records
from alexlab.study.metrics import read_conv1
from alexlab.study.records import RunData, read_archive
from alexlab.training.checkpoint import States
from alexlab.training.weights import load_weights
from support.settings import composed


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
    message = rf"0123456789ab: is a record of version {version or 1}, but this code reads version {RECORD_VERSION}; set"
    for read in (record.status, lambda: record.is_done, lambda: record.begin("", {})):
        with pytest.raises(UserError, match=message):
            read()
    with pytest.warns(UserWarning, match=message):
        assert load_runs(record.path.parent).empty


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
    write_atomic(path, "old")

    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="power cut"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # the half is gone


def test_a_process_that_was_paused_while_it_wrote_replaces_nothing(tmp_path: Path):
    """What it had to check before it wrote may have changed meanwhile."""
    path = tmp_path / "status.json"
    write_atomic(path, "the new owner's")

    def lost() -> None:
        raise LeaseLost("taken over")

    with pytest.raises(LeaseLost):
        write_atomic(path, "the old owner's", lost)
    assert path.read_text() == "the new owner's"
    assert list(tmp_path.iterdir()) == [path]


def test_processes_of_two_containers_write_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both may be process 1 there."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "sweep.json"
    with open_atomic(path) as one, open_atomic(path) as other:
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
    with pytest.raises(
        UserError, match=f"{re.escape(str(record.file(name) if name else record.path))}: is a symbolic link"
    ):
        record.begin("seed: 0\n", {})
    assert {path.name: path.read_text() for path in home.iterdir()} == {".bashrc": "mine"}


def test_with_a_corrupt_status_no_attempt_starts(record: Record):
    record.file("status.json").write_text("")
    with pytest.raises(UserError, match=r"status.json: is corrupt .* remove .*0123456789ab"):
        record.begin("", {})


@pytest.mark.parametrize("content", ["[]", "null", '"x"', '{"version": 2}', '{"version": 2, "state": "GONE"}', "{"])
def test_a_status_that_says_nothing_is_one_line(record: Record, content: str):
    record.file("status.json").write_text(content)
    with pytest.raises(
        UserError, match=r"status.json: is corrupt \(.*\); remove .*0123456789ab to train the run again"
    ):
        record.status()


@pytest.mark.parametrize("content", ["", "a: [", "3"])
def test_a_corrupt_configuration_is_named_and_left_out(record: Record, content: str):
    record.begin("seed: 0\n", {})
    record.file("config.yaml").write_text(content)
    with pytest.warns(UserWarning, match=r"config.yaml: is corrupt \(.*\); remove .*; left out$"):
        assert load_runs(record.path.parent).empty


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
    found = load_runs(tmp_path).set_index("run_id")
    assert found.loc["aaaaaaaaaaaa", "test.ten.top1_error"] == 0.25
    assert found["test.ten.top1_error"].isna().tolist() == [False, True]
    assert found["seed"].tolist() == [0, 1]
    assert found["ablation"].tolist() == ["no_conv3", "no_conv3"]
    assert found.loc["bbbbbbbbbbbb", "config.model.remove"] == ["conv3"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "contains an alias within an anchored value"),
        ("a: &a x\nb: [" + "*a, " * 101 + "x]\n", "or more than 100 aliases"),
        ("a: " + "[" * 1000 + "]" * 1000, "is corrupt"),
        ("a: " + "[" * 100_000, "has more than 2,000 lists"),
        ("a: b\n" * 300_000, "has 1,500,000 bytes, more than the limit of 1,048,576"),
        ("a: \x07", "is corrupt"),
    ],
    ids=["aliases", "many aliases", "depth", "lists", "length", "control"],
)
def test_a_hostile_configuration_is_one_line(record: Record, content: str, why: str):
    """A kilobyte of aliases of aliases is as much as all memory."""
    record.begin("seed: 0\n", {})
    record.file("config.yaml").write_text(content)
    with pytest.raises(UserError, match=why) as error:
        record.keys()
    assert "\n" not in str(error.value)


def test_a_pipe_in_a_configurations_place_is_not_waited_for(record: Record):
    record.begin("seed: 0\n", {})
    record.file("config.yaml").unlink()
    os.mkfifo(record.file("config.yaml"))
    with pytest.raises(UserError, match="is not a regular file"):
        record.keys()


VALID = {"run_id": "0123456789ab", "version": RECORD_VERSION, "state": DONE, "attempt": 1}
CORRUPT = {
    "empty": b"",
    "cut off": b'{"run_id": "0123',
    "nested": b'{"a": ' + b"[" * 100_000,
    "UTF-16": json.dumps(VALID).encode("utf-16"),
    "Latin-1": b'{"message": "\xe9"}',
    "lone surrogate": json.dumps({**VALID, "message": "\ud800"}).encode(),
    "too long": json.dumps({**VALID, "message": "x" * 2**20}).encode(),
    "a list": b"[1]",
    **{
        f"{name} {value!r:.20}": json.dumps({**VALID, name: value}).encode()
        for name, values in {
            "started": [None, "today", math.nan, math.inf, -1, 1e300, 10**400, True],
            "attempt": ["1", 1.5, None, 2**70],
            "labels": [[], None, {"recipe": 1}, {"recipe": None}],
            "state": [None, "GOOD", 3],
            "failure": [1, None, ["killed"]],
            "message": [{}, 5],
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("what", CORRUPT)
def test_a_corrupt_status_is_one_line(record: Record, what: str):
    record.file("status.json").write_bytes(CORRUPT[what])
    with pytest.raises(UserError, match=r"status\.json: is corrupt") as error:
        record.seen()
    assert "\n" not in str(error.value)


def test_readers_of_many_records_name_the_corrupt_ones_and_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = Record(tmp_path, "ba9876543210")
    good.path.mkdir()
    good.begin("seed: 0\n", {"recipe": "demo"})
    for number, content in enumerate(CORRUPT.values()):
        path = tmp_path / f"{number:012x}"
        path.mkdir()
        (path / "status.json").write_bytes(content)
    with pytest.warns(UserWarning, match=r"status\.json: is corrupt .*; left out") as warnings:
        assert load_runs(tmp_path)["run_id"].tolist() == [good.run_id]
    assert len(warnings) == len(CORRUPT)
    archive = read_archive([tmp_path])
    assert list(archive.runs) == [good.run_id]
    assert len(archive.problems) == len(CORRUPT)
    for verb in (["list"], ["prune", "--yes"], ["wandb"]):
        assert runs.main([*verb, f"paths.runs={tmp_path}"]) == 0
        printed = capsys.readouterr().out
        assert printed.count("is corrupt") == len(CORRUPT), verb
        assert "Traceback" not in printed
    assert len(list(tmp_path.iterdir())) == len(CORRUPT)  # the killed run alone was removed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", {"test": {"ten": {"top1_error": 2}}}),
        ("result.json", {"test": {"ten": {"top1_error": "0.5"}}}),
        ("result.json", {"test": [1]}),
        ("result.json", {"seconds": 10**400}),
        ("result.json", {"data": "shapes"}),
        ("environment.json", {"packages": "torch"}),
        ("environment.json", {"gpus": 3}),
        ("environment.json", {"gpus": [[]]}),
        ("neighbours.json", {"precision": {"layer": None}}),
        ("wandb.json", {"id": 3}),
    ],
    ids=str,
)
def test_other_files_of_other_types_are_one_line(record: Record, name: str, content: dict[str, Any]):
    record.file(name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{name}: is corrupt \([\w.]+ is .*, must be ") as error:
        record.read(name)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_fault(record: Record):
    """Editors on Windows write one."""
    record.begin("seed: 3\n", {})
    for name in ("status.json", "config.yaml"):
        record.file(name).write_bytes(codecs.BOM_UTF8 + record.file(name).read_bytes())
    assert record.status()["attempt"] == 1
    assert record.keys() == {"seed": 3}


@pytest.mark.parametrize("name", ["status.json", "result.json", "metrics.csv", "config.yaml", "predictions.npz"])
def test_a_pipe_in_a_files_place_is_not_waited_for(record: Record, name: str):
    record.begin("seed: 0\n", {})
    record.file(name).unlink(missing_ok=True)
    os.mkfifo(record.file(name))
    run = RunData(record, {"state": DONE})
    reads = {
        "status.json": record.status,
        "result.json": record.result,
        "metrics.csv": record.rows,
        "config.yaml": record.keys,
        "predictions.npz": lambda: run.wrong("top1_error", "ten"),
    }
    with pytest.raises(UserError, match="is not a regular file"):
        reads[name]()
    with pytest.raises(UserError, match=f"{name}: is neither a file nor a folder; remove it"):
        record.fence()


@pytest.mark.parametrize("name", ["train.log", "checkpoints/00000001-0123456789abcdef.ckpt", "claim.1.old"])
def test_a_pipe_where_a_run_writes_is_refused_before_it_begins(record: Record, name: str):
    """Appending to a log, or reading a state, would wait for ever."""
    record.file("checkpoints").mkdir()
    os.mkfifo(record.file(name))
    with pytest.raises(UserError, match=f"{re.escape(str(record.file(name)))}: is neither a file nor a folder"):
        record.begin("seed: 0\n", {})


@pytest.mark.parametrize("name", ["status.json", "result.json", "environment.json", "config.yaml", "metrics.csv"])
def test_a_link_to_a_device_is_not_read(record: Record, name: str):
    """/dev/zero has no end: it filled the memory."""
    record.begin("seed: 0\n", {})
    record.file(name).unlink(missing_ok=True)
    record.file(name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is not a regular file"):
        record.keys() if name.endswith("yaml") else record.rows() if name.endswith("csv") else record.read(name)


class Calls:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize(
    "name", ["predictions.npz", "conv1.npy", "config.yaml", "checkpoints/last.ckpt", "checkpoints/00000001-x.ckpt"]
)
def test_no_file_of_a_record_runs_code(record: Record, tmp_path: Path, name: str):
    """Pickles and YAML tags call functions, unless they are read as data."""
    called = tmp_path / "called"
    record.begin("seed: 0\n", {})
    path = record.file(name)
    path.parent.mkdir(exist_ok=True)
    array = np.array([Calls(called)], dtype=object)
    if name.endswith("npz"):
        np.savez(path, labels=array, ten_top5=array)
        run = RunData(record, {"state": DONE})
        with pytest.raises(UserError):
            run.wrong("top1_error", "ten")
    elif name.endswith("npy"):
        np.save(path, array)
        with pytest.raises(ValueError, match=r"contains objects|allow_pickle=False"):
            read_conv1(RunData(record, {"state": DONE}))
    elif name.endswith("yaml"):
        path.write_text(f"seed: !!python/object/apply:os.mkdir ['{called}']\n")
        with pytest.raises(UserError):
            record.keys()
    else:
        torch.save({"state_dict": Calls(called)}, path)
        with pytest.raises(Exception, match=r"[Ww]eights"):
            (States(tmp_path).load_checkpoint(path) if "0" in name else load_weights(torch.nn.Linear(1, 1), str(path)))
    assert not called.exists()


def test_a_copied_record_is_named_and_not_counted(record: Record, capsys: pytest.CaptureFixture[str]):
    record.begin("seed: 0\n", {"recipe": "demo"})
    record.set_status(FAILED, failure="diverged", message="nan", hint="h")
    shutil.copytree(record.path, record.path.with_name("0123456789ab copy"))
    said = "0123456789ab copy: is a copy of the record of run 0123456789ab"
    with pytest.warns(UserWarning, match=said):
        assert load_runs(record.path.parent)["run_id"].tolist() == ["0123456789ab"]
    archive = read_archive([record.path.parent])
    assert list(archive.runs) == ["0123456789ab"]
    assert said in archive.problems[0]
    assert runs.main(["list", f"paths.runs={record.path.parent}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert said in printed
    assert "1 run in" in printed


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints", ".removed-0123456789ab", "._0123456789ab", "0123456789ab~", "__MACOSX", ".DS_Store"]
)
def test_what_other_programs_leave_beside_records_is_ignored(record: Record, name: str):
    record.begin("seed: 0\n", {"recipe": "demo"})
    if name == ".DS_Store":
        record.path.with_name(name).write_bytes(b"\0\0\0\1Bud1")
    else:
        shutil.copytree(record.path, record.path.with_name(name))
    assert [one.run_id for one in find_records(record.path.parent)] == ["0123456789ab"]
    assert len(load_runs(record.path.parent)) == 1
    assert read_archive([record.path.parent]).problems == []


@pytest.mark.parametrize("name", ["status.json", "metrics.csv"])
def test_an_owner_that_was_paused_right_before_a_rename_replaces_nothing(
    record: Record, name: str, monkeypatch: pytest.MonkeyPatch
):
    """Its lease was still checked with success; a new owner has finished the run when it continues."""
    first = take(record.path)
    assert first is not None
    old = Record(record.path.parent, record.run_id, first)
    old.begin("seed: 0\n", {})
    rename = Path.replace

    def pause(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        os.utime(first.path, (1, 1))  # it has been silent for long
        second = take(record.path)
        assert second is not None
        new = Record(record.path.parent, record.run_id, second)
        new.begin("seed: 0\n", {})
        new.write("metrics.csv", "epoch\n1\n")
        new.set_status(DONE)
        second.release()
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", pause)
    with pytest.raises(LeaseLost):
        old.write(name, {"state": "RUNNING"})
    assert record.status()["state"] == DONE
    assert record.file("metrics.csv").read_text() == "epoch\n1\n"


def test_forgetting_a_run_touches_its_own_files_alone(record: Record):
    record.begin("seed: 0\n", {})
    for name in ("metrics.csv", "notes.txt", "checkpoints/last.ckpt", "checkpoints/mine.ckpt"):
        record.file(name).parent.mkdir(exist_ok=True)
        record.file(name).write_text("x")
    record.forget()
    left = sorted(str(path.relative_to(record.path)) for path in record.path.rglob("*"))
    assert left == ["checkpoints", "checkpoints/mine.ckpt", "notes.txt", "status.json"]


@pytest.mark.parametrize("keeps_newest", [False, True])
def test_what_a_run_leaves_that_was_killed_once_it_was_done_is_removed(record: Record, keeps_newest: bool):
    record.begin("seed: 0\n", {})
    lease = take(record.path)
    assert lease is not None
    content = json.loads(lease.path.read_text())
    states = [f"{step:08d}-{digest * 16}.ckpt" for step, digest in ((9, "b"), (100, "a"))]
    temporary = f".wandb.json.{'0' * 32}.tmp"
    record.file("checkpoints").mkdir()
    for name in (*states, "last.ckpt", "mine.ckpt", f"00000003-{'c' * 16}.damaged"):
        record.file(f"checkpoints/{name}").write_text("x")
    record.file(temporary).write_text("x")
    record.set_status(DONE)
    record.tidy(keeps_newest)  # its process lives
    assert len(list(record.file("checkpoints").iterdir())) == 5
    lease.path.write_text(json.dumps({**content, "began": "1"}))
    record.tidy(keeps_newest)
    kept = [states[1]] if keeps_newest else []
    assert {path.name for path in record.file("checkpoints").iterdir()} == {"last.ckpt", "mine.ckpt", *kept}
    assert {path.name for path in record.path.iterdir()} == {"checkpoints", "config.yaml", "status.json"}


def test_an_owner_that_was_paused_before_it_began_removes_nothing_of_the_next(
    record: Record, monkeypatch: pytest.MonkeyPatch
):
    """It has seen which temporary files there are; those of the next owner are none of them."""
    first = take(record.path)
    assert first is not None
    old = Record(record.path.parent, record.run_id, first)
    check, theirs = Lease.check, record.file(f".status.json.{'0' * 32}.tmp")

    def pause(lease: Lease) -> None:
        monkeypatch.setattr(Lease, "check", check)
        check(lease)
        os.utime(first.path, (1, 1))
        second = take(record.path)
        assert second is not None
        new = Record(record.path.parent, record.run_id, second)
        new.begin("seed: 0\n", {})
        new.set_status(DONE)
        theirs.touch()

    monkeypatch.setattr(Lease, "check", pause)
    with pytest.raises(LeaseLost):
        old.begin("seed: 0\n", {})
    assert theirs.exists()
    assert record.status()["state"] == DONE
