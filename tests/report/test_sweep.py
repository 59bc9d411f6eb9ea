"""A sweep's report: numbers against SciPy's, all files, no verdicts, and what is refused."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import webbrowser
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from scipy import stats

from alexlab.cli.report import main
from alexlab.console import duration
from alexlab.errors import UserError
from alexlab.report import plots
from alexlab.report.cite import repeat_sweep
from alexlab.report.sweep import examine, name_arms, sweep_content, sweep_summary, write_sweep_report
from alexlab.runs.record import Record
from alexlab.study.claims import Verdict
from alexlab.study.judgement import Arm
from alexlab.study.plans import read_looks
from alexlab.study.records import RunData, read_archive
from alexlab.study.statistics import Effect
from alexlab.study.sweeps import read_sweep
from support.studies import made_study

FILES = {"arms.csv", "arms.tex", "report.html", "report.md", "runs.csv"}
PLOTS = {"classes", "confusion", "cost", "curves", "figure_3_base", "figure_3_no_lrn", "overfitting", "runs"}
HOSTILE = "no_lrn<script>x</script>|`$(rm -rf x)`"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps: one of three arms with three seeds, whose last run is missing, and one of a seed each."""
    folder = tmp_path_factory.mktemp("runs")
    line = ["study=lrn", "study.seeds=3", "study.base_seeds=3"]
    made_study(folder, line, {"none": 0.3, "no_lrn": 0.36, "lrn_scale_only": 0.3}, missing={"lrn_scale_only": 1})
    [plan] = (folder / "studies").glob("*.json")
    arms = read_looks(plan)[-1]["arms"]
    runs = [
        {"run_id": run_id, "seed": int(seed), "data_seed": int(seed), "values": {"ablation": arm["name"]}}
        for arm in arms
        for seed, run_id in arm["runs"].items()
    ]
    (folder / "sweeps").mkdir()
    for sweep_id, chosen in (
        ("0123456789ab", runs),
        ("1" * 12, [run for run in runs if run["seed"] == runs[0]["seed"]]),
    ):
        document = {"sweep_id": sweep_id, "factors": ["ablation"], "runs": chosen}
        (folder / "sweeps" / f"{sweep_id}.json").write_text(json.dumps(document))
    return folder


def errors(records: Path, arm: str) -> list[float]:
    archive = read_archive([records])
    runs = sorted((run.seed or 0, run) for run in archive.runs.values() if run.labels["ablation"] == arm)
    return [run.result["test"]["ten"]["top1_error"] for _, run in runs]


def test_numbers_are_those_of_the_records(records: Path, tmp_path: Path):
    page = write_sweep_report(examine(read_sweep("0123", records)), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == FILES | {f"{name}.{kind}" for name in PLOTS for kind in ("png", "svg")}
    arms = {row["arm"]: row for row in csv.DictReader(io.StringIO((tmp_path / "arms.csv").read_text()))}
    assert list(arms) == ["none", "no_lrn", "lrn_scale_only"]
    text = page.read_text()
    for arm, row in arms.items():
        found = errors(records, arm)
        assert float(row["top1_error"]) == pytest.approx(np.mean(found))
        assert float(row["top1_sd"]) == pytest.approx(np.std(found, ddof=1))
        interval = stats.ttest_1samp(found, 0).confidence_interval()
        assert float(row["top1_half"]) == pytest.approx((interval.high - interval.low) / 2)
        assert f"{100 * np.mean(found):.2f}" in text
        assert duration(float(row["seconds"])) in text  # as the terminal prints it
    assert (arms["lrn_scale_only"]["done"], arms["lrn_scale_only"]["missing"]) == ("2", "1")
    runs = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert len(runs) == 9
    assert [row["state"] for row in runs].count("DONE") == 8
    latex = (tmp_path / "arms.tex").read_text()
    assert "\\toprule" in latex
    assert "no\\_lrn" in latex


def test_a_difference_has_the_intervals_of_independent_arms_or_of_shared_seeds(records: Path):
    """Without the control variate, and with too few arms to shrink, it is Welch's t."""
    report = examine(read_sweep("0123", records))
    effect = report.statistics.differences[1]
    assert effect is not None
    mine, base = errors(records, "no_lrn"), errors(records, "none")
    if effect.correlation is None:
        interval = stats.ttest_ind(mine, base, equal_var=False).confidence_interval()
        assert effect.difference == pytest.approx(np.mean(mine) - np.mean(base))
        assert effect.fixed == pytest.approx((interval.high - interval.low) / 2)
    shown = sweep_content(report)["arms"][1]
    ends = [f"{100 * (effect.difference + sign * effect.fixed):+.2f}".replace("-", "−") for sign in (-1, 1)]
    assert shown["intervals"]["this test set"] == " to ".join(ends)
    assert list(shown["intervals"]) == ["this test set", "new images", "all at once"]


def test_one_seed_an_arm_has_the_interval_of_its_images(records: Path):
    report = examine(read_sweep("1" * 12, records))
    one, other = (report.arms[place].runs[0].wrong("top1_error", "ten")[0].astype(float) for place in (1, 0))
    interval = stats.norm.interval(0.95, (one - other).mean(), (one - other).std(ddof=1) / np.sqrt(len(one)))
    shown = sweep_content(report)["arms"][1]
    assert shown["intervals"] == {
        "images alone": " to ".join(f"{100 * end:+.2f}" for end in interval).replace("-", "−")
    }
    assert "One seed per arm cannot separate effects" in " ".join(sweep_content(report)["summary"])


def test_more_seeds_are_asked_for_only_where_an_arm_has_one(records: Path):
    """With several seeds the reason is another: the first arm has no run, the others none, or all errors are equal."""
    report = examine(read_sweep("0123", records))
    base, *others = report.arms
    found = report.statistics.differences

    def said(arms: list[Arm], differences: list[Effect | None]) -> str:
        statistics = replace(report.statistics, sensitivity=None, differences=differences)
        return sweep_summary(replace(report, arms=arms, statistics=statistics))[-1]

    nothing: list[Effect | None] = [None] * 3
    assert said([replace(base, runs=[]), *others], nothing).startswith("The first arm has no finished run")
    assert said([base, *(replace(arm, runs=[]) for arm in others)], nothing).startswith("No arm can be compared")
    assert said([base, *others], found).startswith("All runs of an arm have the same error")
    one_each = [replace(arm, runs=arm.runs[:1]) for arm in report.arms]
    assert said(one_each, nothing).startswith("One seed per arm")
    unfinished = replace(report, arms=[replace(arm, runs=[]) for arm in report.arms])
    unfinished.statistics = replace(report.statistics, sensitivity=None, differences=nothing)
    assert not any("seed" in line.lower() for line in sweep_summary(unfinished))


def test_there_is_no_verdict(records: Path, tmp_path: Path):
    write_sweep_report(examine(read_sweep("0123", records)), tmp_path)
    words = "|".join(verdict.value for verdict in Verdict)
    for name in ("report.html", "report.md", "arms.csv", "arms.tex"):
        text = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", (tmp_path / name).read_text(), flags=re.DOTALL)
        assert not re.search(rf"\b({words})\b", text), name


def test_names_of_arms():
    assert name_arms([{"ablation": "none"}, {"ablation": "no_lrn"}]) == ["none", "no_lrn"]
    assert name_arms([{"model.lrn": "true", "pool.overlap": "false"}]) == ["lrn=true overlap=false"]
    assert name_arms([{"data.size": "1", "x.size": "2"}]) == ["data.size=1 x.size=2"]
    assert name_arms([{"ablation": "none", "optim.lr": "0.01"}]) == ["ablation=none lr=0.01"]
    assert name_arms([{}]) == ["all runs"]


def test_what_is_to_be_copied_is_safe(records: Path, tmp_path: Path):
    """A record may come from anyone, and its commands are pasted into a shell."""
    report = examine(read_sweep("0123", records))
    status = report.arms[1].runs[0].status
    status["labels"] = {**status["labels"], "ablation": HOSTILE, "recipe": "demo; rm -rf x"}
    report.arms[0].runs[0].environment.update(git_commit="$(rm -rf x)")
    for arm in report.arms:
        for run in arm.runs:
            run.environment.update(git_commit="0123; rm -rf x")
    report.arms[1].name = HOSTILE
    commands = sweep_content(report)["repeat"].commands.splitlines()
    assert "git checkout" not in " ".join(commands)
    assert "'recipe=demo; rm -rf x'" in commands[1]
    assert f"'ablation={HOSTILE}'" in commands[1]
    page = write_sweep_report(report, tmp_path)
    assert "<script>x" not in page.read_text()
    shown = MarkdownIt("commonmark").enable("table").render((tmp_path / "report.md").read_text())
    assert "<script>x" not in shown
    assert "<script>x" in html.unescape(shown)


def test_commands_join_the_arms(records: Path):
    repeat = sweep_content(examine(read_sweep("0123", records)))["repeat"]
    lines = repeat.commands.splitlines()
    assert lines[0] == "git checkout 0123456789"
    assert lines[-1] == "python src/report.py sweep=0123456789ab"
    assert all("recipe=demo" in line and "data=shapes" in line for line in lines[1:-1])
    one = sweep_content(examine(read_sweep("1" * 12, records)))["repeat"].commands.splitlines()
    assert len(one) == 3  # the arms differ in one override
    assert "ablation=none,no_lrn,lrn_scale_only seed=" in one[1]
    assert repeat.citation.count("{") == repeat.citation.count("}")


def test_classes_are_called_as_the_record_names_them(records: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[list[str]] = []
    monkeypatch.setattr(plots.by_class, "class_errors", lambda found, names: drawn.append(names))
    monkeypatch.setattr(plots.by_class, "confusion", lambda shares, names: drawn.append(names))
    report = examine(read_sweep("0123", records))
    for arm in report.arms:
        for run in arm.runs:
            run.result["data"] = {"classes": ["Äpfel rot", "n01440764", "$x_$\n", *"abcdefg"]}
    assert len(list(plots.classes(report.arms, read_archive([records])))) == 2
    assert drawn[0][:4] == ["Äpfel rot", "tench", "$x_$", "a"]


def test_commands_of_images_of_ones_own_leave_a_place_for_their_folder(records: Path):
    report = examine(read_sweep("0123", records))
    repeat = repeat_sweep("0123", [["recipe=folder", "data=folder", "seed=0"]], report.runs)
    assert "recipe=folder data=folder seed=0 data.raw=DIR" in repeat.commands


def test_confusions_are_counted(records: Path, tmp_path: Path):
    run = examine(read_sweep("0123", records)).arms[0].runs[0]
    with np.load(run.record.file("predictions.npz")) as arrays:
        true, given = arrays["labels"], arrays["ten_top5"][:, 0]
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (true, given), 1)
    np.testing.assert_array_equal(run.confusions(10), expected)
    with pytest.raises(UserError, match=r"beyond the 3 of data\.num_classes"):
        run.confusions(3)
    with pytest.raises(UserError, match="cannot be read"):
        RunData(Record(tmp_path, "0" * 12), {}).confusions(10)


@pytest.mark.parametrize("opens", [True, False])
def test_the_command(records: Path, tmp_path: Path, monkeypatch, capsys, opens: bool):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or opens)
    (records / "sweeps" / "0123456789ab.json").touch()
    assert main(["sweep=last", f"runs={records}", f"out={tmp_path}", "--open", "--pdf"]) == 0
    page = tmp_path / "sweep-0123456789ab" / "report.html"
    assert opened == [page.as_uri()]
    assert (page.parent / "classes.pdf").is_file()
    printed = capsys.readouterr().out
    assert f"Report: {page}" in printed
    assert "8 of 9 runs are finished; none failed." in printed
    assert ("there is no browser here" in printed) != opens


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["sweep=abc"], "sweep=abc: there is no such sweep"),
        (["sweep=last", "study=lrn"], "study=lrn: a sweep's settings are fixed"),
        (["sweep=last", "--nets"], "--nets: is for the claims of studies"),
        (["sweep=last", "sweep=last"], "sweep=last sweep=last: sweep is given twice; remove one"),
    ],
)
def test_mistakes_are_a_line(records: Path, tmp_path: Path, capsys, line: list[str], message: str):
    assert main([*line, f"runs={records}", f"out={tmp_path}"]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert message in error


def test_a_sweep_is_in_one_folder(records: Path, tmp_path: Path, capsys):
    assert main(["sweep=last", f"runs={tmp_path},{records}", f"out={tmp_path}"]) == 2
    assert "runs= names 2 folders" in capsys.readouterr().err
