"""From records to rows: against formulas of their own on what the records hold, and whatever is wrong with records."""

from __future__ import annotations

import dataclasses
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import optimize, special, stats

from alexlab.errors import UserError
from alexlab.study import verdicts
from alexlab.study.claims import Verdict
from alexlab.study.records import read_archive
from alexlab.study.samples import Samples
from alexlab.study.statistics import variance_components
from alexlab.study.verdicts import Judgement, Row, judge
from alexlab.sweep.arms import read_looks
from support.settings import composer
from support.studies import made_study

LRN = {
    **{"id": "lrn", "section": "3.3", "statement": "LRN helps.", "against": ["ablation=no_lrn"]},
    **{"published": {"top1_error": -10.0, "top5_error": -1.0}, "recipes": ["demo"], "differs": ["model.lrn"]},
}
CLAIMS: list[dict[str, Any]] = [
    LRN,
    {**LRN, "id": "views", "against": [], "against_view": "center", "published": {"top1_error": -3.0}, "differs": []},
    {**LRN, "id": "level", "against": [], "is_level": True, "published": {"top1_error": 40.0}, "differs": []},
    {**LRN, "id": "sooner", "metric": "epochs_to_25", "ratio": True, "published": {"epochs_to_25": 0.5}},
    {**LRN, "id": "elsewhere", "recipes": ["imagenet2012"]},
    {**LRN, "id": "needs", "requires": ["optim.schedule=plateau"]},
    {**LRN, "id": "context", "is_context": True, "published": {}, "recipes": []},
    {"id": "never", "section": "6", "statement": "Words.", "not_testable": "needs WordNet"},
]
LINE = ["study=lrn", "study.claims=[mine]", "study.base_seeds=15"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "claims").mkdir()
    (folder / "claims" / "mine.yaml").write_text(yaml.safe_dump(CLAIMS))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, own: Path) -> Path:
    """Records of a whole study, in which LRN is worth ten points."""
    folder = tmp_path_factory.mktemp("runs")
    made_study(folder, LINE, {"none": 0.3, "no_lrn": 0.4}, config_dir=own)
    return folder


@pytest.fixture
def records(finished: Path, tmp_path: Path) -> Path:
    """A copy of them to break."""
    return Path(shutil.copytree(finished, tmp_path / "runs"))


def judged(*folders: Path) -> Judgement:
    [path] = (folders[0] / "studies").glob("*.json")
    return judge(read_looks(path), read_archive(list(folders)))


def row(judgement: Judgement, name: str) -> Row:
    return next(row for row in judgement.rows if row.claim.id == name)


def planned(folder: Path) -> dict[str, list[str]]:
    """Run ids by arm, in the seeds' order."""
    [path] = (folder / "studies").glob("*.json")
    return {arm["name"]: list(arm["runs"].values()) for arm in read_looks(path)[-1]["arms"]}


def errors(folder: Path, run_ids: list[str], view: str = "ten") -> np.ndarray:
    """Top-1 errors from the predictions themselves, float64 [runs, images]."""
    found = []
    for run_id in run_ids:
        with np.load(folder / run_id / "predictions.npz") as arrays:
            found.append(arrays[f"{view}_top5"][:, 0] != arrays["labels"])
    return np.array(found, dtype=float)


def test_effect_spread_and_verdict_of_a_finished_study(finished: Path):
    judgement = judged(finished)
    ids = planned(finished)
    assert {name: len(runs) for name, runs in ids.items()} == {"none": 15, "no_lrn": 5}
    base, without = errors(finished, ids["none"]), errors(finished, ids["no_lrn"])
    lrn = row(judgement, "lrn")
    assert lrn.effect is not None
    assert lrn.effect.difference == pytest.approx(by_regression(base, without)[0])
    assert lrn.spreads == pytest.approx((base.mean(1).std(ddof=1), without.mean(1).std(ddof=1)))
    # The family: lrn, views, level, sooner, elsewhere; the others have no interval, or are no claim.
    assert judgement.family == 5
    assert lrn.effect.study > lrn.effect.fixed
    assert lrn.verdict == "reproduced"
    assert not lrn.confounds
    assert lrn.differing == ["model.lrn"]
    assert not judgement.is_interim
    assert not judgement.is_rehearsal
    assert judgement.done == 20
    assert lrn.secondary.keys() == {"top5_error", "top1_error, center view"}
    centre = errors(finished, ids["none"], "center").mean() - errors(finished, ids["no_lrn"], "center").mean()
    assert lrn.secondary["top1_error, center view"] == pytest.approx(centre)


def test_views_are_compared_within_runs(finished: Path):
    views = row(judged(finished), "views")
    ids = planned(finished)["none"]
    each = (errors(finished, ids) - errors(finished, ids, "center")).mean(1)
    assert views.effect is not None
    half = stats.t.ppf(0.975, 14) * each.std(ddof=1) / np.sqrt(15)
    assert (views.effect.difference, views.effect.fixed) == pytest.approx((each.mean(), half))
    assert views.spreads == pytest.approx((each.std(ddof=1),))
    assert len(views.arms) == 1


def test_a_level_is_compared_with_what_a_single_run_may_have(finished: Path):
    level = row(judged(finished), "level")
    assert level.level is not None
    assert level.level[0] == pytest.approx(errors(finished, planned(finished)["none"]).mean())
    assert level.verdict is not None
    assert level.verdict.startswith("other by -")  # the records' error is about 30 %, and the figure 40
    assert level.effect is None


def test_a_ratio_is_one_of_logarithms(finished: Path):
    sooner = row(judged(finished), "sooner")
    ids = planned(finished)

    def reached(run_id: str) -> float:
        lines = (finished / run_id / "metrics.csv").read_text().splitlines()[1:]
        found = [float(line.split(",")[4]) for line in lines]
        for epoch, (before, after) in enumerate(pairwise(found), 1):
            if found[0] <= 0.25:
                return 1.0
            if after <= 0.25:
                return epoch + (before - 0.25) / (before - after)
        return float(len(found))

    logs = {name: np.log([reached(run_id) for run_id in runs]) for name, runs in ids.items()}
    assert sooner.effect is not None
    assert logs["no_lrn"].std() == 0  # none got there, so that they are no control for the base's runs
    difference = logs["none"].mean() - logs["no_lrn"].mean()
    assert sooner.effect.difference == pytest.approx(difference)
    assert sooner.shown(sooner.effect.difference) == pytest.approx(np.exp(difference))


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


def test_failures_are_counted_and_told_beside_the_row(records: Path):
    runs = planned(records)["no_lrn"]
    for run_id in runs[:1]:
        fail(records / run_id, "diverged")
    judgement = judged(records)
    lrn = row(judgement, "lrn")
    assert not judgement.is_interim  # it failed for good
    assert lrn.verdict == "reproduced"
    assert lrn.fisher == pytest.approx(stats.fisher_exact([[0, 15], [1, 4]])[1])
    assert lrn.notes == ["only runs that trained are compared: 1 of 5 runs of no_lrn failed"]
    fail(records / runs[1], "does not learn")
    assert row(judged(records), "lrn").verdict == "does not train: no_lrn"
    fail(records / runs[2], "out of memory")  # by fault of the machine, so it is done again
    judgement = judged(records)
    assert judgement.missing == 1
    assert row(judgement, "lrn").verdict is None


def fail(record: Path, failure: str) -> None:
    status = json.loads((record / "status.json").read_text())
    told = {"state": "FAILED", "failure": failure, "message": "", "hint": ""}
    (record / "status.json").write_text(json.dumps({**status, **told}))


def copied(record: Path, to: Path) -> None:
    """The same as the record of another run."""
    shutil.copytree(record, to)
    status = json.loads((to / "status.json").read_text())
    (to / "status.json").write_text(json.dumps({**status, "run_id": to.name}))


def test_seeds_that_nobody_planned_are_named_and_not_counted(records: Path, finished: Path):
    ids = planned(records)["no_lrn"]
    copied(records / ids[0], records / "0123456789ab")
    result = json.loads((records / "0123456789ab" / "result.json").read_text())
    (records / "0123456789ab" / "result.json").write_text(json.dumps({**result, "run_id": "0123456789ab", "seed": 77}))
    judgement, before = judged(records), judged(finished)
    lrn = row(judgement, "lrn")
    assert lrn.effect == row(before, "lrn").effect
    assert lrn.notes[1:] == ["no_lrn: 1 finished runs are not planned (seeds 77), not counted"]
    assert judgement.remarks == ["1 finished runs of these arms are not planned, and not counted"]


def test_what_else_differs_between_the_arms_is_flagged(tmp_path: Path, own: Path):
    told = {"no_lrn": {"git_commit": "fedcba9876543210", "packages": {"torch": "2.11.0"}}}
    made_study(tmp_path, [*LINE[:2], "study.seeds=3", "study.base_seeds=3"], config_dir=own, environment=told)
    lrn = row(judged(tmp_path), "lrn")
    assert lrn.confounds == [
        "the code differs between the arms: 0123456789 against fedcba9876",
        "packages differ between the arms: torch 2.14.1 against 2.11.0",
    ]


def test_the_authors_own_pairs_are_flagged(tmp_path: Path):
    """What they changed besides LRN and the windows, and that the maps have other sizes."""
    made_study(tmp_path, ["study=source2012", "study.seeds=1", "study.base_seeds=1"])
    judgement = judged(tmp_path)
    [lrn] = row(judgement, "lrn_pair").confounds
    more = "augment.pca_until, model.same_map_norm, optim.conv1_cut_at, optim.conv1_freeze_at, optim.drops"
    assert lrn == f"the arms differ in more than the claim says: {more}"
    pool, maps = row(judgement, "overlap_pair").confounds
    more = "augment.pca_until, model.paddings, optim.conv1_cut_at, optim.conv1_freeze_at, pool.ceil"
    assert pool == f"the arms differ in more than the claim says: {more}"
    assert maps.startswith("feature maps differ in size: [")
    cross_talk = row(judgement, "no_cross_talk_pair")
    assert (cross_talk.verdict, cross_talk.claim.is_context) == (None, True)
    assert cross_talk.confounds == ["the arms differ in more than the claim says: model.kernels"]


def test_changed_claims_and_more_seeds_are_a_second_look(finished: Path):
    [path] = (finished / "studies").glob("*.json")
    [first] = read_looks(path)
    other = judge([first, {**first, "claims_digest": "0"}], read_archive([finished]))
    assert other.remarks == [
        "look 2: the study's claims were changed after it had started; the looks share its 5 %",
    ]
    more = judge([{**first, "arms": []}, first], read_archive([finished]))
    assert more.remarks == ["look 2: the study's runs were changed after it had started; the looks share its 5 %"]


def test_one_run_or_two_in_an_arm(tmp_path: Path, own: Path):
    for seeds, interval in ((1, np.inf), (2, None)):
        folder = tmp_path / str(seeds)
        made_study(folder, [*LINE[:2], f"study.seeds={seeds}", "study.base_seeds=1"], config_dir=own)
        lrn = row(judged(folder), "lrn")
        assert lrn.verdict == "not testable here"
        assert lrn.why_none == "1 runs in an arm; a verdict needs 3"
        assert lrn.effect is not None
        if interval is not None:
            assert lrn.effect.study == interval


def test_arms_without_any_spread(records: Path):
    ids = planned(records)
    for arm in ids.values():
        for run_id in arm[1:]:
            for name in ("predictions.npz", "metrics.csv"):
                shutil.copy(records / arm[0] / name, records / run_id / name)
            result = json.loads((records / arm[0] / "result.json").read_text())
            (records / run_id / "result.json").write_text(json.dumps(result))
    lrn = row(judged(records), "lrn")
    assert lrn.effect is not None
    assert (lrn.spreads, lrn.effect.study) == ((0, 0), 0)
    assert lrn.verdict is None
    assert lrn.why_none == "all runs of an arm have the same result, whatever their seeds, which points to a bug"


def test_no_records_at_all(tmp_path: Path, finished: Path):
    shutil.copytree(finished / "studies", tmp_path / "studies")
    judgement = judged(tmp_path)
    assert judgement.missing == 20
    assert row(judgement, "lrn").effect is None
    assert row(judgement, "lrn").verdict is None or row(judgement, "lrn").verdict == "not testable here"


BREAKS = {
    "half a status": ("status.json", b'{"state": "DO', "is corrupt"),
    "a status of no state": (
        "status.json",
        b'{"version": 2, "state": "GOOD"}',
        "state is 'GOOD', must be one of RUNNING",
    ),
    "another version": ("status.json", b'{"version": 1, "state": "DONE"}', "is a record of version 1"),
    "no result": ("result.json", None, "is DONE and has no result.json"),
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


def test_a_configuration_that_cannot_be_read_is_a_doubt(records: Path):
    (records / planned(records)["none"][0] / "config.yaml").write_text("model: [")
    assert row(judged(records), "lrn").confounds[0].startswith("configurations cannot be compared: ")


def test_no_curves(records: Path):
    run_id = planned(records)["none"][0]
    (records / run_id / "metrics.csv").unlink()
    judgement = judged(records)
    assert any(run_id in line and "metrics.csv: has no epoch" in line for line in judgement.problems)


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


def test_a_plan_that_came_after_its_results_is_told_with_the_verdict(records: Path):
    [path] = (records / "studies").glob("*.json")
    [look] = read_looks(path)
    assert look["finished_before"] == []
    seen = {**look, "finished_before": planned(records)["no_lrn"]}
    verdict = row(judge([seen], read_archive([records])), "lrn").verdict
    assert verdict == "reproduced (exploratory: runs were finished before the study was planned)"
    assert row(judge([look, look], read_archive([records])), "lrn").verdict == "reproduced (look 2)"


def test_a_line_that_departs_from_the_recipe_is_a_rehearsal(finished: Path):
    [path] = (finished / "studies").glob("*.json")
    [look] = read_looks(path)
    assert look["departures"] == []
    lrn = row(judge([{**look, "departures": ["trainer.max_epochs"]}], read_archive([finished])), "lrn")
    assert (lrn.verdict, lrn.why_none) == (None, "a rehearsal: differs from the recipe in trainer.max_epochs")


def test_runs_that_never_reached_what_a_claim_waits_for_settle_nothing(records: Path):
    for run_id in [run_id for runs in planned(records).values() for run_id in runs]:
        path = records / run_id / "metrics.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("\n".join(",".join([*one[:4], "0.9", *one[5:]]) for one in [lines[0], *lines[1:]]))
        path.write_text(path.read_text().replace("train_loss,0.9", "train_loss,train_top1_error", 1))
    sooner = row(judged(records), "sooner")
    assert (sooner.verdict, sooner.why_none) == ("not testable here", "runs ended before what the claim is about")


def test_arms_on_different_test_images_are_never_subtracted(records: Path):
    """Neither their errors nor ratios of these, nor by another metric or view."""
    for run_id in planned(records)["no_lrn"]:
        with np.load(records / run_id / "predictions.npz") as arrays:
            turned = {name: values[::-1] for name, values in arrays.items()}
        np.savez(records / run_id / "predictions.npz", **turned)  # pyright: ignore[reportArgumentType]
    [path] = (records / "studies").glob("*.json")
    plan = json.loads(path.read_text())
    [lrn] = [claim for claim in plan["looks"][0]["claims"] if claim["id"] == "lrn"]
    ratio = {"ratio": True, "published": {"top1_error": 0.9}, "also": {}}
    plan["looks"][0]["claims"] += [
        {**lrn, "id": "as_ratio", **ratio},
        {**lrn, "id": "gap", "metric": "gap", "published": {"gap": -1.0}},
    ]
    path.write_text(json.dumps(plan))
    judgement = judged(records)
    why = "the arms were tested on different images, so their errors cannot be compared"
    for name in ("lrn", "as_ratio", "gap"):
        found = row(judgement, name)
        assert (found.effect, found.secondary) == (None, {})
        assert (found.verdict, found.why_none) == ("not testable here", why)
        assert why in found.confounds
    sooner = row(judgement, "sooner")  # epochs are not of test images
    assert sooner.effect is not None
    assert "top1_error" not in sooner.secondary


@pytest.mark.parametrize("damage", ["{", "[]", '{"packages": null}', None])
def test_a_damaged_environment_is_unknown(records: Path, damage: str | None):
    path = records / planned(records)["none"][0] / "environment.json"
    path.unlink() if damage is None else path.write_text(damage)
    assert row(judged(records), "lrn").effect is not None


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


# --- What the words rest on.


def by_regression(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    """The base less an arm on its first seeds: difference, V and its degrees of freedom, and the arms' own variances.

    By SciPy's regression of the arm on the base, for an arm of five runs; two arms are too few to shrink anything, but
    for the base's variance, whose prior has six degrees of freedom.
    """
    base, arm = first.mean(1) if first.ndim > 1 else first, second.mean(1) if second.ndim > 1 else second
    count = len(arm)
    shared = base[:count]
    line: Any = stats.linregress(shared, arm)
    off, squares = shared.mean() - base.mean(), ((shared - shared.mean()) ** 2).sum()
    error = ((arm - line.intercept - line.slope * shared) ** 2).sum() / (count - 2)
    nu = np.array([len(base) - 1, count - 1])
    pooled = smyth(np.array([base.var(ddof=1), arm.var(ddof=1)]), nu)
    parts = error * (1 / count + off**2 / squares), (1 - line.slope) ** 2 * pooled[0] / len(base)
    slope_part = 2 * error / squares * (1 - line.slope) ** 2 * (pooled[0] / len(base)) ** 2
    df = sum(parts) ** 2 / (parts[0] ** 2 / (count - 2) + parts[1] ** 2 / pooled[1] + slope_part)
    return base.mean() - arm.mean() + line.slope * off, sum(parts), df, line.rvalue


def smyth(variances: np.ndarray, nu: np.ndarray) -> tuple[float, float]:
    """The first arm's variance and its degrees of freedom, shrunk over all of them."""
    e = np.log(variances) - special.digamma(nu / 2) + np.log(nu / 2)
    excess = e.var(ddof=1) - special.polygamma(1, nu / 2).mean()
    d0, s0 = 6.0, (nu * variances).sum() / nu.sum()
    if excess > 0:
        root: Any = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-6, 1e6, xtol=1e-14)
        d0, s0 = min(6.0, 2 * root), np.exp(e.mean() + special.digamma(root) - np.log(root))
    return (d0 * s0 + nu[0] * variances[0]) / (d0 + nu[0]), min(d0 + nu[0], nu.sum())


def test_the_interval_is_that_of_the_formulas_written_here(finished: Path):
    """An arm that starts from the base's weights: by regression on shared seeds, and with the images' part."""
    ids = planned(finished)
    first, second = (errors(finished, ids[name]) for name in ("none", "no_lrn"))
    images = first.shape[1]
    difference, total, df, correlation = by_regression(first, second)
    gaps = first.mean(0) - second.mean(0)
    within = sum(arm.var(0, ddof=1).mean() / len(arm) for arm in (first, second)) / images
    spare = max(0.0, gaps.var(ddof=1) / images - within)
    both = total + spare
    half = stats.t.ppf(1 - 0.025 / 5, df * (both / total) ** 2) * np.sqrt(both)
    lrn = row(judged(finished), "lrn")
    assert lrn.effect is not None
    assert lrn.interval == pytest.approx((difference - half, difference + half), rel=1e-10)
    assert lrn.share == pytest.approx((difference / -0.1, (difference + half) / -0.1, (difference - half) / -0.1))
    assert lrn.effect.correlation == pytest.approx(correlation, rel=1e-10)
    assert f"correlate with the base's (r = {correlation:+.2f})" in lrn.notes[0]
    sds = [arm.mean(1).var(ddof=1) for arm in (first, second)]
    assert lrn.strength == pytest.approx(0.1 / np.sqrt(sum(sds)))
    own, original = total + spare, sum(sds) + spare
    ratio = stats.norm.pdf(difference, -0.1, np.sqrt(own + original)) / stats.norm.pdf(difference, 0, np.sqrt(own))
    assert lrn.bayes_factor == pytest.approx(ratio, rel=1e-8)


def rejudged(folder: Path, *changed: dict[str, Any], **plan: Any) -> list[Row]:
    """The study's rows for other claims: each the first one with some keys changed."""
    [path] = (folder / "studies").glob("*.json")
    [look] = read_looks(path)
    claims = [{**look["claims"][0], **change} for change in changed]
    return judge([{**look, **plan, "claims": claims}], read_archive([folder])).rows


def test_a_claim_without_a_figure_has_a_smallest_effect(finished: Path):
    base = {"published": {}, "direction": "lower"}
    none, small, large = rejudged(finished, base, {**base, "smallest_effect": 1.0}, {**base, "smallest_effect": 50.0})
    assert (none.verdict, small.verdict, large.verdict) == ("same direction, size open", "reproduced", "negligible")


def test_a_gap_is_judged_for_new_images(finished: Path):
    base = {"published": {}, "direction": "lower", "smallest_effect": 1.0}
    [gap] = rejudged(finished, {**base, "metric": "gap"})
    assert gap.effect is not None
    assert gap.effect.new is not None  # how wide: tests/study/test_statistics.py
    assert gap.effect.decisive == gap.effect.new_study


def test_a_claim_that_needs_two_findings(finished: Path):
    """The test error falls by ten points, and the gap does not move: the records' training error follows it."""
    base = {"published": {}, "direction": "lower", "smallest_effect": 1.0}
    both, contrary = rejudged(
        finished, {**base, "also": {"train_top1_error": "lower"}}, {**base, "also": {"train_top1_error": "higher"}}
    )
    assert both.verdict == "reproduced"
    assert contrary.word is not None
    assert contrary.word.value == "reversed"
    assert contrary.verdict == ("reversed (top-1 error: as claimed; training error, centre view, top-1: reversed)")
    assert contrary.notes[1].startswith("the claim also needs training error, centre view, top-1 to be higher: -")


RANGES = [
    {"verdict": "reproduced", "words": "as large as said", "above": -20, "below": -2},
    {"verdict": "negligible", "words": "smaller than 1 point", "above": -1, "below": 1},
    {"verdict": "same direction", "words": "same direction on Imagenette", "below": 0},
    {"verdict": "reversed", "words": "opposite", "above": 0},
]


def test_a_claim_may_have_ranges_of_its_own(finished: Path):
    lrn, other = rejudged(finished, {"ranges": RANGES}, {"ranges": RANGES[1:]})
    assert (lrn.verdict, lrn.word) == ("as large as said", Verdict.reproduced)
    assert (other.verdict, other.word) == ("same direction on Imagenette", Verdict.same_direction)
    [turned] = rejudged(
        finished, {"ranges": RANGES, "arm": LRN["against"], "against": [], "published": {"top1_error": 9}}
    )
    assert (turned.verdict, turned.word) == ("opposite", Verdict.reversed)


def training_errors(folder: Path, run_ids: list[str], errors: list[float]) -> None:
    for run_id in run_ids:
        path = folder / run_id / "metrics.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        for line, error in zip(lines[1:], errors, strict=True):
            line[4] = str(error + int(run_id, 16) % 97 / 1e4)
        path.write_text("\n".join(",".join(line) for line in lines))


def test_a_bound_supports_a_direction_at_most(records: Path):
    """Figure 1: ReLU against tanh, which never gets there; here the base against the arm without LRN."""
    ids = planned(records)
    training_errors(records, ids["none"], [0.5, 0.3, 0.2, 0.1])
    training_errors(records, ids["no_lrn"], [0.6, 0.5, 0.4, 0.3])
    speed = {"metric": "epochs_to_25", "ratio": True, "arm": LRN["against"], "against": []}
    ranges = [
        {"verdict": "reproduced", "words": None, "above": 1.1, "below": 9},
        {"verdict": "same direction", "words": "several times faster", "above": 1.3},
        {"verdict": "same direction", "words": "faster", "above": 1},
    ]
    plain, ranged = rejudged(
        records,
        {**speed, "published": {"epochs_to_25": 1.7}},
        {**speed, "published": {"epochs_to_25": 6.0}, "ranges": ranges},
    )
    for one in (plain, ranged):
        assert one.is_bound
        assert one.word is Verdict.same_direction
    assert plain.effect is not None
    low = plain.shown(plain.effect.difference - plain.effect.study)
    assert 1.4 < low < 1.7
    assert plain.verdict == f"same direction, at least ×{low:.2f}"
    assert ranged.verdict == f"several times faster, at least ×{low:.2f}"


def test_what_was_there_when_first_logged_is_a_bound_too(records: Path):
    ids = planned(records)
    training_errors(records, ids["none"], [0.2, 0.2, 0.1, 0.1])
    training_errors(records, ids["no_lrn"], [0.6, 0.5, 0.3, 0.2])
    speed = {"metric": "epochs_to_25", "ratio": True, "published": {"epochs_to_25": 3.5}}
    arms = {"arm": LRN["against"], "against": []}
    slower, faster = rejudged(records, {**speed, **arms}, {**speed, "published": {"epochs_to_25": 0.3}})
    for one, sign in ((slower, ">"), (faster, "<")):
        assert one.is_bound, sign
        assert one.word is Verdict.same_direction
        assert "were first logged too late" in " ".join(one.notes)
    [backwards] = rejudged(records, speed)  # the effect may be smaller than measured: nothing can be said
    assert (backwards.verdict, backwards.why_none) == (
        "not testable here",
        "runs were first logged after what the claim is about",
    )


def test_only_this_test_set(finished: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the interval for new images contains 0, and that for these images does not."""
    real = verdicts.effect

    def wide(*arguments: Any, **more: Any) -> Any:
        found = real(*arguments, **more)
        return dataclasses.replace(found, new_study=None if found.new_study is None else 1.0)

    monkeypatch.setattr(verdicts, "effect", wide)
    monkeypatch.setattr(Samples, "matched", lambda *_: {})
    assert row(judged(finished), "lrn").verdict == "inconclusive (same direction on this test set only)"


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


def test_other_studies_with_the_same_claims_are_listed(finished: Path):
    [path] = (finished / "studies").glob("*.json")
    [look] = read_looks(path)
    other = {**look, "id": "lrn-demo-abcdef", "departures": ["optim.drops"], "claims": look["claims"][:1]}
    elsewhere = {**other, "recipe": "imagenet128"}
    started = {look["id"]: [look], "lrn-demo-abcdef": [other], "lrn-imagenet128-abcdef": [elsewhere]}
    assert judge([look], read_archive([finished]), started=started).remarks == [
        "also started at this recipe: lrn-demo-abcdef, with other optim.drops, with 1 of these claims: mine/lrn"
    ]


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


def test_arms_of_other_shapes_or_weights_share_no_seeds():
    def start(*line: str) -> Any:
        return composer().job(list(line), stored=False).config

    base = start()
    for line in ("ablation=no_lrn", "ablation=no_pca", "ablation=no_dropout", "optim.weight_decay=0", "ablation=tanh"):
        assert verdicts.starts_alike(base, start(line)), line
    for line in ("ablation=no_conv3", "ablation=half_net", "model.init_std=0.02", "ablation=ungrouped"):
        assert not verdicts.starts_alike(base, start(line)), line


def test_a_configuration_against_itself(tmp_path: Path):
    made_study(tmp_path, ["study=aa", "study.seeds=6"])
    judgement = judged(tmp_path)
    assert [arm.name for arm in judgement.arms] == ["none", "none again"]
    ids = list(planned(tmp_path).values())
    top1 = row(judgement, "top1_error")
    assert top1.effect is not None
    first, second = (errors(tmp_path, each).mean(1) for each in ids)
    assert top1.effect.difference == pytest.approx(first.mean() - second.mean())
    assert top1.effect.fixed == pytest.approx(
        stats.ttest_ind(first, second, equal_var=False).confidence_interval().high - (first.mean() - second.mean())
    )
    assert {"top1_error", "top5_error", "gap", "train_loss", "colour_gap"} <= {one.claim.id for one in judgement.rows}
    [said] = judgement.remarks
    assert said.startswith(f"A/A: of {len(judgement.rows)} metrics")


def test_variance_by_source(tmp_path: Path):
    made_study(tmp_path, ["study=variance"])
    judgement = judged(tmp_path)
    table = 100 * np.array([errors(tmp_path, ids).mean(1) for ids in planned(tmp_path).values()])
    seed, data, rest = variance_components(table)
    assert judgement.remarks == [
        f"variance by source, top-1 error, 4 data seeds by 4 seeds: sd {seed:.2f} points by seed (initial weights, "
        f"dropout), {data:.2f} by data seed (order, augmentation), {rest:.2f} by both together and the rest"
    ]


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
