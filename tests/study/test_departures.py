"""What differences between protocols are worth: by made-up records with known effects, and by the papers' figures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alexlab.hydra_compat import split_sweep
from alexlab.runs.identity import differences
from alexlab.study.departures import DEPARTURES, IMAGENET, Difference, OwnArm, find_arm, find_differences
from alexlab.study.records import Archive, read_archive
from alexlab.sweep.study_plan import SETTLED, STUDYS_OWN
from support.settings import composer
from support.studies import made_study

ERRORS = {"none": 0.30, "no_lrn": 0.42, "no_pca": 0.31}
LINE = ["study=paper", "study.claims=[paper/lrn,paper/pca]", "study.seeds=4", "study.base_seeds=4"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("runs")
    made_study(folder, LINE, ERRORS, images=2000, failed={"no_pca": 1})
    return read_archive([folder])


def own_arm(archive: Archive, line: Sequence[str] = ("recipe=demo",)) -> OwnArm | None:
    return find_arm(archive, composer().job([*line], stored=False).config, SETTLED, STUDYS_OWN)


def found(
    archive: Archive,
    line: Sequence[str] = ("recipe=demo",),
    *,
    metric: str = "top1_error",
    view: str = "ten",
    is_view_open: bool = True,
) -> dict[str, Difference]:
    own = own_arm(archive, line)
    listed = find_differences(line, composer(), archive, own, metric, view, SETTLED, is_view_open)
    return {one.name: one for one in listed}


def means(archive: Archive, key: str) -> pd.Series:
    """The mean of a number of result.json, by ablation."""
    rows = []
    for path in archive.sources[0].folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        for part in key.split("."):
            result = result[part]
        rows.append((json.loads(path.read_text())["labels"]["ablation"], result))
    return pd.DataFrame(rows, columns=["arm", "value"]).groupby("arm").value.mean()


def test_arms_of_the_records_give_their_effects(archive: Archive):
    differences, mean = found(archive), means(archive, "test.ten.top1_error")
    lrn, pca = differences["LRN"], differences["PCA colour shifts"]
    assert (lrn.override, lrn.runs, lrn.command) == ("model.lrn=false", (4, 4), None)
    assert (lrn.key, lrn.values) == ("model.lrn", (True, False))
    assert lrn.effect == pytest.approx(mean["no_lrn"] - mean["none"])
    assert 0 < (lrn.half or 0) < (lrn.effect or 0)
    assert pca.runs == (3, 4)  # one failed
    assert pca.effect == pytest.approx(mean["no_pca"] - mean["none"], abs=0.01)  # shared seeds as a control variate
    assert not differences["batch size"].is_measured
    assert differences["torchvision's net"].values == ("alexnet", "torchvision")  # options of a group
    assert (differences["centre view"].key, differences["centre view"].values) == (None, None)


def test_views_and_epochs_are_measured_within_runs(archive: Archive):
    differences = found(archive)
    ten, center = (means(archive, f"test.{view}.top1_error")["none"] for view in ("ten", "center"))
    assert differences["centre view"].effect == pytest.approx(center - ten)
    assert differences["centre view"].runs == (4,)
    gains = []
    for path in archive.sources[0].folder.glob("*/metrics.csv"):
        if json.loads((path.parent / "status.json").read_text())["labels"]["ablation"] == "none":
            errors = pd.read_csv(path).val_top1_error
            gains.append(errors.min() - errors.iloc[-1])
    best = differences["best epoch by test error"]
    assert best.effect == pytest.approx(np.mean(gains))
    # Four rows are measured, two of them by other arms: each has a quarter of the 5 %.
    assert sum(one.is_measured for one in differences.values()) == 4
    assert best.half == pytest.approx(stats.t.ppf(1 - 0.025 / 4, 3) * stats.sem(gains))
    back = found(archive, view="center")
    assert back["ten views"].effect == pytest.approx(ten - center)
    assert not {"ten views", "centre view"} & found(archive, is_view_open=False).keys()


def test_what_closes_the_gap_comes_first(archive: Archive):
    listed = [*found(archive).values()]
    more = sorted(listed, key=lambda one: one.rank(0.1))
    assert more[0].name == "LRN"
    less = sorted(listed, key=lambda one: one.rank(-0.1))
    assert less.index(more[0]) > [one.is_measured or one.effect is not None for one in less].index(False)
    assert next(one.name for one in less if one.is_measured) != "LRN"


def test_an_arm_of_the_records_may_be_ones_own(archive: Archive):
    line = ["recipe=demo", "model.lrn=false"]
    differences, mean = found(archive, line), means(archive, "test.ten.top1_error")
    assert differences["LRN"].override == "model.lrn=true"
    assert differences["LRN"].effect == pytest.approx(mean["none"] - mean["no_lrn"])
    assert "LRN: k of 1 or 2" not in differences  # without LRN it has none


def test_an_arm_is_found_by_what_it_is(archive: Archive):
    own = own_arm(archive)
    assert own is not None
    assert (len(own.runs), own.lost, own.changes) == (4, 0, {})
    failed = own_arm(archive, ["recipe=demo", "ablation=no_pca"])
    assert failed is not None
    assert (len(failed.runs), failed.lost) == (3, 1)
    assert own_arm(archive, ["recipe=demo", "model.lrn_k=1"]) is None
    other = own_arm(archive, ["recipe=demo", "optim.schedule=plateau"])
    assert other is not None
    assert other.changes["optim.schedule"] == "fixed"


def published(line: list[str], metric: str, view: str = "ten") -> dict[str, tuple[float | None, str]]:
    found_ = find_differences(line, composer(), Archive([]), None, metric, view, SETTLED, True)
    return {one.name: (None if one.effect is None else round(100 * one.effect, 9), one.source) for one in found_}


def test_published_effects_are_those_of_the_papers():
    """The signs are those of the difference: what somebody has otherwise. Typed from the papers and their tables."""
    top1, top5 = (published(["recipe=imagenet2012"], metric) for metric in ("top1_error", "top5_error"))
    assert top1["LRN"] == (1.4, "paper, 3.3")
    assert top5["LRN"] == (1.2, "paper, 3.3")
    assert top1["half net, one tower"] == (1.7, "paper, 3.2")
    assert top1["overlapping pooling"] == (0.4, "paper, 3.4")
    assert top1["centre view"] == (1.5, "paper, 6")
    assert top5["centre view"] == (1.3, "paper, 6")
    assert top1["PCA colour shifts"] == (1.0, "paper, 4.1")
    assert top5["PCA colour shifts"] == (None, "")
    assert top1["towers (groups)"] == (-1.6, "caffenet-bench.")
    assert top1["crops of random scale"][0] == pytest.approx(100 * (0.471 - 0.462))
    assert top1["half the epochs"][0] == pytest.approx(100 * (0.493 - 0.466))
    assert top1["rate cut by hand, later"][0] == pytest.approx(40.25 - 40.66)
    assert top5["rate cut by hand, later"][0] == pytest.approx(17.99 - 18.21)
    assert top1["five nets averaged"][0] == pytest.approx(38.1 - 40.7)
    assert top1["pre-trained on Fall 2011"][0] == pytest.approx(39.0 - 40.7)
    assert top1["ILSVRC-2010 test images"][0] == pytest.approx(37.5 - 40.7)
    assert top1["2048 hidden units"][0] == pytest.approx(41.7 - 40.5)
    assert published(["recipe=imagenet2012"], "top1_error", "center")["ten views"][0] == -1.5


def test_what_one_lacks_oneself_is_turned_round():
    caffe = published(["recipe=imagenet2012", "protocol=caffe"], "top1_error")
    assert caffe["PCA colour shifts"][0] == -1.0
    assert published(["recipe=imagenet2012", "model.groups=1"], "top1_error")["towers (groups)"][0] == 1.6


def test_effects_on_imagenet_say_nothing_about_other_images():
    effects = published(["recipe=demo"], "top1_error")
    assert all(effect is None for effect, _ in effects.values())
    names = {one.name for one in DEPARTURES if one.data == IMAGENET}
    assert not names & effects.keys()


@pytest.mark.parametrize(
    "line", [["recipe=imagenet2012"], ["recipe=imagenet128", "protocol=caffe"], ["recipe=demo", "ablation=no_pca"]]
)
def test_every_command_is_a_sweep_that_makes_one_change(line: list[str]):
    listed = find_differences(line, composer(), Archive([]), None, "top1_error", "ten", SETTLED, True)
    commands = [one.command for one in listed if one.override is not None]
    assert len(commands) > 10
    base = composer().job(line, stored=False).config
    for command in commands:
        assert command is not None
        jobs = split_sweep(composer().parse(shlex.split(command)))
        assert len(jobs) == 10
        assert {job[-1] for job in jobs} == {f"seed={seed}" for seed in range(5)}
        first, last = (composer().job(job, stored=False).config for job in (jobs[0], jobs[-1]))
        assert not differences(first, base)
        assert differences(last, base)
