"""Figures' numbers against hand-made ones, their files as a page needs them, and what a network says of images."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from alexlab.data.locate import store_path
from alexlab.errors import UserError
from alexlab.models import build_model
from alexlab.report.figures import (
    INK,
    ForestRow,
    _spread,
    answers_figure,
    class_errors,
    confusion,
    cost,
    curves,
    dots,
    forest,
    gaps,
    kernels,
    multiples,
    neighbours_figure,
    rates,
    save,
    speed,
)
from alexlab.report.neighbours import Answers, Near, Neighbours, _Nearest, _Queries, answers, neighbours
from alexlab.runs.process import Launch
from alexlab.runs.record import DONE, Record
from alexlab.runs.supervisor import execute
from alexlab.study.colour import colour_gap, colour_indices
from alexlab.study.metrics import epochs_to
from alexlab.sweep.plan import make_plan
from support.settings import TINY, composed


class TestColour:
    def test_grey_and_pure_colour(self, rng: np.random.Generator):
        one = rng.normal(size=(5, 1, 7, 7))
        grey = one.repeat(3, 1)
        assert (colour_indices(grey) == 0).all()
        red_less_green = one * np.array([1, -1, 0])[:, None, None]
        both = np.concatenate([red_less_green, one * np.array([1, 1, -2])[:, None, None]])
        np.testing.assert_array_equal(colour_indices(both), 1)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_is_the_share_off_the_grey_axis(self, rng: np.random.Generator, kind: type):
        weights = rng.normal(size=(9, 3, 5, 5)).astype(kind)
        axis = np.ones(3) / math.sqrt(3)
        expected = []
        for kernel in weights.astype(np.float64):
            total = colour = 0.0
            for place in kernel.reshape(3, -1).T:
                off = place - (place @ axis) * axis
                colour, total = colour + off @ off, total + place @ place
            expected.append(colour / total)
        np.testing.assert_allclose(colour_indices(weights), expected, rtol=1e-12)
        np.testing.assert_allclose(colour_indices(weights * kind(4)), expected, rtol=1e-12)

    def test_of_one_channel_is_two_thirds(self):
        weights = np.zeros((1, 3, 2, 2))
        weights[0, 2] = 5
        assert colour_indices(weights) == pytest.approx(2 / 3)

    def test_zeros_and_extremes(self):
        weights = np.zeros((3, 3, 2, 2))
        weights[1, 0] = 1e-200
        assert colour_indices(weights)[0] == 0
        assert colour_indices(weights)[1] == pytest.approx(2 / 3)
        assert colour_indices(1e300 * np.ones((1, 3, 2, 2))) == [0]
        assert colour_indices(np.zeros((0, 3, 2, 2))).shape == (0,)

    def test_gap_is_between_the_halves(self):
        weights = np.ones((5, 3, 2, 2))  # grey, but for the last two: the second half is three
        weights[3:, 0], weights[3:, 1], weights[3:, 2] = 1, -1, 0
        assert colour_gap(weights) == pytest.approx(2 / 3)
        assert colour_gap(weights[::-1]) == pytest.approx(1)
        assert colour_gap(np.concatenate([weights, weights])[[0, 3, 1, 4]]) == pytest.approx(0)

    @pytest.mark.parametrize("shape", [(4, 1, 5, 5), (4, 3, 5), (3, 5, 5), (4, 5, 5, 3)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            colour_indices(np.ones(shape))

    def test_what_has_no_index_is_refused(self):
        with pytest.raises(ValueError, match="not finite"):
            colour_indices(np.full((2, 3, 2, 2), np.nan))
        with pytest.raises(ValueError, match="two or more"):
            colour_gap(np.ones((1, 3, 2, 2)))


@pytest.mark.parametrize(
    ("errors", "epochs"),
    [
        ([0.9, 0.5, 0.25, 0.1], 3.0),
        ([0.9, 0.3, 0.2], 2.5),
        ([0.65, 0.15], 1.8),
        ([0.9, 0.2, 0.4, 0.1], 1 + 65 / 70),  # the first time
        ([0.2, 0.1], 1.0),
        ([0.25], 1.0),
        ([0.9, math.nan, 0.2], 3.0),
        ([0.9, math.nan], math.nan),
        ([0.9, 0.26], math.nan),
        ([], math.nan),
    ],
)
def test_epochs_to(errors: list[float], epochs: float):
    assert epochs_to(np.array(errors), 0.25) == pytest.approx(epochs, nan_ok=True)


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.25])
def test_epochs_to_with_several_entries_an_epoch(rng: np.random.Generator, threshold: float):
    """A falling curve: NumPy's interpolation of epochs over errors."""
    epochs = np.round(np.arange(1, 41) * 97.5) / 390
    errors = np.sort(rng.uniform(0.1, 0.9, 40))[::-1]
    expected = np.interp(threshold, errors[::-1], epochs[::-1])
    assert epochs_to(errors, threshold, epochs) == pytest.approx(expected, abs=1e-12)


class TestSpread:
    def test_moves_nothing_that_has_room(self):
        assert _spread([50.0, 10.0, 30.0], [10.0] * 3, 0, 100) == [50.0, 10.0, 30.0]

    def test_never_overlaps_and_keeps_order_and_ends(self, rng: np.random.Generator):
        for _ in range(50):
            count = int(rng.integers(1, 20))
            wanted, sizes = rng.uniform(0, 100, count), rng.uniform(1, 5, count)
            middles = np.array(_spread(list(wanted), list(sizes), 0, 100))
            order = np.argsort(wanted)
            low, high = (middles - sizes / 2)[order], (middles + sizes / 2)[order]
            assert (low[1:] >= high[:-1] - 1e-9).all()
            assert low[0] >= -1e-9
            assert high[-1] <= 100 + 1e-9

    def test_alike_ones_lie_around_their_place(self):
        assert _spread([50.0] * 3, [10.0] * 3, 0, 100) == [40.0, 50.0, 60.0]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def arms(count: int, seeds: int, epochs: int = 8) -> dict[str, np.ndarray]:
    values = np.random.default_rng(count).uniform(0.1, 0.9, (count, seeds, epochs))
    return {f"model.arm_{number}=true": np.sort(each, 1)[:, ::-1] for number, each in enumerate(values)}


def spoilt(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With an arm of which nothing is there, one whose seed diverged, and one that is shorter."""
    names = list(found)
    found[names[0]][0, 3:] = np.nan
    found[names[1]][:] = np.inf
    found[names[2]] = found[names[2]][:, :5]
    return {**found, "none": np.empty((0, 8))}


def rows(count: int) -> list[ForestRow]:
    values = np.random.default_rng(count).normal(0, 2, (count, 2))
    return [ForestRow(f"Claim {i}", a, abs(b), 2 * abs(b), -1.4, f"3.{i // 3}") for i, (a, b) in enumerate(values)]


ODD_ROWS = [
    ForestRow("Nothing at all"),
    ForestRow("Not a number " * 9, math.nan, math.nan, math.nan, math.nan),
    ForestRow("One run: $x_1$ & <y>", 0.5, math.inf, math.inf, 1.0, at_least=True),
    ForestRow("Huge", -60.0, 0.04, 200.0, 30.0, "7"),
    ForestRow("Bare", 0.0, published=-0.4, section="7"),
    ForestRow("Judged", 1.2, 0.3, 0.6, 1.4, "7", noise=0.8, verdict="same direction, smaller " * 5, runs="15/5 runs"),
]
NAMED = [(f"arm {i}", 60.0 + i, 0.1 + 0.01 * i, 0.01) for i in range(20)]
CONV1 = np.random.default_rng(1).normal(size=(24, 3, 5, 5)).astype(np.float16)


def some_answers() -> Answers:
    images = np.random.default_rng(2).integers(0, 256, (3, 9, 9, 3)).astype(np.uint8)
    names = [["cat", "an animal with a very long name", "dog"]] * 3
    chances = np.array([[0.9, 0.1, 0.0]] * 3)
    return Answers(images, ["cat", "dog", "an animal with a very long name"], names, chances, "ten", np.arange(3))


def some_neighbours() -> Neighbours:
    images = np.random.default_rng(3).integers(0, 256, (2, 3, 9, 9, 3)).astype(np.uint8)
    near = Near(images, [["cat", "dog", "cat"]] * 2, np.ones((2, 3)), np.zeros((2, 3), int), 0.5, math.nan)
    return Neighbours(images[:, 0], ["cat", "dog"], np.arange(2), "fc7", near, near, 1, 100, 200)


FIGURES = {
    "forest": lambda: forest(rows(12)),
    "forest_one": lambda: forest(rows(1)),
    "forest_odd": lambda: forest(ODD_ROWS),
    "forest_marked": lambda: forest(rows(3), "log2 of the ratio", "REHEARSAL"),
    "dots": lambda: dots(
        {"none": ([1.0, 2, 3], [40.0]), "an arm of a long name " * 3: ([2.0], []), "nothing": ([], [])}, "%"
    ),
    "multiples": lambda: multiples(arms(1, 3)["model.arm_0=true"], arms(7, 6), "error, %", percent=True),
    "multiples_one": lambda: multiples(np.full((1, 1), 0.5), arms(1, 1, 1), "loss"),
    "multiples_odd": lambda: multiples(np.empty((0, 8)), spoilt(arms(4, 3)), "loss"),
    "classes": lambda: class_errors({"base": shares(5, 10), "an arm of a long name " * 3: shares(1, 10)}, NAMES[:10]),
    "classes_100": lambda: class_errors({"base": shares(40, 100)}, NAMES),
    "confusion": lambda: confusion(np.eye(10), ["a class of a very long name", *NAMES[1:10]]),
    "confusion_20": lambda: confusion(shares(20, 20), NAMES[:20]),
    "confusion_100": lambda: confusion(shares(100, 100), NAMES),
    "gaps": lambda: gaps({"base": (1.0, 2.0), "an arm of a long name " * 3: (0.0, 9.0)}, ("training", "test"), "%"),
    "forest_empty": lambda: forest(ODD_ROWS[:2]),
    "curves_one": lambda: curves(arms(1, 1), "loss"),
    "curves_point": lambda: curves(arms(1, 2, 1), "loss"),
    "curves_20": lambda: curves(arms(20, 5), "error, %", percent=True),
    "curves_odd": lambda: curves(spoilt(arms(4, 3)), "loss"),
    "speed_one": lambda: speed(arms(1, 1)),
    "speed_two": lambda: speed(arms(2, 3)),
    "speed_20": lambda: speed(arms(20, 3)),
    "speed_odd": lambda: speed(spoilt(arms(4, 3)), 0.2),
    "speed_within": lambda: speed(arms(2, 3), epochs=0.25 * np.arange(1, 9)),
    "rates": lambda: rates({name: [(0.001 * 2**i, 9.0 + i), (0.1, None)] for i, name in enumerate(NAMES[:7])}, "%"),
    "rates_zero": lambda: rates({"a": [(0.001, 0.0), (0.1, 2.5), (1.0, None)], "b": [(0.1, 0.0), (0.2, None)]}, "%"),
    "rates_all_zero": lambda: rates({"a": [(0.001, 0.0), (0.1, None)]}, "%"),
    "rates_none": lambda: rates({"a": [(0.001, None)], "b": []}, "epochs"),
    "kernels_two": lambda: kernels(CONV1, 2),
    "kernels_one": lambda: kernels(np.zeros((1, 3, 2, 2)), 1),
    "cost_20": lambda: cost(NAMED),
    "cost_odd": lambda: cost([("a", 50.0, 0.1, math.nan), ("b", 9000.0, 0.2, 0.01), ("c", math.nan, 0.1, 0.1)]),
    "answers": lambda: answers_figure(some_answers()),
    "neighbours": lambda: neighbours_figure(some_neighbours()),
}


NAMES = [f"class {number}" for number in range(100)]


def shares(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows).uniform(0, 1, (rows, columns))


def texts(figure: Figure) -> list[str]:
    """All that a figure says."""
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]


def test_a_side_is_shaded_where_one_speaks_for_a_claim():
    """A configuration against itself has none."""
    shaded = []
    for has_side in (True, False):
        figure = forest([ForestRow("a", 1.0, 0.5, has_side=has_side)])
        shaded.append([patch for axes in figure.axes for patch in axes.patches if patch.get_alpha() == 0.07])
    assert list(map(len, shaded)) == [1, 0]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_whole_and_fit_for_a_page(name: str, tmp_path: Path):
    figure = FIGURES[name]()
    save(figure, tmp_path / f"{name}.v1")
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height
    with Image.open(tmp_path / f"{name}.v1.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    assert (pixels < 200).any()

    svg = (tmp_path / f"{name}.v1.svg").read_text(encoding="utf-8")
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "currentColor" in svg
    assert INK not in svg
    assert "<style" not in svg  # it would be the whole page's
    assert re.findall(r"http[^\"']*", svg) == ["http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"]
    ids = re.findall(r' id="([^"]*)"', svg)
    used = re.findall(r'(?:url\(|href=")(?!data:)([^)"]*)', svg)
    assert len(set(ids)) == len(ids)
    assert all(each.startswith(f"{name}_v1-") for each in ids)
    assert {each.removeprefix("#") for each in used} == set(ids)
    for kind, data in re.findall(r'href="data:image/(\w+);base64,([^"]*)"', svg):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.format == kind.upper()


@pytest.mark.parametrize("name", ["forest_odd", "curves_odd", "cost_odd", "kernels_two", "answers"])
def test_the_same_figure_has_the_same_bytes(name: str, tmp_path: Path):
    found = []
    for _ in range(2):
        save(FIGURES[name](), tmp_path / name)
        found.append([(tmp_path / f"{name}.{suffix}").read_bytes() for suffix in ("png", "svg")])
    assert found[0] == found[1]


def test_a_figure_for_print_has_its_width_and_embeds_its_fonts(tmp_path: Path):
    found = []
    for _ in range(2):
        save(FIGURES["classes"](), tmp_path / "figure", with_pdf=True)
        found.append((tmp_path / "figure.pdf").read_bytes())
    assert found[0] == found[1]
    width = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", found[0])
    assert width is not None
    assert float(width[1]) == pytest.approx(320)  # 113 mm
    assert b"/Subtype /Type3" not in found[0]
    assert b"/FontFile2" in found[0]


def test_a_users_style_changes_nothing(tmp_path: Path):
    save(curves(arms(2, 2), "loss"), tmp_path / "figure")
    plain = (tmp_path / "figure.svg").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        save(curves(arms(2, 2), "loss"), tmp_path / "figure")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "figure.svg").read_bytes() == plain


class TestWords:
    def test_a_forest_tells_each_effect(self):
        told = texts(forest([*ODD_ROWS, ForestRow("Fine", -1.25, 0.5)]))
        assert told.count("no result") == 2
        assert "−1.2 ± 0.5" in told
        assert "+0.5" in told
        assert "−60.00 ± 0.04" in told
        assert "against the claim ← effect, points → as claimed" in told
        assert "effect, points" in texts(forest([ForestRow("Without a side", 1.0, has_side=False)]))

    def test_a_forest_is_linear_and_one_huge_effect_does_not_squeeze_the_others(self):
        axes = forest(
            [ForestRow("Huge", -60.0, 0.04), *[ForestRow(f"c{i}", 0.3 * i, 0.5, 1.0) for i in range(5)]]
        ).axes[0]
        assert axes.get_xscale() == "linear"
        low, high = axes.get_xlim()
        assert high - low < 20
        arrows = [line for line in axes.lines if line.get_marker() == "<"]
        assert [float(np.asarray(line.get_xdata(), float)[0]) for line in arrows] == [low]

    def test_a_band_is_named(self):
        def bands(found: dict[str, np.ndarray]) -> str:
            [words] = [text for text in texts(curves(found, "loss")) if "seed" in text]
            return words

        assert bands(arms(2, 3)) == "lines: mean of 3 seeds; bands: lowest to highest"
        assert bands(arms(2, 5)) == "lines: mean of 5 seeds; bands: ±1 sd"
        assert bands(arms(2, 1)) == "one seed an arm"
        assert bands({**arms(2, 7), "few": arms(1, 4)["model.arm_0=true"]}).endswith("lowest to highest")

    def test_the_means_and_bands_that_are_drawn(self):
        values = arms(1, 6)["model.arm_0=true"]
        axes = curves({"arm": values}, "loss").axes[0]
        [line] = axes.lines
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), values.mean(0))
        [band] = axes.collections
        low, high = values.mean(0) - values.std(0, ddof=1), values.mean(0) + values.std(0, ddof=1)
        drawn = band.get_paths()[0].vertices
        assert isinstance(drawn, np.ndarray)
        for y in (*low, *high):
            assert np.abs(drawn[:, 1] - y).min() < 1e-12

    def test_speed(self):
        fast, slow = np.linspace(0.9, 0.1, 5), np.linspace(0.9, 0.1, 9)
        told = texts(speed({"relu": fast[None], "tanh": slow[None]}))
        ratio = epochs_to(slow, 0.25) / epochs_to(fast, 0.25)
        assert epochs_to(fast, 0.25) == pytest.approx(1 + 0.65 / 0.2)
        assert f"tanh takes {ratio:.1f} times as many epochs to 25 % as relu" in told
        assert {"4.2 epochs", f"7.5 epochs ({ratio:.1f}×)"} <= set(told)
        never = np.full(5, 0.6)
        told = texts(speed({"relu": fast[None], "stuck": never[None], "mixed": np.stack([fast, never])}))
        assert {"never reached", "1 of 2 seeds:", "Epochs to 25 %"} <= set(told)
        assert "at most 1.0 epochs" in texts(speed({"at once": np.full((1, 3), 0.1)}))

    def test_speed_of_errors_that_were_logged_within_epochs(self):
        epochs = np.array([0.3, 0.5, 0.8, 1.0])
        errors = np.array([[0.9, 0.4, 0.2, 0.1], [0.9, 0.5, 0.3, 0.2]])
        reached = [np.interp(-0.25, -row, epochs) for row in errors]  # errors fall, so their negatives rise
        figure = speed({"relu": errors}, epochs=epochs)
        assert f"{np.mean(reached):.1f} epochs" in texts(figure)
        drawn = [(line.get_marker(), np.ravel(np.asarray(line.get_xdata(), float))) for line in figure.axes[0].lines]
        assert [xs for marker, xs in drawn if marker == "o"] == [pytest.approx([np.mean(reached)])]
        assert any(np.array_equal(xs, epochs) for _, xs in drawn)

    def test_trials_of_learning_rates(self):
        trials = {"base": [(0.002, 8.0), (0.001, 10.0), (0.001, 12.0), (0.004, None)], "tanh": [(0.001, None)]}
        axes = (figure := rates(trials, "epochs")).axes[0]
        drawn = [(one.get_marker(), np.asarray(one.get_xydata(), float)) for one in axes.lines]
        assert any(
            np.array_equal(points, [[0.001, 11.0], [0.002, 8.0]]) for marker, points in drawn if marker == "None"
        )
        crosses = np.concatenate([points for marker, points in drawn if marker == "x"])
        assert list(crosses[:, 0]) == [0.004, 0.001]
        assert crosses[:, 1].min() > 12.0
        assert {"no value", "×: no value, see the table"} <= set(texts(figure))
        with pytest.raises(ValueError, match="has no trial"):
            rates({"base": []}, "epochs")

    def test_colour_of_towers(self):
        grey = np.ones((4, 3, 3, 3))
        colour = grey * np.array([1, -1, 0])[:, None, None]
        told = texts(kernels(np.concatenate([grey, colour]), 2))
        assert told[:2] == [
            f"Tower {i}: {n} % of a kernel's energy is colour, on average" for i, n in ((1, 0), (2, 100))
        ]

    def test_the_seeds_and_the_interval_of_their_mean(self):
        values = [10.0, 12.0, 17.0]
        low, high = stats.ttest_1samp(values, 0).confidence_interval()
        axes = dots({"base": (values, []), "other": ([9.0], [])}, "%").axes[0]
        drawn = [np.asarray(line.get_xdata(), float) for line in axes.lines]
        assert any(len(xs) == 2 and np.allclose(xs, [low, high]) for xs in drawn)
        assert any(np.array_equal(xs, values) for xs in drawn)
        [band] = axes.patches
        left, width = band.get_x(), band.get_width()  # pyright: ignore[reportAttributeAccessIssue]
        assert (left, left + width) == pytest.approx((13 - np.std(values, ddof=1), 13 + np.std(values, ddof=1)))

    def test_classes_and_confusions_in_order(self):
        errors = np.array([[0.1, 0.5, 0.3], [0.1, 0.7, 0.3]])
        labels = [
            label.get_text() for label in class_errors({"base": errors}, ["a", "b", "c"]).axes[0].get_yticklabels()
        ]
        assert labels == ["b", "c", "a"]
        frequent = np.eye(30)
        frequent[7, 3], frequent[2, 9] = 0.4, 0.2
        bars = confusion(frequent, NAMES[:30]).axes[0]
        labels = [label.get_text() for label in bars.get_yticklabels()]
        assert labels[:2] == ["class 7 as class 3", "class 2 as class 9"]
        assert [patch.get_width() for patch in bars.patches][:2] == [40, 20]  # pyright: ignore[reportAttributeAccessIssue]
        assert {"12", "88"} <= set(texts(confusion(np.array([[0.88, 0.12], [0.0, 1.0]]), ["a", "b"])))

    def test_mistakes(self):
        for make in (forest, cost, lambda none: curves({}, ""), lambda none: speed({})):
            with pytest.raises(ValueError, match="is empty"):
                make([])
        with pytest.raises(ValueError, match=r"arms: a has the shape \(3,\); give \[seeds, epochs\]"):
            curves({"a": np.ones(3)}, "loss")
        with pytest.raises(ValueError, match="groups=5: 24 kernels do not divide"):
            kernels(CONV1, 5)


def test_the_nearest_come_batch_by_batch(rng: np.random.Generator):
    """As from all distances at once; of equal ones, of which there are many here, the first."""
    queries, others = (rng.integers(0, 4, (count, 5)).astype(np.uint8) for count in (70, 40))
    squared = ((queries[:, None].astype(int) - others.astype(int)) ** 2).sum(2)
    found, of_queries = _Nearest(70, 6), _Queries(torch.from_numpy(queries))
    places = np.arange(100, 140)
    for part in np.split(np.arange(40), [3, 5, 30]):
        found.add(of_queries.squared_to(torch.from_numpy(others[part])), places[part])
    order = np.argsort(squared, 1, kind="stable")[:, :6]
    np.testing.assert_array_equal(found.places, places[order])
    np.testing.assert_array_equal(found.squared, np.take_along_axis(squared, order, 1))


def trained(overrides: list[str]) -> Record:
    [run] = make_plan(overrides).runs
    with tempfile.TemporaryDirectory() as folder:
        assert execute(run.config, run.labels, "run", Launch(Path(folder)))["state"] == DONE
    return run.record


@pytest.fixture(
    scope="module",
    params=[[], ["model.hidden_layers=0", "model.dropout_after=[conv5]", "trainer.precision=64-true", "seed=1"]],
    ids=str,
)
def looked_at(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run of some seconds, and its command line."""
    runs = tmp_path_factory.mktemp("look") / "runs"
    overrides = [*TINY, "trainer.max_epochs=1", f"data.cache={cache}", f"paths.runs={runs}", *request.param]
    return trained(overrides), overrides


@pytest.fixture(autouse=True)
def _prepared(cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the images are, whatever a record says."""
    monkeypatch.setenv("ALEXLAB_CACHE", str(cache))


@pytest.mark.slow
class TestLook:
    def views(self, overrides: list[str], split: str, place: tuple[int, int] | None = None) -> np.ndarray:
        """Crops [N, H, W, 3] of all images in grey levels, less the mean: the centre, or one from a corner."""
        config = composed(overrides)
        size, crop, store = config.data.size, config.data.crop_size, store_path(config.data)
        assert crop is not None
        y, x = place or ((size - crop) // 2, (size - crop) // 2)
        images = np.load(store / f"{split}.npy").astype(np.float64) - np.load(store / "mean.npy")
        return images[:, y : y + crop, x : x + crop]

    def network(self, record: Record, overrides: list[str]) -> torch.nn.Module:
        network = build_model(composed(overrides)).double().eval()
        network.load_state_dict(torch.load(record.file("checkpoints/last.ckpt"))["state_dict"])
        return network

    def test_answers(self, looked_at: tuple[Record, list[str]]):
        record, overrides = looked_at
        config = composed(overrides)
        found = answers(record, count=12)
        store = store_path(config.data)
        classes = json.loads((store / "manifest.json").read_text())["classes"]
        labels, images = np.load(store / "test_labels.npy"), np.load(store / "test.npy")
        assert len(set(found.places)) == 12
        np.testing.assert_array_equal(found.images, images[found.places])
        assert len({*found.true[: len(set(labels))]}) == len(set(labels))  # all classes before any twice
        size, crop = config.data.size, config.data.crop_size
        assert crop is not None
        end, middle = size - crop, (size - crop) // 2
        network, sums = self.network(record, overrides), 0
        for place in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
            view = config.data.pixel_scale * self.views(overrides, "test", place)[found.places].transpose(0, 3, 1, 2)
            for one in (view, view[..., ::-1]):
                with torch.inference_mode():
                    sums = sums + network(torch.from_numpy(one.copy())).softmax(1).numpy() / 10
        expected = -np.sort(-np.asarray(sums), 1)[:, :5]
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-6)
        with np.load(record.file("predictions.npz")) as kept:
            assert found.true == [classes[label] for label in kept["labels"][found.places]]
            assert found.names == [[classes[i] for i in row] for row in kept["ten_top5"][found.places]]
        assert answers(record, count=12, seed=1).places.tolist() != found.places.tolist()
        assert texts(answers_figure(found))

    @pytest.mark.parametrize("pool", [50, 20_000])
    def test_neighbours(self, looked_at: tuple[Record, list[str]], pool: int):
        record, overrides = looked_at
        config = composed(overrides)
        found = neighbours(record, queries=4, nearest=6, tested=20, pool=pool)
        assert (found.queries, found.pool, found.train_images) == (20, min(pool, 60), 60)
        assert found.layer == ("fc7" if config.model.hidden_layers else "conv5")
        network = self.network(record, overrides)
        last: list[np.ndarray] = []
        names = [name for name, _ in network.named_children()]
        before = "relu7" if config.model.hidden_layers else "flatten"
        assert before in names
        network.get_submodule(before).register_forward_hook(lambda module, args, out: last.append(out.numpy().copy()))
        vectors = {}
        for split in ("train", "test"):
            pixels = self.views(overrides, split)
            with torch.inference_mode():
                network(torch.from_numpy(config.data.pixel_scale * pixels.transpose(0, 3, 1, 2)))
            vectors[split] = last[-1].reshape(len(pixels), -1), pixels.reshape(len(pixels), -1)
        store = store_path(config.data)
        labels = {split: np.load(store / f"{split}_labels.npy") for split in ("train", "test")}
        images = np.load(store / "train.npy")
        searched = np.arange(60) if pool >= 60 else np.arange(pool) * 60 // pool
        drawn = np.random.default_rng(0).permutation(37)[:20]
        assert set(found.places) <= set(drawn)
        for kind, near in enumerate((found.by_layer, found.by_pixels)):
            train, test = vectors["train"][kind][searched], vectors["test"][kind]
            distances = np.stack([np.linalg.norm(train - one, axis=1) for one in test])
            order = np.argsort(distances, 1, kind="stable")[:, :6]
            own = order[found.places]
            np.testing.assert_allclose(near.distances, np.take_along_axis(distances[found.places], own, 1), rtol=1e-3)
            np.testing.assert_array_equal(near.places, searched[own])
            np.testing.assert_array_equal(near.shown, images[near.places])
            shares = (labels["train"][searched[order[drawn]]] == labels["test"][drawn][:, None]).mean(1)
            assert near.precision == pytest.approx(shares.mean())
            assert near.standard_error == pytest.approx(shares.std(ddof=1) / math.sqrt(20))
        assert texts(neighbours_figure(found))

    def test_what_cannot_be_looked_at(self, looked_at: tuple[Record, list[str]], tmp_path: Path):
        record, _ = looked_at
        with pytest.raises(ValueError, match="nearest=61: there are 60 training images to search"):
            neighbours(record, nearest=61)
        with pytest.raises(UserError, match="there is no run"):
            answers(Record(tmp_path, record.run_id))
        weights = record.file("checkpoints/last.ckpt")
        weights.rename(tmp_path / "last.ckpt")
        with pytest.raises(UserError, match=r"has no .*last.ckpt"):
            answers(record)
        (tmp_path / "last.ckpt").rename(weights)


@pytest.mark.parametrize("backend", ["nonsense", "svg"])
def test_a_backend_that_does_not_exist_is_none_of_ours(backend: str):
    """MPLBACKEND ended a report in a traceback; one that exists stays the user's."""
    code = "import alexlab.report.figures, matplotlib, os; print(matplotlib.get_backend(), os.environ['MPLBACKEND'])"
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["svg" if backend == "svg" else "agg", backend]
