"""Studies of noise, which test no claim: a configuration against itself (A/A), and variance by source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alexlab.study.claims import METRICS, Claim
from alexlab.study.judgement import Arm, Row
from alexlab.study.samples import Samples
from alexlab.study.statistics import effect, variance_components


def halves(arm: Arm) -> list[Arm]:
    """Split the only arm of an older A/A plan in two, in seed order."""
    seeds = sorted(arm.planned)
    parts = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
    return [
        replace(
            arm,
            name=f"{arm.name}{' again' * number}",
            planned={seed: arm.planned[seed] for seed in part},
            runs=[run for run in arm.runs if run.seed in part],
            failed=[run for run in arm.failed if run.run_id in {arm.planned[seed] for seed in part}],
            partly=[run for run in arm.partly if run.seed in part],
            missing={seed: run_id for seed, run_id in arm.missing.items() if seed in part},
            unplanned=[] if number else arm.unplanned,
        )
        for number, part in enumerate(parts)
    ]


def against_itself(arms: list[Arm]) -> list[Row]:
    """A/A: compare two arms of one configuration by every metric in which their runs differ."""
    first, second = arms
    samples = Samples({arm.name: arm.runs for arm in arms}, [])
    found = []
    for metric, (what, _, _) in METRICS.items():
        both = [samples.measured(arm.name, metric, "ten") for arm in arms]
        if both[0] is None or both[1] is None:
            continue
        spreads = samples.spreads(metric, "ten")
        pair = spreads[first.name], spreads[second.name]
        if not all(spread.variance > 0 and spread.df > 0 for spread in pair):
            continue
        claim = Claim(id=metric, section="A/A", statement=f"The same configuration twice: {what}.", metric=metric)
        claim = replace(claim, is_context=True, source="aa")
        row = Row(claim, (first, second), spreads=tuple(spread.sd for spread in pair))
        row.counted = (len(both[0].runs), len(both[1].runs))
        found.append((row, [one.sample for one in both if one is not None], pair))
    for row, pair, spreads in found:
        row.effect = effect(pair[0], pair[1], spreads, len(found))
    return [row for row, _, _ in found]


def itself_remark(rows: list[Row]) -> str:
    """The number of A/A comparisons that find a difference, as a sentence."""
    effects = [row.effect for row in rows if row.effect is not None]
    if not effects:
        return "A/A: the runs are too few to compare the two arms"
    alone = sum(abs(one.difference) > (one.fixed if one.new is None else one.new) for one in effects)
    together = sum(abs(one.difference) > one.decisive for one in effects)
    return (
        f"A/A: of {len(effects)} metrics, which are correlated, {alone} differ by their own 95 % intervals and "
        f"{together} by those for all at once; 5 % of the first and none of the second are expected"
    )


def components_remark(arms: list[Arm]) -> str | None:
    """Variance by source, if the arms are one configuration at several data seeds, each with the same seeds.

    For the additive model error = mean + seed + data seed + rest, by moments; a negative component is set to 0.
    """
    if len(arms) < 2 or any(len(arm.overrides) != 1 or not arm.overrides[0].startswith("data.seed=") for arm in arms):
        return None
    by_seed = [{run.seed: run.result["test"]["ten"]["top1_error"] for run in arm.runs} for arm in arms]
    seeds = sorted(set.intersection(*(set(each) for each in by_seed)))
    if len(seeds) < 2:
        return "variance by source: needs two seeds or more that all data seeds share"
    seed, data, rest = variance_components(100 * np.array([[each[seed] for seed in seeds] for each in by_seed]))
    return (
        f"variance by source, top-1 error, {len(arms)} data seeds by {len(seeds)} seeds: sd {seed:.2f} points by seed "
        f"(initial weights, dropout), {data:.2f} by data seed (order, augmentation), {rest:.2f} by both together and "
        "the rest"
    )
