"""The result of a study as a report shows it: its arms, one row per claim, and remarks on the whole study.

`judge.py` makes a `Judgement`: `arm_runs.py` finds each arm's runs, then a claim's row is filled by `effects.py`
(numbers), `caveats.py` (notes on what the numbers leave out) and `verdicts.py`.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.config import Rate
from alexlab.study.claims import GROUPED, METRICS, Claim, Verdict, is_of_net, overridden
from alexlab.study.rates import ArmTrials
from alexlab.study.records import RunData
from alexlab.study.statistics import Effect, too_many_failed
from alexlab.study.submitters import Submissions

OTHER_IMAGES = "the arms were tested on different images, so their errors cannot be compared"


@dataclass
class Arm:
    """An arm of a study: its planned runs and their outcomes."""

    name: str
    overrides: list[str]
    lr: float
    planned: dict[int, str]  # run ids by seed
    runs: list[RunData] = field(default_factory=list)  # done, in the seeds' order
    failed: list[RunData] = field(default_factory=list)  # permanently: repeating them would select survivors
    partly: list[RunData] = field(default_factory=list)  # done, but partly trained: counted as failed
    missing: dict[int, str] = field(default_factory=dict)  # run ids by seed
    unplanned: list[RunData] = field(default_factory=list)  # done, and not counted

    @property
    def done(self) -> int:
        return len(self.runs) + len(self.partly)

    @property
    def lost(self) -> int:
        """Runs that count as failed."""
        return len(self.failed) + len(self.partly)

    @property
    def does_not_train(self) -> bool:
        return too_many_failed(len(self.runs), self.lost)

    @property
    def errors(self) -> list[float]:
        """The top-1 error by ten views of each run."""
        return [run.result["test"]["ten"]["top1_error"] for run in self.runs]

    @property
    def seconds(self) -> float | None:
        """The mean time of a run."""
        return float(np.mean([run.result["seconds"] for run in self.runs])) if self.runs else None


@dataclass
class Row:
    """A claim and its result; all numbers on the metric's own scale, errors as fractions."""

    claim: Claim
    arms: tuple[Arm, ...] = ()  # none, one, or the claim's and the one that it is compared with
    effect: Effect | None = None  # of logarithms if the claim is a ratio
    level: tuple[float, float, float] | None = None  # of a claim on one arm: see `effects._level`
    spreads: tuple[float, ...] = ()  # each arm's standard deviation over seeds, as measured
    counted: tuple[int, ...] = ()  # runs of each arm that the effect is computed from
    word: Verdict | None = None  # None if no verdict is given, at this recipe or yet
    verdict: str | None = None  # the word as printed, with its qualifications
    why_none: str | None = None
    fisher: float | None = None  # of failed counts
    secondary: dict[str, float] = field(default_factory=dict)  # effect by other metrics, without a verdict
    also: dict[str, Effect | None] = field(default_factory=dict)  # by the metrics that the claim needs too
    beyond: str | None = None  # how many runs lie beyond all of the other arm, if the claim is about every run
    range: int = 0  # index of the claim's range that applies
    has_other_images: bool = False  # the arms were tested on different images, so there is no effect
    # Runs of each arm that ended before the event that the claim is about, and that were first logged after it.
    ended_before: tuple[int, ...] = ()
    logged_after: tuple[int, ...] = ()
    strength: float | None = None  # z of the original pair of runs
    bayes_factor: float | None = None  # for the published effect, against none
    notes: list[str] = field(default_factory=list)
    confounds: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)  # the keys in which the arms differ
    unexpected: list[str] = field(default_factory=list)  # those that neither the claim nor the plan changes
    own_rate: Row | None = None  # the same, each arm at its own best learning rate
    rate_doubts: list[str] = field(default_factory=list)  # why an arm's own best rate is not known
    submitters: Submissions | None = None  # if several have runs of the claim

    @property
    def uncounted(self) -> int:
        """Finished runs that could not be used, or groups of runs if the metric is of groups."""
        size, _ = GROUPED.get(self.claim.metric, (1, ""))
        return sum(len(arm.runs) // size for arm in self.arms) - sum(self.counted)

    @property
    def run_counts(self) -> tuple[int, ...]:
        """Runs of each arm that the effect is of, or groups of them; if nothing is measured, finished runs."""
        return self.counted or tuple(len(arm.runs) for arm in self.arms)

    @property
    def is_bound(self) -> bool:
        """Whether the effect is a lower bound: it may be larger than measured."""
        return self._may_be_higher if self.claim.sign > 0 else self._may_be_lower

    @property
    def is_upper_bound(self) -> bool:
        return self._may_be_lower if self.claim.sign > 0 else self._may_be_higher

    @property
    def _may_be_higher(self) -> bool:
        """Whether the difference may be higher than measured: the first arm's values may, or the other's be lower."""
        return bool(self.ended_before and (self.ended_before[0] or self.logged_after[-1]))

    @property
    def _may_be_lower(self) -> bool:
        return bool(self.ended_before and (self.ended_before[-1] or self.logged_after[0]))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval that decides the verdict; a ratio's is of logarithms."""
        if self.effect is None:
            return None
        return self.effect.difference - self.effect.decisive, self.effect.difference + self.effect.decisive

    @property
    def share(self) -> tuple[float, float, float] | None:
        """Effect over published effect (a ratio's by logarithms), and its interval's ends, the lower first."""
        published = self.published
        if self.effect is None or self.interval is None or not published or not math.isfinite(self.effect.decisive):
            return None
        low, high = sorted(end / published for end in self.interval)
        return self.effect.difference / published, low, high

    @property
    def published(self) -> float | None:
        """The published effect on the scale of the interval: a logarithm if the claim is a ratio."""
        figure = None if self.claim.is_level else self.claim.effect
        return math.log(figure) if figure is not None and self.claim.ratio else figure

    def shown(self, value: float) -> float:
        """An effect, or an end of its interval, in the unit of the published figure."""
        return math.exp(value) if self.claim.ratio else value / METRICS[self.claim.metric][2]

    def withhold(self, why: str) -> None:
        """Withdraw the verdict, unless it is that the claim is not testable."""
        if self.word is not None and self.word is not Verdict.not_testable:
            self.word, self.verdict, self.why_none = None, None, why


@dataclass
class Judgement:
    """The result of a study, in numbers."""

    plan: dict[str, Any]  # as `alexlab.sweep.study_plan` wrote it
    looks: int
    rows: list[Row]
    arms: list[Arm]
    family: int  # claims that share the study-wise error of 5 %
    problems: list[str]  # one line for each record that could not be used, or not in full
    remarks: list[str]  # on the study as a whole
    config_dir: str | None = None  # as the reader typed it
    trials: list[ArmTrials] = field(default_factory=list)  # of learning rates

    @property
    def is_choosing(self) -> bool:
        """Whether its runs are the trials that choose learning rates, so that they test no claim."""
        return self.plan["rate"] == Rate.choose.name

    @property
    def missing(self) -> int:
        return len({run_id for arm in self.arms for run_id in arm.missing.values()})

    @property
    def planned(self) -> set[str]:
        """All run ids of the plan."""
        return {run_id for arm in self.arms for run_id in arm.planned.values()}

    @property
    def is_interim(self) -> bool:
        return self.missing > 0

    @property
    def is_rehearsal(self) -> bool:
        claims = [row.claim for row in self.rows if not row.claim.is_context]
        return bool(claims) and not any(self.plan["recipe"] in claim.recipes for claim in claims)

    @property
    def done(self) -> int:
        return len({run.run_id for arm in self.arms for run in [*arm.runs, *arm.partly]})

    @property
    def command(self) -> str:
        """The command line of the missing runs, without the settings that `left_out` names."""
        line = [one for one in self.plan["line"] if self._is_shown(one)]
        flags = ["--config-dir", self.config_dir] if self._has_own_options and self.config_dir else []
        return f"python src/train.py {shlex.join([*flags, *line])}"

    @property
    def left_out(self) -> list[str]:
        """Settings of the plan's line that `command` omits: folders, launchers, additions of an untrusted plan.

        A reader copies the command into a shell, and a plan may come from anyone.
        """
        names = [one.partition("=")[0][:60] for one in self.plan["line"] if not self._is_shown(one)]
        has_others_options = self.plan.get("config_dir") is not None and not self._has_own_options
        return [*dict.fromkeys(names), *(["--config-dir"] if has_others_options else [])]

    def _is_shown(self, override: str) -> bool:
        name = overridden(override, self.config_dir) or ""
        return name == "study" or name.startswith("study.") or is_of_net(override, self.config_dir)

    @property
    def _has_own_options(self) -> bool:
        """Whether the study's option files are those that the reader named."""
        planned, given = self.plan.get("config_dir"), self.config_dir
        return None not in (planned, given) and Path(str(planned)).resolve() == Path(str(given)).resolve()
