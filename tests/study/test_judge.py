"""A study as a whole: what is tested, what is missing, and plans that were changed or made late."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from alexlab.study.judge import judge
from alexlab.study.plans import read_looks
from alexlab.study.records import read_archive
from support.judging import judged, planned, row


def test_no_verdict_where_there_is_none_to_tell(finished: Path):
    judgement = judged(finished)
    elsewhere, needs, context, never = (row(judgement, name) for name in ("elsewhere", "needs", "context", "never"))
    assert (elsewhere.verdict, elsewhere.why_none) == (None, "a rehearsal: verdicts are given at imagenet2012")
    assert elsewhere.effect is not None
    assert (needs.verdict, needs.why_none) == ("not testable here", "requires optim.schedule=plateau")
    assert (context.verdict, context.effect is None) == (None, False)
    assert (never.verdict, never.why_none, never.arms) == ("not testable here", "needs WordNet", ())


def test_missing_runs_make_it_interim_and_name_the_line_that_makes_them(records: Path):
    lost = planned(records)["no_lrn"][-1]
    shutil.rmtree(records / lost)
    judgement = judged(records)
    assert judgement.is_interim
    assert judgement.missing == 1
    assert judgement.command == "python src/train.py study=lrn 'study.claims=[mine]' study.base_seeds=15"
    assert judgement.left_out == ["paths.runs", "--config-dir"]  # of this machine; but the reader may name the latter
    assert [arm.missing for arm in judgement.arms] == [{}, {4: lost}]
    lrn = row(judgement, "lrn")
    assert (lrn.verdict, lrn.why_none) == (None, "interim: runs are missing")
    assert lrn.effect is not None


def test_no_records_at_all(tmp_path: Path, finished: Path):
    shutil.copytree(finished / "studies", tmp_path / "studies")
    judgement = judged(tmp_path)
    assert judgement.missing == 20
    lrn = row(judgement, "lrn")
    assert (lrn.effect, lrn.verdict) == (None, "not testable here")
    assert lrn.why_none == "0 runs in an arm; a verdict needs 3"


def test_changed_claims_and_more_seeds_are_a_second_look(finished: Path):
    [path] = (finished / "studies").glob("*.json")
    [first] = read_looks(path)
    other = judge([first, {**first, "claims_digest": "0"}], read_archive([finished]))
    assert other.remarks == [
        "look 2: the study's claims were changed after it had started; the looks share its 5 %",
    ]
    more = judge([{**first, "arms": []}, first], read_archive([finished]))
    assert more.remarks == ["look 2: the study's runs were changed after it had started; the looks share its 5 %"]


def test_alpha_is_divided_by_the_looks(finished: Path):
    [path] = (finished / "studies").glob("*.json")
    [look] = read_looks(path)
    one, two = (judge([look] * count, read_archive([finished])) for count in (1, 2))
    effects = [row(each, "lrn").effect for each in (one, two)]
    assert effects[0] is not None
    assert effects[1] is not None
    assert effects[1].fixed == effects[0].fixed
    df = effects[0].df
    assert effects[1].df == df
    factor = stats.t.ppf(1 - 0.025 / 10, df) / stats.t.ppf(1 - 0.025 / 5, df)
    assert effects[1].study / effects[0].study == pytest.approx(factor, rel=1e-10)


def test_a_plan_that_came_after_its_results_is_told_with_the_verdict(records: Path):
    [path] = (records / "studies").glob("*.json")
    [look] = read_looks(path)
    assert look["finished_before"] == []
    seen = {**look, "finished_before": planned(records)["no_lrn"]}
    verdict = row(judge([seen], read_archive([records])), "lrn").verdict
    assert verdict == "reproduced (exploratory: runs were finished before the study was planned)"
    assert row(judge([look, look], read_archive([records])), "lrn").verdict == "reproduced (look 2)"
    assert row(judge([seen, look], read_archive([records])), "lrn").verdict == (
        "reproduced (exploratory: runs were finished before the study was planned; look 2)"
    )
    # A second look always comes after the study's own runs.
    assert row(judge([look, seen], read_archive([records])), "lrn").verdict == "reproduced (look 2)"
    # It may add an arm whose runs were finished before.
    without = {**look, "arms": [arm for arm in look["arms"] if arm["name"] != "no_lrn"]}
    assert row(judge([without, seen], read_archive([records])), "lrn").verdict == (
        "reproduced (exploratory: runs were finished before the study was planned; look 2)"
    )


def test_a_line_that_departs_from_the_recipe_is_a_rehearsal(finished: Path):
    [path] = (finished / "studies").glob("*.json")
    [look] = read_looks(path)
    assert look["departures"] == []
    lrn = row(judge([{**look, "departures": ["trainer.max_epochs"]}], read_archive([finished])), "lrn")
    assert (lrn.verdict, lrn.why_none) == (None, "a rehearsal: differs from the recipe in trainer.max_epochs")


def test_other_studies_with_the_same_claims_are_listed(finished: Path):
    [path] = (finished / "studies").glob("*.json")
    [look] = read_looks(path)
    other = {**look, "id": "lrn-demo-abcdef", "departures": ["optim.drops"], "claims": look["claims"][:1]}
    elsewhere = {**other, "recipe": "imagenet128"}
    started = {look["id"]: [look], "lrn-demo-abcdef": [other], "lrn-imagenet128-abcdef": [elsewhere]}
    assert judge([look], read_archive([finished]), started=started).remarks == [
        "also started at this recipe: lrn-demo-abcdef, with other optim.drops, with 1 of these claims: mine/lrn"
    ]


def test_nothing_of_a_report_waits_for_scipy_stats():
    """Half a second of CPU time for quantiles that `scipy.special` has."""
    code = "import sys, alexlab.study.judge, alexlab.study.sweeps; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
