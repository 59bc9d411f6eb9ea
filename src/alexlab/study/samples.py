"""Each arm's values of each metric, and variances shrunk over all arms of a study."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alexlab.errors import UserError, one_line
from alexlab.study.claims import GROUPED, VIEWED
from alexlab.study.metrics import MEASURES, five_nets, groups
from alexlab.study.records import RunData
from alexlab.study.spreads import Sample, Spread, shrink
from alexlab.study.statistics import Effect, Matched, effect, match_seeds


@dataclass(frozen=True)
class Measured:
    """The values of an arm's runs in one metric; runs without it are left out, and reported."""

    runs: list[RunData]
    sample: Sample
    images: str | None  # a hash of the test images' classes in their order, if the metric is of images

    def among(self, other: Measured) -> Sample:
        """The sample restricted to the runs that `other` has too, in the same order."""
        ids = {run.run_id for run in other.runs}
        kept = [index for index, run in enumerate(self.runs) if run.run_id in ids]
        return self.sample.of_runs(kept)


class Samples:
    """Samples of arms, each a list of finished runs; `problems` gets a line for each run that is not counted.

    `shared_start`: the base, and the arms whose runs share its initial weights, order and augmentation on shared seeds.
    """

    def __init__(
        self,
        arms: dict[str, Sequence[RunData]],
        problems: list[str],
        shared_start: tuple[str, list[str]] | None = None,
    ) -> None:
        self._arms, self._problems = arms, problems
        self._measured: dict[tuple[str, str, str, bool], Measured | None] = {}
        self._spreads: dict[tuple[str, str, bool], dict[str, Spread]] = {}
        self.shared_start = shared_start

    def measured(self, arm: str, metric: str, view: str, ratio: bool = False) -> Measured | None:
        """The values of a metric, or their logarithms for a `ratio`; None if no run of the arm has it."""
        key = arm, metric, view, ratio
        if key not in self._measured:
            self._measured[key] = self._measure(*key)
        return self._measured[key]

    def spreads(self, metric: str, view: str, ratio: bool = False) -> dict[str, Spread]:
        """Spreads by arm. Runs that several arms share are counted only in the largest of them."""
        key = metric, view, ratio
        if key not in self._spreads:
            found = {arm: one for arm in self._arms if (one := self.measured(arm, *key)) is not None}
            ids = {arm: {run.run_id for run in one.runs} for arm, one in found.items()}
            owner = {arm: next(big for big in sorted(ids, key=lambda name: -len(ids[name])) if own <= ids[big])
                     for arm, own in ids.items()}  # fmt: skip
            alone = {arm: one.sample for arm, one in found.items() if owner[arm] == arm}
            shrunk = shrink(alone) if alone else {}
            self._spreads[key] = {arm: shrunk[owner[arm]] for arm in found}
        return self._spreads[key]

    def matched(self, metric: str, view: str, family: float) -> dict[str, Effect]:
        """The difference from the base for each arm in `shared_start` whose seeds are all in the base."""
        key = metric, view
        if self.shared_start is None or (base := self.measured(self.shared_start[0], *key)) is None:
            return {}
        indices = {run.seed: index for index, run in enumerate(base.runs)}
        spreads = self.spreads(*key)
        found: dict[str, Matched] = {}
        for name in self.shared_start[1]:
            arm = self.measured(name, *key)
            if arm is None or not arm.sample.variance > 0 or arm.images != base.images:
                continue
            ids = {run.run_id for run in base.runs}
            if any(run.seed not in indices or run.run_id in ids for run in arm.runs):
                continue
            independent = effect(arm.sample, base.sample, (spreads[name], spreads[self.shared_start[0]]), family)
            found[name] = Matched(independent, arm.sample.values, np.array([indices[run.seed] for run in arm.runs]))
        return match_seeds(base.sample, spreads[self.shared_start[0]], found, family) if found else {}

    def _measure(self, arm: str, metric: str, view: str, ratio: bool) -> Measured | None:
        if metric in GROUPED:
            return self._measure_groups(arm, metric)
        runs, values, wrongs, images = [], [], [], []
        for run in self._arms[arm]:
            try:
                value = float(MEASURES[metric](run, view))
                if not math.isfinite(value) or (ratio and value <= 0):
                    raise UserError(f"its {metric} is not a finite number")
                wrong, digest = None, None
                if metric in VIEWED:
                    wrong, digest = run.wrong(metric, view)
                elif metric == "gap":  # its training images are always the same
                    wrong, digest = run.wrong("top1_error", "center")
            except (UserError, KeyError, TypeError, ValueError) as error:
                self._leave_out(run, metric, one_line(error))
                continue
            runs.append(run)
            values.append(math.log(value) if ratio else value)
            wrongs.append(wrong)
            images.append(digest)
        if not runs:
            return None
        usual = Counter(images).most_common(1)[0][0]
        for run, own in zip(runs, images, strict=True):
            if own != usual:
                self._leave_out(run, metric, "its test images are not those of the arm's other runs")
        kept = [index for index, own in enumerate(images) if own == usual]
        counted, numbers = [runs[index] for index in kept], np.array(values)[kept]
        by_image = None if usual is None else np.stack([wrongs[index] for index in kept])
        if by_image is None or by_image.shape[1] == 1 or ratio:
            return Measured(counted, Sample(numbers), usual)
        less = by_image.mean(axis=1) - numbers if metric == "gap" else 0.0
        return Measured(counted, Sample.of_images(by_image, less), usual)

    def _measure_groups(self, arm: str, metric: str) -> Measured | None:
        """A value for each complete group of runs, filed under its first run."""
        size, of_each = GROUPED[metric]
        runs, values = [], []
        for group in groups(self._arms[arm], size):
            try:
                values.append(five_nets(group, of_each))
                runs.append(group[0])
            except UserError as error:
                self._leave_out(group[0], metric, str(error))
        return Measured(runs, Sample(np.array(values)), None) if runs else None

    def _leave_out(self, run: RunData, metric: str, why: str) -> None:
        line = f"{run.run_id}: {why}; not counted for {metric}"
        if line not in self._problems:
            self._problems.append(line)
