"""Differences between others' protocols and an arm of one's own, each with its effect on the error.

An effect is measured if such runs are finished, else taken from a publication, else unknown; then there is the command
that measures it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alexlab.compose import Composer, Job
from alexlab.config import Config, ConfigError, flat, shown
from alexlab.errors import UserError
from alexlab.runs.identity import DERIVED, differences
from alexlab.study.claims import Claim, find_claims
from alexlab.study.records import Archive, RunData
from alexlab.study.samples import Samples
from alexlab.study.spreads import Sample
from alexlab.study.statistics import Effect, paired_effect, partly_trained
from alexlab.study.sweep_statistics import analyse
from alexlab.study.sweeps import SweepArm

SEEDS = 5  # of a command that measures a difference
IMAGENET = ("imagenet2012", "imagenet2010")
OF_VIEW, OF_CHECKPOINT = "of the view", "of the checkpoint"  # differences within the same runs
OTHER_VIEW = {"ten": "center", "center": "ten"}


@dataclass(frozen=True)
class Departure:
    """A difference between protocols.

    `overrides`: the first one that changes one's own configuration is used. All but the first undo the departure, so
    the published effect changes sign. Empty: no key makes it. {epochs} and {batch} stand for half of one's own epochs
    and twice the batch size.
    """

    name: str
    overrides: tuple[str, ...] = ()
    claim: str | None = None  # the claim with the published effect
    published: Mapping[str, float] = field(default_factory=dict)  # in points, by metric
    source: str = ""
    up_to: bool = False  # the published effect is at most this, in either direction
    data: tuple[str, ...] = ()  # the data sets that have this difference; none = all
    within: str | None = None  # measured in the same runs: OF_VIEW or OF_CHECKPOINT


BENCHMARK = "caffenet-bench."  # short enough for a table
NOTES = "authors' notes"
# Sources: conf/claims/ for most; tables 1 and 2 of the paper; the notes of the released code (run 145, retrained at a
# higher rate: 40.25 / 17.99 instead of 40.66 / 18.21); caffenet-benchmark's rows "several scales" (.462 against .471)
# and "linear in half the iterations" (.466 against .493).
DEPARTURES = (
    Departure("centre view", within=OF_VIEW, claim="paper/ten_views"),
    Departure("best epoch by test error", within=OF_CHECKPOINT),
    Departure("no random crops or flips", ("ablation=no_crops_no_flips",)),
    Departure("crops of random scale", published={"top1_error": 0.9}, source=BENCHMARK, data=IMAGENET),
    Departure("LRN: alpha/n or alpha", ("model.lrn_alpha=2e-05", "model.lrn_alpha=0.0001")),
    Departure("LRN: k of 1 or 2", ("model.lrn_k=1", "model.lrn_k=2")),
    Departure("LRN", ("model.lrn=false", "model.lrn=true"), "paper/lrn"),
    Departure("towers (groups)", ("model.groups=1", "model.groups=2"), "caffenet/no_groups"),
    Departure("half net, one tower", ("ablation=half_net",), "paper/two_towers"),
    Departure("torchvision's net", ("model=torchvision",)),
    Departure("overlapping pooling", ("pool.overlap=false", "pool.overlap=true"), "paper/overlap"),
    Departure("PCA colour shifts", ("augment.pca=false", "augment.pca=true"), "paper/pca"),
    Departure("unit of colour shifts", ("augment.pca_unit=deviation", "augment.pca_unit=variance")),
    Departure("dropout", ("model.dropout=0", "model.dropout=0.5")),
    Departure("2048 hidden units", ("model.hidden=2048",), "zeiler_fergus/fc_2048", data=IMAGENET),
    Departure("half the epochs", ("trainer.max_epochs={epochs}",), published={"top1_error": 2.7}, source=BENCHMARK),
    Departure("rate falls linearly", ("optim.schedule=linear",), "caffenet/linear_lr"),
    Departure(
        "rate cut by hand, later",
        published={"top1_error": -0.41, "top5_error": -0.22},
        source=NOTES,
        data=("imagenet2012",),
    ),
    Departure("weight decay", ("optim.weight_decay=0.0001", "optim.weight_decay=0.0005"), "caffenet/weight_decay_1e4"),
    Departure("batch size", ("data.batch_size={batch}",)),
    Departure("initial weights", ("model.init=torch", "model.init=normal")),
    Departure("initial biases", ("model.init_bias=0", "model.init_bias=1")),
    Departure("mean that is subtracted", ("data.mean=channel", "data.mean=image")),
    Departure("resizing", ("data.resize=stretch", "data.resize=crop"), data=IMAGENET),
    Departure("logits averaged", ("evaluate.average=logits", "evaluate.average=softmax")),
    Departure("choices by test images", ("data.holdout=0",), data=("imagenet2012",)),
    Departure(
        "ILSVRC-2010 test images",
        published={"top1_error": -3.2, "top5_error": -1.2},
        source="paper, 6",
        data=("imagenet2012",),
    ),
    Departure(
        "ILSVRC-2012, validation",
        published={"top1_error": 3.2, "top5_error": 1.2},
        source="paper, 6",
        data=("imagenet2010",),
    ),
    Departure(
        "test, not validation",
        published={"top1_error": 0.1, "top5_error": 0.1},
        source="paper, 6",
        up_to=True,
        data=("imagenet2012",),
    ),
    Departure(
        "five nets averaged",
        published={"top1_error": -2.6, "top5_error": -1.8},
        source="paper, 6",
        data=IMAGENET,
    ),
    Departure(
        "pre-trained on Fall 2011",
        published={"top1_error": -1.7, "top5_error": -1.6},
        source="paper, 6",
        data=IMAGENET,
    ),
)


@dataclass(frozen=True)
class Published:
    """A published result of this net or a similar one, in per cent."""

    data: str
    view: str
    top1_error: float
    top5_error: float
    source: str


# Caffe's and torchvision's are those of their published weights (42.9 = 100 - 57.1, and so on).
PUBLISHED = (
    Published("imagenet2012", "ten", 40.7, 18.2, "the paper's table 2, one net"),
    Published("imagenet2010", "ten", 37.5, 17.0, "the paper's table 1"),
    Published("imagenet2010", "center", 39.0, 18.3, "the paper's section 6"),
    Published("imagenet2012", "ten", 40.5, 18.1, "Zeiler and Fergus's replica"),
    Published("imagenet2012", "center", 42.9, 19.8, "Caffe's AlexNet"),
    Published("imagenet2012", "center", 42.6, 19.6, "CaffeNet"),
    Published("imagenet2012", "center", 43.5, 20.9, "torchvision's weights, another net"),
)


@dataclass(frozen=True)
class Difference:
    """A departure and the change in error that it causes; errors are fractions."""

    name: str
    override: str | None  # that makes it; None if no key does
    effect: float | None  # None: neither measured nor published
    half: float | None = None  # of the 95 % interval
    runs: tuple[int, ...] = ()  # of the other arm and one's own, or of one's own alone; empty if published
    source: str = ""  # of a published effect
    at_least: bool = False  # the published effect is a bound
    command: str | None = None  # that measures it; None if it is measured or no run can
    values: tuple[Any, Any] | None = None  # of the override's key: one's own and the override's

    @property
    def key(self) -> str | None:
        """The key or group that the override sets."""
        return None if self.override is None else self.override.partition("=")[0]

    @property
    def is_measured(self) -> bool:
        return bool(self.runs)

    def rank(self, gap: float | None) -> tuple[int, float]:
        """Sort key for a figure with this gap to one's own: differences that would close the gap come first."""
        if self.effect is None:
            return NOT_KNOWN, 0.0 if self.override else 1.0
        is_clear = self.half is None or abs(self.effect) > self.half
        if self.effect == 0 or not is_clear:
            return NEAR_ZERO, -abs(self.effect)
        if gap is not None and self.effect * gap < 0:
            return AWAY, -abs(self.effect)
        return MEASURED if self.is_measured else FROM_PAPERS, -abs(self.effect)


MEASURED, FROM_PAPERS, NOT_KNOWN, NEAR_ZERO, AWAY = range(5)  # ranks


@dataclass(frozen=True)
class OwnArm:
    """The finished runs of the arm that a figure is compared with."""

    runs: list[RunData]  # in the seeds' order, without those partly trained
    lost: int  # failed permanently, or partly trained
    config: Config
    changes: dict[str, Any]  # its differences from what was asked for


def find_arm(
    archive: Archive, wanted: Config, ignored: Collection[str], lenient: Collection[str] = ()
) -> OwnArm | None:
    """Find the arm of a configuration, the one with the most finished runs; None if it has no finished run.

    `ignored`: keys that may differ. `lenient`: further keys that may differ if no arm has them as in `wanted`.
    """
    found: list[tuple[int, int, OwnArm]] = []
    for runs in _arms(archive):
        with suppress(UserError):  # an unreadable record belongs to no arm
            config = archive.config(runs[0])
            changes = _changes(config, wanted, ignored)
            back = _changes(wanted, config, ignored)
            if {*changes, *back} <= {*lenient}:
                trained = _trained(runs, config)
                failed = sum(
                    run.is_terminal and not run.is_done for run in archive.runs.values() if run.arm == runs[0].arm
                )
                arm = OwnArm(trained, len(runs) - len(trained) + failed, config, changes)
                found.append((-len(changes), len(trained), arm))
    return max(found, key=lambda one: one[:2])[2] if found else None


def _arms(archive: Archive) -> list[list[RunData]]:
    arms: dict[str | None, list[RunData]] = {}
    for run in archive.runs.values():
        if run.is_done:
            arms.setdefault(run.arm, []).append(run)
    return [sorted(runs, key=lambda run: (run.seed or 0, run.run_id)) for runs in arms.values()]


def _trained(runs: list[RunData], config: Config) -> list[RunData]:
    if config.data.num_classes is None:
        return runs
    errors = np.array([run.result["test"]["ten"]["top1_error"] for run in runs])
    flags = partly_trained(errors, 1 - 1 / config.data.num_classes)
    return [run for run, is_partly in zip(runs, flags, strict=True) if not is_partly]


def _changes(config: Config, base: Config, ignored: Collection[str]) -> dict[str, Any]:
    found = differences(config, base)
    return {name: value for name, value in found.items() if name not in ignored and name not in DERIVED}


def find_differences(
    line: Sequence[str],
    composer: Composer,
    archive: Archive,
    own: OwnArm | None,
    metric: str,
    view: str,
    ignored: Collection[str],
    is_view_open: bool,
) -> list[Difference]:
    """List every departure from an arm that its net and data allow, with its effect.

    `line`: the overrides of the arm. `is_view_open`: whether the figure's view is unknown or not one's own. Intervals
    of measured effects are for new seeds and images, and hold for all of them at once.
    """
    job = composer.job([*line], stored=False)
    base = job.config
    claims = {claim.name: claim for claim in find_claims([one.claim for one in DEPARTURES if one.claim])}
    found: list[Found] = []
    for one in DEPARTURES:
        if one.data and base.data.name.name not in one.data:
            continue
        if one.within == OF_VIEW and not is_view_open:
            continue
        if one.name == "logits averaged" and view != "ten":
            continue
        made = _made(one, [*line], composer, job, ignored)
        if made is None:
            continue
        effect, half, source, at_least = _published(one, claims, metric, base)
        if effect is not None and (made.is_reversed or (one.within == OF_VIEW and view == "center")):
            effect = -effect
        name = "ten views" if one.within == OF_VIEW and view == "center" else one.name
        difference = Difference(name, made.override, effect, half, (), source, at_least, values=made.values)
        found.append((one, difference, made.changes))
    if own is not None:
        found = _measure(found, archive, own, metric, view, ignored)
    seeds = [run.seed for run in own.runs if run.seed is not None][:SEEDS] if own else []
    return [_with_command(one, line, seeds, departure) for departure, one, _ in found]


@dataclass(frozen=True)
class _Made:
    """A departure applied to one's own configuration."""

    override: str | None = None
    values: tuple[Any, Any] | None = None  # of its key: one's own and the override's
    is_reversed: bool = False  # the override undoes the departure
    changes: dict[str, Any] = field(default_factory=dict)  # all keys that it changes


def _made(one: Departure, line: list[str], composer: Composer, own: Job, ignored: Collection[str]) -> _Made | None:
    """Apply a departure to a line; None if that is impossible. `own`: the composed line."""
    if not one.overrides:
        return _Made()
    base = own.config
    if "ablation=" in one.overrides[0] and own.choices["ablation"] != "none":
        return None  # one line has one ablation
    for place, pattern in enumerate(one.overrides):
        epochs, batch = max(1, base.trainer.max_epochs // 2), 2 * base.data.batch_size
        override = pattern.format(epochs=epochs, batch=batch)
        with suppress(ConfigError):  # such as groups of a net whose kernels cannot be divided
            job = composer.job([*_without(line, override), override], stored=False)
            changes = _changes(job.config, base, ignored)
            if changes:
                name = override.partition("=")[0]
                return _Made(override, (_value(name, own), _value(name, job)), place > 0, changes)
    return None


def _value(name: str, job: Job) -> Any:
    """The option of a group, or the value of a key."""
    return job.choices[name] if name in job.choices else flat(job.config)[name]


def _without(line: Sequence[str], override: str) -> list[str]:
    """A line without its own overrides of the same key."""
    name = override.partition("=")[0]
    return [one for one in line if one.partition("=")[0].lstrip("+") != name]


def _published(
    one: Departure, claims: Mapping[str, Claim], metric: str, base: Config
) -> tuple[float | None, float | None, str, bool]:
    """A published effect, half its interval, its source, and whether it is a bound. All are for ImageNet."""
    if base.data.name.name not in IMAGENET:
        return None, None, "", False
    if one.claim is None:
        size = one.published.get(metric)
        if size is None:
            return None, None, "", False
        return (0.0, size / 100, one.source, False) if one.up_to else (size / 100, None, one.source, False)
    claim = claims[one.claim]
    if metric not in claim.published:
        return None, None, "", False
    sign = -1 if claim.against or claim.against_view else 1  # the departure is the arm that the claim is against
    source = {"paper": f"paper, {claim.section}", "caffenet": BENCHMARK}.get(claim.source, "Zeiler, Fergus")
    return sign * claim.published[metric] / 100, None, source, claim.at_least


Found = tuple[Departure, Difference, dict[str, Any]]


def _measure(
    found: list[Found], archive: Archive, own: OwnArm, metric: str, view: str, ignored: Collection[str]
) -> list[Found]:
    """Replace published effects by measured ones."""
    arms: dict[int, list[RunData]] = {}
    for runs in _arms(archive):
        with suppress(UserError):
            config = archive.config(runs[0])
            changes = _changes(config, own.config, ignored)
            place = next((place for place, one in enumerate(found) if one[2] and one[2] == changes), None)
            if place is not None and len(runs) > len(arms.get(place, [])):
                arms[place] = _trained(runs, config)
    within = {OF_VIEW: _of_view, OF_CHECKPOINT: _of_checkpoint}
    pairs = {
        place: pair
        for place, (one, _, _) in enumerate(found)
        if one.within and (pair := within[one.within](own.runs, metric, view)) is not None
    }
    rows = len(arms) + len(pairs)  # the intervals hold for all of these at once
    table = [SweepArm({}, own.runs), *(SweepArm({"arm": str(place)}, runs) for place, runs in arms.items())]
    effects: dict[int, tuple[Effect, tuple[int, ...]]] = {}
    for (place, runs), effect in zip(arms.items(), analyse(table, metric, view, rows).differences[1:], strict=True):
        if effect is not None:
            effects[place] = effect, (len(runs), len(own.runs))
    for place, pair in pairs.items():
        effects[place] = paired_effect(*pair, rows), (len(pair[0].values),)
    for place, (effect, runs) in effects.items():
        one, before, changes = found[place]
        found[place] = (
            one,
            replace(before, effect=effect.difference, half=effect.decisive, runs=runs, source="", at_least=False),
            changes,
        )
    return found


def _of_view(runs: list[RunData], metric: str, view: str) -> tuple[Sample, Sample] | None:
    """Errors of the same runs by the other view and by this one; None for fewer than two runs."""
    samples = Samples({"own": runs}, [])
    other, this = (samples.measured("own", metric, one) for one in (OTHER_VIEW[view], view))
    if other is None or this is None:
        return None
    pair = other.among(this), this.among(other)
    return pair if len(pair[0].values) > 1 else None


def _of_checkpoint(runs: list[RunData], metric: str, view: str) -> tuple[Sample, Sample] | None:
    """Validation errors, centre view, of the best epoch and of the last; None for fewer than two runs."""
    best, last = [], []
    for run in runs:
        with suppress(UserError, KeyError, ValueError):
            errors = [row[f"val_{metric}"] for row in run.epochs]
            numbers = [error for error in errors if error is not None and math.isfinite(error)]
            if numbers and len(numbers) == len(errors):
                best.append(min(numbers))
                last.append(numbers[-1])
    if len(best) < 2:
        return None
    return Sample(np.array(best)), Sample(np.array(last))


def sweep_overrides(overrides: Sequence[str], seeds: Sequence[int]) -> str:
    """The overrides of a sweep over seeds, as they are typed in a shell."""
    return shlex.join([*overrides, f"seed={','.join(map(str, seeds))}"])


def train_command(overrides: str) -> str:
    """The command line of a sweep with these overrides."""
    return f"python src/train.py -m {overrides}"


def _with_command(one: Difference, line: Sequence[str], seeds: list[int], departure: Departure) -> Difference:
    """Add the command that measures a difference; finished runs in it are not repeated."""
    if one.is_measured or (one.override is None and departure.within is None):
        return one
    sweep = []
    if one.values is not None:
        sweep = [f"{one.key}={shown(one.values[0])},{shown(one.values[1])}"]
    seeds = seeds if len(seeds) == SEEDS else [*range(SEEDS)]
    kept = _without(line, sweep[0]) if sweep else [*line]
    return replace(one, command=sweep_overrides([*kept, *sweep], seeds))
