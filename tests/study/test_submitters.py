"""Claims by submitter: who did what, a run that was done twice, and the report's rows."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from scipy import stats

from alexlab.cli import report
from alexlab.config import PROJECT_DIR
from alexlab.report.content import report_content
from alexlab.report.wording import disagreement
from alexlab.runs.bundle import pack, source
from alexlab.study.judge import judge
from alexlab.study.judgement import Judgement, Row
from alexlab.study.plans import read_looks
from alexlab.study.records import Archive, read_archive
from support.judging import planned
from support.studies import made_study

SCHEMA = json.loads((PROJECT_DIR / "src/alexlab/schemas/report-study-1.json").read_text())
LINE = ["study=lrn", "study.seeds=8", "study.base_seeds=8"]
LAB, UNI = "Lab <A>", "University | B"


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study that two machines have done in full: LRN is worth 10 points on one, 2 on the other."""
    folders = []
    for name, base, error, cpu in (("lab", 0.3, 0.4, "CPU of A"), ("uni", 0.31, 0.33, "CPU of B")):
        folders.append(tmp_path_factory.mktemp(name))
        more = {"cpu": cpu, "git_commit": name * 5}
        made_study(
            folders[-1],
            LINE,
            {"none": base, "no_lrn": error},
            images=1000,
            environment={"none": more, "no_lrn": more},
        )
    return folders[0], folders[1]


def bundled(path: Path, folder: Path, seeds: slice, submitter: str | None) -> Path:
    """A bundle of some seeds of both arms."""
    pack(path, folder, [run for runs in planned(folder).values() for run in runs[seeds]], submitter)
    return path


def judged(folder: Path, archive: Archive) -> Judgement:
    [path] = (folder / "studies").glob("*.json")
    return judge(read_looks(path), archive)


def lrn(judgement: Judgement) -> Row:
    return next(row for row in judgement.rows if row.claim.metric == "top1_error" and len(row.arms) == 2)


def errors(folder: Path, arm: str, seeds: slice) -> np.ndarray:
    paths = [folder / run / "result.json" for run in planned(folder)[arm][seeds]]
    return np.array([json.loads(path.read_text())["test"]["ten"]["top1_error"] for path in paths])


def test_each_ones_effect_is_that_of_its_own_runs_and_they_are_compared(labs: tuple[Path, Path], tmp_path: Path):
    first, last = slice(0, 4), slice(4, 8)
    a = bundled(tmp_path / "a.zip", labs[0], first, LAB)
    b = bundled(tmp_path / "b.zip", labs[1], last, UNI)
    archive = read_archive([source(a), source(b)])
    assert {run.submitter for run in archive.runs.values()} == {LAB, UNI}
    row = lrn(judged(labs[0], archive))
    found = row.submitters
    assert found is not None
    effects = []
    for one, folder, seeds, name in zip(found.each, labs, (first, last), (LAB, UNI), strict=True):
        with_lrn, without = (errors(folder, arm, seeds) for arm in ("none", "no_lrn"))
        interval = stats.ttest_ind(with_lrn, without, equal_var=False).confidence_interval()
        assert (one.submitter, [len(runs) for runs in one.runs], one.repeats) == (name, [4, 4], 0)
        assert one.effect is not None
        ends = one.effect.difference - one.effect.fixed, one.effect.difference + one.effect.fixed
        np.testing.assert_allclose(ends, (interval.low, interval.high), rtol=1e-9)
        effects.append((with_lrn, without))
    # Two effects: Welch's t of their difference, by its own formula.
    parts = [arm.var(ddof=1) / 4 for pair in effects for arm in pair]
    apart = np.mean(effects[0][0]) - np.mean(effects[0][1]) - np.mean(effects[1][0]) + np.mean(effects[1][1])
    df = sum(parts) ** 2 / sum(part**2 / 3 for part in parts)
    assert found.equality is not None
    assert found.equality.p == pytest.approx(2 * stats.t.sf(abs(apart) / np.sqrt(sum(parts)), df), rel=1e-9)
    assert found.equality.p < 0.05
    assert "differ (p" in disagreement(row)
    # The verdict's rule is the same: each run once, as from one folder.
    one = tmp_path / "one"
    shutil.copytree(labs[0], one)
    for run in (run for runs in planned(one).values() for run in runs[last]):
        shutil.rmtree(one / run)
        shutil.copytree(labs[1] / run, one / run)
    alone = lrn(judged(one, read_archive([one])))
    assert (row.effect, row.verdict, row.why_none) == (alone.effect, alone.verdict, alone.why_none)
    assert alone.submitters is None
    assert disagreement(alone) == ""


def test_a_run_that_two_have_done_counts_once_and_not_in_the_comparison(labs: tuple[Path, Path], tmp_path: Path):
    a = bundled(tmp_path / "a.zip", labs[0], slice(0, 5), LAB)
    b = bundled(tmp_path / "b.zip", labs[1], slice(3, 8), UNI)
    archive = read_archive([source(a), source(b)])
    judgement = judged(labs[0], archive)
    found = lrn(judgement).submitters
    assert found is not None
    # No status says when it ended, so a.zip's are taken: 5 of its own, and 3 of the other's 5.
    assert lrn(judgement).counted == (8, 8)
    assert [[len(runs) for runs in one.runs] for one in found.each] == [[5, 5], [5, 5]]
    assert [one.repeats for one in found.each] == [0, 4]
    without = errors(labs[1], "no_lrn", slice(3, 8)).mean() - errors(labs[1], "none", slice(3, 8)).mean()
    assert found.each[1].effect is not None
    assert found.each[1].effect.difference == pytest.approx(-without)
    groups = [[errors(folder, arm, seeds) for arm in ("none", "no_lrn")]
              for folder, seeds in ((labs[0], slice(0, 5)), (labs[1], slice(5, 8)))]  # fmt: skip
    parts = [arm.var(ddof=1) / len(arm) for pair in groups for arm in pair]
    df = sum(parts) ** 2 / sum(part**2 / (n - 1) for part, n in zip(parts, (5, 5, 3, 3), strict=True))
    apart = sum(sign * arm.mean() for sign, arm in zip((1, -1, -1, 1), [*groups[0], *groups[1]], strict=True))
    assert found.equality is not None
    assert found.equality.p == pytest.approx(2 * stats.t.sf(abs(apart) / np.sqrt(sum(parts)), df), rel=1e-9)
    [remark] = [line for line in judgement.remarks if "done by both" in line]
    # The third arm has the same errors in both, and so the same bits.
    change = 100 * np.concatenate(
        [errors(labs[1], arm, slice(3, 5)) - errors(labs[0], arm, slice(3, 5)) for arm in ("none", "no_lrn")]
    )
    half = stats.t.ppf(0.975, 3) * stats.sem(change)
    assert remark == (
        f"6 runs done by both {LAB} and {UNI}, each counted once; 2 bit-identical, which confirms them; 4 "
        f"not bit-identical, as on another machine (top-1 error of the second minus the first: {change.mean():+.2f} ± "
        f"{half:.2f} points, 95 % interval)"
    )


def test_a_submitter_of_two_runs_has_an_effect_and_is_not_in_the_test(labs: tuple[Path, Path], tmp_path: Path):
    a = bundled(tmp_path / "a.zip", labs[0], slice(0, 2), LAB)
    b = bundled(tmp_path / "b.zip", labs[1], slice(2, 8), UNI)
    found = lrn(judged(labs[0], read_archive([source(a), source(b)]))).submitters
    assert found is not None
    without, with_lrn = (errors(labs[0], arm, slice(0, 2)).mean() for arm in ("no_lrn", "none"))
    assert found.each[0].effect is not None
    assert found.each[0].effect.difference == pytest.approx(with_lrn - without)
    assert found.equality is None


def test_the_same_bits_confirm_and_are_no_second_sample(labs: tuple[Path, Path], tmp_path: Path):
    a = bundled(tmp_path / "a.zip", labs[0], slice(0, 8), LAB)
    b = bundled(tmp_path / "b.zip", labs[0], slice(0, 8), UNI)
    judgement = judged(labs[0], read_archive([source(a), source(b)]))
    alone = judged(labs[0], read_archive([labs[0]]))
    assert lrn(judgement).effect == lrn(alone).effect
    assert judgement.problems == []
    found = lrn(judgement).submitters
    assert found is not None
    assert found.equality is None  # nobody's runs are independent of the other's
    assert "24 runs done by both Lab <A> and University | B, each counted once; 24 bit-identical" in (
        "\n".join(judgement.remarks)
    )


def test_the_copy_that_ended_first_is_taken_in_any_order(labs: tuple[Path, Path], tmp_path: Path):
    run = planned(labs[0])["none"][0]
    folders = []
    for place, lab in enumerate(labs):
        folders.append(tmp_path / str(place))
        shutil.copytree(lab / run, folders[-1] / run)
        status = folders[-1] / run / "status.json"
        status.write_text(json.dumps({**json.loads(status.read_text()), "ended": 1000.0 - place}))
    for order in (folders, folders[::-1]):
        archive = read_archive(order)
        assert archive.runs[run].record.path.parent == folders[1]
        assert len(archive.copies[run]) == 2


def test_a_conflict_names_files_submitters_and_errors_but_no_temporary_folder(labs: tuple[Path, Path], tmp_path: Path):
    a = bundled(tmp_path / "a.zip", labs[0], slice(0, 1), LAB)
    b = bundled(tmp_path / "b.zip", labs[1], slice(0, 1), None)
    run = planned(labs[0])["no_lrn"][0]
    own, other = (100 * errors(lab, "no_lrn", slice(0, 1))[0] for lab in labs)
    archive = read_archive([source(a), source(b)])
    assert (
        f"{run}: top-1 error by ten views is {own:.2f} % in {a} ({LAB}), {other:.2f} % in {b}; counted once, as in {a} "
        f"({LAB})"
    ) in archive.problems
    # What is wrong with a record of a bundle is said by the bundle's name, too.
    (archive.runs[run].record.path / "predictions.npz").write_bytes(b"")
    problems = judged(labs[0], archive).problems
    assert any(f"{a}/{run}/predictions.npz" in line for line in problems)
    assert not any(str(one.folder) in line for one in archive.sources for line in problems)


def test_the_reports_have_a_row_for_each(
    labs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    a = bundled(tmp_path / "a.zip", labs[0], slice(0, 4), LAB)
    b = bundled(tmp_path / "b.zip", labs[1], slice(4, 8), UNI)
    assert report.main([f"runs=[{a},{b}]", f"out={tmp_path / 'both'}"]) == 0
    assert "Submitters' effects differ at the 5 % level" in capsys.readouterr().out
    [folder] = (tmp_path / "both").iterdir()
    rows = list(csv.DictReader((folder / "submitters.csv").read_text().splitlines()))
    [first, second] = [row for row in rows if row["claim"].endswith("/lrn")]
    assert (first["submitter"], second["submitter"]) == (LAB, UNI)
    assert (first["machine"], second["code"]) == ("CPU of A", "uniuniuniu")
    assert float(first["effect"]) == pytest.approx(
        100 * (errors(labs[0], "none", slice(0, 4)).mean() - errors(labs[0], "no_lrn", slice(0, 4)).mean())
    )
    assert float(first["equal_p"]) < 0.05
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    assert "Lab &lt;A&gt;" in page
    assert '<h2 id="submitters-title">Submitters</h2>' in page
    assert "so do not read the pooled figure alone" in page
    assert "## Submitters" in text
    assert r"University \| B" in text
    assert "so do not read the pooled figure alone" in text
    assert report.main([f"runs=[{a},{b}]", f"out={tmp_path / 'both'}", "--json"]) == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    Draft202012Validator(SCHEMA["$defs"]["study"] | {"$defs": SCHEMA["$defs"]}).validate(study)
    [one, _] = [each for each in study["submitters"] if each["claim"] == first["claim"]]
    assert (one["submitter"], one["effect"]) == (LAB, float(first["effect"]))
    content = report_content(judged(labs[0], read_archive([labs[0]])))
    assert content["submitters"] == []
    assert report.main([f"runs={a}", f"out={tmp_path / 'both'}"]) == 0  # over the report of both
    assert not (folder / "submitters.csv").exists()
    assert "Submitters" not in (folder / "report.md").read_text()
