"""Studies of noise: a configuration against itself, and variance by source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from alexlab.study.statistics import (
    variance_components,
)
from support.judging import errors, judged, planned, row
from support.studies import made_study


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
