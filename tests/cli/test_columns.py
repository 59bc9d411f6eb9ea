"""Every table of the commands at 80 and 120 columns: no word is broken, and no line is longer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from alexlab.cli import dry_run, evaluate, forecast
from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.cli.runs import main as runs_main
from alexlab.cli.study_report import print_claims
from alexlab.cli.tables import print_table, read_rows
from alexlab.console import Console
from alexlab.runs.record import FAILED, PREEMPTED
from alexlab.study.judge import judge
from alexlab.study.records import read_archive
from alexlab.sweep.plan import make_plan, write_sweep
from alexlab.sweep.study_plan import document
from support.settings import composer
from support.studies import made_study
from support.sweeps import fill, printed

WIDTHS = (80, 120)
LONG = [  # names and values as long as they come
    "ablation=no_conv3_conv4_fc6_fc7,cross_talk_conv4",
    "model.init_stds=[conv1:0.01,conv2:0.02,fc6:0.005],[]",
    "data.train_images=1300",
    "augment.inclusive_offsets=true",
    "optim.weight_decay=0.00012345",
]
LINES = {
    "two factors": ["model.lrn=true,false", "pool.overlap=true,false"],
    "two factors, seeds": ["model.lrn=true,false", "pool.overlap=true,false", "seed=0,1"],
    "seeds": ["seed=0,1,2"],
    "one run": ["model.dropout=0.25"],
    "long": LONG,
    "long, seeds": [*LONG, "seed=0,1"],
    "factors that do not fit side by side": [
        *("trainer.limit_train_batches=1.0,0.5", "augment.inclusive_offsets=true,false", "model.activation=relu,tanh"),
        *("model.lrn_per_tower=true", "optim.weight_decay=0.00012345,0.00054321", "model.init_last_std=0.0123,null"),
    ],
}


def check(show: Callable[[Console], object]) -> str:
    """Every word that is printed is one of those printed where there is room; lines that are one path may be longer."""
    words = {*re.findall(r"[^\W_]+", printed(show, 5000)), "what", "varied"}  # a heading of factors that share a column
    text = ""
    for width in WIDTHS:
        text = printed(show, width)
        for line in text.splitlines():
            assert len(line.rstrip()) <= width or re.fullmatch(r"\S+", line.strip()), line
        said = re.sub(r"Left out at \d+ columns: [^.]*\.", "", " ".join(text.split()))
        broken = {*re.findall(r"[^\W_]+", said)} - words
        assert not broken
        assert "…" not in text
    return text


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_command_of_training(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its plan, its table after Ctrl-C with a failure, and its table in the end."""
    monkeypatch.setattr(forecast, "forecast", lambda configs: [((3.7e6,) * 3, 10**9)] * len(configs))
    plan = make_plan([*line, f"paths.runs={tmp_path}"], len(line) > 1 or "," in line[0], composer=composer())
    number = len(plan.runs)
    text = check(lambda console: dry_run.print_forecast(dry_run.make_forecast(plan, None), console))
    assert "42 d 19 h" in text
    fill(plan, {place: 0.1 + 0.7 * place / number for place in range(number)}, seconds=4321.0)
    rows = read_rows(plan)
    text = check(lambda console: print_table(plan, rows, console))
    assert "1 h 12 min" in text
    assert all(run.run_id in text for run in plan.runs)
    plan.runs[-1].record.set_status(PREEMPTED, message="stopped")
    if number > 2:
        plan.runs[1].record.set_status(
            FAILED, failure="out of memory on the device", message="too much of " + "it " * 50
        )
    rows = read_rows(plan)
    text = check(lambda console: print_table(plan, rows, console))
    assert "PREEMPTED" in text
    assert number <= 2 or "out of memory" in " ".join(text.split())


def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """list, show, and compare of runs and of sweeps."""
    monkeypatch.chdir(tmp_path)
    plans = [
        make_plan([*LONG, f"trainer.max_epochs={epochs}", "seed=0,1", "paths.runs=runs"], True, composer=composer())
        for epochs in (3, 4)
    ]
    for plan in plans:
        fill(plan, {place: 0.1 + 0.01 * place for place in range(len(plan.runs))}, failed=3)
        write_sweep(plan, tmp_path / "runs" / "sweeps")
    ids = [plan.runs[0].run_id for plan in plans]
    for words in (["list"], ["show", ids[0]], ["compare", *ids], ["compare", *(plan.sweep_id for plan in plans)]):

        def show(console: Console, words: list[str] = words) -> None:
            monkeypatch.setenv("COLUMNS", str(console.width))
            assert runs_main([*words, "paths.runs=runs"]) == 0
            console.file.write(capsys.readouterr().out)

        text = check(show)
        assert ids[0] in text or plans[0].sweep_id in text


def test_an_ensemble():
    labels = {"protocol": "paper", "recipe": "demo", "model": "alexnet", "ablation": "none", "arm": "0123456789ab"}
    labels["ablation"] = "model.init_stds=[conv1:0.01, conv2:0.02] data.train_images=1300 trainer.max_epochs=2"
    errors = {view: {"top1_error": 1.0, "top5_error": 0.5} for view in ("ten", "center")}
    member = {"labels": labels, "seed": 0, "data_seed": 10, "test": errors}
    other = {**member, "labels": {**labels, "protocol": "source2012", "ablation": "no_conv3_conv4_fc6_fc7"}}
    result = {"members": {"a" * 12: member, "b" * 12: other}, "mean": errors, "average_id": "c" * 12}
    result["test"] = {**errors, "images": 150_000}
    columns = evaluate._ensemble_columns(result, ["a" * 12, "b" * 12])
    text = check(lambda console: print_columns("Error", columns, console, rules=[2]))
    assert "no_conv3_" in text


def test_a_reports_claims(tmp_path: Path):
    study = made_study(tmp_path, ["study=pooling", "recipe=demo", "study.seeds=2"])
    judgement = judge([document(study)], read_archive([tmp_path]))
    check(lambda console: print_claims(judgement, console))


def test_what_does_not_fit_is_left_out_by_rank_and_named():
    columns = [Column("first", cells=["abc"]), Column("second", rank=2, cells=["d" * 10])]
    columns += [Column("third", rank=1, cells=["e" * 10])]
    text = printed(lambda console: print_columns("Title", columns, console, hint="there"), 20)
    assert "d" * 10 not in text
    assert "e" * 10 in text
    assert "Left out at 20\ncolumns: second;\nthere." in text


def test_factors_that_do_not_fit_side_by_side_share_a_column():
    columns = factor_columns([f"factor{number}" for number in range(5)])
    for column in columns:
        column.cells.append("value")
    text = printed(lambda console: print_columns("Title", [*columns, Column("run id", cells=["f" * 12])], console), 40)
    assert "what varied" in text
    assert all(f"factor{number}=value" in text for number in range(5))


def test_a_name_longer_than_the_line_is_cut_and_not_lost():
    columns = [Column("weights", wraps=True, cells=["x" * 100]), Column("top-1", cells=["10.0"])]
    text = printed(lambda console: print_columns("Title", columns, console), 40)
    assert text.count("x") == 100
    assert max(map(len, text.splitlines())) <= 40


def test_the_sweeps_file_has_the_factors(tmp_path: Path):
    plan = make_plan(["model.remove=[],[fc6,fc7]", "seed=0,1", f"paths.runs={tmp_path}"], multirun=True)
    fill(plan, dict.fromkeys(range(4), 0.1))
    found = json.loads(write_sweep(plan, tmp_path / "sweeps").read_text())
    assert found["factors"] == ["model.remove"]
    assert [run["values"] for run in found["runs"]] == [
        {"model.remove": one} for one in ("[]", "[]", *["[fc6, fc7]"] * 2)
    ]
