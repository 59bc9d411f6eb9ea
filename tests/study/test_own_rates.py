"""A study at each arm's own learning rate beside the one at the common rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alexlab.study.claims import Verdict
from alexlab.study.judge import judge
from alexlab.study.plans import read_looks
from alexlab.study.records import read_archive
from support.judging import LINE, copied, fail, planned, row
from support.studies import made_study


def test_rows_that_disagree_at_each_arms_own_rate(finished: Path, tmp_path: Path, own: Path):
    made_study(tmp_path, LINE, {"none": 0.4, "no_lrn": 0.3}, config_dir=own)
    [path] = (finished / "studies").glob("*.json")
    looks = read_looks(path)
    tuned = json.loads(json.dumps(looks))
    for arm in tuned[-1]["arms"]:
        arm["runs"] = {seed: f"{run_id[:-4]}0000" for seed, run_id in arm["runs"].items()}
    runs = tmp_path / "tuned"
    runs.mkdir()
    for arm, ids in planned(tmp_path).items():
        for place, run_id in enumerate(ids):
            copied(tmp_path / run_id, runs / f"{run_id[:-4]}0000")
            assert f"{planned(finished)[arm][place][:-4]}0000" == f"{run_id[:-4]}0000"
    judgement = judge(looks, read_archive([finished, runs]), tuned)
    lrn = row(judgement, "lrn")
    assert lrn.verdict == "inconclusive (reproduced at the common rate; reversed at each arm's own)"
    assert lrn.own_rate is not None
    assert lrn.own_rate.effect is not None
    assert lrn.own_rate.effect.difference > 0


def test_of_two_ranges_with_one_word_the_later_is_the_weaker(finished: Path):
    """The same runs at both rates, by ranges of which the common row meets the first, and the own row the second."""
    [path] = (finished / "studies").glob("*.json")
    [look] = read_looks(path)
    ranges = [
        {"verdict": "same direction", "words": "much", "below": -2.0},
        {"verdict": "same direction", "words": "some", "below": 0.0},
    ]
    plans = [
        {**look, "rate": rate, "claims": [{**look["claims"][0], "ranges": ranges[start:]}]}
        for rate, start in (("protocol", 0), ("own", 1))
    ]
    archive = read_archive([finished])
    lrn = judge([plans[0]], archive, [plans[1]]).rows[0]
    assert lrn.own_rate is not None
    assert lrn.verdict == "some (much at the common rate; some at each arm's own)"
    assert judge([plans[1]], archive, [plans[0]]).rows[0].word is Verdict.same_direction


@pytest.mark.parametrize(
    ("rates", "failed", "said"),
    [
        ([0.005, 0.01, 0.02], False, None),
        ([0.01, 0.02, 0.04], False, "no_lrn: its best rate, 0.01, is at the edge of those that were tried"),
        ([0.0025, 0.005, 0.01], False, "no_lrn: its best rate, 0.01, is at the edge of those that were tried"),
        ([0.005, 0.01, 0.02], True, "no_lrn: all runs failed at every rate that was tried"),
    ],
)
def test_a_best_rate_at_the_grids_edge_is_no_verdict(records: Path, rates: list[float], failed: bool, said: str | None):
    [path] = (records / "studies").glob("*.json")
    [look] = read_looks(path)
    own = {**look, "rate": "own"}
    stuck = planned(records)["no_lrn"][0]
    arms = [
        {**look["arms"][1], "overrides": ["ablation=no_lrn", f"optim.lr={rate}"], "lr": rate, "runs": {"1000": stuck}}
        for rate in rates
    ]
    if failed:
        fail(records / stuck, "diverged")
    started = {f"rates-demo-choose-{look['id'][-6:]}": [{**look, "rate": "choose", "arms": arms, "claims": []}]}
    lrn = row(judge([look], read_archive([records]), [own], started=started), "lrn")
    assert lrn.own_rate is not None
    if said is None:
        assert lrn.verdict == "reproduced"
    else:
        assert (lrn.verdict, lrn.why_none, lrn.rate_doubts) == (None, f"{said}; no verdict", [said])
