"""Whole studies with a known truth: how often the intervals of `alexlab.evidence.statistics` hold, and what they find.

python -m alexlab.evidence.simulate --studies 10000
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import special

from alexlab.evidence.statistics import Sample, effect, shrink


def simulate(
    studies: int,
    seed: int = 0,
    *,
    claims: int = 12,
    runs: int = 5,
    base_runs: int = 15,
    images: int = 2000,
    run_sd: float = 0.004,
    scatter: float = 0.3,
    unlike: int = 0,
    size: float = 0.0,
    welch: bool | None = None,
) -> dict[str, float]:
    """Shares over `studies`, each of `claims` arms against one base.

    A run is wrong at an image with the arm's chance there, plus the run's own shift, of standard deviation `run_sd`
    times a lognormal factor of the arm (`scatter`: of its logarithm) and, in the first `unlike` arms, times 2 to 3.
    With `images=0` a run's error is its shift alone. Claims' arms have `size` more error than the base. `welch` is that
    of `effect`.

    Returns: `fixed` and, of images, `new`: intervals that hold; `study_error`: studies with a study interval that does
    not; `found`: claims whose study interval is wholly above 0; `welch`: claims compared by Welch's t.
    """
    rng = np.random.default_rng(seed)
    kinds = ["fixed", *(["new"] if images else []), "study_error", "found", "welch"]
    counts = dict.fromkeys(kinds, 0)
    for _ in range(studies):
        factors = np.exp(rng.normal(0, scatter, claims + 1))
        factors[1 : 1 + unlike] *= rng.uniform(2, 3, unlike)
        difficulty = rng.normal(-0.4, 1.5, images)
        samples, means = {}, np.zeros(claims + 1)
        for arm in range(claims + 1):
            count, offset = (runs, size) if arm else (base_runs, 0.0)
            shifts = rng.normal(offset, run_sd * factors[arm], count)
            if images:
                chances = special.expit(difficulty + rng.normal(0, 0.4, images))
                means[arm] = chances.mean()
                # Of a chance that the shift takes below 0 or above 1 the rest is lost: under 1e-4 of the mean.
                drawn = rng.random((count, images), dtype=np.float32) - shifts[:, None].astype(np.float32)
                samples[str(arm)] = Sample.of_images(drawn < chances.astype(np.float32))
            else:
                samples[str(arm)] = Sample(shifts)
        spreads = shrink(samples)
        erred = False
        for arm in range(1, claims + 1):
            name = str(arm)
            found = effect(samples[name], samples["0"], (spreads[name], spreads["0"]), claims, welch=welch)
            off = abs(found.difference - size - float(means[arm] - means[0]))
            counts["fixed"] += off <= found.fixed
            if found.new is not None:
                counts["new"] += abs(found.difference - size) <= found.new
            counts["found"] += found.difference > found.study
            counts["welch"] += found.welch
            erred |= off > found.study
        counts["study_error"] += erred
    return {name: count / (studies if name == "study_error" else studies * claims) for name, count in counts.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Simulated studies of 12 claims: 5 runs an arm, 15 of the base.")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    cases = {
        "2000 images": {},
        "runs' errors alone": {"images": 0},
        "  3 arms of 2-3 times the sd": {"images": 0, "unlike": 3},
        "  the same, shrunk throughout": {"images": 0, "unlike": 3, "welch": False},
        "  the same, Welch's t throughout": {"images": 0, "unlike": 3, "welch": True},
        "  all 12 arms of 2-3 times the sd": {"images": 0, "unlike": 12},
        "  sd .15 points, effect .4 points": {"images": 0, "run_sd": 0.0015, "size": 0.004},
        "  sd .15 points, effect 1.4 points": {"images": 0, "run_sd": 0.0015, "size": 0.014},
    }
    print(f"{'':36}  fixed    new  study error  found  Welch  seconds")
    for name, options in cases.items():
        started = time.monotonic()
        found = simulate(arguments.studies, arguments.seed, **options)
        new = f"{found['new']:.4f}" if "new" in found else "-"
        print(
            f"{name:36} {found['fixed']:.4f} {new:>6}       {found['study_error']:.4f} {found['found']:.4f} "
            f"{found['welch']:.4f} {time.monotonic() - started:8.1f}"
        )


if __name__ == "__main__":
    main()
