"""Statistics of a sweep with seeds: arms against the first one, main effects of a full grid, sensitivity.

The same intervals as a study's, by `study.statistics`: for new seeds and new test images of the same kind, and for all
of a table's differences at once. There is no verdict, since nothing was claimed before the runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from scipy import special

from alexlab.runs.identity import SEEDS
from alexlab.study.intervals import paired_difference
from alexlab.study.power import seeds_needed, upper_sd
from alexlab.study.records import Archive
from alexlab.study.samples import Measured, Samples
from alexlab.study.shared_start import arms_from_base
from alexlab.study.statistics import LEVEL, Effect, contrast, effect
from alexlab.study.sweeps import SweepArm

CHANCE = 0.9  # power of the recommended number of seeds
_STEPS = (5.0, 2.0, 1.0)


@dataclass(frozen=True)
class MainEffect:
    """The effect of one value of a factor against its first value, averaged over all other factors of a full grid."""

    factor: str
    value: str
    base: str
    effect: Effect


@dataclass(frozen=True)
class Sensitivity:
    """How small a difference the sweep can distinguish from chance. Sizes are in the metric's unit."""

    seeds: tuple[int, int]  # fewest and most of an arm
    images: int | None  # in the test split; None if errors on single images are unknown
    half_widths: tuple[float, float]  # of the intervals of differences: the smallest and the largest
    target: float  # a round size, at most half of the smallest
    seeds_needed: int | None  # in each arm, to detect the target; None if no number suffices
    floor: float  # detectable with unlimited seeds: the choice of test images remains

    def __str__(self) -> str:
        low, high = (f"{100 * size:.1f}" for size in self.half_widths)
        low_seeds, high_seeds = self.seeds
        counts = str(low_seeds) if low_seeds == high_seeds else f"{low_seeds} to {high_seeds}"
        images = "" if self.images is None else f", {self.images:,} test images"
        line = (
            f"{counts} seeds{images}: differences under {low if low == high else f'{low} to {high}'} points cannot be "
            "distinguished from chance; "
        )
        if self.seeds_needed is not None:
            return f"{line}about {self.seeds_needed:,} seeds would detect {100 * self.target:g} (power {CHANCE:g})."
        return f"{line}more seeds alone cannot detect less than {100 * self.floor:.1f}, more test images can."


@dataclass(frozen=True)
class SweepStatistics:
    """`differences[i]`: arm i minus the first; None for the first, on other test images, and without an interval."""

    differences: list[Effect | None]
    main_effects: list[MainEffect] = field(default_factory=list)  # empty unless the arms are a full grid
    sensitivity: Sensitivity | None = None
    problems: list[str] = field(default_factory=list)  # a line for each run that is not counted


def analyse(
    arms: Sequence[SweepArm], metric: str = "top1_error", view: str = "ten", least_family: int = 1
) -> SweepStatistics:
    """Compare the arms of a sweep in one metric; without two seeds in some arm the result is empty.

    `least_family`: the number of differences in the caller's table, if it has more than those of these arms.
    """
    nothing = SweepStatistics([None] * len(arms))
    if len(arms) < 2 or max(len(arm.runs) for arm in arms) < 2:
        return nothing
    problems: list[str] = []
    samples = Samples({str(place): arm.runs for place, arm in enumerate(arms)}, problems, _shared_start(arms))
    measured = [samples.measured(str(place), metric, view) for place in range(len(arms))]
    base = measured[0]
    if base is None:
        return SweepStatistics(nothing.differences, problems=problems)
    is_compared = [one is not None and _images(one) == _images(base) for one in measured]
    if sum(is_compared) < 2:
        return SweepStatistics(nothing.differences, problems=problems)
    family = max(sum(is_compared) - 1, least_family)
    spreads = samples.spreads(metric, view)
    matched = samples.matched(metric, view, family)
    differences: list[Effect | None] = [None]
    for place, one in enumerate(measured[1:], 1):
        found = None
        if one is not None and is_compared[place]:
            pair = spreads[str(place)], spreads["0"]
            found = matched.get(str(place)) or effect(one.sample, base.sample, pair, family)
        differences.append(found if found is not None and math.isfinite(found.decisive) else None)
    grid = [one for one in measured if one is not None]
    main_effects = []
    if all(is_compared) and len(grid) == len(arms):
        rows = _contrasts(arms)
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
    effects = [one for one in differences if one is not None]
    counted = [one for place, one in enumerate(measured) if one is not None and is_compared[place]]
    return SweepStatistics(differences, main_effects, _sensitivity(effects, counted, family), problems)


def _images(measured: Measured) -> tuple[str | None, str | None]:
    """What two arms must share to be compared: their data, and the classes of the test images in their order."""
    return measured.runs[0].result.get("data", {}).get("store"), measured.images


def _shared_start(arms: Sequence[SweepArm]) -> tuple[str, list[str]] | None:
    """The first arm, and those whose nets start from its initial weights on the same seeds.

    None if seeds are unknown, or several runs share one and so differ in data.seed.
    """
    seeds = [[run.seed for run in arm.runs] for arm in arms]
    if not seeds[0] or any(None in own or len(set(own)) < len(own) for own in seeds):
        return None
    others = {str(place): arm.runs[0] for place, arm in enumerate(arms) if place and arm.runs}
    return "0", arms_from_base(arms[0].runs[0], others, Archive([]))


def _contrasts(arms: Sequence[SweepArm]) -> list[tuple[str, str, str, list[float]]]:
    """Factor, value, its first value, and the arms' weights, for each main effect; none unless the grid is full."""
    levels: dict[str, list[str]] = {}
    for arm in arms:
        for factor, value in arm.values.items():
            if value not in levels.setdefault(factor, []):
                levels[factor].append(value)
    cells = {tuple(arm.values.get(factor) for factor in levels) for arm in arms}
    if len(levels) < 2 or not len(arms) == len(cells) == math.prod(map(len, levels.values())):
        return []
    found = []
    for factor, (first, *others) in levels.items():
        share = len(levels[factor]) / len(arms)
        for value in others:
            signs = [(one.values[factor] == value) - (one.values[factor] == first) for one in arms]
            found.append((factor, value, first, [sign * share for sign in signs]))
    return found


def _sensitivity(differences: list[Effect], measured: list[Measured], family: int) -> Sensitivity | None:
    halves = [one.decisive for one in differences]
    if not halves or max(halves) <= 0:
        return None
    counts = [len(one.runs) for one in measured]
    # More seeds shrink the runs' part of an interval and not the images'.
    images = max(one.image_variance for one in differences)
    floor = float(special.ndtri(1 - (1 - LEVEL) / 2 / family) + special.ndtri(CHANCE)) * math.sqrt(images)
    target = _round_below(min(halves) / 2)
    left = target**2 - floor**2
    sd, needed = upper_sd(one.sample.values for one in measured), None
    if left > 0 and sd is not None:
        with suppress(ValueError):  # even a million are too few
            needed = seeds_needed(math.sqrt(left), sd, family, base_factor=1, least=CHANCE)
    test = measured[0].sample.images
    return Sensitivity(
        (min(counts), max(counts)),
        None if test is None else test.shape[1],
        (min(halves), max(halves)),
        target,
        needed,
        floor,
    )


def _round_below(size: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(step * power for step in _STEPS if step * power <= size * (1 + 1e-9))


def effect_facts(effect: Effect | None) -> dict[str, float | None]:
    """A difference of errors and its half widths by the names that tables of sweeps use; `images_half` is of one seed.

    See `Effect` for the intervals; `all_half` is the one that holds for all differences of a table at once.
    """
    names = {"difference": "difference", "fixed_half": "fixed", "new_half": "new", "all_half": "decisive"}
    found = {name: None if effect is None else getattr(effect, own) for name, own in names.items()}
    return {**found, "images_half": None}


@dataclass(frozen=True)
class CellComparison:
    """An arm of two sweeps. `effect`: the second minus the first."""

    values: dict[str, str]
    errors: tuple[list[float], list[float]]  # of each one's finished runs
    shares_runs: bool  # then there is nothing to compare
    effect: Effect | None  # over seeds
    images: tuple[float, float] | None  # of one seed each: the difference and half of its interval over the test images


@dataclass(frozen=True)
class SweepComparison:
    """`alone`: the arms that only the first, and only the second sweep has.

    `differing`: the keys in which all compared arms differ in the same way, with both values.
    """

    cells: list[CellComparison]
    differing: dict[str, tuple[Any, Any]]
    alone: tuple[list[str], list[str]]
    problems: list[str]


def compare(
    first: Sequence[SweepArm], second: Sequence[SweepArm], metric: str = "top1_error", view: str = "ten"
) -> SweepComparison:
    """Compare two sweeps arm by arm; intervals are for all differences at once."""
    others = {_key(arm): arm for arm in second}
    pairs = [(arm, others[_key(arm)]) for arm in first if _key(arm) in others]
    shared = {_key(arm) for arm, _ in pairs}
    problems: list[str] = []
    arms = {f"{place} {side}": pair[side].runs for place, pair in enumerate(pairs) for side in (0, 1)}
    samples = Samples(arms, problems)
    shares = [bool({run.run_id for run in one.runs} & {run.run_id for run in other.runs}) for one, other in pairs]
    both = [tuple(samples.measured(f"{place} {side}", metric, view) for side in (0, 1)) for place in range(len(pairs))]
    is_compared = [
        not same and one is not None and other is not None and _images(one) == _images(other)
        for same, (one, other) in zip(shares, both, strict=True)
    ]
    spreads = samples.spreads(metric, view) if any(is_compared) else {}
    cells = []
    for place, pair in enumerate(pairs):
        one, other = both[place]
        found, images = None, None
        if is_compared[place] and one is not None and other is not None:
            pair_spreads = spreads[f"{place} 1"], spreads[f"{place} 0"]
            found = effect(other.sample, one.sample, pair_spreads, sum(is_compared))
            if not math.isfinite(found.decisive):
                found = None
                if len(one.runs) == len(other.runs) == 1:
                    images = paired_difference(*(side.runs[0].wrong(metric, view)[0] for side in (other, one)))
        errors = [[run.result["test"][view][metric] for run in side.runs] for side in pair]
        cells.append(CellComparison(pair[0].values, (errors[0], errors[1]), shares[place], found, images))
    alone = [[_spelled(one) for one in sweep if _key(one) not in shared] for sweep in (first, second)]
    return SweepComparison(cells, _differing(pairs), (alone[0], alone[1]), problems)


def _differing(pairs: Sequence[tuple[SweepArm, SweepArm]]) -> dict[str, tuple[Any, Any]]:
    both = [(one.runs[0].keys, other.runs[0].keys) for one, other in pairs if one.runs and other.runs]
    if not both:
        return {}
    found = {name: (both[0][0].get(name), both[0][1].get(name)) for name in {**both[0][0], **both[0][1]}}
    return {
        name: (before, after)
        for name, (before, after) in found.items()
        if before != after
        and name not in SEEDS
        and not name.startswith("paths.")
        and all((one.get(name), other.get(name)) == (before, after) for one, other in both)
    }


def _key(arm: SweepArm) -> frozenset[tuple[str, str]]:
    return frozenset(arm.values.items())


def _spelled(arm: SweepArm) -> str:
    return " ".join(f"{factor}={value}" for factor, value in arm.values.items())
