"""How long runs take: by finished records of the same arm on such a machine, and how that is worded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from alexlab import threads
from alexlab.cli import forecast
from alexlab.cli.forecast import Cost, past_costs, source, span
from alexlab.runs.environment import cpu_model
from alexlab.runs.record import RECORD_VERSION
from alexlab.study.records import finished_runs


def write_record(runs: Path, number: int, arm: str, seconds: float, **environment: object) -> None:
    record = runs / f"{number:012x}"
    record.mkdir(parents=True)
    status = {"run_id": record.name, "version": RECORD_VERSION, "state": "DONE", "attempt": 1, "labels": {"arm": arm}}
    here = {"cpu": cpu_model(), "cpus": threads.cores(), "devices": 1, **environment}
    for name, content in (("status", status), ("result", {"seconds": seconds}), ("environment", here)):
        (record / f"{name}.json").write_text(json.dumps(content))


def test_finished_runs_of_the_arm_on_such_a_machine_say_it(tmp_path: Path):
    for number, seconds in enumerate((110.0, 100.0, 130.0)):
        write_record(tmp_path, number, "a", seconds)
    write_record(tmp_path, 3, "b", 7.0)
    write_record(tmp_path, 4, "a", 1.0, cpu="another")
    write_record(tmp_path, 5, "a", 1.0, devices=2)
    (tmp_path / f"{6:012x}").mkdir()
    (tmp_path / f"{6:012x}" / "status.json").write_text("{")
    found = past_costs(finished_runs(tmp_path), {"a": 1, "c": 1})
    assert found.keys() == {"a"}
    assert (found["a"].low, found["a"].high, found["a"].runs) == (100.0, 130.0, 3)
    assert past_costs(finished_runs(tmp_path / "none"), {"a": 1}) == {}


def test_wording():
    assert span(2400, 4200) == "40 min to 1 h 10 min"
    assert span(6600, 6700) == "1 h 50 min"
    assert source([Cost(1, 2, 3, runs=3)]) == "3 finished runs"
    assert source([Cost(1, 2, 3, runs=1), Cost(1, 2, 3)]) == "1 finished run and some timed steps (loading not counted)"


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (3.14, 0.0, 0.0))
    assert forecast.load_note() == "; the machine is busy: load 3.1 on 2 cores"
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 9.0, 9.0))
    assert forecast.load_note() == ""
