"""Simulate studies with a known truth: how often the intervals of `alexlab.study.statistics` hold, and their power.

python -m alexlab.study.simulate --studies 10000
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special

from alexlab.study.claims import Verdict
from alexlab.study.spreads import Sample, shrink
from alexlab.study.statistics import LEAST_RUNS, Matched, effect, match_seeds, partly_trained, prediction
from alexlab.study.verdicts import verdict

ERROR, CHANCE = 0.2, 0.9  # of runs without images: the base's, and that of guessing
STUCK = 0.45  # additional error of a partly trained run; `partly_trained` flags it
TOLERATED = 0.06  # a study-wise error above it is marked


def simulate(
    studies: int,
    seed: int = 0,
    *,
    claims: int = 12,
    runs: int = 5,
    base_runs: int = 15,
    images: int = 0,
    image_sd: float = 0.4,
    run_sd: float = 0.004,
    scatter: float = 0.0,
    unlike: int = 0,
    factor: float = 2.0,
    base_factor: float = 1.0,
    noise: str = "normal",
    partly: float = 0.0,
    stuck: float = STUCK,
    correlation: float | None = None,
    size: float = 0.0,
    published: float | None = None,
    welch: bool | None = None,
) -> dict[str, float]:
    """Simulate `studies` with `claims` arms against one base, and return shares of their intervals, claims and studies.

    A run errs on an image with the arm's probability for it plus the run's own shift. Shifts have a standard deviation
    of `run_sd`, times a lognormal factor of the arm (`scatter`: sd of its logarithm) and, in the first `unlike` arms,
    times `factor`; the base's times `base_factor`. Arms differ in an image's log-odds by a standard deviation of
    `image_sd`, so they differ on these images even if they do not in the population. With `images=0` a run's error is
    its shift alone. `noise`: distribution of the shifts, normal, t3 or lognormal. A share `partly` of the claims' arms'
    runs has `stuck` more error. With a `correlation` the arms' runs share seeds, and part of their shifts, with the
    base's first runs, and `match_seeds` is used. Claims' arms have `size` more error than the base. `welch` is that of
    `effect`.

    Returns: `fixed` and, with images, `new`: intervals that contain the truth; `pair`: prediction intervals that
    contain one more pair of runs; `study_error`: studies with a decisive interval that misses the truth; `width`: the
    mean decisive half width, in `run_sd`; `found`: claims whose decisive interval lies above 0; with `published`, the
    share of each verdict.
    """
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    judged = 0
    for _ in range(studies):
        factors = np.exp(rng.normal(0, scatter, claims + 1))
        factors[1 : 1 + unlike] *= factor
        factors[0] *= base_factor
        shifts = _shifts(rng, noise, [base_runs, *[runs] * claims], correlation or 0.0)
        shifts = [run_sd * factors[arm] * each + (size if arm else 0.0) for arm, each in enumerate(shifts)]
        if partly:
            shifts = [each + stuck * (rng.random(len(each)) < partly) * bool(arm) for arm, each in enumerate(shifts)]
            shifts = [each[~partly_trained(ERROR + each, CHANCE)] for each in shifts]
        made = _classify(rng, shifts, images, image_sd) if images else [(Sample(each), 0.0) for each in shifts]
        arms, means = {str(arm): one for arm, (one, _) in enumerate(made)}, [mean for _, mean in made]
        spreads = shrink(arms)
        pairs = {name: (spreads[name], spreads["0"]) for name in arms if name != "0"}
        found = {name: effect(arms[name], arms["0"], pair, claims, welch=welch) for name, pair in pairs.items()}
        if correlation is not None:
            places = np.arange(runs)
            matched = {name: Matched(found[name], arms[name].values, places) for name in found}
            found = match_seeds(arms["0"], spreads["0"], matched, claims)
        erred = False
        for name, one in found.items():
            good = len(arms[name].values), len(arms["0"].values)
            if min(good) < LEAST_RUNS:
                continue
            judged += 1
            counts["fixed"] += abs(one.difference - size - means[int(name)] + means[0]) <= one.fixed
            counts["new"] += one.new is not None and abs(one.difference - size) <= one.new
            single = [factors[place] * _draw(rng, noise, 1)[0] for place in (int(name), 0)]
            counts["pair"] += abs(size + run_sd * (single[0] - single[1]) - one.difference) <= prediction(one)
            counts["found"] += one.difference > one.decisive
            counts["width"] += one.decisive / run_sd  # pyright: ignore[reportArgumentType]
            erred |= abs(one.difference - size) > one.decisive
            if published is not None:
                word = verdict(one, published, 1 if published > 0 else -1, runs=good, failed=(runs - good[0], 0))
                counts[word.value] += 1
        counts["study_error"] += erred
    words = [word.value for word in Verdict] if published is not None else []
    names = ["fixed", *(["new"] if images else []), "pair", "found", "width", *words]
    return {"study_error": counts["study_error"] / studies, **{name: counts[name] / max(1, judged) for name in names}}


def _draw(rng: np.random.Generator, noise: str, count: int) -> np.ndarray:
    """Shifts of mean 0 and variance 1."""
    if noise == "t3":
        return rng.standard_t(3, count) / math.sqrt(3)
    if noise == "lognormal":
        sigma = 0.75
        drawn, mean = np.exp(rng.normal(0, sigma, count)), math.exp(sigma**2 / 2)
        return (drawn - mean) / (mean * math.sqrt(math.exp(sigma**2) - 1))
    return rng.normal(0, 1, count)


def _shifts(rng: np.random.Generator, noise: str, counts: list[int], correlation: float) -> list[np.ndarray]:
    """Shifts of each arm's runs, the base first; runs of the same index are correlated with the base's."""
    base = _draw(rng, noise, counts[0])
    own = math.sqrt(1 - correlation**2)
    return [
        base,
        *((correlation * base[:count] if correlation else 0) + own * _draw(rng, noise, count) for count in counts[1:]),
    ]


def _classify(
    rng: np.random.Generator, shifts: list[np.ndarray], images: int, image_sd: float
) -> list[tuple[Sample, float]]:
    """Each arm's runs on one set of images, and the arm's mean probability there minus that of the population."""
    difficulty = rng.normal(-0.4, 1.5, images)
    made = []
    for each in shifts:
        chances = special.expit(difficulty + rng.normal(0, image_sd, images))
        # Probabilities that the shift takes below 0 or above 1 are clipped, which changes the mean by under 1e-4.
        drawn = rng.random((len(each), images), dtype=np.float32) - each[:, None].astype(np.float32)
        made.append((Sample.of_images(drawn < chances.astype(np.float32)), float(chances.mean())))
    return made


SEEDS = ((5, 5), (5, 15), (10, 10))


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and options of every row of the table."""
    for claims in (1, 2, 6, 12, 20):
        for runs, base_runs in SEEDS:
            of = {"claims": claims, "runs": runs, "base_runs": base_runs}
            name = f"{claims} claims, {runs}/{base_runs}"
            yield name, of
            for factor in (2, 3):
                yield f"{name}, one arm's sd x{factor}", {**of, "unlike": 1, "factor": factor}
    for claims in (6, 12):
        of = {"claims": claims}
        yield f"{claims} claims, 5/15, sds scatter by 30 %", {**of, "scatter": 0.3}
        yield f"{claims} claims, 5/15, a third of the arms' sd x2", {**of, "unlike": claims // 3}
    for noise in ("t3", "lognormal"):
        for claims, (runs, base_runs) in ((1, (10, 10)), (6, (5, 15)), (12, (5, 15))):
            of = {"claims": claims, "runs": runs, "base_runs": base_runs, "noise": noise}
            yield f"{claims} claims, {runs}/{base_runs}, {noise}", of
    for claims, (runs, base_runs) in ((1, (10, 10)), (6, (5, 15)), (12, (5, 15))):
        of = {"claims": claims, "runs": runs, "base_runs": base_runs, "partly": 0.1}
        yield f"{claims} claims, {runs}/{base_runs}, 10 % partly trained", of
        yield f"{claims} claims, {runs}/{base_runs}, 10 % off by 8 sd, not flagged", {**of, "stuck": 8 * 0.004}
    for correlation in (0.8, 0.0, -0.5):
        for claims, (runs, base_runs) in ((1, (5, 15)), (1, (10, 10)), (6, (5, 15)), (6, (8, 16)), (12, (5, 15))):
            of = {"claims": claims, "runs": runs, "base_runs": base_runs, "correlation": correlation, "scatter": 0.3}
            yield f"{claims} claims, {runs}/{base_runs}, shared seeds, r {correlation:g}", of
    for correlation in (0.8, 0.0):  # in the demo the base scatters by up to five times as much as an arm
        for claims, (runs, base_runs) in ((1, (5, 5)), (2, (5, 5)), (6, (5, 15)), (6, (8, 16))):
            of = {"claims": claims, "runs": runs, "base_runs": base_runs, "correlation": correlation}
            for factor in (2, 3):
                name = f"{claims} claims, {runs}/{base_runs}, shared seeds, r {correlation:g}, the base's sd x{factor}"
                yield name, {**of, "base_factor": factor}
    for correlation in (0.8, 0.0, -0.5):
        for claims, (runs, base_runs) in ((1, (5, 5)), (2, (5, 5)), (2, (5, 15)), (6, (5, 15))):
            of = {"claims": claims, "runs": runs, "base_runs": base_runs, "correlation": correlation, "unlike": 1}
            for factor in (2, 3):
                name = f"{claims} claims, {runs}/{base_runs}, shared seeds, r {correlation:g}, one arm's sd x{factor}"
                yield name, {**of, "factor": factor}
    for images in (2000, 3925, 50000):
        for image_sd in (0.4, 0.8):
            for claims, (runs, base_runs) in ((1, (10, 10)), (6, (5, 15))):
                of = {"claims": claims, "runs": runs, "base_runs": base_runs, "images": images, "image_sd": image_sd}
                yield f"{claims} claims, {runs}/{base_runs}, {images} images, log-odds sd {image_sd:g}", of


def powers() -> Iterator[tuple[str, dict[str, Any]]]:
    """The same for the table of verdicts: a published effect in sd of a run, and the share of it that is true."""
    for claims, (runs, base_runs) in ((1, (10, 10)), (6, (5, 15)), (17, (5, 20))):
        for published in (2.7, 9.3):
            for share in (0.0, 0.25, 0.5, 1.0, 2.0):
                size = published * 0.004
                of = {"claims": claims, "runs": runs, "base_runs": base_runs, "published": size, "size": share * size}
                yield f"{claims} claims, {runs}/{base_runs}, published {published:g} sd, true x{share:g}", of


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Simulated studies: how often intervals hold, and verdicts' shares.")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows whose name has this text")
    arguments = parser.parse_args(argv)
    print(f"{'':58} coverage    new   pair  study error  width  seconds")
    for name, options in settings():
        if arguments.only not in name:
            continue
        # A set of 50,000 images takes about 25 times as long, so a tenth of the studies must do.
        studies = arguments.studies if options.get("images", 0) < 50000 else max(1, arguments.studies // 10)
        started = time.monotonic()
        found = simulate(studies, arguments.seed, **options)
        new = f"{found['new']:.3f}" if "new" in found else "-"
        mark = "*" if found["study_error"] > TOLERATED else " "
        print(
            f"{name:58}    {found['fixed']:.3f}  {new:>5}  {found['pair']:.3f}        {found['study_error']:.3f}{mark} "
            f"{found['width']:6.2f} {time.monotonic() - started:8.1f}",
            flush=True,
        )
    print(f"* above {TOLERATED}\n")
    words = (Verdict.reproduced, Verdict.larger, Verdict.size_open, Verdict.smaller, Verdict.inconclusive)
    words = (*words, Verdict.negligible, Verdict.reversed)
    print(f"{'':58} " + "  ".join(word.value.removeprefix("same direction, ") for word in words))
    for name, options in powers():
        if arguments.only not in name:
            continue
        found = simulate(arguments.studies, arguments.seed, **options)
        cells = (f"{found[word.value]:>{len(word.value.removeprefix('same direction, '))}.3f}" for word in words)
        print(f"{name:58} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
