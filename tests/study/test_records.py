"""Records that are broken, incomplete or in several folders: each is named, and the rest judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alexlab.errors import UserError
from alexlab.study.records import read_archive
from support.judging import errors, fail, judged, planned, row

BREAKS = {
    "half a status": ("status.json", b'{"state": "DO', "is corrupt"),
    "a status of no state": (
        "status.json",
        b'{"version": 2, "state": "GOOD"}',
        "state is 'GOOD', must be one of RUNNING",
    ),
    "another version": ("status.json", b'{"version": 1, "state": "DONE"}', "is a record of version 1"),
    "no result": ("result.json", None, "is DONE but has no result.json"),
    "half a result": ("result.json", b'{"test": {"ten"', "is corrupt"),
    "a result without errors": ("result.json", b'{"test": {"images": 3}}', "test.ten.top1_error is missing"),
    "an error that is no number": (
        "result.json",
        b'{"test": {"ten": {"top1_error": NaN, "top5_error": 0}, "center": {"top1_error": 0, "top5_error": 0}}}',
        "test.ten.top1_error is nan, must be between 0 and 1",
    ),
    "no predictions": ("predictions.npz", None, "predictions.npz: cannot be read"),
    "half the predictions": ("predictions.npz", b"PK\x03\x04", "predictions.npz: cannot be read"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_record_is_named_and_the_rest_judged(records: Path, what: str):
    name, content, said = BREAKS[what]
    broken = planned(records)["no_lrn"][2]
    if content is None:
        (records / broken / name).unlink()
    else:
        (records / broken / name).write_bytes(content)
    judgement = judged(records)
    told = [problem for problem in judgement.problems if broken in problem]
    assert told
    assert said in told[0]
    assert all("\n" not in problem for problem in judgement.problems)
    lrn = row(judgement, "lrn")
    assert lrn.effect is not None
    others = [run_id for run_id in planned(records)["no_lrn"] if run_id != broken]
    expected = errors(records, planned(records)["none"]).mean() - errors(records, others).mean()
    assert lrn.effect.difference == pytest.approx(expected)  # four runs are too few for a slope


def test_predictions_of_another_run_are_noticed(records: Path):
    one, other = planned(records)["no_lrn"][:2]
    shutil.copy(records / one / "predictions.npz", records / other / "predictions.npz")
    problems = judged(records).problems
    assert any(other in line and "its errors are not those of result.json" in line for line in problems)


def test_no_curves(records: Path):
    run_id = planned(records)["none"][0]
    (records / run_id / "metrics.csv").unlink()
    judgement = judged(records)
    assert any(run_id in line and "metrics.csv: has no epoch" in line for line in judgement.problems)


@pytest.mark.parametrize(
    "name", ["data.store", "device", "precision", "checkpoint", "seconds", "train.center.loss", "seed"]
)
def test_a_result_without_what_a_report_needs_is_named(records: Path, name: str):
    path = records / planned(records)["none"][0] / "result.json"
    result = json.loads(path.read_text())
    place = result
    *parents, last = name.split(".")
    for parent in parents:
        place = place[parent]
    del place[last]
    path.write_text(json.dumps(result))
    assert any(f"result.json: {name} is missing; left out" in line for line in judged(records).problems)


def test_several_folders_are_merged_and_conflicts_named(records: Path, tmp_path: Path, finished: Path):
    second = tmp_path / "second"
    second.mkdir()
    moved, both, conflict = planned(records)["no_lrn"][:3]
    shutil.move(records / moved, second / moved)
    shutil.copytree(records / both, second / both)
    shutil.copytree(records / conflict, second / conflict)
    result = json.loads((second / conflict / "result.json").read_text())
    before = result["test"]["ten"]["top1_error"]
    result["test"]["ten"]["top1_error"] += 0.01
    (second / conflict / "result.json").write_text(json.dumps(result))
    judgement = judged(records, second)
    assert row(judgement, "lrn").effect == row(judged(finished), "lrn").effect
    assert judgement.problems == [
        f"{conflict}: top-1 error by ten views is {100 * before:.2f} % in {records}, {100 * before + 1:.2f} % in "
        f"{second}; counted once, as in {records}"
    ]
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_archive([tmp_path / "nowhere"])


def test_a_failure_is_not_replaced_by_another_try_of_it(records: Path, tmp_path: Path):
    second = tmp_path / "second"
    second.mkdir()
    run_id = planned(records)["no_lrn"][0]
    shutil.copytree(records / run_id, second / run_id)
    fail(second / run_id, "diverged")
    for folders in ((records, second), (second, records)):
        archive = read_archive(list(folders))
        assert not archive.runs[run_id].is_done
        assert run_id in archive.problems[0]
