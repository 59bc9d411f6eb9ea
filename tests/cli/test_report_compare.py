"""`alexlab report compare`: what is printed for a figure, and what is refused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from alexlab.cli.report import main
from alexlab.cli.report_compare import read_question, sentence
from alexlab.config import PROJECT_DIR
from alexlab.runs.bundle import pack
from alexlab.runs.identity import run_id
from alexlab.study.comparison import Figure, Placement
from support.settings import composer
from support.studies import made_study

DEMO = f"runs={PROJECT_DIR / 'results/demo/records.zip'}"


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")


def answer(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["compare", *line]) == 0
    return capsys.readouterr().out


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_sentence():
    """Eight runs of 41.05 %, of which one further gives 40.2 to 41.9 %."""
    found = sentence(Placement(Figure(0.435), 8, 0.4105, 0.0034, 8, 0.0085))
    assert found == (
        "43.5 % is 2.5 points above the mean of 8 runs (41.05 %, standard deviation 0.34), above what one further run "
        "of this recipe gives (95 %: 40.20 to 41.90 %; 8 runs): chance alone does not explain it. 8 of the 8 runs have "
        "less error (percentile 100)."
    )
    few = sentence(Placement(Figure(0.435), 2, 0.41, 0.001, 2, None))
    assert few == (
        "43.5 % is 2.5 points above the mean of 2 runs (41 %, standard deviation 0.1). The interval for one "
        "further run of this recipe needs 3 runs or more, better eight; there are 2."
    )


def test_a_figure_beside_the_kept_records(capsys: pytest.CaptureFixture[str]):
    """The expected numbers are those of NumPy and SciPy on the 20 errors of the kept base (results/demo)."""
    printed = answer(["top1=21.5", "top5=0.5", DEMO], capsys)
    assert "Compared with 20 finished runs of recipe=demo: ten views, 2,000 test images." in words(printed)
    assert "top-1: 21.5 % is 4.3 points above the mean of 20 runs (17.15 %, standard deviation 2.7)" in words(printed)
    assert "(95 %: 11.4 to 22.9 %; 20 runs): chance alone can explain it. 19 of the 20 runs" in words(printed)
    assert "6 of the 20 runs have less error, 1 the same (percentile 32)" in words(printed)
    assert "assumed to be from the same 2,000 images; if it is from N others, add images=N" in words(printed)
    assert "not ImageNet" in printed
    assert re.search(r"overlapping pooling +pool.overlap=false +\+5.3 ±\d\.\d 5/20 runs", printed)
    assert printed.index("overlapping pooling") < printed.index("NOT MEASURED") < printed.index("THE OTHER WAY")
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    assert len(printed.splitlines()) <= 50
    less = answer(["top1=12", "view=center", DEMO, "--like", "recipe=demo"], capsys)
    assert less.index("dropout") < less.index("NOT MEASURED") < less.index("overlapping pooling")
    assert "centre view  " not in less  # the view is given, so it cannot differ


def test_a_narrow_terminal_cuts_no_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    printed = answer(["top1=-0", DEMO], capsys)
    assert "top-1: 0 % is 17.2 points below" in words(printed)
    assert re.search(r"^  overlapping pooling +\+5.3 ±\d\.\d$", printed, re.M)
    assert "Left out at 40 columns: as an override, known from." in words(printed)
    assert "…" not in printed


def test_a_figure_without_runs_is_compared_with_the_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    line = ["top1=42.9", "--like", "recipe=imagenet2012", f"paths.runs={tmp_path}"]
    printed = answer(line, capsys)
    assert "No run of recipe=imagenet2012 is finished in these records; compared with the paper's table 2" in words(
        printed
    )
    assert "top-1: 42.9 % is 2.2 points above 40.7 %." in printed
    assert re.search(r"LRN +model.lrn=false +\+1.4 paper, 3.3", printed)
    assert re.search(r"LRN: alpha/n or alpha +model.lrn_alpha=2e-05 *\n", printed)
    assert len(printed.splitlines()) <= 53
    center = answer([*line, "view=center", "top5=20"], capsys)  # 1.5 and 1.3 points more by section 6
    assert "top-1: 42.9 % is 0.70 points above 42.2 %." in center
    assert "top-5: 20 % is 0.50 points above 19.5 %." in center
    assert "42.9/19.8 Caffe's AlexNet" in words(center)
    smaller = answer(["top1=50", "--like", "recipe=imagenet128", f"paths.runs={tmp_path}"], capsys)
    assert "the paper has no figure for it at this scale" in words(smaller)
    commands = re.findall(r"^python src/train.py -m (.*)$", as_scripts(printed + center + smaller), re.M)
    assert len(commands) == 6
    for command in commands:
        jobs, is_sweep = composer().expand(shlex.split(command), multirun=True)
        assert is_sweep
        composer().job(jobs[-1], stored=False)


def as_scripts(text: str) -> str:
    return text.replace("alexlab train", "python src/train.py")


def test_few_runs_and_lost_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made_study(
        tmp_path, ["study=lrn", "study.seeds=3", "study.base_seeds=4"], failed={"none": 1}, missing={"no_lrn": 1}
    )
    printed = words(answer(["top1=41", f"runs={tmp_path}"], capsys))
    assert "Compared with 3 finished runs of recipe=demo" in printed
    assert "1 more failed or are partly trained" in printed
    assert "It is wide because the runs are few." in printed
    two = words(answer(["top1=41", f"runs={tmp_path}", "--like", "recipe=demo", "model.lrn=false"], capsys))
    assert "needs 3 runs or more, better eight; there are 2." in two
    assert "The interval (Student" not in two


def test_a_record_that_is_left_out_is_named_by_its_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = made_study(tmp_path / "runs", ["study=lrn", "study.seeds=3", "study.base_seeds=4"])
    ids = [run_id(job.config) for arm in study.arms if arm.name == "none" for _, job in arm.jobs()]
    (tmp_path / "runs" / ids[0] / "predictions.npz").write_bytes(b"")
    pack(tmp_path / "a.zip", tmp_path / "runs", ids)
    printed = "".join(answer(["top1=41", f"runs={tmp_path / 'a.zip'}"], capsys).split())
    assert f"Leftout:{ids[0]}:{tmp_path / 'a.zip'}/{ids[0]}/predictions.npz" in printed


def test_records_that_cannot_be_used_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Else "no run is finished" would be all that is said of a folder of another version's records."""
    for number in range(5):
        (tmp_path / f"{number:012x}").mkdir()
        (tmp_path / f"{number:012x}" / "status.json").write_text('{"version": 99, "state": "DONE"}')
    printed = words(answer(["top1=41", f"runs={tmp_path}"], capsys))
    assert "No run of recipe=imagenet2012 is finished in these records" in printed
    assert printed.count("is a record of version 99") == 3
    assert "Left out: 2 more like these." in printed


def test_what_the_other_side_knows_is_taken_into_account():
    line = ["top1=20%", "n=5", "sd=2", "images=500", "runs=a.zip", "model.lrn=false", "paths.runs=b"]
    question, settings = read_question(line, has_like=True)
    assert question.figures == {"top1_error": Figure(0.2, runs=5, sd=0.02, images=500)}
    assert question.like == ["model.lrn=false"]
    assert settings == ["paths.runs=b", "runs=a.zip"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "compare: no figure is given; write top1=42.9, an error in per cent"),
        ("top1=435", "top1=435: must be an error in per cent, from 0 to 100"),
        ("top1=abc", "top1=abc: must be an error in per cent, from 0 to 100"),
        ("top1=nan", "top1=nan: must be an error in per cent, from 0 to 100"),
        ("43.5", "43.5: is not KEY=VALUE; write top1=43.5"),
        ("top1=57.1 top5=80.2", "if these are accuracies, write top1=42.9 top5=19.8"),
        ("acc=57.1", "an accuracy of 57.1 is an error of 42.9: top1=42.9"),
        ("top1=43 view=centre", "view=centre: must be ten or center"),
        ("top1=43 tpo5=20", "did you mean 'top5'?"),
        ("top1=43 recipe=demo", "groups and keys of a recipe follow --like: --like recipe=demo"),
        ("top1=43 top1=42", "top1=43 top1=42: top1 is given twice; remove one"),
        ("top1=43 --like", "--like: names no recipe; write --like recipe=imagenet2012"),
        ("top1=43 --like model.lnr=false", "there is no key 'model.lnr'; did you mean 'model.lrn'?"),
        ("top1=43 --like recipe=dmeo", "there is no recipe 'dmeo'; did you mean 'demo'?"),
        ("top1=43 --like model.lrn=true,false", "names one recipe; give one value of each key"),
        ("top1=43 --like seed=3", "--like seed=3: all seeds of a recipe are compared; remove it"),
        ("top1=43 --like study=paper", "--like study=paper: names no run"),
        ("top1=43 runs=", "runs=: a folder is empty"),
        ("top1=43 runs=/nowhere", "runs=/nowhere: no such folder"),
        ("top1=43 images=0", "images=0: must be a whole number, 2 or more"),
        ("top1=43 n=1.5", "n=1.5: must be a whole number, 1 or more"),
        ("top1=43 sd=.3", "sd=.3: needs the number of runs that it is of, two or more; add n=..."),
        ("top1=43 top5=20 n=5 sd=.3", "sd=.3: is of one error; give top1 or top5 alone"),
    ],
)
def test_mistakes_are_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["compare", *line.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_help_names_it(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    assert "compare top1=42.9" in capsys.readouterr().out
    assert main(["compare", "--help"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
