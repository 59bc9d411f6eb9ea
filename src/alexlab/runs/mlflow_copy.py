"""Copies of records in MLflow: one MLflow run per run, identified by its tag `run_id`.

At a run's end MLflow also gets the final errors and, as artifacts, conv1's kernels, the confusion matrix and a table of
predictions. MLflow stores duplicate values of a step, so it is first asked which steps it has.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from alexlab.config import Config, LoggerConfig, shown
from alexlab.runs import tracked
from alexlab.runs.record import DONE, FAILED, PREEMPTED, Record

_START_SECONDS, _ROW_SECONDS = 60.0, 20.0  # timeouts; at first a server may have to create a database
_LONGEST_PARAM = 500  # characters, in older servers; newer ones take 6000
_BATCH = 100  # params in one request
_STATUS = {DONE: "FINISHED", FAILED: "FAILED", PREEMPTED: "KILLED"}
# MLflow's own defaults would make a run wait for minutes, print the server's address, and send telemetry.
_DEFAULTS = {
    **{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"},
    **{"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowCopy:
    """MLflow's copy of one run, in the experiment `logger.project`."""

    title = "MLflow"

    def __init__(self, config: Config, record: Record, say: Callable[[str], None]) -> None:
        self._config, self._record = config, record
        self._client: Any = None
        self._id = ""
        self._steps: set[int] = set()  # already in MLflow
        self._step = 0  # of the last row

    @staticmethod
    def place(logger: LoggerConfig) -> str:
        server = client(logger)
        within(_START_SECONDS, server, lambda: server.get_experiment_by_name(logger.project))
        return f"experiment {logger.project}"

    def is_complete(self) -> bool:
        self._client = client(self._config.logger)
        found: list[Any] = []
        within(
            _START_SECONDS,
            self._client,
            lambda: found.extend(self._find(experiment(self._client, self._config.logger))),
        )
        state = self._record.status()["state"]
        return any(run.info.status == _STATUS.get(state) != "KILLED" for run in found)

    def start(self) -> bool:
        self._client = client(self._config.logger)
        within(_START_SECONDS, self._client, self._start)
        self._record.write("mlflow.json", {"id": self._id, "complete": False})
        return True

    def _find(self, experiment_id: str) -> list[Any]:
        return self._client.search_runs([experiment_id], f"tags.run_id = '{self._record.run_id}'", max_results=1)

    def _start(self) -> None:
        from mlflow.entities import Param, RunTag

        experiment_id = experiment(self._client, self._config.logger)
        name, tags = tracked.named(self._config, self._record), tracked.facts(self._config, self._record)
        if name.noted:
            tags["mlflow.note.content"] = name.noted
        if found := self._find(experiment_id):
            [run] = found
            self._steps = {metric.step for metric in self._client.get_metric_history(run.info.run_id, "epoch")}
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            started = self._record.status().get("started", time.time())
            run = self._client.create_run(
                experiment_id,
                start_time=int(1000 * started),
                tags=tags,
                run_name=tracked.title(self._config, name),
            )
        self._id = run.info.run_id
        values = {key: shown(value) for key, value in tracked.public_config(self._config).items()}
        params = [  # never one twice: MLflow refuses a changed value, such as another machine's data.num_workers
            Param(key, value if len(value) <= _LONGEST_PARAM else f"{value[: _LONGEST_PARAM - 3]}...")
            for key, value in values.items()
            if key not in run.data.params
        ]
        for first in range(0, len(params), _BATCH):
            self._client.log_batch(self._id, params=params[first : first + _BATCH])
        self._client.log_batch(self._id, tags=[RunTag(key, value) for key, value in tags.items()])

    def row(self, row: dict[str, Any]) -> None:
        step = row["step"]
        self._step = max(self._step, step)
        if step not in self._steps:
            values = {name: value for name, value in row.items() if value != "" and name not in ("step", "epoch")}
            values["epoch"] = row["epoch"]  # last, since it marks that MLflow has the step
            within(_ROW_SECONDS, self._client, lambda: self._numbers(values, step))
            self._steps.add(step)

    def _numbers(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._id, [Metric(name, float(value), now, step) for name, value in values.items()])

    def finish(self) -> None:
        state = self._record.status()["state"]
        within(tracked.seconds_to_end(state), self._client, lambda: self._finish(state))
        self._record.write("mlflow.json", {"id": self._id, "complete": state == DONE})

    def _finish(self, state: str) -> None:
        if state == DONE:
            known = self._client.get_run(self._id).data.metrics
            final = tracked.final_numbers(self._record.result())
            self._numbers({name: value for name, value in final.items() if name not in known}, self._step)
            self._artifacts()
        ended = self._record.status().get("ended", time.time())
        self._client.set_terminated(self._id, _STATUS.get(state, "FAILED"), int(1000 * ended))

    def _artifacts(self) -> None:
        if (picture := tracked.kernels(self._record)) is not None:
            self._client.log_image(self._id, picture, "conv1.png")
        if (found := tracked.predictions(self._config, self._record)) is not None:
            if (picture := tracked.confusion(found)) is not None:
                self._client.log_image(self._id, picture, "confusion.png")
            table = io.StringIO()
            csv.writer(table).writerows([tracked.PREDICTION_COLUMNS, *found.table])
            self._client.log_text(self._id, table.getvalue(), "predictions.csv")


def client(logger: LoggerConfig) -> Any:
    """An MLflow client, which is independent of the global state of `mlflow.start_run` and the like."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "urllib3"):  # errors are raised as well
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(logger.tracking_uri)


def experiment(client: Any, logger: LoggerConfig) -> str:
    """The id of the experiment `logger.project`, which is created if it does not exist."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(logger.project)) is not None:
        return found.experiment_id
    try:
        return client.create_experiment(logger.project)
    except MlflowException:
        if (found := client.get_experiment_by_name(logger.project)) is None:  # else another run was faster
            raise
        return found.experiment_id


def within(seconds: float, client: Any, action: Callable[[], Any]) -> None:
    """Like `tracked.within`, but raise a connection error without what MLflow, requests and urllib3 add to it."""
    try:
        tracked.within(seconds, action)
    except Exception as error:
        inner: BaseException = error
        while (cause := inner.__cause__ or inner.__context__) is not None:
            inner = cause
        if isinstance(inner, OSError):
            raise ConnectionError(f"{client.tracking_uri}: {inner}") from error
        raise
