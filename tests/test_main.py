"""The commands of the README, run as a user runs them: in processes of their own, on a shrunken demo."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from alexlab.config import PROJECT_DIR
from conftest import TINY

TRAIN = PROJECT_DIR / "src" / "train.py"


def run(
    *arguments: str, cwd: Path = PROJECT_DIR, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "ALEXLAB"))}
    return subprocess.run(
        [sys.executable, str(TRAIN), *arguments],
        cwd=cwd,
        env={**kept, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, cache: Path):
    """Overrides for records that the tests of this module share, and their folder."""
    runs = tmp_path_factory.mktemp("records") / "runs"
    return [*TINY, f"data.cache={cache}", f"paths.runs={runs}"], runs


SWEEP = ["-m", "model.lrn=true,false", "pool.overlap=true,false"]


@pytest.fixture(scope="module")
def sweep(place):
    overrides, runs = place
    return run(*SWEEP, *overrides), runs


def run_ids(output: str) -> list[str]:
    return re.findall(r" ([0-9a-f]{12})$", output, flags=re.MULTILINE)


@pytest.mark.slow
class TestTheUsersLine:
    def test_four_runs_and_a_table(self, sweep):
        done, runs = sweep
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("alexlab: recipe=demo protocol=paper model=alexnet ablation=none")
        assert [f"run {i} of 4:" in done.stdout for i in range(1, 5)] == [True] * 4
        assert "run 4 of 4 · epoch 2/2 · loss" in done.stderr  # no terminal: plain lines
        assert "\r" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "1 seed: no conclusion about the ablation" in done.stdout
        ids = run_ids(done.stdout)
        assert len(set(ids)) == 4
        assert sorted(path.name for path in runs.iterdir()) == sorted([*ids, "sweeps"])

    def test_what_each_run_left(self, sweep):
        done, runs = sweep
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
        first, runs = sweep
        before = {path: path.stat().st_mtime_ns for path in runs.glob("*/*") if path.parent.name != "sweeps"}
        again = run(*SWEEP, *place[0])
        assert again.returncode == 0
        assert "4 of 4 done before" in again.stdout
        table = first.stdout[first.stdout.index("Error on the test") :]
        assert again.stdout[again.stdout.index("Error on the test") :] == table
        assert {path: path.stat().st_mtime_ns for path in before} == before

    def test_a_fifth_arm_trains_only_itself(self, sweep, place):
        done = run("-m", "model.lrn=true,false", "seed=0,5", *place[0], "model.dropout=0.2")
        assert done.returncode == 0, done.stderr
        assert "2 of 4 done before" in done.stdout
        assert sorted(set(re.findall(r"run (\d) of 4 ·", done.stderr))) == ["2", "4"]
        assert "Arms: mean ± standard deviation over seeds" in done.stdout

    def test_the_sweeps_file(self, sweep):
        done, _ = sweep
        name = re.search(r"This sweep: (\S+)", done.stdout)
        assert name
        document = json.loads(Path(name[1]).read_text())
        assert [entry["run_id"] for entry in document["runs"]] == run_ids(done.stdout)


@pytest.mark.slow
def test_from_another_directory_and_one_failure_among_jobs(tmp_path: Path, cache: Path):
    """The first arm diverges and says so, the second is done; records are where they were asked for."""
    done = run("-m", "optim.lr=1e9,0.01", *TINY, f"data.cache={cache}", cwd=tmp_path, ALEXLAB_RUNS="mine")
    assert done.returncode == 1, done.stderr
    assert re.search(r"FAILED \(diverged\): .* at step 2 of epoch 1, before that step was taken", done.stdout)
    assert "a result, and kept: lower optim.lr" in done.stdout
    table = done.stdout[done.stdout.index("Error on the test") :]
    assert "FAILED: diverged" in table
    failed, fine = run_ids(table)[:2]
    assert "Diverged: the " in (tmp_path / "mine" / failed / "train.log").read_text()
    assert not (tmp_path / "mine" / failed / "result.json").exists()
    where = json.loads((tmp_path / "mine" / failed / "diverged.json").read_text())
    assert (where["epoch"], where["step"], len(where["images"])) == (1, 2, 20)
    assert (tmp_path / "mine" / fine / "result.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    again = run("-m", "optim.lr=1e9,0.01", *TINY, f"data.cache={cache}", cwd=tmp_path, ALEXLAB_RUNS="mine")
    assert again.returncode == 1
    assert "1 of 2 failed before (diverged); retry=all tries again" in again.stdout
    assert "run 1 of 2" not in again.stderr
    tried = run("optim.lr=1e9", "retry=all", *TINY, f"data.cache={cache}", cwd=tmp_path, ALEXLAB_RUNS="mine")
    assert tried.returncode == 1
    assert json.loads((tmp_path / "mine" / failed / "status.json").read_text())["attempt"] == 2


@pytest.mark.slow
def test_a_single_run_and_a_trial(place, tmp_path: Path):
    overrides, _ = place
    trial = run("trainer.fast_dev_run=true", "logger=wandb", *overrides, f"paths.runs={tmp_path / 'runs'}")
    assert trial.returncode == 0, trial.stderr
    assert "1 of 1 ran one batch of each split; nothing is kept" in trial.stdout
    assert list(tmp_path.iterdir()) == []
    single = run("model.dropout=0", "seed=3", *overrides)
    assert single.returncode == 0, single.stderr
    assert re.search(r"^run: .*model.dropout=0.* seed=3$", single.stdout, re.MULTILINE)
    assert "no conclusion" not in single.stdout


@pytest.mark.slow
def test_wandb_without_a_key_is_offline(tmp_path: Path, cache: Path):
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}", "trainer.max_epochs=1"]
    done = run("-m", "ablation=none,no_lrn", "logger=wandb", *overrides, HOME=str(tmp_path), NETRC=str(tmp_path / "no"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("no W&B key, so this run is kept offline") == 2
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
        assert found["group"].startswith("demo/paper/alexnet/data.train_images=60 ")
        assert found["group"].endswith(result["labels"]["arm"])  # the shrunken demo's name is longer than W&B takes
        groups.add(found["group"])
        assert "val_top1_error" in found["history"]
    assert len(groups) == 2


def wandb_records(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB, records in one or more pieces)."""
    content, place, whole = path.read_bytes(), 7, b""  # behind a header of its own
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


def read_wandb(path: Path) -> dict:
    """What an offline W&B run holds."""
    from wandb.proto import wandb_internal_pb2

    found: dict = {"config": {}, "summary": {}, "history": set(), "steps": []}
    for data in wandb_records(path):
        record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["group"] = record.run.run_group
            found["config"].update({item.key: json.loads(item.value_json) for item in record.run.config.update})
        elif kind == "config":
            for item in record.config.update:
                found["config"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "summary":
            for item in record.summary.update:
                found["summary"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "history":
            found["history"] |= {item.key or ".".join(item.nested_key) for item in record.history.item}
            found["steps"].append(record.history.step.num)
    return found


@pytest.mark.slow
def test_wandb_survives_its_service_and_a_break(tmp_path: Path, cache: Path):
    """Its service is killed in the first attempt and the run in the second; one folder holds each step once."""
    secret = "c4n4ry-in-the-environment"
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=30", "logger=wandb"]
    command = [sys.executable, str(TRAIN), *overrides, "checkpoint.every_steps=1"]
    environment = {**os.environ, "WANDB_MODE": "offline", "SOME_TOKEN": secret}

    def epochs(at_least: int) -> None:
        deadline = time.monotonic() + 100
        while not any(len(path.read_text().splitlines()) > at_least for path in tmp_path.glob("*/metrics.csv")):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path
        )

    process = start()
    epochs(1)
    worker = children(process.pid)
    listing = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    [service] = [int(line.split()[0]) for line in listing.splitlines() if "wandb-core" in line and str(worker) in line]
    os.kill(service, signal.SIGKILL)
    epochs(5)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert output.count("logger=wandb: W&B takes no more") == 1

    process = start()
    time.sleep(0.1)
    epochs(6)
    os.kill(children(process.pid), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    process = start()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
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

    published = [sys.executable, str(PROJECT_DIR / "src" / "runs.py"), "wandb", f"paths.runs={tmp_path}"]
    (record / "wandb.json").unlink()
    done = subprocess.run(published, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60)
    assert "1 of 1 runs sent to W&B (offline)" in done.stdout, done
    [folder] = (record / "wandb").glob("offline-run-*")
    again = read_wandb(next(folder.glob("*.wandb")))
    assert again["steps"] == found["steps"]
    own = [name for name in found["summary"] if not name.startswith("_")]  # W&B adds its running times
    assert [again["summary"][name] for name in own] == [found["summary"][name] for name in own]


@pytest.mark.slow
def test_two_commands_at_once_share_the_work(tmp_path: Path, cache: Path):
    """Each run is done once, each command does some of them, and both end in the same table."""
    line = ["-m", "seed=0,1,2,3,4", *TINY, "trainer.max_epochs=30", f"data.cache={cache}", f"paths.runs={tmp_path}"]
    command = [sys.executable, str(TRAIN), *line]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    trained = [re.findall(r"run (\d) of 5 · epoch 30/30", err) for _, err in outputs]
    assert sorted(trained[0] + trained[1]) == ["1", "2", "3", "4", "5"]
    assert all(trained)
    tables = [out[out.index("Error on the test") : out.index("Records")] for out, _ in outputs]
    assert tables[0] == tables[1]
    for path in tmp_path.glob("*/status.json"):
        status = json.loads(path.read_text())
        assert (status["state"], status["attempt"]) == ("DONE", 1)


@pytest.mark.slow
def test_a_command_that_slept_finds_its_run_taken_over_and_writes_no_more(tmp_path: Path, cache: Path):
    """As a laptop whose lid was closed, while the same line was typed on another machine."""
    line = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=60"]
    command = [sys.executable, str(TRAIN), *line, "checkpoint.every_steps=1"]
    sleeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("*/metrics.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    asleep = [sleeper.pid, children(sleeper.pid)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    [claim] = tmp_path.glob("*/claim.*")
    long_ago = claim.stat().st_mtime - 1000
    os.utime(claim, (long_ago, long_ago))
    other = run(*line)
    assert other.returncode == 0, other.stdout + other.stderr
    record = claim.parent
    left = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in record.rglob("*") if path.is_file()}
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    output, _ = sleeper.communicate(timeout=100)
    assert sleeper.returncode == 0, output
    assert "Error on the test split" in output  # the other's
    del left[record / "train.log"]
    assert f"{record.name} was taken over by another process" in (record / "train.log").read_text()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in left} == left
    assert not (record / claim.name).exists()


@pytest.mark.slow
def test_a_killed_run_is_told_and_started_again(tmp_path: Path, cache: Path):
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=2000"]
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *overrides], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("*/metrics.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(children(process.pid), 9)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "FAILED (killed): its process ended by SIGKILL" in output
    [record] = [path.parent for path in tmp_path.glob("*/status.json")]
    assert json.loads((record / "status.json").read_text())["attempt"] == 1

    again = subprocess.Popen(
        [sys.executable, str(TRAIN), *overrides], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while json.loads((record / "status.json").read_text())["attempt"] == 1 or not (record / "metrics.csv").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(again.pid, signal.SIGINT)  # to the command alone, as a supervisor would
    output, _ = again.communicate(timeout=30)
    assert again.returncode == 75
    assert "Stopped. What is done is kept" in output
    status = json.loads((record / "status.json").read_text())
    assert (status["state"], status["attempt"]) == ("PREEMPTED", 2)
    assert not list(record.glob("claim.*"))


@pytest.mark.slow
def test_a_second_interruption_ends_it_at_once(tmp_path: Path, cache: Path):
    """The first one waits for a step, which here never ends, as where a disk hangs."""
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path}", "trainer.max_epochs=2000"]
    command = [sys.executable, str(TRAIN), *overrides, "checkpoint.every_steps=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("*/metrics.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(children(process.pid), signal.SIGSTOP)
    for _ in range(2):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.3)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert "Once more ends it at once" in output
    [record] = [path.parent for path in tmp_path.glob("*/status.json")]
    assert json.loads((record / "status.json").read_text())["state"] == "PREEMPTED"
    assert len(list((record / "checkpoints").glob("0*.ckpt"))) == 2


@pytest.mark.slow
def test_stopped_while_torch_loads(tmp_path: Path, cache: Path):
    command = [sys.executable, str(TRAIN), *TINY, f"data.cache={cache}", f"paths.runs={tmp_path}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*/config.yaml")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, output + errors
    assert "Traceback" not in errors
    [status] = [json.loads(path.read_text()) for path in tmp_path.glob("*/status.json")]
    assert status["state"] == "PREEMPTED"


@pytest.mark.slow
def test_jobs_stay_in_the_commands_folder(tmp_path: Path, cache: Path):
    done = run("-m", "seed=0", "hydra.job.chdir=true", *TINY, f"data.cache={cache}", "paths.runs=rel", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(run_ids(done.stdout)) == 1


def children(pid: int) -> int:
    """The process that trains: the one grandchild, below multiprocessing's fork server."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listing.splitlines())}
    [worker] = [child for child, parent in parents.items() if parents.get(parent) == pid]
    return worker


@pytest.mark.slow
def test_another_launcher_is_stopped_goes_on_and_ends_in_the_same_table(tmp_path: Path, cache: Path):
    overrides = [*TINY, "trainer.max_epochs=60", f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]
    joblib = ["-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *joblib, *overrides], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 100
    while len(list(tmp_path.glob("runs/*/metrics.csv"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    states = [json.loads(path.read_text())["state"] for path in tmp_path.glob("runs/*/status.json")]
    assert states == ["PREEMPTED", "PREEMPTED"]
    done = run(*joblib, *overrides)
    assert done.returncode == 0, done.stderr
    assert len(run_ids(done.stdout)) == 2
    again = run("-m", "seed=0,1", *overrides)
    assert "2 of 2 done before" in again.stdout


@pytest.mark.slow
def test_a_record_that_cannot_be_written_stops_no_other(tmp_path: Path, cache: Path):
    line = ["-m", "seed=0,1", *TINY, "trainer.max_epochs=1", f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]
    planned = run(*line, "--dry-run")
    first, second = run_ids(planned.stdout)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / first).write_text("in the way")
    done = run(*line)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"^run 1 of 2: .*File exists.*{first}", done.stdout, re.MULTILINE)
    assert (tmp_path / "runs" / second / "result.json").exists()
    assert "Traceback" not in done.stdout + done.stderr


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
        ],
    )
    def test_one_line(self, arguments: list[str], tmp_path: Path):
        done = run(*arguments, f"paths.runs={tmp_path / 'runs'}", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def test_help_and_cfg(tmp_path: Path):
    told = run("--help", cwd=tmp_path)
    assert told.returncode == 0
    assert all(len(line) <= 80 for line in told.stdout.splitlines())
    for word in ("model.lrn", "optim.weight_decay", "no_conv3_conv4", "demo*", "--dry-run"):
        assert word in told.stdout
    shown = run("--cfg", "job", "model.lrn=false", cwd=tmp_path)
    assert shown.returncode == 0
    assert yaml.safe_load(shown.stdout)["model"]["lrn"] is False
    assert "# Local response normalisation after the layers of model.lrn_after (3.3)." in shown.stdout
    assert run("--cfg", "hydra", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_dry_run_lists_and_runs_nothing(tmp_path: Path, cache: Path):
    overrides = [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]
    planned = run("-m", "model.lrn=true,false", "seed=0,1", "--dry-run", *overrides)
    assert planned.returncode == 0, planned.stderr
    assert "4 runs: 0 done, 4 to do. About" in planned.stdout
    assert not (tmp_path / "runs").exists()
