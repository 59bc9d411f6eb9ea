"""The study that a budget of hours allows, against brute force."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from alexlab.errors import UserError
from alexlab.study.allotment import allot
from alexlab.study.planning import SETTLED, Prospect, prospects
from support.studies import claim


def brute(found: list[Prospect], seconds: dict[tuple[str, ...], float], budget: float, most: int) -> tuple[int, float]:
    """The most claims that any numbers of runs settle, and the highest least power among those, over all subsets."""
    best = (0, 0.0)
    for size in range(len(found), 0, -1):
        for subset in itertools.combinations(found, size):
            arms = {tuple(arm) for one in subset for arm in one.claim.compared}
            for runs in range(3, most + 1):
                for factor in (1, 1.5, 2, 3, 4):
                    base = math.ceil(factor * runs)
                    if sum(seconds[arm] * (runs if arm else base) for arm in arms) > budget:
                        continue
                    powers = [one.with_runs(runs, base, size).power or 0.0 for one in subset]
                    if min(powers) >= SETTLED:
                        best = max(best, (size, min(powers)))
        if best[0]:
            return best
    return best


@pytest.mark.parametrize("budget", [60, 130, 250, 600, 5000])
def test_a_budget_settles_as_many_claims_as_any_plan(budget: float):
    effects = {"a": -1.4, "b": -0.4, "c": -2.0, "d": -0.7}
    claims = [claim(name, published={"top1_error": size}) for name, size in effects.items()]
    claims.append(replace(claims[0], id="a5", published={"top1_error": -1.2}))  # of the same arms as a
    found = prospects(claims, 5, 5, 50_000, [], 0.3)
    seconds = {(): 2.0, **{(f"ablation={name}",): 1.0 + number for number, name in enumerate(effects)}}
    arms = {one.claim.name: [tuple(arm) for arm in one.claim.compared] for one in found}
    expected = brute(found, seconds, budget, 12)
    if not expected[0]:
        with pytest.raises(UserError, match=r"settles no claim; the cheapest, x/\w+, takes"):
            allot(found, arms, seconds, budget, 12)
        return
    got = allot(found, arms, seconds, budget, 12)
    assert got.seconds <= budget
    assert len(got.claims) == expected[0]
    least = min(
        one.with_runs(got.runs, got.base_runs, len(got.claims)).power or 0.0 for one in found if one.claim in got.claims
    )
    assert least == pytest.approx(expected[1], abs=1e-9)
    assert {one.id for one in got.claims} | {one.id for one in got.left_out} == {one.id for one in claims}


def test_a_budget_without_anything_to_plan_by():
    found = prospects([claim("a", published={"top1_error": -1.0})], 5, 5, 100, [])
    with pytest.raises(UserError, match=r"set study\.assumed_sd"):
        allot(found, {}, {}, 3600)
