"""A claim's numbers against formulas written here, on what the records hold."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize, special, stats

from alexlab.study import effects
from support.judging import LINE, errors, judged, planned, rejudged, row
from support.studies import made_study


def by_regression(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    """The base less an arm on its first seeds: difference, V and its degrees of freedom, and the arms' own variances.

    By SciPy's regression of the arm on the base, for an arm of five runs; two arms are too few to shrink anything, but
    for the base's variance, whose prior has six degrees of freedom. It counts if it gives a wider interval for the
    family of five claims than the base's own.
    """
    base, arm = first.mean(1) if first.ndim > 1 else first, second.mean(1) if second.ndim > 1 else second
    count = len(arm)
    shared = base[:count]
    line: Any = stats.linregress(shared, arm)
    off, squares = shared.mean() - base.mean(), ((shared - shared.mean()) ** 2).sum()
    error = ((arm - line.intercept - line.slope * shared) ** 2).sum() / (count - 2)
    nu = np.array([len(base) - 1, count - 1])
    pooled = smyth(np.array([base.var(ddof=1), arm.var(ddof=1)]), nu)
    both = []
    for variance, base_df in (pooled, (base.var(ddof=1), len(base) - 1)):
        parts = error * (1 / count + off**2 / squares), (1 - line.slope) ** 2 * variance / len(base)
        slope_part = 2 * error / squares * (1 - line.slope) ** 2 * (variance / len(base)) ** 2
        both.append(
            (sum(parts), sum(parts) ** 2 / (parts[0] ** 2 / (count - 2) + parts[1] ** 2 / base_df + slope_part))
        )
    total, df = max(both, key=lambda one: stats.t.ppf(1 - 0.025 / 5, one[1]) * np.sqrt(one[0]))
    return base.mean() - arm.mean() + line.slope * off, total, df, line.rvalue


def smyth(variances: np.ndarray, nu: np.ndarray) -> tuple[float, float]:
    """The first arm's variance and its degrees of freedom, shrunk over all of them."""
    e = np.log(variances) - special.digamma(nu / 2) + np.log(nu / 2)
    excess = e.var(ddof=1) - special.polygamma(1, nu / 2).mean()
    d0, s0 = 6.0, (nu * variances).sum() / nu.sum()
    if excess > 0:
        root: Any = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-6, 1e6, xtol=1e-14)
        d0, s0 = min(6.0, 2 * root), np.exp(e.mean() + special.digamma(root) - np.log(root))
    return (d0 * s0 + nu[0] * variances[0]) / (d0 + nu[0]), min(d0 + nu[0], nu.sum())


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


def test_a_ratio_is_compared_by_welchs_t_whatever_seeds_are_shared(finished: Path):
    """As the plan of figure 1 says, whose nets start from the same weights."""
    ratio = {"ratio": True, "published": {"top1_error": 0.9}, "also": {}}
    [found] = rejudged(finished, ratio)
    ids = planned(finished)
    logs = [np.log(errors(finished, ids[name]).mean(1)) for name in ("none", "no_lrn")]
    welch = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert found.effect is not None
    assert found.effect.correlation is None
    assert found.effect.difference == pytest.approx(logs[0].mean() - logs[1].mean())
    low, high = found.effect.difference - found.effect.fixed, found.effect.difference + found.effect.fixed
    assert (low, high) == pytest.approx((welch.low, welch.high))


def test_a_gap_is_judged_for_new_images(finished: Path):
    base = {"published": {}, "direction": "lower", "smallest_effect": 1.0}
    [gap] = rejudged(finished, {**base, "metric": "gap"})
    assert gap.effect is not None
    assert gap.effect.new is not None  # how wide: tests/study/test_statistics.py
    assert gap.effect.decisive == gap.effect.new_study


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


@pytest.mark.parametrize(("correlation", "is_noted"), [(None, True), (0.5, False)])
def test_welchs_interval_is_of_independent_arms(
    finished: Path, monkeypatch: pytest.MonkeyPatch, correlation: float | None, is_noted: bool
):
    """A control variate has a rule of its own, so nothing is said of Welch's interval there."""
    found = judged(finished).rows[0].effect
    assert found is not None
    found = replace(found, correlation=correlation)
    monkeypatch.setattr(effects, "_two_arms", lambda *_: (found, found))
    monkeypatch.setattr(effects, "unlike", lambda *_: True)
    [lrn] = rejudged(finished, {})
    assert any("differ by more than a factor of two" in note for note in lrn.notes) == is_noted


def test_an_arm_of_two_runs_has_no_interval_of_welchs(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(effects, "unlike", lambda *_: True)
    made_study(tmp_path, [*LINE[:2], "study.seeds=2", "study.base_seeds=3"], config_dir=own)
    assert not any("Welch" in note for note in row(judged(tmp_path), "lrn").notes)
