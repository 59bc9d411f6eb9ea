"""What a row says beside its numbers: failures, and whatever else differs between the arms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scipy import stats

from support.judging import LINE, fail, judged, planned, rejudged, row
from support.studies import made_study


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
    assert row(judgement, "lrn_pair").unexpected == more.split(", ")
    pool, maps = row(judgement, "overlap_pair").confounds
    more = "augment.pca_until, model.paddings, optim.conv1_cut_at, optim.conv1_freeze_at, pool.ceil"
    assert pool == f"the arms differ in more than the claim says: {more}"
    assert maps.startswith("feature maps differ in size: [")
    cross_talk = row(judgement, "no_cross_talk_pair")
    assert (cross_talk.verdict, cross_talk.claim.is_context) == (None, True)
    assert cross_talk.confounds == ["the arms differ in more than the claim says: model.kernels"]


def test_a_rate_that_the_plan_chose_is_expected_to_differ(records: Path):
    """At each arm's own learning rate, and no other key than that."""
    for run_id in planned(records)["no_lrn"]:
        path = records / run_id / "config.yaml"
        path.write_text(re.sub(r"(?m)^(  lr): .*", r"\1: 0.123", path.read_text()))
    for rate, unexpected in (("protocol", ["optim.lr"]), ("own", [])):
        [lrn] = rejudged(records, {}, rate=rate)
        assert "optim.lr" in lrn.differing
        assert lrn.unexpected == unexpected


def test_a_configuration_that_cannot_be_read_is_a_doubt(records: Path):
    (records / planned(records)["none"][0] / "config.yaml").write_text("model: [")
    assert row(judged(records), "lrn").confounds[0].startswith("configurations cannot be compared: ")


@pytest.mark.parametrize("damage", ["{", "[]", '{"packages": null}', None])
def test_a_damaged_environment_is_unknown(records: Path, damage: str | None):
    path = records / planned(records)["none"][0] / "environment.json"
    path.unlink() if damage is None else path.write_text(damage)
    assert row(judged(records), "lrn").effect is not None
