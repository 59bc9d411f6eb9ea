"""Conclusions of a sweep with seeds: settings against the first, main effects of a full grid, what is too small.

The same intervals as a study's, by `study.statistics`: for new seeds and new test images of the same kind, and for all
of a table's differences at once. There is no verdict, since nothing was claimed before the runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from scipy import stats

from alexlab.errors import UserError
from alexlab.study.records import Archive, RunData
from alexlab.study.samples import Measured, Samples
from alexlab.study.statistics import LEVEL, Effect, contrast, effect, seeds_needed
from alexlab.study.verdicts import starts_alike

CHANCE = 0.9  # with which the planned number of seeds tells a difference
UPPER = 0.8  # the seeds' sd that a plan assumes is this upper limit of it
_STEPS = (5.0, 2.0, 1.0)


@dataclass(frozen=True)
class Setting:
    """One setting of a sweep, with its finished runs, which differ only in the seed."""

    values: dict[str, str]  # by factor, as a person writes them
    runs: Sequence[RunData]


@dataclass(frozen=True)
class MainEffect:
    """The effect of one value of a factor against its first value, averaged over all other factors of a full grid."""

    factor: str
    value: str
    base: str
    effect: Effect


@dataclass(frozen=True)
class Sensitivity:
    """How small a difference the sweep can tell from chance. Sizes are in the metric's unit."""

    seeds: tuple[int, int]  # fewest and most of a setting
    images: int | None  # in the test split; None where single images are not known
    told: tuple[float, float]  # the smallest and the largest half width of the differences' intervals
    target: float  # a round size, at most half of the smallest
    seeds_needed: int | None  # in each setting, to tell the target; None where no number would
    floor: float  # what endless seeds would tell: the choice of test images stays

    def __str__(self) -> str:
        low, high = (f"{100 * size:.1f}" for size in self.told)
        low_seeds, high_seeds = self.seeds
        counts = str(low_seeds) if low_seeds == high_seeds else f"{low_seeds} to {high_seeds}"
        images = "" if self.images is None else f", {self.images:,} test images"
        line = (
            f"{counts} seeds{images}: differences under {low if low == high else f'{low} to {high}'} points cannot be "
            "told from chance; "
        )
        if self.seeds_needed is not None:
            return f"{line}about {self.seeds_needed:,} seeds would tell {100 * self.target:g} (9 times in 10)."
        return f"{line}more seeds alone cannot tell less than {100 * self.floor:.1f}, more test images can."


@dataclass(frozen=True)
class SweepStatistics:
    """`differences[i]`: setting i less the first; None for the first, on other test images, and without an interval."""

    differences: list[Effect | None]
    main_effects: list[MainEffect] = field(default_factory=list)  # empty unless the settings are a full grid
    sensitivity: Sensitivity | None = None
    problems: list[str] = field(default_factory=list)  # a line for each run that is not counted


def analyse(settings: Sequence[Setting], metric: str = "top1_error", view: str = "ten") -> SweepStatistics:
    """Compare the settings of a sweep in one metric; without two seeds of any setting there is nothing to say."""
    nothing = SweepStatistics([None] * len(settings))
    if len(settings) < 2 or max(len(setting.runs) for setting in settings) < 2:
        return nothing
    problems: list[str] = []
    samples = Samples({str(place): setting.runs for place, setting in enumerate(settings)}, problems)
    samples.shared_start = _shared_start(settings)
    measured = [samples.measured(str(place), metric, view) for place in range(len(settings))]
    base = measured[0]
    if base is None:
        return SweepStatistics(nothing.differences, problems=problems)
    is_compared = [one is not None and _images(one) == _images(base) for one in measured]
    family = sum(is_compared) - 1
    if family < 1:
        return SweepStatistics(nothing.differences, problems=problems)
    spreads = samples.spreads(metric, view)
    matched = samples.matched(metric, view, False, family)
    differences: list[Effect | None] = [None]
    for place, one in enumerate(measured[1:], 1):
        found = None
        if one is not None and is_compared[place]:
            pair = spreads[str(place)], spreads["0"]
            found = matched.get(str(place)) or effect(one.sample, base.sample, pair, family)
        differences.append(found if found is not None and math.isfinite(found.decisive) else None)
    grid = [one for one in measured if one is not None]
    main_effects = []
    if all(is_compared) and len(grid) == len(settings):
        rows = _contrasts(settings)
        for factor, value, first, weights in rows:
            cells = [place for place, weight in enumerate(weights) if weight]
            found = contrast(
                [grid[place].sample for place in cells],
                [spreads[str(place)] for place in cells],
                [weights[place] for place in cells],
                len(rows),
            )
            if math.isfinite(found.decisive):
                main_effects.append(MainEffect(factor, value, first, found))
    told = [one for one in differences if one is not None]
    counted = [one for place, one in enumerate(measured) if one is not None and is_compared[place]]
    return SweepStatistics(differences, main_effects, _sensitivity(told, counted, family), problems)


def _images(measured: Measured) -> tuple[str | None, str | None]:
    """What two settings must share to be compared: their data, and the classes of the test images in their order."""
    return measured.runs[0].result.get("data", {}).get("store"), measured.images


def _shared_start(settings: Sequence[Setting]) -> tuple[str, list[str]] | None:
    """The first setting, and those whose nets start from its initial weights on the same seeds.

    None where seeds are not known, or one is of several runs, which then differ in data.seed.
    """
    seeds = [[run.seed for run in setting.runs] for setting in settings]
    if not seeds[0] or any(None in own or len(set(own)) < len(own) for own in seeds):
        return None
    archive, found = Archive([]), []
    for place, setting in enumerate(settings):
        with suppress(UserError):  # a configuration that cannot be read shares nothing
            if (
                place
                and setting.runs
                and starts_alike(*(archive.config(one.runs[0]) for one in (settings[0], setting)))
            ):
                found.append(str(place))
    return "0", found


def _contrasts(settings: Sequence[Setting]) -> list[tuple[str, str, str, list[float]]]:
    """Factor, value, its first value, and the settings' weights, for each main effect; none unless the grid is full."""
    levels: dict[str, list[str]] = {}
    for setting in settings:
        for factor, value in setting.values.items():
            if value not in levels.setdefault(factor, []):
                levels[factor].append(value)
    cells = {tuple(setting.values.get(factor) for factor in levels) for setting in settings}
    if len(levels) < 2 or not len(settings) == len(cells) == math.prod(map(len, levels.values())):
        return []
    found = []
    for factor, (first, *others) in levels.items():
        share = len(levels[factor]) / len(settings)
        for value in others:
            signs = [(one.values[factor] == value) - (one.values[factor] == first) for one in settings]
            found.append((factor, value, first, [sign * share for sign in signs]))
    return found


def _sensitivity(differences: list[Effect], measured: list[Measured], family: int) -> Sensitivity | None:
    halves = [one.decisive for one in differences]
    if not halves or max(halves) <= 0:
        return None
    counts = [len(one.runs) for one in measured]
    # More seeds shrink the runs' part of an interval and not the images'.
    images = max(one.image_variance for one in differences)
    floor = float(stats.norm.ppf(1 - (1 - LEVEL) / 2 / family) + stats.norm.ppf(CHANCE)) * math.sqrt(images)
    target = _round_below(min(halves) / 2)
    left = target**2 - floor**2
    needed = None
    if left > 0:
        with suppress(ValueError):  # a million would not do
            needed = seeds_needed(math.sqrt(left), _upper_sd(measured), family, base_factor=1, least=CHANCE)
    test = measured[0].sample.images
    return Sensitivity(
        (min(counts), max(counts)),
        None if test is None else test.shape[1],
        (min(halves), max(halves)),
        target,
        needed,
        floor,
    )


def _upper_sd(measured: list[Measured]) -> float:
    """An upper estimate of the settings' pooled standard deviation over seeds: a plan from a low one is too small."""
    several = [one for one in measured if len(one.runs) > 1]
    df = sum(len(one.runs) - 1 for one in several)
    squares = sum((len(one.runs) - 1) * one.sample.variance for one in several)
    return math.sqrt(squares / float(stats.chi2.ppf(1 - UPPER, df)))


def _round_below(size: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(step * power for step in _STEPS if step * power <= size * (1 + 1e-9))
