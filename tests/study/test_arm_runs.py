"""Runs that are set aside: partly trained ones, and those that nobody planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from support.judging import copied, judged, planned, row


def test_partly_trained_runs_are_flagged_and_count_as_failed(records: Path):
    stuck = planned(records)["no_lrn"][2]
    path = records / stuck / "result.json"
    result = json.loads(path.read_text())
    result["test"]["ten"]["top1_error"] = 0.8  # chance is .9, the arm's median .4
    path.write_text(json.dumps(result))
    lrn = row(judged(records), "lrn")
    assert lrn.counted == (15, 4)
    assert (
        lrn.notes[0] == "only runs that trained are compared: 1 of 5 runs of no_lrn trained only partly (seed 2: 80 %)"
    )
    assert lrn.fisher == pytest.approx(stats.fisher_exact([[0, 15], [1, 4]])[1])
    result["test"]["ten"]["top1_error"] = 0.6  # below halfway, .65
    path.write_text(json.dumps(result))
    assert not row(judged(records), "lrn").arms[1].partly


def test_seeds_that_nobody_planned_are_named_and_not_counted(records: Path, finished: Path):
    ids = planned(records)["no_lrn"]
    copied(records / ids[0], records / "0123456789ab")
    result = json.loads((records / "0123456789ab" / "result.json").read_text())
    (records / "0123456789ab" / "result.json").write_text(json.dumps({**result, "run_id": "0123456789ab", "seed": 77}))
    judgement, before = judged(records), judged(finished)
    lrn = row(judgement, "lrn")
    assert lrn.effect == row(before, "lrn").effect
    assert lrn.notes[1:] == ["no_lrn: 1 finished run outside the plan, not counted (seeds 77)"]
    assert judgement.remarks == ["1 finished run of these arms outside the plan, not counted"]
