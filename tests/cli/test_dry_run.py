"""`--dry-run` counts and times the runs that the command without it would start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alexlab.cli import forecast
from alexlab.cli.train import main
from alexlab.sweep.plan import PlannedRun, make_plan
from support.settings import composer

HOUR = 3600.0


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Each run takes an hour; whether LRN is on in the arms that are timed."""
    arms: list[bool] = []

    def measured(configs: list) -> list:
        arms.extend(config.model.lrn for config in configs)
        return [((HOUR,) * 3, 1)] * len(configs)

    monkeypatch.setattr(forecast, "forecast", measured)
    monkeypatch.setenv("COLUMNS", "200")
    return arms


def settle(run: PlannedRun, state: str, **more: str) -> None:
    """Write a record without results, which says nothing about this machine's speed."""
    run.record.path.mkdir(parents=True)
    run.record.set_status(state, **more)


@pytest.mark.parametrize(("retry", "to_do"), [("faults", 2), ("all", 3), ("none", 1)])
def test_runs_that_are_not_started_are_not_counted(
    retry: str, to_do: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """One is done, one diverged, one was killed, and one has no record."""
    line = ["-m", "seed=0,1,2,3", f"retry={retry}", "max_hours=9", f"paths.runs={tmp_path}"]
    done, diverged, killed, _ = make_plan(line[1:], multirun=True, composer=composer()).runs
    settle(done, "DONE")
    settle(diverged, "FAILED", failure="diverged")
    settle(killed, "FAILED", failure="killed")
    assert main([*line, "--dry-run"]) == 0
    output = capsys.readouterr().out
    before = f", {3 - to_do} failed before" if to_do < 3 else ""
    assert f"4 runs: 1 done{before}, {to_do} to do. About {to_do} h on this machine" in output
    assert f"about {to_do} of these {to_do} end in that time" in output
    assert main([*line, "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    total = document["total"]
    assert (total["runs"], total["done"], total["to_do"], total["seconds"]) == (4, 1, to_do, to_do * HOUR)
    assert sum(run["seconds"] for run in document["runs"]) == to_do * HOUR


def test_arms_without_a_run_to_do_are_not_timed(tmp_path: Path, timed: list[bool]):
    line = ["-m", "model.lrn=true,false", f"paths.runs={tmp_path}"]
    with_lrn, without = make_plan(line[1:], multirun=True, composer=composer()).runs
    settle(with_lrn, "FAILED", failure="does not learn")
    assert main([*line, "--dry-run"]) == 0
    assert timed == [False]
    settle(without, "DONE")
    assert main([*line, "--dry-run"]) == 0
    assert timed == [False]


def test_a_budget_pays_for_arms_that_were_done_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Their time on this machine is unknown, although none of their runs is to do."""
    line = ["study=lrn", "study.assumed_sd=0.1", f"paths.runs={tmp_path}"]
    plan = make_plan(line, composer=composer())
    for run in plan.runs:
        if run.arm == plan.runs[0].arm:
            settle(run, "DONE")
    assert main([*line, "study.budget=40h", "--dry-run"]) == 0
    assert "40 hours settle" in capsys.readouterr().out
