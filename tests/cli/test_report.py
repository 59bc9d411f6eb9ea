"""`python src/report.py`: what it writes, what it prints, and what is refused."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import pytest

from alexlab.cli.report import main
from alexlab.cli.study_report import print_claims
from alexlab.console import Console
from alexlab.report.write import claims_table
from alexlab.study.judge import judge
from alexlab.study.plans import read_looks
from alexlab.study.records import read_archive
from support.studies import made_study

LINE = ["study=lrn", "study.base_seeds=15"]
FILES = [
    *(
        "claims.csv",
        "claims.tex",
        "classes.png",
        "classes.svg",
        "confusion.png",
        "confusion.svg",
        "cost.png",
        "cost.svg",
        "curves.png",
        "curves.svg",
        "figure_3_base.png",
        "figure_3_base.svg",
    ),
    *("forest.png", "forest.svg", "report.html", "report.md", "runs.png", "runs.svg"),
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    made_study(folder, LINE, {"none": 0.3, "no_lrn": 0.35}, missing={"lrn_scale_only": 1}, failed={"no_lrn": 1})
    return folder


def study_id(records: Path) -> str:
    [path] = (records / "studies").glob("*.json")
    return path.stem


def test_every_study_that_was_begun_is_written(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    before = {path: path.stat().st_mtime_ns for path in records.rglob("*")}
    assert main([f"runs={records}", f"out={tmp_path}"]) == 0
    out = tmp_path / study_id(records)
    assert sorted(path.name for path in out.iterdir()) == FILES
    printed = capsys.readouterr().out
    said = " ".join(printed.split())
    assert "1 of 25 planned runs is missing, and verdicts wait for it. This command runs it." in said
    assert "or are not of the net: paths.runs. python src/train.py study=lrn study.base_seeds=15 " in said
    assert "\npython src/train.py study=lrn study.base_seeds=15\n" in printed
    assert "A rehearsal. At recipe demo no claim gets a verdict." in said
    assert "4+1!" in printed
    assert str(out / "report.html") in printed
    assert {path: path.stat().st_mtime_ns for path in records.rglob("*")} == before  # records are read and nothing else


def test_the_same_records_give_the_same_bytes(records: Path, tmp_path: Path):
    for name in ("one", "other"):
        assert main([f"runs={records}", f"out={tmp_path / name}"]) == 0
    for name in FILES:
        one, other = (tmp_path / folder / study_id(records) / name for folder in ("one", "other"))
        assert one.read_bytes() == other.read_bytes(), name


def test_the_table_has_what_was_judged(records: Path, tmp_path: Path):
    assert main([f"runs={records}", f"out={tmp_path}"]) == 0
    [path] = (records / "studies").glob("*.json")
    judgement = judge(read_looks(path), read_archive([records]))
    rows = list(csv.DictReader(io.StringIO((tmp_path / study_id(records) / "claims.csv").read_text())))
    assert [row["claim"] for row in rows] == ["paper/lrn", "paper/lrn_beyond_scale"]
    effect = judgement.rows[0].effect
    assert effect is not None
    assert float(rows[0]["measured"]) == pytest.approx(100 * effect.difference)
    assert float(rows[0]["study_half"]) == pytest.approx(100 * effect.study)
    assert (rows[0]["published"], rows[0]["unit"]) == ("-1.4", "points")
    assert (rows[0]["runs_arm"], rows[0]["runs_against"], rows[0]["failed_against"]) == ("15", "4", "1")
    assert rows[0]["verdict"] == ""
    assert [fact["claim"] for fact in claims_table(judgement)] == [row["claim"] for row in rows]


def test_a_study_that_was_not_begun_is_composed_and_its_finished_runs_count(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "runs"
    shutil.copytree(records, copy, ignore=shutil.ignore_patterns("studies"))
    assert main([*LINE, f"runs={copy}", f"out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "This study was not started by study=" in printed
    assert "23 of 25 planned runs are finished; 1 failed permanently." in printed


def test_a_study_is_chosen_by_what_it_was_begun_with(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["study=lrn", "recipe=demo", f"runs={records}", f"out={tmp_path}"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [study_id(records)]
    assert "not started" not in capsys.readouterr().out


def test_other_seeds_than_it_was_begun_with_are_refused(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*LINE, "study.seeds=+1", f"runs={records}", f"out={tmp_path}"]) == 2
    assert capsys.readouterr().err == (
        "error: study=lrn study.base_seeds=15 study.seeds=+1: this study was started with other claims or seeds; leave "
        "out what changes them, or run it first\n"
    )
    assert not list(tmp_path.iterdir())


def test_ones_own_rates_are_a_row_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = ["study=lrn", "study.claims=[paper/lrn]", "study.seeds=3", "study.base_seeds=3", "study.rates=[1]"]
    for rate in ("protocol", "choose", "own"):
        made_study(tmp_path / "runs", [*line, f"study.rate={rate}"])
    assert main([f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}"]) == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(found) == 2  # the study with both rows, and the runs that chose the rates
    [both] = [name for name in found if "choose" not in name]
    [row] = csv.DictReader(io.StringIO((tmp_path / "out" / both / "claims.csv").read_text()))
    assert row["own_rate_measured"] == row["measured"]  # the only rate was the best one
    assert "own learning rate" in (tmp_path / "out" / both / "report.html").read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["study=lrm"], "study=lrm: there is no study 'lrm'; did you mean 'lrn'?"),
        (["recipe=dmo"], "recipe=dmo: there is no recipe 'dmo'; did you mean 'demo'?"),
        (["stduy=lrn"], "stduy=lrn: there is no key 'stduy'; did you mean 'study'?"),
        (["runs=[,]"], "runs=[,]: a folder is empty"),
        (["runs=/nowhere"], "runs=/nowhere: no such folder"),
        (["study=lrn", "study=paper"], "study=lrn study=paper: study is given twice; remove one"),
        (["runs=a", "runs=b"], "runs=a runs=b: runs is given twice; remove one"),
        (["--wanb"], "--wanb: there is no such flag here"),
    ],
)
def test_a_mistake_is_one_line(
    line: list[str], said: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = line if any(one.startswith("runs=") for one in line) else [*line, f"runs={records}"]
    assert main([*given, f"out={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {said}")
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_has_every_run_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "runs").mkdir()
    assert main([*LINE, f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}"]) == 0
    assert "Interim. 25 of 25 planned runs are missing" in capsys.readouterr().out
    [page] = (tmp_path / "out").glob("*/report.html")
    assert not re.search(r"\b(nan|inf)\b", page.read_text(), re.IGNORECASE)


def test_pictures_without_weights(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([f"runs={records}", f"out={tmp_path}", "--pictures"]) == 2
    assert "--pictures: no run has its weights here" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_left_out_records_are_told_in_the_terminal(records: Path, tmp_path: Path):
    copy = tmp_path / "runs"
    shutil.copytree(records, copy)
    broken = sorted(copy.glob("*/result.json"))
    for path in broken[:7]:
        path.write_text("{")
    [plan] = (copy / "studies").glob("*.json")
    console = Console(file=io.StringIO(), width=200)
    print_claims(judge(read_looks(plan), read_archive([copy])), console)
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert printed.count("is corrupt") == 5
    assert "... and 2 more; report.md lists them" in printed
