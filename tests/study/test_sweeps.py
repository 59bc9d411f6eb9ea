"""A sweep as data: which one is meant, and its tidy table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import alexlab
from alexlab.cli.runs import main
from alexlab.errors import UserError
from alexlab.study.sweeps import find_sweep, read_sweep
from alexlab.sweep.plan import Plan, make_plan, write_sweep
from support.settings import composer
from support.sweeps import fill

ERRORS = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.35, 4: 0.5, 5: 0.6}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two values of a list and three of a number that may be null, one seed; the last run diverged."""
    line = ["model.remove=[],[fc6,fc7]", "model.init_last_std=null,0.01,0.02", f"paths.runs={tmp_path}"]
    made = make_plan(line, True, composer=composer())
    fill(made, ERRORS, failed=5)
    write_sweep(made, tmp_path / "sweeps")
    return made


def test_one_column_a_factor(plan: Plan, tmp_path: Path):
    table = alexlab.load_sweep("last", tmp_path)
    assert [*table.columns[:6]] == ["run_id", "state", "failure", "model.remove", "model.init_last_std", "seed"]
    assert [*table["run_id"]] == [run.run_id for run in plan.runs]
    assert [*table["model.remove"]] == ["[]"] * 3 + ["[fc6, fc7]"] * 3
    assert [*table["model.init_last_std"]] == ["null", "0.01", "0.02"] * 2
    assert table["state"].iloc[5] == "FAILED"
    assert table["failure"].iloc[5] == "diverged"
    assert np.isnan(table["test.ten.top1_error"].iloc[5])
    means = table.groupby("model.remove")["test.ten.top1_error"].agg(["mean"])["mean"]
    assert dict(means) == pytest.approx({"[]": 0.2, "[fc6, fc7]": 0.425})  # the second of two
    assert [*table.groupby("model.init_last_std").size()] == [2, 2, 2]


def test_truth_values_and_numbers_stay_what_they_are(tmp_path: Path):
    made = make_plan(
        ["model.lrn=true,false", "optim.lr=0.01,0.005", f"paths.runs={tmp_path}"], True, composer=composer()
    )
    fill(made, ERRORS)
    write_sweep(made, tmp_path / "sweeps")
    table = alexlab.load_sweep("last", tmp_path)
    assert table["model.lrn"].dtype == bool
    assert [*table["optim.lr"]] == [0.01, 0.005, 0.01, 0.005]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_export(ending: str, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"out.{ending}"
    assert main(["export", "sweep=last", str(out), f"paths.runs={tmp_path}"]) == 0
    assert f"6 runs in {out}" in capsys.readouterr().out
    read = pd.read_csv(out, keep_default_na=False) if ending == "csv" else pd.read_parquet(out)
    assert [*read["run_id"]] == [run.run_id for run in plan.runs]
    assert [*read["model.init_last_std"]] == ["null", "0.01", "0.02"] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["export", "out.csv"], "export: needs a sweep; such as export sweep=last OUT.csv"),
        (["export", "sweep=last"], "export: takes one file to write, not 0; such as export sweep=last OUT.csv"),
        (["export", "sweep=last", "out.xlsx"], "export: out.xlsx is neither .csv nor .parquet"),
        (["export", "sweep=a", "sweep=b", "out.csv"], "sweep= is given twice"),
        (["export", "sweep=zzz", "out.csv"], "sweep=zzz: there is no such sweep in"),
    ],
)
def test_a_mistake_is_one_line(line: list[str], message: str, plan: Plan, tmp_path: Path, capsys):
    assert main([*line, f"paths.runs={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_which_sweep(plan: Plan, tmp_path: Path):
    first = tmp_path / "sweeps" / f"{plan.sweep_id}.json"
    other = first.with_name(f"{plan.sweep_id[:4]}00000000.json")
    other.write_text(first.read_text())
    os.utime(other, (1e9, 1e9))
    first.with_name(f"._{first.name}").touch()  # of a Mac, and the newest
    assert find_sweep("last", tmp_path) == first
    assert find_sweep(plan.sweep_id[:6], tmp_path) == first
    assert find_sweep(str(other), Path("elsewhere")) == other
    with pytest.raises(UserError, match="write more digits"):
        find_sweep(plan.sweep_id[:4], tmp_path)
    with pytest.raises(UserError, match="there is no sweep in"):
        find_sweep("last", tmp_path / "empty")


def test_a_sweeps_file_of_others(plan: Plan, tmp_path: Path):
    """It is read by its types, and no run id in it leads out of the folder."""
    path = tmp_path / "sweeps" / f"{plan.sweep_id}.json"
    document = json.loads(path.read_text())
    first = document["runs"][0]
    for changes, message in (
        (
            {"runs": [{**first, "run_id": f"../../{first['run_id']}"}]},
            r"run_id is '../../\w+', must be the id of a run",
        ),
        ({"runs": [{**first, "run_id": ".."}]}, "must be the id of a run"),
        ({"runs": [{}]}, "a run has no run_id"),
        ({"runs": None}, "runs is None, must be a list"),
        ({"sweep_id": "../../../elsewhere"}, "must be the id of a sweep"),  # its report's folder is named after it
        ({"factors": 3}, "factors is 3, must be a list"),
    ):
        path.write_text(json.dumps({**document, **changes}))
        with pytest.raises(UserError, match=message):
            read_sweep("last", tmp_path)
    for missing, message in (("runs", "it has no runs"), ("factors", "re-run the sweep's command")):
        path.write_text(json.dumps({name: value for name, value in document.items() if name != missing}))
        with pytest.raises(UserError, match=message):
            read_sweep("last", tmp_path)


def test_a_number_of_many_digits_stays_text(plan: Plan, tmp_path: Path):
    path = tmp_path / "sweeps" / f"{plan.sweep_id}.json"
    document = json.loads(path.read_text())
    for run in document["runs"]:
        run["values"] = dict.fromkeys(document["factors"], "9" * 30)
    path.write_text(json.dumps(document))
    table = alexlab.load_sweep("last", tmp_path)
    assert {type(value) for value in table["model.init_last_std"]} <= {str, float, np.float64}  # no type of a table's


def test_what_a_mac_leaves_beside_a_sweep_is_none(plan: Plan, tmp_path: Path):
    (tmp_path / "sweeps" / f"._{plan.sweep_id}.json").write_bytes(b"\0\5\x16\7")
    assert find_sweep("last", tmp_path).stem == plan.sweep_id


def test_an_export_that_fails_leaves_the_old_file(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out.csv"
    out.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["export", "sweep=last", str(out), f"paths.runs={tmp_path}"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert out.read_text() == "old"
