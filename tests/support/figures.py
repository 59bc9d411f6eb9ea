"""Figures of made-up numbers, of every kind and with every oddity."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from alexlab.report.figures.by_class import class_errors, confusion
from alexlab.report.figures.effects import ForestRow, forest
from alexlab.report.figures.images import answers_figure, kernels, neighbours_figure
from alexlab.report.figures.learning import curves, multiples, speed
from alexlab.report.figures.outcomes import cost, dots, gaps, rates
from alexlab.report.neighbours import Answers, Near, Neighbours


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
    "forest_marked": lambda: forest(rows(3), "ratio", "REHEARSAL", is_ratio=True),
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
