"""The study that a budget of hours allows: the claims that it settles, and the runs of their arms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from alexlab.errors import UserError
from alexlab.study.claims import Claim
from alexlab.study.planning import SETTLED, Prospect
from alexlab.study.statistics import LEAST_RUNS


@dataclass(frozen=True)
class Allotment:
    """Runs of each claim's arm and of the base, for the claims that they settle."""

    runs: int
    base_runs: int
    claims: list[Claim]
    left_out: list[Claim]
    seconds: float


def allot(
    found: Sequence[Prospect],
    arms: Mapping[str, Sequence[tuple[str, ...]]],
    seconds: Mapping[tuple[str, ...], float],
    budget: float,
    most_runs: int = 50,
) -> Allotment:
    """Choose the runs that settle the most claims within `budget` seconds; of these, the highest minimum power.

    `arms`: for each claim, by name, the overrides of the arms that it compares; the base has none. `seconds`: the time
    of one run of each arm. An arm that several claims share is run once. An arm has up to `most_runs` runs, the base up
    to four times as many.

    Raises:
        UserError: if the budget settles no claim; the message has the time that the cheapest one takes.
    """
    usable = [one for one in found if one.why_not is None]
    cached = cache(lambda index, runs, base, family: usable[index].with_runs(runs, base, family).power or 0.0)

    def of_claim(index: int) -> Sequence[tuple[str, ...]]:
        return arms[usable[index].claim.name]

    for family in range(len(usable), 0, -1):
        best: tuple[float, float, int, int, tuple[int, ...]] | None = None
        for runs in range(LEAST_RUNS, most_runs + 1):
            for factor in (1, 1.5, 2, 3, 4):
                base_runs = math.ceil(factor * runs)
                powers = {index: cached(index, runs, base_runs, family) for index in range(len(usable))}
                settled = sorted((one for one in powers if powers[one] >= SETTLED), key=lambda one: -powers[one])
                for number in range(family, len(settled) + 1):  # the most powerful ones that the budget pays for
                    chosen = _cheapest(settled[:number], family, of_claim, seconds, runs, base_runs)
                    if chosen is not None and chosen[0] <= budget:
                        least = min(powers[index] for index in chosen[1])
                        if best is None or (least, -chosen[0]) > best[:2]:
                            best = least, -chosen[0], runs, base_runs, chosen[1]
                        break
        if best is not None:
            kept = [usable[index].claim for index in best[4]]
            names = {claim.name for claim in kept}
            out = [one.claim for one in found if one.claim.name not in names]
            return Allotment(best[2], best[3], kept, out, -best[1])
    raise UserError(_too_little(usable, arms, seconds, budget, most_runs))


def _cheapest(
    settled: Sequence[int],
    count: int,
    arms_of: Callable[[int], Sequence[tuple[str, ...]]],
    seconds: Mapping[tuple[str, ...], float],
    runs: int,
    base_runs: int,
) -> tuple[float, tuple[int, ...]] | None:
    """Find the cheapest `count` of the settled claims, and the seconds that their arms take; None if there are too few.

    Claims that compare the same arms share their cost, and all share the base. A claim that compares two other arms is
    charged for both in full, so if another claim shares one of them, the plan costs less than estimated.
    """
    groups: dict[frozenset[tuple[str, ...]], list[int]] = defaultdict(list)
    for index in settled:
        groups[frozenset(arms_of(index))].append(index)
    best: tuple[float, tuple[int, ...]] | None = None
    for has_base in (False, True):
        least: dict[int, tuple[float, tuple[int, ...]]] = {0: (seconds[()] * base_runs if has_base else 0.0, ())}
        for group, members in groups.items():
            if () in group and not has_base:
                continue
            price = sum(seconds[arm] * runs for arm in group if arm)
            for have, (paid, taken) in sorted(least.items(), reverse=True):
                for more in range(1, len(members) + 1):
                    number = have + more
                    if number <= count and (number not in least or paid + price < least[number][0]):
                        least[number] = paid + price, (*taken, *members[:more])
        if count in least and (best is None or least[count][0] < best[0]):
            best = least[count]
    return best


def _too_little(
    usable: Sequence[Prospect],
    arms: Mapping[str, Sequence[tuple[str, ...]]],
    seconds: Mapping[tuple[str, ...], float],
    budget: float,
    most_runs: int,
) -> str:
    if not usable:
        return "study.budget: no claim has an effect and a standard deviation to plan by; set study.assumed_sd"
    prices = []
    for one in usable:
        for runs in range(LEAST_RUNS, most_runs + 1):
            if one.with_runs(runs, runs, 1).is_settled:
                prices.append((sum(seconds[arm] for arm in arms[one.claim.name]) * runs, one.claim.name))
                break
    if not prices:
        return f"study.budget: {most_runs} runs per arm settle none of the claims"
    price, name = min(prices)
    return f"study.budget={budget / 3600:g}h: settles no claim; the cheapest, {name}, takes {price / 3600:.1f} hours"
