"""How long runs take: by finished records of the same arm on such a machine, and how that is worded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from alexlab import threads
from alexlab.cli import forecast
from alexlab.cli.forecast import Cost, past_costs, source, total_shown, with_spread
from alexlab.runs.device import Device
from alexlab.runs.environment import cpu_model
from alexlab.runs.record import RECORD_VERSION
from alexlab.study.records import finished_runs
from alexlab.sweep.plan import make_plan
from support.settings import composer

CPU = Device("CPU, 2 threads", "cpu")
A100 = Device("NVIDIA A100, driver 580.65, CUDA 13.0", "NVIDIA A100")


def write_record(runs: Path, number: int, arm: str, seconds: float, device: str = "cpu", **environment: object) -> None:
    record = runs / f"{number:012x}"
    record.mkdir(parents=True)
    status = {"run_id": record.name, "version": RECORD_VERSION, "state": "DONE", "attempt": 1, "labels": {"arm": arm}}
    here = {"cpu": cpu_model(), "cpus": threads.cores(), "devices": 1, **environment}
    for name, content in (
        ("status", status),
        ("result", {"seconds": seconds, "device": device}),
        ("environment", here),
    ):
        (record / f"{name}.json").write_text(json.dumps(content))


def test_finished_runs_of_the_arm_on_such_a_machine_say_it(tmp_path: Path):
    for number, seconds in enumerate((110.0, 100.0, 130.0)):
        write_record(tmp_path, number, "a", seconds)
    write_record(tmp_path, 3, "b", 7.0)
    write_record(tmp_path, 4, "a", 1.0, cpu="another")
    write_record(tmp_path, 5, "a", 1.0, devices=2)
    (tmp_path / f"{6:012x}").mkdir()
    (tmp_path / f"{6:012x}" / "status.json").write_text("{")
    found = past_costs(finished_runs(tmp_path), {"a": 1, "c": 1}, CPU)
    assert found.keys() == {"a"}
    assert (found["a"].seconds, found["a"].low, found["a"].high, found["a"].runs) == (110.0, 100.0, 130.0, 3)
    assert past_costs(finished_runs(tmp_path / "none"), {"a": 1}, CPU) == {}


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (CPU, [1000.0]),
        (A100, [10.0, 12.0]),
        (Device("NVIDIA T4, CUDA 13.0", "NVIDIA T4"), []),
        (None, [10.0, 12.0, 1000.0]),
    ],
)
def test_runs_on_another_device_of_the_same_machine_say_nothing(
    tmp_path: Path, device: Device | None, expected: list[float]
):
    """A run that is sent to a GPU has the same id and arm on the CPU; where the device is unknown, all runs count."""
    for number, (seconds, name) in enumerate([(10.0, "NVIDIA A100"), (12.0, "NVIDIA A100"), (1000.0, "cpu")]):
        write_record(tmp_path, number, "a", seconds, name)
    costs = past_costs(finished_runs(tmp_path), {"a": 1}, device)
    assert [(cost.low, cost.high, cost.runs) for cost in costs.values()] == (
        [(expected[0], expected[-1], len(expected))] if expected else []
    )


def test_wording():
    assert with_spread(Cost(3000, 2400, 4200, 1)) == "50 min (40 min to 1 h 10 min)"
    assert with_spread(Cost(6600, 6590, 6700, 1)) == "1 h 50 min"
    finished, timed = Cost(1, 1, 2, 3, runs=1), Cost(1, 1, 2, 3)
    assert source([finished, finished]) == "2 finished runs"
    assert source([finished, timed]) == "1 finished run and some timed steps (loading not counted)"


def test_the_total_is_of_runs_one_after_another():
    """Twice one arm and once another: 2 x 100 + 3600 s, of which the former were finished before."""
    plan = make_plan(["model.lrn=true,false", "seed=0,1"], multirun=True, composer=composer())
    first, again, other, _ = plan.runs
    assert first.arm == again.arm != other.arm
    costs = {first.arm: Cost(100, 90, 140, 10**8, runs=5), other.arm: Cost(3600, 1800, 7200, 10**9)}
    shown = total_shown([first, again, other], costs, "load 0.1 on 2 cores")
    assert shown == (
        "About 1 h 3 min (33 min to 2 h 4 min) on this machine, one after another, from 5 finished runs and some timed "
        "steps (loading not counted), and 1.2 GB of records and checkpoints; load 0.1 on 2 cores."
    )
    assert "load" not in total_shown([first], costs, "load 0.1 on 2 cores")  # it says nothing about runs of last week


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (3.14, 0.0, 0.0))
    assert forecast.load_note() == "the machine is busy: load 3.1 on 2 cores"
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 9.0, 9.0))
    assert forecast.load_note() == "load 0.5 on 2 cores"
