"""Claims beyond a difference of two arms' errors, by made records or tiny runs, against formulas of their own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from alexlab.cli import report
from alexlab.cli.nets import measure
from alexlab.cli.train import main as train
from alexlab.compose import Composer
from alexlab.config import CONF_DIR
from alexlab.console import Console
from alexlab.data import build_datamodule, shapes
from alexlab.report.content import report_content
from alexlab.report.neighbours import neighbours
from alexlab.study.judgement import Row
from alexlab.study.metrics import far_from_centre
from alexlab.sweep.study_plan import document, make_study, register, unmet
from support.judging import judged, planned
from support.settings import TINY, composed, composer
from support.studies import made_study


def at_demo(folder: Path, *names: str) -> Path:
    """A configuration folder with some of the paper's claims as they are, but judged at recipe=demo."""
    claims = []
    for name in names:
        source, _, wanted = name.partition("/")
        content = yaml.safe_load((CONF_DIR / "claims" / f"{source}.yaml").read_text())
        [claim] = [one for one in content if one["id"] == wanted]
        claims.append({**claim, "recipes": ["demo"]})
    (folder / "conf" / "claims").mkdir(parents=True)
    (folder / "conf" / "claims" / "mine.yaml").write_text(yaml.safe_dump(claims))
    return folder / "conf"


def made(
    tmp_path: Path,
    names: list[str],
    errors: dict[str, float] | None = None,
    seeds: str = "5/15",
    images: int = 2000,
) -> Path:
    """Records of a study of these claims."""
    arm, base = seeds.split("/")
    line = ["study=lrn", "study.claims=[mine]", f"study.seeds={arm}", f"study.base_seeds={base}"]
    made_study(tmp_path / "runs", line, errors, config_dir=at_demo(tmp_path, *names), images=images, run_sd=0.003)
    return tmp_path / "runs"


def row(folder: Path, name: str) -> Row:
    return next(row for row in judged(folder).rows if row.claim.id == name)


NEIGHBOURS = {
    "nested": "[" * 100_000,
    "a list": "[]",
    "no keys": "{}",
    "no precision": '{"precision": []}',
    "a word": '{"precision": {"layer": "x", "pixels": 0.2}}',
    "an infinite number": '{"precision": {"layer": 1e999, "pixels": 0.2}}',
    "no standard error": '{"precision": {"layer": 0.5, "pixels": 0.2}, "layer": "fc7"}',
}


def test_what_is_measured_of_nets_is_left_out_in_a_line_where_a_stranger_wrote_it(tmp_path: Path):
    """Neighbours, averages, kernels and numbers of images of any kind end in no traceback, and do not wait."""
    names = ["paper/retrieval", "paper/off_centre_objects", "paper/colour_towers", "paper/table2_five"]
    folder = made(tmp_path, names, seeds="5/15", images=50)
    base = planned(folder)["none"]
    for run_id, text in zip(base, NEIGHBOURS.values(), strict=False):
        (folder / run_id / "neighbours.json").write_text(text)
    members = {run_id: {"test": {"ten": [0.1]}} for run_id in base[:5]}
    for place, content in enumerate(([], {"members": []}, {"members": members}, {"average": "softmax"})):
        path = folder / "averages" / str(place) / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    (folder / base[0] / "conv1.npy").unlink()
    os.mkfifo(folder / base[0] / "conv1.npy")
    config = folder / base[0] / "config.yaml"
    config.write_text(re.sub(r"test_images: .*", "test_images: 1000000000", config.read_text()))
    judgement = judged(folder)
    for run_id in base[: len(NEIGHBOURS)]:
        assert any(line.startswith(run_id) and "neighbours.json: " in line for line in judgement.problems)
    for why in (
        "conv1.npy: is not a regular file",
        "has 50 images, data.test_images=1000000000",
        "has no ensemble with",
    ):
        assert any(line.startswith(base[0]) and why in line for line in judgement.problems)
    report_content(judgement)


def test_the_study_of_dropout_runs_until_its_rule_ends_it():
    study = make_study(composer(), ["study=dropout", "recipe=imagenet128"], stored=False)
    assert [arm.name for arm in study.arms] == ["none", "no_dropout"]
    assert {(arm.job.config.optim.schedule.name, arm.job.config.trainer.max_epochs) for arm in study.arms} == {
        ("plateau", 400)
    }
    assert study.departures == ["trainer.max_epochs"]  # which is none for a claim about lengths
    assert all(claim.waits and not unmet(claim, study.base) for claim in study.claims)


def test_epochs_to_convergence_are_judged_by_the_runs_lengths(tmp_path: Path):
    line = ["study=dropout", "study.claims=[mine]", "study.seeds=5", "study.base_seeds=5"]
    made_study(tmp_path / "runs", line, config_dir=at_demo(tmp_path, "paper/dropout_epochs"))
    lengths = {"none": [118, 122, 120, 125, 116], "no_dropout": [60, 63, 58, 61, 59]}
    for arm, ids in planned(tmp_path / "runs").items():
        for run_id, epochs in zip(ids, lengths[arm], strict=True):
            path = tmp_path / "runs" / run_id / "result.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": epochs}))
    found = row(tmp_path / "runs", "dropout_epochs")
    logs = {arm: np.log(values) for arm, values in lengths.items()}
    assert found.effect is not None
    assert found.effect.difference == pytest.approx(logs["none"].mean() - logs["no_dropout"].mean())
    assert found.shown(found.effect.difference) == pytest.approx(2.0, abs=0.03)
    assert found.verdict == "reproduced"
    path = tmp_path / "runs" / planned(tmp_path / "runs")["none"][0] / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": 400}))  # cut: its length is a bound
    assert any("ended before the event" in note for note in row(tmp_path / "runs", "dropout_epochs").notes)


def write_average(folder: Path, ids: list[str], gain: tuple[float, float]) -> tuple[float, float]:
    """An average of five runs as evaluate.py keeps it; its errors less the mean of its members'."""
    tests = {run_id: json.loads((folder / run_id / "result.json").read_text())["test"] for run_id in ids}
    names = ("top1_error", "top5_error")
    mean = {name: float(np.mean([test["ten"][name] for test in tests.values()])) for name in names}
    test = {"ten": {name: mean[name] - less for name, less in zip(names, gain, strict=True)}}
    path = folder / "averages" / "-".join(run_id[:2] for run_id in ids)
    path.mkdir(parents=True)
    members = {run_id: {"test": one} for run_id, one in tests.items()}
    result = {"average": "softmax", "checkpoint": "last", "members": members, "test": test}
    (path / "result.json").write_text(json.dumps(result))
    return gain


def test_table_2s_average_of_five_is_judged_by_three_groups_of_the_base(tmp_path: Path):
    runs = made(tmp_path, ["paper/table2_five"])
    ids = planned(runs)["none"]
    assert len(ids) == 15
    missing = row(runs, "table2_five")
    assert (missing.verdict, missing.effect) == (None, None)
    assert missing.why_none == "interim: the nets are not measured yet; run this command with --nets"
    assert any("python src/report.py with --nets evaluates it" in line for line in judged(runs).problems)
    gains = [(0.026, 0.018), (0.027, 0.018), (0.025, 0.017)]
    for number, gain in enumerate(gains):
        write_average(runs, ids[5 * number : 5 * number + 5], gain)
    found = row(runs, "table2_five")
    assert found.counted == (3,)
    top1 = -np.array([gain[0] for gain in gains])
    assert found.effect is not None
    assert found.effect.difference == pytest.approx(top1.mean())
    half = stats.t.ppf(0.975, 2) * top1.std(ddof=1) / np.sqrt(3)
    assert found.effect.fixed == pytest.approx(half)
    assert found.secondary["five_top5_error"] == pytest.approx(-np.mean([gain[1] for gain in gains]))
    assert found.verdict == "reproduced"
    assert not found.notes
    # An average of other results than the records' is none.
    path = next((runs / "averages").glob(f"{ids[0][:2]}-*/result.json"))
    changed = json.loads(path.read_text())
    changed["members"][ids[0]]["test"]["ten"]["top1_error"] += 0.01
    path.write_text(json.dumps(changed))
    assert row(runs, "table2_five").counted == (2,)


def test_ten_runs_are_two_groups_of_five(tmp_path: Path):
    runs = made(tmp_path, ["paper/table2_five"], seeds="5/10", images=50)
    ids = planned(runs)["none"]
    for start in (0, 5):
        write_average(runs, ids[start : start + 5], (0.02, 0.01))
    assert row(runs, "table2_five").why_none == "2 groups of 5 runs in an arm; a verdict needs 3"


def test_retrieval_is_the_difference_of_two_precisions(tmp_path: Path):
    runs = made(tmp_path, ["paper/retrieval"], seeds="5/5")
    ids = planned(runs)["none"]
    assert row(runs, "retrieval").why_none == "interim: the nets are not measured yet; run this command with --nets"
    by_layer, by_pixels = [0.52, 0.55, 0.50, 0.53, 0.54], [0.20, 0.21, 0.20, 0.19, 0.20]
    for run_id, layer, pixels in zip(ids, by_layer, by_pixels, strict=True):
        content = {
            **{"layer": "fc7", "nearest": 6, "queries": 500, "pool": 20_000},
            **{"precision": {"layer": layer, "pixels": pixels}, "standard_error": {"layer": 0.015, "pixels": 0.012}},
        }
        (runs / run_id / "neighbours.json").write_text(json.dumps(content))
    found = row(runs, "retrieval")
    differences = np.subtract(by_layer, by_pixels)
    assert found.effect is not None
    assert found.effect.difference == pytest.approx(differences.mean())
    half = stats.t.ppf(0.975, 4) * differences.std(ddof=1) / np.sqrt(5)
    assert found.effect.fixed == pytest.approx(half)
    assert found.verdict == "reproduced"
    assert found.notes == [
        "precision: 52.8 ± 1.5 % by fc7 and 20.0 ± 1.2 % by pixels (standard errors of one run over its queries; "
        "6 nearest of 20,000 training images, 500 queries a run)"
    ]


@pytest.mark.parametrize(
    ("less", "verdict"),
    [(0.005, "reproduced (within 2 points of the centre)"), (0.08, "reversed (over 2 points worse off the centre)")],
)
def test_corner_crops_against_the_centre(tmp_path: Path, less: float, verdict: str):
    """Each image by one corner, in turn: the first images that the centre has right are wrong by their corner."""
    runs = made(tmp_path, ["paper/off_centre_views"], seeds="5/5")
    differences = []
    for number, run_id in enumerate(planned(runs)["none"]):
        with np.load(runs / run_id / "predictions.npz") as kept:
            arrays = dict(kept)
        right = np.flatnonzero(arrays["center_top5"][:, 0] == arrays["labels"])[: round(2000 * less) + number]
        for place in right:
            arrays["ten_by_view"][place, place % 4] = (arrays["labels"][place] + 1) % 10
            arrays["ten_by_view"][place, 9 - place % 4] = 3  # another view, of which nothing is read
        np.savez(runs / run_id / "predictions.npz", **arrays)
        differences.append(len(right) / 2000)
    found = row(runs, "off_centre_views")
    assert found.effect is not None
    assert found.effect.difference == pytest.approx(np.mean(differences))
    assert found.effect.new_study is not None  # single images are known
    assert found.verdict == verdict
    assert not found.secondary


def test_records_without_single_views_say_so(tmp_path: Path):
    runs = made(tmp_path, ["paper/off_centre_views"], seeds="3/3")
    for run_id in planned(runs)["none"]:
        with np.load(runs / run_id / "predictions.npz") as kept:
            arrays = {name: values for name, values in kept.items() if name != "ten_by_view"}
        np.savez(runs / run_id / "predictions.npz", **arrays)
    judgement = judged(runs)
    assert "has no predictions by single views" in judgement.problems[0]
    assert next(iter(judgement.rows)).why_none == "interim: finished runs could not be read"


def test_offsets_are_where_the_drawing_puts_the_shapes(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    """Against the places that draw_image itself draws at, for the images of a store in its order."""
    data = build_datamodule(composed(tiny))
    data.prepare_data()
    data.setup()
    names = data.store.classes
    files = (data.store.path / "test_names.txt").read_text().splitlines()
    numbers = [int(Path(name).stem.rpartition("_")[2]) for name in files]
    drawn: list[tuple[float, float]] = []
    placed = shapes._placed
    polygons = [id(points) for parts in shapes.CLASSES.values() for points, _ in parts]

    def spy(points: Any, x: float, y: float, *rest: float) -> Any:
        if id(points) in polygons:
            drawn.append((x, y))
        return placed(points, x, y, *rest)

    monkeypatch.setattr(shapes, "_placed", spy)
    expected = []
    for name, number in zip((names[label] for label in data.split("test").labels), numbers, strict=True):
        drawn.clear()
        image = shapes.draw_image(name, np.random.default_rng([0, 2, number]))
        (x, y), (width, height) = drawn[0], image.size
        expected.append(((x - width / 2) / min(image.size), (y - height / 2) / min(image.size)))
    found = shapes.object_offsets(names, "test", len(files), 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(found).max() <= 0.12


def test_errors_of_objects_off_the_centre(tmp_path: Path):
    runs = made(tmp_path, ["paper/off_centre_objects"], seeds="3/3")
    offsets = shapes.object_offsets(sorted(shapes.CLASSES), "test", 2000, 0)
    distance = np.sqrt((offsets**2).sum(1))
    far = distance > np.median(distance)
    expected = []
    for run_id in planned(runs)["none"]:
        with np.load(runs / run_id / "predictions.npz") as arrays:
            wrong = arrays["center_top5"][:, 0] != arrays["labels"]
        expected.append(wrong[far].mean() - wrong[~far].mean())
    found = row(runs, "off_centre_objects")
    assert found.effect is not None
    assert found.effect.difference == pytest.approx(np.mean(expected))
    assert found.verdict is None  # context
    assert far_from_centre(tuple(sorted(shapes.CLASSES)), "test", 2000, 0).sum() == 1000


def test_specialisation_is_counted_in_every_run(tmp_path: Path):
    runs = made(tmp_path, ["paper/colour_towers"], seeds="5/5")
    ids, random = planned(runs), np.random.default_rng(0)
    for arm, of_arm in ids.items():
        for number, run_id in enumerate(of_arm):
            kernels = random.normal(0, 0.1, (24, 3, 11, 11))
            if arm == "none" and number > 0:  # the first tower is grey in all runs but one
                kernels[:12] = kernels[:12].mean(1, keepdims=True)
            np.save(runs / run_id / "conv1.npy", kernels.astype(np.float16))
    found = row(runs, "colour_towers")
    [counted] = [note for note in found.notes if " of 5 runs above" in note]
    assert counted.startswith("4 of 5 runs above the largest of the other arm, 0.")
    for run_id in ids["none"][:1]:
        kernels = np.load(runs / run_id / "conv1.npy")
        kernels[:12] = kernels[:12].mean(1, keepdims=True)
        np.save(runs / run_id / "conv1.npy", kernels)
    verdict = row(runs, "colour_towers").verdict
    assert verdict is not None
    assert verdict.startswith("reproduced (5 of 5 runs above")


def test_the_order_of_importance_is_judged_by_the_same_arms(tmp_path: Path):
    names = ["paper/order_towers_lrn", "paper/order_lrn_overlap"]
    runs = made(tmp_path, names, {"half_net": 0.44, "no_lrn": 0.42, "no_overlap": 0.40})
    assert planned(runs).keys() == {"half_net", "no_lrn", "no_overlap"}  # the base takes no part
    for name in ("order_towers_lrn", "order_lrn_overlap"):
        found = row(runs, name)
        assert found.effect is not None
        assert found.effect.difference == pytest.approx(0.02, abs=0.015)
    paper = {arm.name for arm in make_study(composer(), ["study=paper"]).arms}
    assert planned(runs).keys() <= paper


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (0.401, "reproduced (no mean needed, within 1 point)"),
        (0.5, "reversed (over a point worse without the mean)"),
    ],
)
def test_input_normalisation(tmp_path: Path, error: float, verdict: str):
    names = ["paper/normalisation", "normalisation/tanh"]
    tanh = {"model.activation=tanh": 0.45, "model.activation=tanh data.mean=none": 0.55}
    runs = made(tmp_path, names, {"none": 0.4, "data.mean=none": error, **tanh}, seeds="5/5", images=40_000)
    arms = ["none", "data.mean=none", "model.activation=tanh data.mean=none", "model.activation=tanh"]
    assert list(planned(runs)) == arms
    assert row(runs, "normalisation").verdict == verdict
    assert row(runs, "tanh").verdict == "reproduced"
    assert [arm.name for arm in make_study(composer(), ["study=normalisation"]).arms] == arms


def test_without_a_mean_the_net_sees_the_pixels_themselves(tiny: list[str]):
    config = composed([*tiny, "data.mean=none", "augment.pca=false", "augment.flip=false"])
    data = build_datamodule(config)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    inputs, _ = data.on_after_batch_transfer(batch, 0)
    expected = batch.crops.numpy().astype(np.float64) * config.data.pixel_scale
    np.testing.assert_allclose(inputs.permute(0, 2, 3, 1).numpy(), expected, rtol=1e-6)
    images = next(iter(data.test_dataloader())).images
    [view] = data.views(images, data.windows("center"))
    size, crop = config.data.size, view.shape[-1]
    middle = slice((size - crop) // 2, (size - crop) // 2 + crop)
    pixels = images[:, middle, middle].numpy() * config.data.pixel_scale
    np.testing.assert_allclose(view.permute(0, 2, 3, 1).numpy(), pixels, rtol=1e-6)


def test_nets_are_measured_beside_their_records(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A whole study of tiny runs: five nets are averaged, and each one's neighbours found, once."""
    # Nets of two epochs guess, so that some would be set aside as partly trained.
    monkeypatch.setattr("alexlab.study.arm_runs._find_partly_trained", lambda arm, archive: None)
    conf = at_demo(
        tmp_path, "paper/table2_five", "paper/retrieval", "paper/off_centre_views", "paper/off_centre_objects"
    )
    monkeypatch.setenv("ALEXLAB_CACHE", str(tmp_path / "none"))
    place = [f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]
    of_runs = [*TINY, *place]
    assert train(["-m", "seed=0,1,2,3,4", "optim.schedule=fixed", *of_runs]) == 0
    line = ["study=lrn", "study.claims=[mine]", "study.base_seeds=5", *of_runs]  # such nets learn too little for one
    register(document(make_study(Composer(str(conf)), line, str(conf))), tmp_path / "runs" / "studies")
    to_report = [f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'reports'}", f"data.cache={cache}", "--pictures"]
    assert report.main([*to_report, "--nets"]) == 0
    measure(judged(tmp_path / "runs"), str(cache), composer(), Console(width=200))  # once more
    told = capsys.readouterr().out
    assert told.count("neighbours measured") == 5  # once each
    assert told.count("Evaluated before; nothing is computed again.") == 1
    assert "no ensemble" not in told
    judgement = judged(tmp_path / "runs")
    assert not judgement.problems
    assert report.main(["sweep=last", *to_report]) == 0
    first = neighbours(judgement.arms[0].runs[0].record, cache=str(cache))
    shares = f"is {first.by_layer.percentage(1)} by fc7 and {first.by_pixels.percentage(1)} by pixels"
    pages = list((tmp_path / "reports").glob("*/report.md"))
    assert len(pages) == 2  # the study's and the sweep's
    for page in pages:
        assert (page.parent / "figure_4_answers.png").is_file()
        assert " ".join(shares.split()) in " ".join(page.read_text("utf-8").split())
    five, retrieval, views, objects = judgement.rows
    assert (five.counted, retrieval.counted, views.counted, objects.counted) == ((1,), (5,), (5,), (5,))
    [kept] = (tmp_path / "runs" / "averages").glob("*/result.json")
    average = json.loads(kept.read_text())
    assert five.effect is not None
    expected = average["test"]["ten"]["top1_error"] - average["mean"]["ten"]["top1_error"]
    assert five.effect.difference == pytest.approx(expected)
    for run_id in average["members"]:
        content = json.loads((tmp_path / "runs" / run_id / "neighbours.json").read_text())
        assert 0 <= content["precision"]["layer"] <= 1
        with np.load(tmp_path / "runs" / run_id / "predictions.npz") as arrays:
            labels, by_view = arrays["labels"], arrays["ten_by_view"]
            assert by_view.shape == (len(labels), 10)
            assert (by_view[:, 4] == arrays["center_top5"][:, 0]).mean() > 0.99  # but for ties
