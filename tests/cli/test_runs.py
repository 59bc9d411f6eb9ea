"""`python src/runs.py`: what it shows, what it removes, and what it never does."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alexlab.cli.runs import main
from alexlab.compose import to_yaml
from alexlab.runs.identity import run_id
from alexlab.runs.lease import take
from alexlab.runs.record import DONE, FAILED, PREEMPTED, Record
from alexlab.sweep.study_plan import Study, document, make_study, register
from support.settings import composed, composer

LABELS = {"protocol": "paper", "recipe": "demo", "model": "alexnet", "arm": "0123456789ab"}
RIGHT = {"aaaaaaaaaaaa": 30, "bbbbbbbbbbbb": 20}  # of 40 test images


@cache
def written(*overrides: str) -> str:
    """The configuration, as a record has it; composed once for all tests."""
    return to_yaml(composed([*overrides]))


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One record in each state that there is."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("ALEXLAB_RUNS", str(folder))
    monkeypatch.setenv("COLUMNS", "100")

    def add(name: str, ablation: str, state: str | None, overrides: list[str], **more: str) -> Record:
        record = Record(folder, name)
        record.path.mkdir(parents=True)
        started = 1.7e9 + len(list(folder.iterdir()))
        record.begin(written(*overrides), {**LABELS, "ablation": ablation}, started=started)
        if state is not None:
            record.set_status(state, **more)
        return record

    for name, overrides in (("aaaaaaaaaaaa", []), ("bbbbbbbbbbbb", ["model.lrn=false", "seed=1"])):
        record = add(name, "no_lrn" if overrides else "none", DONE, overrides)
        right = RIGHT[name]
        top5 = np.zeros((40, 5), int) + np.arange(5)
        top5[right:, 0] = 9
        arrays = {f"{kind}_top5": top5 for kind in ("center", "ten")}
        np.savez(record.file("predictions.npz"), labels=np.zeros(40, int), **arrays)  # pyright: ignore[reportArgumentType]
        errors = {"top1_error": 1 - right / 40, "top5_error": 1 - right / 40}
        test = {"images": 40, "center": errors, "ten": errors}
        result = {"test": test, "epochs": 20, "seconds": 50.0, "data": {"store": "s"}}
        record.write("result.json", {"run_id": name, **result})
    add("cccccccccccc", "none", FAILED, ["seed=2"], failure="diverged", message="nan", hint="m")
    add("dddddddddddd", "none", FAILED, ["seed=3"], failure="disk full", message="full", hint="m")
    add("eeeeeeeeeeee", "none", PREEMPTED, ["seed=4"], message="stopped")
    add("ffffffffffff", "none", None, ["seed=5"])  # its process is gone
    add("abababababab", "none", None, ["seed=6"])
    lease = take(folder / "abababababab")  # this process lives
    assert lease is not None
    return folder


def names(runs: Path) -> set[str]:
    return {path.name for path in runs.iterdir()}


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.findall(r" ([0-9a-f]{12})$", capsys.readouterr().out, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("filters", "letters"),
    [
        ([], "abcdefA"),
        (["state=DONE"], "ab"),
        (["state=FAILED"], "cdf"),
        (["state=FAILED,PREEMPTED"], "cdef"),
        (["failure=killed"], "f"),
        (["failure=di*"], "cd"),
        (["ablation=no_*"], "b"),
        (["recipe=demo", "protocol=paper", "model=alexnet", "seed=1,2"], "bc"),
        (["recipe=imagenet2012"], ""),
    ],
)
def test_list(filters: list[str], letters: str, capsys: pytest.CaptureFixture[str]):
    assert main(["list", *filters]) == 0
    assert shown(capsys) == ["abababababab" if letter == "A" else 12 * letter for letter in letters]


def test_list_tells_states_and_errors(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^none +0 demo +DONE +25\.0 .* aaaaaaaaaaaa$", out, re.MULTILINE)
    assert re.search(r"FAILED: killed .* ffffffffffff$", out, re.MULTILINE)
    assert re.search(r"RUNNING .* abababababab$", out, re.MULTILINE)
    assert "7 runs in" in out


def test_before_the_first_run_there_is_nothing_to_list(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("ALEXLAB_RUNS", str(tmp_path / "none"))
    assert main(["list"]) == 0
    assert "0 runs in" in capsys.readouterr().out


def test_show(capsys):
    assert main(["show", "d"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^state +FAILED: disk full", out, re.MULTILINE)
    assert re.search(r"^hint +m", out, re.MULTILINE)
    assert main(["show", "aaaa"]) == 0
    assert re.search(r"^test.ten.top1_error +0.25", capsys.readouterr().out, re.MULTILINE)


def test_compare(capsys):
    """Of 40 images the second has 10 more wrong: +25 % with a standard error of sqrt(.25 * .75 / 39)."""
    assert main(["compare", "aaaaaaaaaaaa", "bbbb"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^model.lrn +true +false", out, re.MULTILINE)
    assert re.search(r"^seed +0 +1", out, re.MULTILINE)
    half = 100 * 1.959964 * np.sqrt(0.25 * 0.75 / 39)
    assert re.search(rf"^test.ten.top1_error +25.00 % +50.00 % +\+25.00 ± {half:.2f}", out, re.MULTILINE)
    assert "optim.lr" not in out


def test_compare_cuts_no_name_in_a_narrow_terminal(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["compare", "aaaaaaaaaaaa", "bbbb"]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 40
    assert "Left out at 40 columns: difference." in out


def test_compare_shows_what_else_differs(runs: Path, capsys):
    for name, threads in (("aaaaaaaaaaaa", 2), ("bbbbbbbbbbbb", 4)):
        (runs / name / "environment.json").write_text(json.dumps({"threads": threads, "cpu": "EPYC"}))
    assert main(["compare", "aaaaaaaaaaaa", "bbbb"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^the number of threads +2 +4$", out, re.MULTILINE)
    assert "EPYC" not in out


def test_prune_takes_faults_alone(runs: Path, capsys):
    before = names(runs)
    assert main(["prune", "--yes"]) == 0
    assert before - names(runs) == {"dddddddddddd", "ffffffffffff"}
    assert "Removed 2 records" in capsys.readouterr().out
    assert main(["prune", "--yes"]) == 0
    assert "There is nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("filters", "gone"),
    [
        (["state=PREEMPTED"], {"eeeeeeeeeeee"}),
        (["state=FAILED"], {"cccccccccccc", "dddddddddddd", "ffffffffffff"}),
        (["state=DONE", "ablation=no_lrn"], {"bbbbbbbbbbbb"}),
        (["state=RUNNING"], set()),
        (["ablation=no_lrn"], set()),
        (["state=*"], {letter * 12 for letter in "abcdef"}),
    ],
)
def test_prune_takes_what_is_named_but_nothing_under_way(runs: Path, filters: list[str], gone: set[str]):
    before = names(runs)
    assert main(["prune", "--yes", *filters]) == 0
    assert before - names(runs) == gone


@pytest.mark.parametrize(("answer", "is_removed"), [("y", True), ("", False), ("no", False), (None, False)])
def test_prune_asks(runs: Path, monkeypatch, answer: str | None, is_removed: bool):
    questions: list[str] = []

    def typed(question: str) -> str:
        questions.append(question)
        if answer is None:
            raise EOFError  # Ctrl-D
        return answer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", typed)
    assert main(["prune", "state=DONE"]) == 0
    assert questions[0].startswith("Remove 2 records, 2 of them DONE, of ")
    assert ("aaaaaaaaaaaa" in names(runs)) is not is_removed


def test_prune_removes_nothing_where_nobody_can_be_asked(runs: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert main(["prune"]) == 2
    assert "error: prune needs confirmation, but stdin is not a terminal; pass --yes" in capsys.readouterr().err
    assert len(names(runs)) == 7


def test_wandb_sends_what_it_has_not_sent(runs: Path, monkeypatch, capsys):
    from alexlab.runs import trackers

    sent: list[str] = []

    def publish(name, config, record: Record) -> bool:
        sent.append(f"{record.run_id} {config.logger.project}")
        record.write("wandb.json", {"id": record.run_id, "mode": "online", "complete": True})
        return True

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(trackers, "send", publish)
    for name in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "abababababab"):
        (runs / name / "metrics.csv").write_text("epoch,step\n1,3\n")
    assert main(["wandb", "logger.project=mine"]) == 0
    assert sent == ["aaaaaaaaaaaa mine", "bbbbbbbbbbbb mine"]
    assert "1 run left out, still running" in (out := capsys.readouterr().out)
    assert "2 of 2 runs sent to W&B (online)" in out
    assert main(["wandb"]) == 0
    assert len(sent) == 2
    assert "2 already there" in capsys.readouterr().out


def test_wandb_follows_no_link_and_no_id_of_a_record(runs: Path, tmp_path: Path, monkeypatch, capsys):
    """A record of others could remove another project's runs, or add to one of the reader's."""
    import wandb

    ids: list[str] = []
    run = SimpleNamespace(summary={}, starting_step=0, log=lambda row, step: None, finish=lambda exit_code: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **named: ids.append(named["id"]) or run)
    other = tmp_path / "other" / "offline-run-1"
    other.mkdir(parents=True)
    (runs / "aaaaaaaaaaaa" / "wandb").symlink_to(other.parent)
    for name, given in (("cccccccccccc", "theirs"), ("dddddddddddd", "dddddddddddd-2")):
        Record(runs, name).write("wandb.json", {"id": given, "mode": "offline", "complete": False})
    for name in ("aaaaaaaaaaaa", "cccccccccccc", "dddddddddddd"):
        (runs / name / "metrics.csv").write_text("epoch,step\n1,3\n")
    assert main(["wandb"]) == 0
    assert "aaaaaaaaaaaa/wandb is a symbolic link" in " ".join(capsys.readouterr().out.split())
    assert other.is_dir()
    assert ids == ["cccccccccccc", "dddddddddddd-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["lst"],
            "lst: is not one of list, show, compare, export, prune, copy, wandb, bundle, studies, forget; did you ",
        ),
        (["show"], "show: takes 1 run id, not 0"),
        (["compare", "a"], "compare: takes 2 run ids, not 1"),
        (["show", "9"], "9: there is no such run in"),
        (["show", "ab"], None),
        (["show", "a"], "a: matches aaaaaaaaaaaa, abababababab; write more digits"),
        (["list", "stat=DONE"], "stat=DONE: cannot be set here; did you mean 'state'?"),
        (["list", "model.lrn=true"], "model.lrn=true: cannot be set here"),
        (["list", "--yes"], "--yes: only prune asks for confirmation"),
        (["list", "paths.runs=nowhere"], "nowhere: no such folder"),
        (["copy"], "copy: needs a tracker, such as logger=mlflow"),
        (["copy", "logger=record"], "copy: needs a tracker, such as logger=mlflow"),
        (["copy", "logger=wandb", "model.lrn=true"], "model.lrn=true: cannot be set here"),
        (["wandb", "logger=mlflow"], "logger=mlflow: cannot be set here"),
        (["forget"], "forget: takes the id of one study, not 0; `studies` lists them"),
        (["forget", "lrn"], "lrn: no such study; `studies` lists them"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str | None, capsys):
    if message is None:
        assert main(arguments) == 0
        return
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_record_of_an_older_version_is_named_and_left_out(runs: Path, capsys):
    file = runs / "aaaaaaaaaaaa" / "status.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 1}))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "is a record of version 1, but this code reads version 2; set paths.runs" in out
    assert "6 runs in" in out


def test_prune_follows_no_link(runs: Path, tmp_path: Path, capsys):
    """A record that is a link to another disk stays, as does what a link within a record leads to."""
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    (runs / "dddddddddddd").rename(scratch)
    (runs / "dddddddddddd").symlink_to(scratch)
    home.mkdir()
    (home / "mine.txt").write_text("x")
    (runs / "ffffffffffff" / "wandb").symlink_to(home)
    (runs / ".removed-0123456789ab").symlink_to(home)
    assert main(["prune", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "dddddddddddd: is a symbolic link, so it is kept" in out
    assert "Removed 1 record," in out
    assert (scratch / "status.json").is_file()
    assert (home / "mine.txt").is_file()
    assert main(["prune", "--yes"]) == 0  # later ones have nothing to stumble over


def test_prune_removes_what_runs_write_and_nothing_else(runs: Path, capsys):
    (runs / "dddddddddddd" / "notes.txt").write_text("a day's work")
    (runs / "dddddddddddd" / ".DS_Store").write_text("")
    (runs / "ffffffffffff" / ".DS_Store").write_text("")
    mine, old = runs / ".removed-by-me", runs / ".removed-0123456789ab"
    half = runs / ".removed-ba9876543210"  # of a prune that was killed
    for folder, name in ((mine, "status.json"), (old, "notes.txt"), (half, "metrics.csv")):
        folder.mkdir()
        (folder / name).write_text("x")
    before = names(runs)
    assert main(["prune", "--yes"]) == 0
    assert "dddddddddddd: contains notes.txt, which no run writes, so it is kept" in capsys.readouterr().out
    assert before - names(runs) == {"ffffffffffff", half.name}


def test_compare_names_predictions_that_are_corrupt(runs: Path, capsys):
    (runs / "aaaaaaaaaaaa" / "predictions.npz").write_bytes(b"PK\x03\x04")
    assert main(["compare", "aaaaaaaaaaaa", "bbbb"]) == 2
    error = capsys.readouterr().err
    assert "predictions.npz: cannot be read" in error
    assert error.count("\n") == 1


class TestStudies:
    """Plans that were registered, and a mistaken one."""

    LINE = ("study=lrn", "study.seeds=1", "study.base_seeds=1")

    @pytest.fixture
    def study(self, runs: Path) -> Study:
        """A study of three runs of which none has begun."""
        study = make_study(composer(), [*self.LINE, f"paths.runs={runs}"])
        register(document(study), runs / "studies")
        return study

    def begin(self, runs: Path, study: Study) -> Record:
        _, job = study.jobs()[-1]
        record = Record(runs, run_id(job.config))
        record.path.mkdir()
        record.begin("seed: 0\n", LABELS)
        return record

    def test_are_listed_with_their_finished_runs(self, runs: Path, study: Study, capsys):
        self.begin(runs, study).set_status(FAILED, failure="diverged", message="nan", hint="h")
        (runs / "studies" / "broken.json").write_text("{")
        (runs / "studies" / "._x.json").write_bytes(b"\0\5\26\7")
        assert main(["studies"]) == 0
        printed = capsys.readouterr().out
        assert re.search(rf"^{study.id} +demo +protocol +1 +1 of 3 ", printed, re.MULTILINE)
        assert printed.count("broken.json: is corrupt") == 1
        assert "1 study in" in printed

    def test_a_plan_without_finished_runs_is_forgotten(self, runs: Path, study: Study, capsys):
        record = self.begin(runs, study)
        record.set_status(PREEMPTED, message="stopped")
        assert main(["forget", study.id[:5]]) == 0
        assert (
            capsys.readouterr().out
            == f"Removed {runs / 'studies' / study.id}.json; the records of its runs are kept.\n"
        )
        assert list((runs / "studies").glob("*.json")) == []
        assert record.status()["state"] == PREEMPTED

    @pytest.mark.parametrize(("state", "failure"), [(DONE, ""), (FAILED, "diverged"), ("RUNNING", "")])
    def test_one_whose_result_may_have_been_seen_stays(
        self, runs: Path, study: Study, state: str, failure: str, capsys
    ):
        """Who could remove a plan after seeing its result could start studies until one pleases."""
        record = self.begin(runs, study)
        lease = take(record.path) if state == "RUNNING" else None
        if lease is None:
            record.set_status(state, failure=failure, message="", hint="")
        assert main(["forget", study.id]) == 2
        error = capsys.readouterr().err
        why = "1 of its 3 runs are finished" if lease is None else f"its run {record.run_id} is running"
        assert error.startswith(f"error: {study.id}: {why}, so its plan is kept")
        assert error.count("\n") == 1
        assert (runs / "studies" / f"{study.id}.json").exists()


def test_labels_of_any_length_are_listed(runs: Path, capsys):
    record = Record(runs, "eeeeeeeeeeee")
    status = record.status()
    record.write("status.json", {**status, "labels": {**status["labels"], "ablation": "x" * 500_000}})
    assert main(["list", "state=PREEMPTED"]) == 0
    assert len(capsys.readouterr().out) < 10_000


def test_help(capsys):
    for arguments in ([], ["--help"]):
        assert main(arguments) == 0
        assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())
