"""The commands of the README, as a user runs them, on a shrunken demo: in processes of their own where one matters."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml

import alexlab
from alexlab import signals
from alexlab.cli import forecast, train
from alexlab.cli.train import _announce
from alexlab.config import Retry
from alexlab.console import Console
from alexlab.sweep.plan import Plan, make_plan
from support.commands import (
    PATIENCE,
    TRAIN,
    begin,
    command,
    command_line,
    descendants,
    finish,
    halted,
    is_sent,
    start,
    statuses,
    stop,
    told,
    under_way,
    until,
)
from support.settings import TINY, Typed, composer
from support.studies import made_study
from support.wandb_files import read_wandb


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, cache: Path):
    """Overrides for records that the tests of this module share, and their folder."""
    runs = tmp_path_factory.mktemp("records") / "runs"
    return [*TINY, f"data.cache={cache}", f"paths.runs={runs}"], runs


SWEEP = ["-m", "model.lrn=true,false", "pool.overlap=true,false"]


@pytest.fixture(scope="module")
def sweep(place):
    """The command's outcome, the folder of its records, and what was there at its end."""
    overrides, runs = place
    done = command(*SWEEP, *overrides)
    return done, runs, sorted(path.name for path in runs.iterdir())


def run_ids(output: str) -> list[str]:
    return re.findall(r" ([0-9a-f]{12})$", output, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.processes
class TestTheUsersLine:
    def test_four_runs_and_a_table(self, sweep):
        done, _, left = sweep
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("alexlab: recipe=demo protocol=paper model=alexnet ablation=none")
        assert [f"run {i} of 4:" in done.stdout for i in range(1, 5)] == [True] * 4
        assert "run 4 of 4 · epoch 2/2 · loss" in done.stderr  # no terminal: plain lines
        assert "\r" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "1 seed: no conclusion about the ablation" in done.stdout
        ids = run_ids(done.stdout)
        assert len(set(ids)) == 4
        assert left == sorted([*ids, "sweeps"])

    def test_what_each_run_left(self, sweep):
        done, runs, _ = sweep
        for run_id in run_ids(done.stdout):
            folder = runs / run_id
            assert sorted(path.name for path in folder.iterdir()) == [
                *("checkpoints", "config.yaml", "conv1.npy", "environment.json", "metrics.csv"),
                *("predictions.npz", "result.json", "status.json", "train.log"),
            ]
            assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
            result = json.loads((folder / "result.json").read_text())
            assert result["run_id"] == run_id
            assert result["status"] == json.loads((folder / "status.json").read_text())["state"] == "DONE"
            assert result["epochs"] == 2
            assert set(result["test"]) == {"images", "center", "ten"}
            with np.load(folder / "predictions.npz") as arrays:
                assert arrays["labels"].shape == (37,)
                for kind in ("center", "ten"):
                    wrong = arrays[f"{kind}_top5"][:, 0] != arrays["labels"]
                    assert result["test"][kind]["top1_error"] == pytest.approx(wrong.mean())
                    misses = (arrays[f"{kind}_top5"] != arrays["labels"][:, None]).all(1)
                    assert result["test"][kind]["top5_error"] == pytest.approx(misses.mean())
                    assert (arrays[f"{kind}_log_probability"] <= 0).all()
            environment = json.loads((folder / "environment.json").read_text())
            assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
            torch.load(folder / "checkpoints" / "last.ckpt")

    def test_typed_again_it_trains_nothing(self, sweep, place):
        first, runs, _ = sweep
        before = {path: path.stat().st_mtime_ns for path in runs.glob("*/*") if path.parent.name != "sweeps"}
        again = command(*SWEEP, *place[0])
        assert again.returncode == 0
        assert "4 of 4 already done" in again.stdout
        table = first.stdout[first.stdout.index("Error on the test") :]
        assert again.stdout[again.stdout.index("Error on the test") :] == table
        assert {path: path.stat().st_mtime_ns for path in before} == before

    def test_a_fifth_arm_trains_only_itself(self, sweep, place, typed: Typed):
        _, runs, _ = sweep
        before = {path.name for path in runs.glob("*") if path.name != "sweeps"}
        done = typed("-m", "model.lrn=true,false", "seed=0,5", *place[0], "model.dropout=0.2")
        assert done.status == 0, done.output
        assert "2 of 4 already done" in done.output
        assert "Arms: mean ± standard deviation over seeds" in done.output
        ids = run_ids(done.output)[:4]
        assert [name in before for name in ids] == [True, False, True, False]
        assert {path.name for path in runs.glob("*") if path.name != "sweeps"} == before | set(ids)

    def test_the_sweeps_file(self, sweep):
        done, _, _ = sweep
        name = re.search(r"This sweep: (\S+)", done.stdout)
        assert name
        document = json.loads(Path(name[1]).read_text())
        assert [entry["run_id"] for entry in document["runs"]] == run_ids(done.stdout)


@pytest.mark.slow
@pytest.mark.processes
def test_from_another_directory_and_one_failure_among_jobs(tmp_path: Path, cache: Path, typed: Typed):
    """The first arm diverges and says so, the second is done; records are where they were asked for."""
    line = ["-m", "optim.lr=1e9,0.01", *TINY, f"data.cache={cache}"]
    done = command(*line, "hydra.job.chdir=true", cwd=tmp_path, ALEXLAB_RUNS="mine")
    assert done.returncode == 1, done.stderr
    assert re.search(r"FAILED \(diverged\): .* at step 2 of epoch 1, before its update", done.stdout)
    assert "this is a result; lower optim.lr" in done.stdout
    table = done.stdout[done.stdout.index("Error on the test") :]
    assert "FAILED: diverged" in table
    failed, fine = run_ids(table)[:2]
    assert "Diverged: the " in (tmp_path / "mine" / failed / "train.log").read_text()
    assert not (tmp_path / "mine" / failed / "result.json").exists()
    where = json.loads((tmp_path / "mine" / failed / "diverged.json").read_text())
    assert (where["epoch"], where["step"], len(where["images"])) == (1, 2, 20)
    assert (tmp_path / "mine" / fine / "result.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    again = command(*line, "paths.runs=mine", cwd=tmp_path)
    assert again.returncode == 1
    assert "1 of 2 failed before (diverged); retry=all tries again" in again.stdout
    assert "run 1 of 2" not in again.stderr
    tried = typed("optim.lr=1e9", "retry=all", *line[2:], f"paths.runs={tmp_path / 'mine'}")
    assert tried.status == 1
    assert json.loads((tmp_path / "mine" / failed / "status.json").read_text())["attempt"] == 2


@pytest.mark.slow
def test_a_single_run_and_a_trial(place, tmp_path: Path, typed: Typed):
    overrides, _ = place
    trial = typed("trainer.fast_dev_run=true", "logger=wandb", *overrides, f"paths.runs={tmp_path / 'runs'}")
    assert trial.status == 0, trial.output
    assert "1 of 1 ran one batch of each split; nothing is kept" in trial.output
    assert list(tmp_path.iterdir()) == []
    single = typed("model.dropout=0", "seed=3", *overrides)
    assert single.status == 0, single.output
    assert re.search(r"^run: .*model.dropout=0.* seed=3$", single.output, re.MULTILINE)
    assert "no conclusion" not in single.output


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.processes
def test_wandb_without_a_key_is_offline(tmp_path: Path, cache: Path):
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}", "trainer.max_epochs=1"]
    line = ["-m", "ablation=none,no_lrn", "logger=wandb", *overrides]
    temporary = tmp_path / "tmpdir"
    temporary.mkdir()
    # As below `wandb agent`: W&B would ignore the runs' own ids then, and take them for one.
    done = command(
        *line,
        HOME=str(tmp_path),
        NETRC=str(tmp_path / "no"),
        TMPDIR=str(temporary),
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"),  # else torch makes a folder in TMPDIR, and leaves it
        WANDB_RUN_ID="outer",
        WANDB_RESUME="must",
        WANDB_SWEEP_ID="sweep1",
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("no W&B key, so copies are offline") == 1  # for both runs
    ignored = "logger=wandb: WANDB_RUN_ID, WANDB_RESUME, WANDB_SWEEP_ID in the environment are ignored"
    assert " ".join(done.stdout.split()).count(ignored) == 1
    assert list(temporary.iterdir()) == []
    groups = set()
    for run_id in run_ids(done.stdout):
        [folder] = (tmp_path / "runs" / run_id / "wandb").glob("offline-run-*")
        assert folder.name.endswith(run_id)
        found = read_wandb(next(folder.glob("*.wandb")))
        assert found["config"]["model.lrn"] in (True, False)
        assert found["config"]["optim.lr"] == 0.01
        assert found["config"]["model.remove"] == []
        assert not any(name in found["config"] for name in ("paths.runs", "data.cache"))
        result = json.loads((tmp_path / "runs" / run_id / "result.json").read_text())
        assert found["summary"]["test/ten/top1_error"] == pytest.approx(result["test"]["ten"]["top1_error"])
        assert found["group"].startswith("demo/paper/alexnet/")
        assert re.search(r"model\.width=0\.0625 model\.hidden=128 \+5 settings [0-9a-f]{4}$", found["group"])
        groups.add(found["group"])
        assert "val_top1_error" in found["history"]
    assert len(groups) == 2


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.processes
def test_wandb_survives_its_service_and_a_break(tmp_path: Path, cache: Path):
    """Its service is killed in the first attempt and the run in the second; one folder holds each step once."""
    secret = "c4n4ry-in-the-environment"
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=30", "logger=wandb"]
    line = [*overrides, "checkpoint.every_steps=1"]
    environment = {"WANDB_MODE": "offline", "SOME_TOKEN": secret}

    def is_service(words: list[str]) -> bool:
        return bool(words) and words[0].endswith("wandb-core")

    def epochs() -> int:
        return max((len(path.read_text().splitlines()) - 1 for path in tmp_path.glob("*/metrics.csv")), default=0)

    process = start(line, environment, cwd=tmp_path)
    with halted(process, tmp_path) as [worker]:
        [service] = [pid for pid in descendants(worker) if is_service(command_line(pid))]
        os.kill(service, signal.SIGKILL)
        process.send_signal(signal.SIGTERM)
        until(lambda: is_sent(worker, signal.SIGTERM), process)
    status, output = finish(process)
    assert status == 75, output
    # Whichever comes first: the row of the epoch in which it was halted, or the end.
    lines = re.findall(r"logger=wandb: W&B (?:stopped accepting data|did not accept everything)", output)
    assert len(lines) == 1, output

    before = epochs()
    process = start(line, environment, cwd=tmp_path)
    until(lambda: epochs() > before, process)
    with halted(process, tmp_path) as [worker]:
        os.kill(worker, signal.SIGKILL)
    status, output = finish(process)
    assert status == 1, output
    status, output = finish(start(line, environment, cwd=tmp_path))
    assert status == 0, output
    [record] = [path.parent for path in tmp_path.glob("*/result.json")]
    [folder] = (record / "wandb").glob("offline-run-*")
    found = read_wandb(next(folder.glob("*.wandb")))
    assert found["steps"] == [3 * epoch for epoch in range(1, 31)]
    assert found["summary"]["test/ten/top1_error"] == pytest.approx(
        json.loads((record / "result.json").read_text())["test"]["ten"]["top1_error"]
    )
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret.encode() not in content, path
            assert b"src/train.py" not in content or path.suffix == ".log", path  # no command line

    (record / "wandb.json").unlink()
    published = start(["wandb", f"paths.runs={tmp_path}"], environment, script="runs.py", cwd=tmp_path)
    _, output = finish(published)
    assert "1 of 1 run sent to W&B (offline)" in output
    [folder] = (record / "wandb").glob("offline-run-*")
    again = read_wandb(next(folder.glob("*.wandb")))
    assert again["steps"] == found["steps"]
    # W&B adds its running times, and names each upload of a table anew.
    own = [
        name for name, value in found["summary"].items() if name[0] != "_" and "wandb-client-artifact" not in str(value)
    ]
    assert [again["summary"][name] for name in own] == [found["summary"][name] for name in own]


@pytest.mark.slow
@pytest.mark.processes
def test_two_commands_at_once_share_the_work(tmp_path: Path, cache: Path):
    """Each run is done once, each command does some of them, and both end in the same table."""
    line = ["-m", "seed=0,1,2", *TINY, "trainer.max_epochs=16", f"data.cache={cache}", f"paths.runs={tmp_path}"]
    one = start(line)
    with halted(one, tmp_path):
        other = start(line)
        until(lambda: len(list(tmp_path.glob("*/result.json"))) == 2, other)
    outputs = [finish(process) for process in (one, other)]
    assert [status for status, _ in outputs] == [0, 0], outputs
    trained = [re.findall(r"run (\d) of 3 · epoch 16/16", output) for _, output in outputs]
    assert trained == [["1"], ["2", "3"]]
    tables = [output[output.index("Error on the test") : output.index("Records")] for _, output in outputs]
    assert tables[0] == tables[1]
    assert statuses(tmp_path) == [("DONE", 1)] * 3


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.processes
def test_a_command_that_slept_finds_its_run_taken_over_and_writes_no_more(tmp_path: Path, cache: Path, typed: Typed):
    """As a laptop whose lid was closed, while the same line was typed on another machine."""
    line = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=16"]
    sleeper = start([*line, "checkpoint.every_steps=1"])
    with halted(sleeper, tmp_path):
        sleeper.send_signal(signal.SIGSTOP)
        [claim] = tmp_path.glob("*/claim.*")
        long_ago = claim.stat().st_mtime - 1000
        os.utime(claim, (long_ago, long_ago))
        other = typed(*line)
        assert other.status == 0, other.output
        record = claim.parent
        left = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in record.rglob("*") if path.is_file()}
        sleeper.send_signal(signal.SIGCONT)
    status, output = finish(sleeper)
    assert status == 0, output
    assert "Error on the test split" in output  # the other's
    del left[record / "train.log"]
    assert f"{record.name} was taken over by another process" in (record / "train.log").read_text()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in left} == left
    assert not (record / claim.name).exists()


@pytest.mark.slow
@pytest.mark.processes
def test_a_killed_run_is_told_and_started_again(tmp_path: Path, cache: Path):
    line = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=2000"]
    process = begin(["nice", "-n", "3", *TRAIN, *line])
    with halted(process, tmp_path) as [worker]:
        assert os.getpriority(os.PRIO_PROCESS, worker) == os.getpriority(os.PRIO_PROCESS, 0) + 3
        group = Path(f"/proc/{worker}/autogroup")  # the kernel's, which each session has of its own
        if group.exists() and group.read_text():
            assert group.read_text().endswith(f" nice {os.getpriority(os.PRIO_PROCESS, worker)}\n")
        os.kill(worker, signal.SIGKILL)
    status, output = finish(process)
    assert status == 1
    assert "FAILED (killed): its process ended (SIGKILL)" in output
    assert statuses(tmp_path) == [("FAILED", 1)]
    [record] = [path.parent for path in tmp_path.glob("*/status.json")]
    (record / "metrics.csv").unlink()  # so that a new row is waited for
    output = stop(start(line), tmp_path, by=signal.SIGINT)  # to the command alone, as a supervisor would
    assert "Stopped. Finished work is kept" in output
    assert statuses(tmp_path) == [("PREEMPTED", 2)]
    assert not list(record.glob("claim.*"))


@pytest.mark.slow
@pytest.mark.processes
def test_a_second_interruption_ends_it_at_once(tmp_path: Path, cache: Path):
    """The first one waits for a step, which here never ends, as where a disk hangs."""
    line = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=2000"]
    process = start([*line, "checkpoint.every_steps=1"])
    with halted(process, tmp_path):
        process.send_signal(signal.SIGTERM)
        told(process, "A second signal ends it at once")
        time.sleep(1.1 * signals.BURST)  # since the first one was noted, before that was said
        process.send_signal(signal.SIGTERM)
        status, output = finish(process)
    assert status == 75, output
    assert statuses(tmp_path) == [("PREEMPTED", 1)]
    # Two are kept, and a third where it was halted before it had removed the first.
    assert len(list(tmp_path.glob("*/checkpoints/0*.ckpt"))) in (2, 3)


@pytest.mark.slow
@pytest.mark.processes
def test_a_closed_terminal_stops_it(tmp_path: Path, cache: Path):
    """The kernel sends SIGHUP to the processes of a terminal that is closed, and nothing can be printed there again."""
    line = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=2000"]
    terminal, end = os.openpty()
    os.set_blocking(terminal, False)
    process = begin([*TRAIN, *line], terminal=end)
    os.close(end)

    def trains() -> bool:
        with suppress(BlockingIOError):
            os.read(terminal, 2**16)  # or what prints would wait
        return bool(under_way(tmp_path, 1))

    until(trains, process)
    os.close(terminal)
    assert process.wait(PATIENCE) == 75
    assert statuses(tmp_path) == [("PREEMPTED", 1)]
    assert "Traceback" not in next(tmp_path.glob("*/train.log")).read_text()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.processes
def test_stopped_while_torch_loads(tmp_path: Path, cache: Path):
    process = start([*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}"])

    def server() -> bool:
        return any("forkserver" in " ".join(command_line(pid)) for pid in descendants(process.pid))

    until(server, process)
    until(lambda: statuses(tmp_path), process)  # the server is started while images are still drawn
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    status, output = finish(process)
    assert status == 75, output
    assert "Traceback" not in output
    assert statuses(tmp_path) == [("PREEMPTED", 1)]


@pytest.mark.long  # tests/sweep/test_launchers.py has launchers in processes of their own
@pytest.mark.slow
@pytest.mark.processes
def test_another_launcher_is_stopped_and_hydras_own_goes_on(tmp_path: Path, cache: Path, typed: Typed):
    """That one ends in a table: tests/test_readme.py, `make demo`."""
    line = [*TINY, "trainer.max_epochs=16", f"data.cache={cache}", f"paths.runs={tmp_path}"]
    joblib = ["-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *line]
    stop(start(joblib), tmp_path, 2)
    assert statuses(tmp_path) == [("PREEMPTED", 1)] * 2
    done = typed("-m", "seed=0,1", *line)
    assert done.status == 0, done
    assert statuses(tmp_path) == [("DONE", 2)] * 2
    assert len(run_ids(done.output)) == 2
    assert "2 of 2 already done" in typed(*joblib).output


@pytest.mark.slow
def test_a_record_that_cannot_be_written_stops_no_other(tmp_path: Path, cache: Path, typed: Typed):
    line = ["seed=0,1", *TINY, "trainer.max_epochs=1", f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]
    first, second = (planned.run_id for planned in make_plan(line, multirun=True).runs)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / first).write_text("in the way")
    done = typed("-m", *line)
    assert done.status == 1, done.output
    assert re.search(rf"^run 1 of 2: .*File exists.*{first}", done.output, re.MULTILINE)
    assert (tmp_path / "runs" / second / "result.json").exists()
    assert "Traceback" not in done.output + done.errors


no_gpu = ["trainer.accelerator=gpu"]


class TestMistakes:
    """Exit status 2, one line, nothing run; details are in test_config.py."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["model.lnr=false"],
            ["+model.lnr=false"],
            ["-m", "model.remove=[],[conv3],[conv9]"],
            ["-m", "seed=0,1", "model.lrn=flase"],
            ["recipe=imagent"],
            ["--config-name", "other"],
            *([no_gpu, [*no_gpu, "trainer.devices=2"]] if not torch.cuda.is_available() else []),
            *([["-m", "seed=0,1", "trainer.precision=tf32-true"]] if not torch.cuda.is_available() else []),
            [f"weights={__file__}"],
            ["weights=/tmp"],
            ["hydra.run.dir=/tmp/x"],
            ["-m", "hydra.sweep.dir=/tmp/x"],
            ["-m", "hydra/launcher=joblib", "hydra.launcher.timeout=5"],
        ],
    )
    def test_one_line(self, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Typed):
        monkeypatch.chdir(tmp_path)
        self.is_one_line(*typed(*arguments, f"paths.runs={tmp_path / 'runs'}"))
        assert list(tmp_path.iterdir()) == []

    def test_by_the_command(self, tmp_path: Path):
        done = command("model.lnr=false", f"paths.runs={tmp_path / 'runs'}", cwd=tmp_path)
        self.is_one_line(done.returncode, done.stdout, done.stderr)
        assert list(tmp_path.iterdir()) == []

    def is_one_line(self, status: int, output: str, errors: str) -> None:
        assert (status, output) == (2, "")
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1


def test_help_and_cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Typed):
    shown = command("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    for word in ("model.lrn", "optim.weight_decay", "no_conv3_conv4", "demo*", "--dry-run"):
        assert word in shown.stdout
    monkeypatch.chdir(tmp_path)
    written = typed("--cfg", "job", "model.lrn=false")
    assert written.status == 0
    assert yaml.safe_load(written.output)["model"]["lrn"] is False
    assert "# Local response normalisation after the layers of model.lrn_after (3.3)." in written.output
    assert typed("--cfg", "hydra").status == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "data", "is_hinted"), [("demo", "folder", True), ("folder", "folder", False)])
def test_a_set_of_ones_own_without_its_recipe_has_a_hint(recipe: str, data: str, is_hinted: bool):
    choices = {"recipe": recipe, "data": data, "protocol": "paper", "model": "alexnet", "ablation": "none"}
    plan = SimpleNamespace(choices=choices, varying=(), study=None, runs=[], merged=[], is_tryout=True)
    output = io.StringIO()
    _announce(cast(Plan, plan), Console(file=output, width=80))
    assert ("recipe=folder is for these images." in output.getvalue()) == is_hinted


def test_train_has_the_version_of_alexlab(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train.main(["--version"])
    assert capsys.readouterr().out == f"alexlab {alexlab.__version__}\n"


def test_a_repository_of_another_user_is_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    fix = "git config --global --add safe.directory /home/other/alexlab"
    monkeypatch.setattr(train, "ownership_fix", lambda: fix)
    monkeypatch.setattr(forecast, "forecast", lambda configs: [((1.0,) * 3, 1)] * len(configs))
    monkeypatch.setenv("COLUMNS", "40")
    line = ["-m", "seed=0,1", f"paths.runs={tmp_path}", "--dry-run"]
    assert train.main(line) == 0
    warning = (
        f"Records will lack the commit: git refuses this repository, which is another user's; to trust it: {fix}\n"
    )
    assert capsys.readouterr().out.count(warning) == 1
    assert train.main([*line, "trainer.fast_dev_run=true"]) == 0  # leaves no record
    assert fix not in capsys.readouterr().out


def test_dry_run_lists_and_runs_nothing(tmp_path: Path, cache: Path, typed: Typed):
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]
    planned = typed("-m", "model.lrn=true,false", "seed=0,1", "--dry-run", *overrides)
    assert planned.status == 0, planned.output
    assert "4 runs: 0 done, 4 to do. About" in planned.output
    assert not (tmp_path / "runs").exists()


class TestRoundsOfTrials:
    """How a round of trials of learning rates ends if some of them are not finished."""

    @staticmethod
    def trial(name: str, lr: float, retry: Retry = Retry.faults, **status: str) -> SimpleNamespace:
        record = SimpleNamespace(status=lambda: status)
        config = SimpleNamespace(seed=1000, retry=retry, max_hours=None)
        return SimpleNamespace(run_id=name, varied=f"optim.lr={lr}", config=config, record=record)

    @staticmethod
    def end(runs: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
        """The status and the lines of a round that leaves these trials."""
        plan = SimpleNamespace(runs=runs, study=SimpleNamespace(), is_tryout=False)
        launch = SimpleNamespace(is_stopped=False, spent=Path("not there"))
        monkeypatch.setattr(train, "_register", lambda *_: None)
        monkeypatch.setattr(train, "launching", lambda *_: nullcontext((launch, SimpleNamespace(limited=nullcontext))))
        monkeypatch.setattr(train, "do_all", lambda *_: None)
        output = io.StringIO()
        console = Console(file=output, width=200)
        status, _ = train._round(cast(Plan, plan), cast(Any, None), cast(Any, None), console, None)
        return status, output.getvalue().splitlines()

    def test_faults_are_named(self, monkeypatch: pytest.MonkeyPatch):
        """A trial whose process was killed before it began its record has printed nothing itself."""
        runs = [
            self.trial("aaaaaaaaaaaa", 0.001, state="DONE"),
            self.trial("bbbbbbbbbbbb", 0.002, state="FAILED", failure="full disk", message="no space left on /data"),
            self.trial("cccccccccccc", 0.004),
        ]
        status, lines = self.end(runs, monkeypatch)
        assert status == 1
        assert lines == [
            "bbbbbbbbbbbb optim.lr=0.002 seed=1000: no space left on /data",
            "cccccccccccc optim.lr=0.004 seed=1000: not started, or its process was killed",
            "The next trials depend on these; fix the fault and run the same command again.",
        ]

    def test_a_fault_that_is_not_retried_needs_another_command(self, monkeypatch: pytest.MonkeyPatch):
        runs = [self.trial("aaaaaaaaaaaa", 0.001, Retry.none, state="FAILED", failure="killed", message="killed")]
        status, lines = self.end(runs, monkeypatch)
        assert status == 1
        assert lines[1:] == [
            "The next trials depend on these; fix the fault and run the same command again with retry=faults."
        ]
        runs = [self.trial("aaaaaaaaaaaa", 0.001, Retry.none)]  # never started
        assert self.end(runs, monkeypatch)[1][-1].endswith("run the same command again.")

    def test_a_preempted_one_is_resumed_by_the_same_command(self, monkeypatch: pytest.MonkeyPatch):
        """Its own job was stopped, not this command."""
        runs = [self.trial("aaaaaaaaaaaa", 0.001, state="PREEMPTED")]
        stopped = "Stopped. Finished work is kept; run the same command again for the rest."
        assert self.end(runs, monkeypatch) == (75, [stopped])


def test_a_finished_search_has_status_0_although_a_trial_diverged(tmp_path: Path):
    line = ["study=lrn", "study.claims=[paper/lrn]", "study.rate=choose", f"paths.runs={tmp_path}"]
    made_study(tmp_path, line, failed={"no_lrn optim.lr=0.02": 1})
    output = io.StringIO()
    plan = make_plan(line, composer=composer())
    assert train._launch_and_report(plan, Console(file=output, width=200), None) == 0
    assert "FAILED: diverged" in output.getvalue()
