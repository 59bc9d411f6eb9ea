"""The question before a large sweep starts."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from alexlab.cli import confirm, forecast, train
from alexlab.cli.confirm import may_start
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.sweep.plan import Plan, make_plan
from support.settings import composer

MANY = 3  # instead of 100, which take seconds to plan


class Input(io.StringIO):
    """What is typed, on a terminal or not."""

    def __init__(self, text: str, is_terminal: bool) -> None:
        super().__init__(text)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each run takes an hour and a gigabyte; how many arms are timed, each time that some are."""
    calls: list[int] = []

    def measured(configs: list) -> list:
        calls.append(len(configs))
        return [((3600.0,) * 3, 10**9)] * len(configs)

    monkeypatch.setattr(forecast, "forecast", measured)
    monkeypatch.setattr(confirm, "MANY_RUNS", MANY)
    return calls


def planned(tmp_path: Path, number: int, *more: str) -> Plan:
    seeds = "seed=" + ",".join(map(str, range(number)))
    return make_plan([seeds, f"paths.runs={tmp_path / 'runs'}", *more], multirun=True, composer=composer())


@pytest.mark.parametrize(("answer", "starts"), [("y", True), ("YES", True), ("n", False), ("", False), ("\n", False)])
def test_it_asks_with_the_hours_and_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, starts: bool
):
    monkeypatch.setattr(sys, "stdin", Input(answer, True))
    assert may_start(planned(tmp_path, MANY + 1), None, False, Console(width=500)) is starts
    output = capsys.readouterr().out
    assert "4 runs to do. About 4 h on this machine" in output
    assert "4.0 GB of records" in output
    assert output.rstrip().endswith("Start 4 runs (about 4 h)? [y/N]")
    assert not (tmp_path / "runs").exists()


def test_without_a_terminal_it_refuses_and_times_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: list[int]
):
    monkeypatch.setattr(sys, "stdin", Input("y", False))
    with pytest.raises(UserError) as error:
        may_start(planned(tmp_path, MANY + 1), None, False, Console())
    assert str(error.value) == "4 runs to do: more than 3 need confirmation, but stdin is not a terminal; pass --yes"
    assert not timed


@pytest.mark.parametrize(
    ("number", "more", "is_sure"),
    [(MANY, [], False), (MANY + 1, [], True), (MANY + 1, ["trainer.fast_dev_run=true"], False)],
)
def test_it_does_not_ask_about_few_runs_nor_twice_nor_in_a_try_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, more: list[str], is_sure: bool
):
    monkeypatch.setattr(sys, "stdin", Input("", False))
    assert may_start(planned(tmp_path, number, *more), None, is_sure, Console())


def test_it_does_not_ask_about_the_rest_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = planned(tmp_path, MANY + 1)
    plan.runs[0].record.path.mkdir(parents=True)
    plan.runs[0].record.set_status("DONE")
    monkeypatch.setattr(sys, "stdin", Input("", False))
    assert may_start(plan, None, False, Console())


def test_it_does_not_ask_about_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its file names the arms, and the command has printed the number of runs."""
    plan = make_plan(["study=lrn", f"paths.runs={tmp_path}"], composer=composer())
    assert len(plan.runs) > MANY
    monkeypatch.setattr(sys, "stdin", Input("", False))
    assert may_start(plan, None, False, Console())


def test_a_command_that_is_refused_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(confirm, "MANY_RUNS", 1)
    line = ["-m", "seed=0,1", "trainer.accelerator=cpu", f"paths.runs={tmp_path / 'runs'}"]
    monkeypatch.setattr(sys, "stdin", Input("", False))
    assert train.main(line) == 2
    [error] = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: 2 runs to do: more than 1 need confirmation")
    monkeypatch.setattr(sys, "stdin", Input("n\n", True))
    assert train.main(line) == 0
    assert capsys.readouterr().out.rstrip().endswith("Nothing was started.")
    assert train.main([*line, "--dry-run"]) == 0
    assert not (tmp_path / "runs").exists()
