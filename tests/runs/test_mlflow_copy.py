"""A real MLflow server has each step of a record once, its settings and its pictures, and ends no run."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("mlflow", reason="pip install '.[mlflow]'")

from alexlab.cli import runs
from alexlab.config import Config
from alexlab.runs import mlflow_copy, worker
from alexlab.runs.record import FAILED, PREEMPTED, Record
from alexlab.runs.trackers import Copies, send
from alexlab.tree import flatten
from support.commands import PATIENCE
from support.hand_made import FINAL, ROWS, RUN_ID, STEPS, begin, complete
from support.settings import composed

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of its own, with a database and artifacts in a folder of its own."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**environment, **off},
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while not is_healthy(address):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch):
    """What the copy sets for its process ends with the test."""
    for name in [name for name in os.environ if name.startswith("MLFLOW")]:
        monkeypatch.delenv(name)
    for name in mlflow_copy._DEFAULTS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    # Beside busy loops; where a test has no server, connections are refused at once.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(PATIENCE)))
    for name in ("_START_SECONDS", "_ROW_SECONDS"):
        monkeypatch.setattr(mlflow_copy, name, PATIENCE)
    monkeypatch.setattr("alexlab.runs.tracked._LAST_SECONDS", PATIENCE)
    monkeypatch.setattr("alexlab.runs.tracked._GRACE_SECONDS", PATIENCE)


@pytest.fixture
def config(tiny: list[str], server: str, request: pytest.FixtureRequest) -> Config:
    """With an experiment of the test's own."""
    return composed([*tiny, "logger=mlflow", f"logger.tracking_uri={server}", f"logger.project={request.node.name}"])


def client(config: Config) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(config.logger.tracking_uri)


def copied(config: Config) -> Any:
    """The one run of the experiment."""
    [run] = client(config).search_runs([client(config).get_experiment_by_name(config.logger.project).experiment_id])
    return run


def train(copies: Copies, record: Record, rows: Sequence[dict[str, Any]] = ROWS) -> None:
    """Copy a run's rows, have it finished, and end its copies."""
    for row in rows:
        copies.row(row)
    complete(record)
    copies.finish()


def history(config: Config, name: str) -> list[tuple[int, float]]:
    found = client(config).get_metric_history(copied(config).info.run_id, name)
    return [(metric.step, metric.value) for metric in found]


def test_a_copy_has_all_of_the_record_once(config: Config, tmp_path: Path):
    record = begin(config)
    complete(record)
    for _ in range(2):
        assert send("mlflow", config, record)
        for name in ("epoch", "lr", "train_loss", "val_top1_error"):
            assert history(config, name) == [(row["step"], row[name]) for row in ROWS if row[name] != ""], name
        for name, value in FINAL.items():
            assert history(config, name) == [(12, value)], name
        assert set(copied(config).data.metrics) == {"epoch", "lr", "train_loss", "val_top1_error", *FINAL}
    run = copied(config)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "none seed=0")
    assert (run.info.start_time, run.info.end_time) == (1e12, 1e12 + 60_000)
    assert run.data.tags == {
        **{"protocol": "paper", "recipe": "demo", "model": "alexnet", "ablation": "none", "seed": "0"},
        **{"run_id": RUN_ID, "commit": "f" * 40, "mlflow.runName": "none seed=0"},
    }
    stored = flatten(yaml.safe_load(record.file("config.yaml").read_text()))
    kept = ("paths.", "data.cache", "data.raw", "data.root", "data.stage", "weights")
    assert set(run.data.params) >= {name for name in stored if not name.startswith(kept)} - {"data.seed"}
    assert len(run.data.params) > 100  # more than one request's
    assert (run.data.params["model.lrn"], run.data.params["model.remove"]) == (str(stored["model.lrn"]).lower(), "[]")
    assert not any(str(tmp_path) in value or "logger" in name for name, value in run.data.params.items())
    at = client(config)
    assert [file.path for file in at.list_artifacts(run.info.run_id)] == [
        "confusion.png",
        "conv1.png",
        "predictions.csv",
    ]
    folder = Path(at.download_artifacts(run.info.run_id, "", str(tmp_path)))
    with Image.open(folder / "conv1.png") as picture:
        assert picture.size == (4 * (16 * 12 - 1), 4 * 11)
    with np.load(record.file("predictions.npz")) as arrays, (folder / "predictions.csv").open() as file:
        table = [*csv.DictReader(file)]
        assert [row["right"] == "True" for row in table] == [*(arrays["labels"] == arrays["ten_top5"][:, 0])]
    assert record.read("mlflow.json") == {"id": run.info.run_id, "complete": True}


def test_a_resumed_run_continues_its_copy(config: Config):
    """It was stopped between the third row and its copy; the first rows come again, and a param has changed."""
    record = begin(config)
    first = Copies(config, record)
    first.start()
    for row in ROWS[:2]:
        first.row(row)
    record.set_status(PREEMPTED)
    first.finish()
    assert copied(config).info.status == "KILLED"
    record = begin(config)
    config.data.num_workers = 3
    again = Copies(config, record)
    again.start()
    assert copied(config).info.status == "RUNNING"
    again.abandon()  # and once more, as by a kill
    again = Copies(config, record)
    again.start()
    train(again, record)
    assert [step for step, _ in history(config, "train_loss")] == STEPS
    assert history(config, "test/ten/top1_error") == [(12, 0.5)]
    assert copied(config).info.status == "FINISHED"


def test_unusual_names(config: Config):
    config.logger.project = "a \"study\" of 'ours'/ü %2F [x] `y`"
    record = begin(config, ablation=f"model.init_stds=[{'conv1:0.01, ' * 500}]")
    config.model.init_stds = ["conv1:0.01"] * 500
    complete(record)
    assert send("mlflow", config, record)
    run = copied(config)
    assert len(run.data.params["model.init_stds"]) == 500
    assert run.data.tags["run_id"] == RUN_ID


def test_a_deleted_copy_is_made_anew(config: Config):
    record = begin(config)
    complete(record)
    assert send("mlflow", config, record)
    client(config).delete_run(copied(config).info.run_id)
    assert send("mlflow", config, record)
    assert [step for step, _ in history(config, "train_loss")] == STEPS


def test_runs_of_one_process_are_apart(config: Config):
    records = [begin(config, run_id) for run_id in (RUN_ID, "ba9876543210")]
    copies = [Copies(config, record) for record in records]
    for one in copies:
        one.start()
    for row in ROWS:
        for one in copies:
            one.row(row)
    for record, one in zip(records, copies, strict=True):
        complete(record)
        one.finish()
    experiment = client(config).get_experiment_by_name(config.logger.project)
    found = client(config).search_runs([experiment.experiment_id])
    assert {run.data.tags["run_id"] for run in found} == {RUN_ID, "ba9876543210"}
    for run in found:
        assert [metric.step for metric in client(config).get_metric_history(run.info.run_id, "epoch")] == STEPS


def test_training_to_two_trackers_with_a_break(config: Config, tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    """Between a row of metrics.csv and its copy, a row after the last checkpoint."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    more = ["logger=[mlflow,tensorboard]", "trainer.max_epochs=4", "checkpoint.every_steps=5"]
    config = replace(composed([*tiny, *more]), logger=replace(config.logger, tensorboard=True))
    record = begin(config)
    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)

    class Break(BaseException):
        pass

    def breaks(copies: Copies, values: dict[str, Any]) -> None:
        if values["epoch"] == 3:
            raise Break
        row(copies, values)

    row = Copies.row
    with monkeypatch.context() as context:
        context.setattr(Copies, "row", breaks)
        worker.train(record.path, "run", config)
    assert record.status()["state"] == FAILED
    assert copied(config).info.status == "FAILED"
    record = begin(config)
    worker.train(record.path, "run", config)
    assert record.is_done, record.status()
    rows = [(row["step"], pytest.approx(row["train_loss"])) for row in record.rows()]
    assert [step for step, _ in rows] == [3, 6, 9, 12]
    assert history(config, "train_loss") == rows
    [folder] = record.file("tensorboard").iterdir()
    found = accumulator.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("train_loss")] == rows
    assert history(config, "test/ten/top1_error") == [(12, record.result()["test"]["ten"]["top1_error"])]


def test_runs_copy(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "200")
    complete(begin(config))
    line = ["copy", "logger=[mlflow,tensorboard]", f"paths.runs={config.paths.runs}"]
    uri = [f"logger.tracking_uri={config.logger.tracking_uri}", f"logger.project={config.logger.project}"]
    assert runs.main([*line, *uri]) == 0
    out = capsys.readouterr().out
    assert f"1 of 1 run sent to MLflow (experiment {config.logger.project})." in out
    assert "1 of 1 run sent to TensorBoard (in each record)." in out
    assert runs.main([*line, *uri, "state=DONE"]) == 0
    assert "0 of 0 runs sent to MLflow (experiment test_runs_copy), 1 already there." in capsys.readouterr().out
    assert [step for step, _ in history(config, "train_loss")] == STEPS
    assert runs.main([*line, f"logger.tracking_uri=http://127.0.0.1:{free_port()}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: logger=mlflow: MLflow cannot be reached (http://127.0.0.1:")
    assert error.endswith("Connection refused)\n")
    assert error.count("\n") == 1


def test_a_server_that_is_down_is_one_line(tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys):
    """Without the password of its address, and without MLflow's retries, which take minutes."""
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://bob:p%24ssword@127.0.0.1:{port}")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    config = composed([*tiny, "logger=mlflow", "logger.project=mine"])
    record = begin(config)
    copies = Copies(config, record)
    copies.start()
    train(copies, record)
    out, err = capsys.readouterr()
    assert out == (
        f"logger=mlflow: MLflow did not start (http://127.0.0.1:{port}: [Errno 111] Connection refused); the record is "
        "complete, `alexlab runs copy logger=mlflow logger.project=mine` sends it later\n"
    )
    assert err == ""
    assert not record.file("mlflow.json").exists()
    assert [os.environ[f"MLFLOW_HTTP_REQUEST_{name}"] for name in ("MAX_RETRIES", "TIMEOUT")] == ["1", "10"]


def test_a_users_own_limits_stay(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = composed([*tiny, "logger=mlflow", f"logger.tracking_uri=http://127.0.0.1:{free_port()}"])
    assert not send("mlflow", config, begin(config))
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


def test_a_server_that_does_not_answer_is_not_waited_for(tiny: list[str], monkeypatch, capsys):
    monkeypatch.setattr(mlflow_copy, "_START_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = composed([*tiny, "logger=mlflow", f"logger.tracking_uri={uri}"])
        assert not send("mlflow", config, begin(config))
    assert f"MLflow did not start ({uri}: no answer in 0 s)" in capsys.readouterr().out


def test_a_token_that_is_none_is_not_printed(tiny: list[str], monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "sekret\nkey")
    config = composed([*tiny, "logger=mlflow", f"logger.tracking_uri=http://127.0.0.1:{free_port()}"])
    assert not send("mlflow", config, begin(config))
    out = capsys.readouterr().out
    assert "in header value: 'Bearer ***'" in out
    assert "sekret" not in out


def test_a_record_says_nothing_of_the_server(config: Config):
    record = begin(config)
    complete(record)
    send("mlflow", config, record)
    for path in record.path.rglob("*"):
        if path.is_file():
            assert str(config.logger.tracking_uri).encode() not in path.read_bytes(), path


def test_a_server_that_ends_amid_a_run(config: Config, capsys: pytest.CaptureFixture[str]):
    """The rows that it has missed come later."""
    record = begin(config)
    copies = Copies(config, record)
    copies.start()
    copies.row(ROWS[0])
    copies._started["mlflow"]._client = client(  # pyright: ignore[reportAttributeAccessIssue]
        replace(config, logger=replace(config.logger, tracking_uri=f"http://127.0.0.1:{free_port()}"))
    )
    train(copies, record, ROWS[1:])
    assert capsys.readouterr().out.count("MLflow stopped accepting data") == 1
    assert record.read("mlflow.json")["complete"] is False
    assert send("mlflow", config, Record(config.paths.runs, RUN_ID))
    assert [step for step, _ in history(config, "train_loss")] == STEPS
