"""`alexlab runs watch`: what it shows of records, when all will be done, and that it reads little."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alexlab.cli import runs as command
from alexlab.cli import watch
from alexlab.cli.watch import DONE, FAILED, RUNNING, WAITING, Run, Watcher, seconds_left
from alexlab.console import Console
from alexlab.runs.lease import take
from alexlab.runs.record import RECORD_VERSION

IDS = [f"{number:012x}" for number in range(1, 5)]
SWEEP = "5" * 12
HEADER = "epoch,step,lr,train_loss,train_top1_error,val_loss,val_top1_error,val_top5_error\n"


def write_record(runs: Path, run_id: str, state: str, errors: list[float], **status: object) -> Path:
    """A record of 6 epochs of 50 steps of 20 images, after one epoch for each validation error."""
    record = runs / run_id
    record.mkdir(parents=True)
    labels = {"ablation": "no_lrn", "arm": "a" * 12}
    content = {"run_id": run_id, "version": RECORD_VERSION, "state": state, "attempt": 1, "labels": labels, **status}
    (record / "status.json").write_text(json.dumps(content))
    (record / "config.yaml").write_text("seed: 3\ndata:\n  batch_size: 20\ntrainer:\n  max_epochs: 6\n")
    rows = [f"{epoch},{50 * epoch},0.01,1.5,0.5,1.5,{error},0.1\n" for epoch, error in enumerate(errors, 1)]
    (record / "metrics.csv").write_text("".join([HEADER, *rows]))
    if state == DONE:
        (record / "result.json").write_text(json.dumps({"seconds": 100.0}))
    return record


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Four planned runs: one done, one running for a minute, one that failed, one without a record."""
    runs = tmp_path / "runs"
    now = time.time()
    write_record(runs, IDS[0], DONE, [0.6, 0.5, 0.45, 0.4, 0.41, 0.42], started=now - 200, ended=now - 90)
    running = write_record(runs, IDS[1], RUNNING, [0.7, 0.6, 0.65], started=now - 60)
    os.utime(running / "metrics.csv", (now - 10, now - 10))
    assert take(running) is not None
    write_record(runs, IDS[2], FAILED, [], failure="diverged", message="", hint="", started=now - 80, ended=now - 70)
    arm = {"arm": "a" * 12, "varied": "ablation=no_lrn", "values": {"ablation": "no_lrn"}}
    planned = [{"run_id": one, "seed": seed, **arm} for seed, one in enumerate(IDS)]
    (runs / "sweeps").mkdir(parents=True)
    document = {"sweep_id": SWEEP, "factors": ["ablation"], "runs": planned}
    (runs / "sweeps" / f"{SWEEP}.json").write_text(json.dumps(document))
    return runs


def test_once_prints_the_last_sweep(sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert command.main(["watch", "--once", f"paths.runs={sweep}"]) == 0
    output = capsys.readouterr().out
    rows = {run_id: next(line.split() for line in output.splitlines() if run_id in line) for run_id in IDS}
    # 150 steps of 20 images in 50 s; 300 of them in 100 s
    assert rows[IDS[1]][:7] == ["no_lrn", "1", "RUNNING", "3/6", "65.0", "60.0", "60"]
    assert rows[IDS[0]][:7] == ["no_lrn", "0", "DONE", "6/6", "42.0", "40.0", "60"]
    assert rows[IDS[2]][2:4] == ["FAILED:", "diverged"]
    assert rows[IDS[3]][2] == WAITING
    assert "4 runs: 1 RUNNING, 1 FAILED, 1 waiting, 1 DONE" in output
    assert "from 1 finished run" in output


def test_what_all_runs_share_stands_above_the_table():
    def output(*names: str) -> list[str]:
        console = Console(width=80, record=True, file=io.StringIO())
        runs = [Run(run_id, what=name, seed="0") for run_id, name in zip(IDS, names, strict=False)]
        console.print(watch.shown(runs, 0.0, "Sweep", 80))
        return console.export_text().splitlines()

    lines = output("data.batch_size=20 model.lrn=true", "data.batch_size=20 model.lrn=false")
    assert lines[0].strip() == "Settings: data.batch_size=20"
    assert [line.split()[0] for line in lines if line.rstrip().endswith(tuple(IDS))] == ["true", "false"]
    lines = output("data.batch_size=20 model.lrn=true", "data.batch_size=20 model.lrn=true")
    assert lines[0].strip() == "Settings: data.batch_size=20 model.lrn=true"
    assert [line.split()[0] for line in lines if line.rstrip().endswith(tuple(IDS))] == ["0", "0"]


def test_it_reads_again_only_what_has_changed(sweep: Path):
    watcher = Watcher(sweep, [Run(one) for one in IDS])
    first = watcher.look()
    assert watcher.reads == 3
    assert watcher.look()[0] == first[0]
    assert watcher.reads == 3
    with (sweep / IDS[1] / "metrics.csv").open("a") as file:
        file.write("4,200,0.01,1.5,0.5,1.5,0.55,0.1\n")
    assert watcher.look()[1].best == 0.55
    assert watcher.reads == 4
    write_record(sweep, IDS[3], RUNNING, [0.9], started=time.time())
    assert [run.epoch for run in watcher.look()] == [6, 4, 0, 1]
    assert watcher.reads == 5


def test_a_run_whose_process_is_gone_is_not_running(sweep: Path):
    record = write_record(sweep, "f" * 12, RUNNING, [], started=time.time() - 500)
    os.utime(record / "metrics.csv", (1, 1))
    [run] = Watcher(sweep, [Run("f" * 12)]).look()
    assert (run.state, run.failure) == (FAILED, "killed")


@pytest.mark.parametrize("epoch", ["nan", "inf", "1e400"])
def test_an_epoch_that_is_no_number_is_a_line_of_its_own(sweep: Path, epoch: str):
    (sweep / IDS[0] / "metrics.csv").write_text(f"{HEADER}{epoch},50,0.01,1.5,0.5,1.5,0.5,0.1\n")
    found = Watcher(sweep, [Run(one) for one in IDS]).look()
    assert found[0].state == FAILED
    assert found[1].state == RUNNING


def test_a_corrupt_record_is_a_line_of_its_own(sweep: Path):
    (sweep / IDS[0] / "status.json").write_text("{")
    found = Watcher(sweep, [Run(one) for one in IDS]).look()
    assert "corrupt" in found[0].failure
    assert found[1].state == RUNNING


class TestForecast:
    """By hand: runs of arm a take 100 s, those of arm b 200 s."""

    DONE = (Run("1", arm="a", state=DONE, seconds=100.0), Run("2", arm="b", state=DONE, seconds=200.0))

    def test_waiting_runs_take_what_those_of_their_arm_took(self):
        assert seconds_left([*self.DONE, Run("3", arm="b"), Run("4", arm="a")], 0.0) == (300.0, "2 finished runs")
        assert seconds_left([*self.DONE, Run("3", arm="c")], 0.0) == (150.0, "2 finished runs")

    def test_running_ones_share_the_waiting(self):
        running = [Run(name, arm="a", state=RUNNING, started=0.0) for name in ("3", "4")]
        assert seconds_left([*self.DONE, *running, Run("5", arm="b")], 40.0) == ((60 + 60 + 200) / 2, "2 finished runs")

    def test_without_finished_runs_the_epochs_say(self):
        running = Run("3", state=RUNNING, started=0.0, epoch=2, epochs=10, rate=1.0)
        assert seconds_left([running], 40.0) == (160.0, "the epochs so far")
        assert seconds_left([running, Run("4")], 40.0) == (360.0, "the epochs so far")
        assert seconds_left([Run("4")], 40.0) is None


def test_a_study_has_the_runs_of_its_plan(sweep: Path, monkeypatch: pytest.MonkeyPatch):
    (sweep / "studies").mkdir()
    (sweep / "studies" / "lrn-1.json").touch()
    (sweep / "studies" / "pooling-1.json").touch()  # another study's, which may be corrupt
    (sweep / "studies" / "._lrn-1.json").touch()  # of a Mac
    arms = [{"name": "no_lrn", "runs": {"0": IDS[0], "1": IDS[3]}}]
    plan = {"name": "lrn", "id": "lrn-1", "rate": "protocol", "arms": arms}
    monkeypatch.setattr(watch, "read_looks", lambda path: {"lrn-1.json": [{}, plan]}[path.name])
    asked = watch._asked(sweep, [], {"study": "lrn"})
    assert asked.title == "Study lrn"
    assert asked.runs == [Run(IDS[0], "no_lrn", "0"), Run(IDS[3], "no_lrn", "1")]


class TestSearch:
    """A search for learning rates plans each round of trials once the one before it is finished."""

    @pytest.fixture
    def runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "studies").mkdir()
        monkeypatch.setattr(watch, "read_looks", lambda path: [json.loads(path.read_text())])
        return tmp_path

    @staticmethod
    def plan(runs: Path, rate: str, ids: list[str], lr: float | None) -> None:
        arms = [{"name": "none", "runs": {str(seed): one for seed, one in enumerate(ids)}}]
        rates = [{"lr": lr, "warning": None}]
        plan = {"id": f"lrn-demo-{rate}-abcdef", "name": "lrn", "rate": rate, "arms": arms, "rates": rates}
        (runs / "studies" / f"{plan['id']}.json").write_text(json.dumps(plan))

    @staticmethod
    def updates(
        runs: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Callable[[], object]], study: str = "lrn"
    ) -> int:
        """The number of updates until it ends; one of `steps` happens before each."""
        coming = iter(steps)
        monkeypatch.setattr(watch.time, "sleep", lambda seconds: next(coming)())
        console = Console(file=io.StringIO(), width=100)
        assert watch._watch([f"study={study}", f"paths.runs={runs}"], False, console) == 0
        return len(steps) - len(list(coming))

    @pytest.mark.parametrize("study", ["lrn", "lrn-demo-choose-abcdef"])
    def test_it_is_followed_to_its_end(self, runs: Path, study: str, monkeypatch: pytest.MonkeyPatch):
        """Its first trial diverged; what follows from it are the second one and the study's own run."""
        self.plan(runs, "choose", IDS[:1], None)
        write_record(runs, IDS[0], FAILED, [], failure="diverged")
        steps: list[Callable[[], object]] = [
            lambda: None,  # the command is composing the next trials
            lambda: self.plan(runs, "choose", IDS[:2], None),
            lambda: write_record(runs, IDS[1], DONE, [0.5]),
            lambda: (self.plan(runs, "own", IDS[2:3], 0.01), write_record(runs, IDS[2], DONE, [0.5])),
            lambda: pytest.fail("it goes on after the end"),
        ]
        assert self.updates(runs, monkeypatch, steps, study) == 4

    def test_it_ends_with_a_choice(self, runs: Path, monkeypatch: pytest.MonkeyPatch):
        self.plan(runs, "choose", IDS[:1], None)
        write_record(runs, IDS[0], DONE, [0.5])
        steps: list[Callable[[], object]] = [
            lambda: self.plan(runs, "choose", IDS[:1], 0.01),
            lambda: pytest.fail("it goes on after the end"),
        ]
        assert self.updates(runs, monkeypatch, steps) == 1

    @pytest.mark.parametrize(("state", "failure"), [(FAILED, "error"), ("PREEMPTED", "")])
    def test_it_ends_if_the_command_must_be_run_again(
        self, runs: Path, state: str, failure: str, monkeypatch: pytest.MonkeyPatch
    ):
        self.plan(runs, "choose", IDS[:1], None)
        write_record(runs, IDS[0], state, [], failure=failure)
        assert self.updates(runs, monkeypatch, [lambda: pytest.fail("it goes on")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=nope"], "sweep=nope: there is no such sweep in"),
        (["study=nope"], "study=nope: has no plan in"),
        (["state=DONE"], "state=DONE: cannot be set here"),
        (["00000000000"], "00000000000: matches 000000000001, 000000000002"),
        (["every=0"], "every=0: must be a number of seconds"),
        (["sweep=5", IDS[0]], "give only one of sweep=, study= and run ids"),
        (["sweep=5", "sweep=last"], "sweep=5 sweep=last: sweep is given twice; remove one"),
        (["--now"], "--now: there is no such flag"),
    ],
)
def test_a_mistake_is_one_line(sweep: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert command.main(["watch", *words, f"paths.runs={sweep}"]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_names_runs_alone(sweep: Path, capsys: pytest.CaptureFixture[str]):
    """It may come from anyone: no name leads out of the folder."""
    run = {"run_id": "../../elsewhere", "arm": "", "varied": "", "seed": 0, "values": {}}
    plan = {"sweep_id": SWEEP, "factors": [], "runs": [run]}
    (sweep / "sweeps" / f"{SWEEP}.json").write_text(json.dumps(plan))
    assert command.main(["watch", "--once", f"paths.runs={sweep}"]) == 2
    assert "must be the id of a run" in capsys.readouterr().err


def test_a_record_that_was_just_removed_waits(sweep: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch.Record, "status", lambda record: {})
    watcher = Watcher(sweep, [Run(IDS[0], "no_lrn", "0")])
    (sweep / IDS[0]).mkdir(exist_ok=True)
    (sweep / IDS[0] / "status.json").touch()
    [run] = watcher.look()
    assert run.state == "waiting"
