"""Search the learning rate of an arm by trials.

A search is a generator that yields rounds of trials, is sent their results, and returns a choice. It depends on nothing
else, so the same finished trials give the same next round in every process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from statistics import mean

from alexlab.runs.failure import DIVERGED

PAST_BEST = 3  # rates that an upward search tries past the best one
MOST_RATES = 12  # tried in one direction, at a factor of 2
RACE_FACTOR = 1.3  # how much later than the best trial so far a trial may reach an error of RACE_ERRORS


@dataclass(frozen=True)
class Trial:
    """One run by which a rate is chosen."""

    lr: float
    seed: int
    race_epochs: tuple[float, ...] = ()  # of trainer.race_epochs


@dataclass(frozen=True)
class TrialResult:
    """The result of a finished trial."""

    score: float  # lower is better; infinite if it failed, lost a race or never reached the error
    failure: str | None = None  # a class of RESULTS
    reached: tuple[float, ...] = ()  # epochs to each of RACE_ERRORS, if trials can be raced

    @property
    def has_diverged(self) -> bool:
        return self.failure == DIVERGED


@dataclass(frozen=True)
class Choice:
    """The result of a search: the rate, None if no trial had a finite score, and a warning."""

    lr: float | None
    warning: str | None = None


Search = Generator[list[Trial], list[TrialResult], Choice]


def replay(search: Search, look: Callable[[Trial], TrialResult | None]) -> tuple[list[list[Trial]], Choice | None]:
    """Run a search on finished trials; return its rounds and its choice, None if the last round is not finished.

    `look(trial)` returns the result of a trial, None if it is not finished.
    """
    rounds = [next(search)]
    while True:
        results = [look(trial) for trial in rounds[-1]]
        finished = [result for result in results if result is not None]
        if len(finished) < len(results):
            return rounds, None
        try:
            rounds.append(search.send(finished))
        except StopIteration as end:
            return rounds, end.value


def grid_search(rates: list[float], seeds: list[int]) -> Search:
    """Every rate on every seed; the smallest mean score wins."""
    trials = [Trial(lr, seed) for lr in rates for seed in seeds]
    results = yield trials
    scores: dict[float, list[float]] = {lr: [] for lr in rates}
    for trial, result in zip(trials, results, strict=True):
        scores[trial.lr].append(result.score)
    best = min(rates, key=lambda lr: (mean(scores[lr]), lr))
    if not math.isfinite(mean(scores[best])):
        return Choice(None, _no_rate(rates))
    return Choice(best, None if min(rates) < best < max(rates) else _at_the_edge(best, rates))


def extending_search(start: float, seeds: list[int]) -> Search:
    """Factors of 2 from `start` until the best rate is interior, then steps of the root of 2 around it.

    Upward it ends three rates past the best, when training diverges, or at a rate that does not learn although a lower
    one does; downward one rate past the best. These trials use the first seed, and are raced against the best one so
    far. The best rate and its two neighbours also run on the other seeds, in full, and the smallest mean score wins. A
    neighbour without a finite score cannot win, so it is not run again; if the winner is the last rate of the grid, one
    more is tried beyond it.
    """
    first, others = seeds[0], seeds[1:]
    found: dict[int, TrialResult] = {}  # on the first seed, by steps of the root of 2 from `start`

    def rate(step: int) -> float:
        return rounded(start * 2 ** (step / 2))

    def trial(step: int) -> Trial:
        return Trial(rate(step), first, race_limits(found.values()))

    def best() -> int | None:
        finite = [step for step in found if math.isfinite(found[step].score)]
        return min(finite, key=lambda step: (found[step].score, step)) if finite else None

    def past(step: int | None) -> int:
        return 0 if step is None else sum(other > step for other in found)

    for step in range(0, 2 * MOST_RATES, 2):
        [found[step]] = yield [trial(step)]
        is_too_high = found[step].has_diverged or (found[step].failure is not None and best() is not None)
        if is_too_high or past(best()) >= PAST_BEST:
            break
    for step in range(-2, -2 * MOST_RATES, -2):
        if not (best() == min(found) or (best() is None and found[max(found)].failure is not None)):
            break
        [found[step]] = yield [trial(step)]
    middle = best()
    if middle is None:
        return Choice(None, _no_rate(map(rate, found)))
    around = [middle - 1, middle + 1]
    found.update(zip(around, (yield [trial(step) for step in around]), strict=True))

    means: dict[int, float] = {}
    winner = middle
    for _ in range(MOST_RATES):
        middle = best()
        assert middle is not None
        tried = sorted(found)
        near = [step for step in tried if abs(tried.index(step) - tried.index(middle)) <= 1]
        candidates = [step for step in near if math.isfinite(found[step].score)]
        again = [step for step in candidates if step not in means] if len(candidates) > 1 and others else []
        if again:
            results = yield [Trial(rate(step), seed) for step in again for seed in others]
            for index, step in enumerate(again):
                own = results[index * len(others) : (index + 1) * len(others)]
                means[step] = mean([found[step].score, *(result.score for result in own)])
        winner = min(candidates, key=lambda step: (means.get(step, found[step].score), found[step].score, step))
        if tried[0] < winner < tried[-1]:
            return Choice(rate(winner))
        beyond = winner - 1 if winner == tried[0] else winner + 1
        [found[beyond]] = yield [trial(beyond)]
    return Choice(rate(winner), _at_the_edge(rate(winner), map(rate, found)))


def race_limits(results: Iterable[TrialResult]) -> tuple[float, ...]:
    """Epochs by which a trial must reach each of RACE_ERRORS, from the best one so far; empty if there is none."""
    finite = [result for result in results if math.isfinite(result.score)]
    if not finite:
        return ()
    best = min(finite, key=lambda result: result.score)
    return tuple(float(f"{RACE_FACTOR * epochs:.4g}") for epochs in best.reached)


def rounded(lr: float) -> float:
    """A rate as it is written on a command line."""
    return float(f"{lr:.6g}")


def _no_rate(rates: Iterable[float]) -> str:
    return f"no rate from {_range(rates)} succeeds; set study.rates or trainer.max_epochs"


def _at_the_edge(best: float, rates: Iterable[float]) -> str:
    return f"the best rate, {best:g}, is at the edge of those tried, {_range(rates)}; set study.rates"


def _range(rates: Iterable[float]) -> str:
    values = list(rates)
    return f"{min(values):g} to {max(values):g}"
