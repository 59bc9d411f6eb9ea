"""What a study can show, computed before it runs: each claim's power, and the runs that would settle it.

Effects come from the claims, standard deviations from other runs or from `study.assumed_sd`, never from the planned
runs, since that would be optional stopping.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alexlab.console import plural
from alexlab.errors import UserError
from alexlab.study.claims import GROUPED, VIEWED, Claim
from alexlab.study.metrics import MEASURES
from alexlab.study.power import power, seeds_needed, smallest_effect, upper_sd
from alexlab.study.records import RunData

SETTLED = 0.8  # power from which a plan settles a claim
WANTED = 0.9  # power of the number of runs that is recommended
MOST_RUNS = 1000  # of an arm, in a recommendation
UNKNOWN = "standard deviation unknown"

# Upper estimate of the standard deviation, over images, of the difference between two arms' error probabilities:
# log-odds with a standard deviation of .4 in each arm, at a probability of a half. The rehearsal's arms have .06 to
# .18.
PER_IMAGE_SD = 0.25 * 0.4 * math.sqrt(2)
OF_IMAGES = (*VIEWED, "gap")  # metrics whose verdict is about new images


@dataclass(frozen=True)
class Deviation:
    """An upper estimate of the standard deviation of one run, on the metric's scale, and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class Prospect:
    """What a number of runs would show about one claim, on the metric's scale; for a ratio, its logarithm.

    `why_not` says what is missing if the numbers are None.
    """

    claim: Claim
    runs: int
    base_runs: int
    family: int
    test_images: int
    size: float | None = None  # of the published effect, or of the smallest effect of interest
    is_published: bool = False
    sd: Deviation | None = None
    why_not: str | None = None

    @property
    def power(self) -> float | None:
        """The probability that the decisive interval excludes 0 on the claimed side if the effect has this size."""
        if self.size is None or self.sd is None or self.runs < 2:
            return None
        return power(self.size, self.sd.value, self.runs, self.family, self._factor, image_variance=self._of_images)

    @property
    def found(self) -> float | None:
        """The smallest effect that these runs detect with a power of 80 %."""
        if self.sd is None or self.runs < 2:
            return None
        return smallest_effect(
            self.sd.value, self.runs, self.family, self._factor, SETTLED, image_variance=self._of_images
        )

    @property
    def needed(self) -> int | None:
        """The runs per arm that detect the effect with a power of 90 %; None if 1,000 are too few."""
        if self.size is None or self.sd is None:
            return None
        sd, images = self.sd.value, self._of_images
        if power(self.size, sd, MOST_RUNS, self.family, self._factor, image_variance=images) < WANTED:
            return None
        return seeds_needed(self.size, sd, self.family, self._factor, WANTED, image_variance=images)

    @property
    def is_settled(self) -> bool:
        """Whether the plan will probably say on which side of 0 the effect lies."""
        return (self.power or 0.0) >= SETTLED

    def with_runs(self, runs: int, base_runs: int, family: int) -> Prospect:
        """The same with other numbers of runs and of claims in the family."""
        return replace(self, runs=runs, base_runs=base_runs if _has_base(self.claim) else runs, family=family)

    @property
    def _factor(self) -> float:
        return self.base_runs / self.runs

    @property
    def _of_images(self) -> float:
        """Variance of the difference from the choice of test images alone."""
        return PER_IMAGE_SD**2 / self.test_images if self.claim.metric in OF_IMAGES and not self.claim.ratio else 0.0


def prospects(
    claims: Sequence[Claim],
    runs: int,
    base_runs: int,
    test_images: int,
    past: Sequence[RunData],
    assumed_sd: float | None = None,
) -> list[Prospect]:
    """What each of a study's tested claims can show.

    `runs`, `base_runs`: planned for a claim's arm and for the base. `past`: finished runs at the same recipe that are
    not in the plan. `assumed_sd`: standard deviation of a run's error, in points; it takes precedence.
    """
    family = max(1, sum(not claim.is_context for claim in claims))
    deviations: dict[tuple[str, str, bool], Deviation | None] = {}
    found = []
    for claim in claims:
        if claim.is_context:
            continue
        size = None if claim.effect is None else abs(math.log(claim.effect) if claim.ratio else claim.effect)
        size = claim.least if size is None else size
        of = claim.metric, claim.view, claim.ratio
        if of not in deviations:
            deviations[of] = _deviation(*of, past, assumed_sd)
        why_not = _why_not(claim, size, deviations[of], runs)
        found.append(
            Prospect(
                claim,
                runs,
                base_runs if _has_base(claim) else runs,
                family,
                test_images,
                size,
                claim.effect is not None,
                None if _is_of_one(claim) else deviations[of],
                why_not,
            )
        )
    return found


def _has_base(claim: Claim) -> bool:
    """Whether one of the arms that it compares is the study's base."""
    return not claim.arm or not claim.against


def _is_of_one(claim: Claim) -> bool:
    return claim.is_level or claim.one_arm or claim.against_view is not None


def _why_not(claim: Claim, size: float | None, deviation: Deviation | None, runs: int) -> str | None:
    if claim.is_level:
        return "being about an arm's own error"
    if _is_of_one(claim):
        return "being differences within runs"
    if size is None:
        return "without a size"
    if deviation is None:
        return UNKNOWN
    return "having one run an arm" if runs < 2 else None


def _deviation(
    metric: str, view: str, ratio: bool, past: Sequence[RunData], assumed_sd: float | None
) -> Deviation | None:
    if assumed_sd is not None and metric in OF_IMAGES and not ratio:
        return Deviation(assumed_sd / 100, "study.assumed_sd")
    if metric in GROUPED:
        return None
    arms: dict[str, list[float]] = defaultdict(list)
    for run in past:
        try:
            value = float(MEASURES[metric](run, view))
        except (UserError, KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value) and (value > 0 or not ratio):
            arms[run.arm or run.run_id].append(math.log(value) if ratio else value)
    sd = upper_sd(np.array(values) for values in arms.values())
    if sd is None:
        return None
    several = {arm: values for arm, values in arms.items() if len(values) > 1}
    count = sum(map(len, several.values()))
    return Deviation(sd, f"{count} finished runs of {plural(len(several), 'arm')}")
