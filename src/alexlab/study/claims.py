"""Claims as data (`conf/claims/*.yaml`): a paper's statements about two arms, with published figures."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Union

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexlab.config import CONF_DIR, Config, ConfigError, did_you_mean, flat, shown
from alexlab.console import printable
from alexlab.errors import one_line
from alexlab.tree import ANY, BOOL, NULL, NUMBER, TEXT, Kind, Schema, check_types, flatten, read_yaml, yaml_files

# Metrics of claims: (description, the unit in which figures are published, the unit's size).
METRICS = {
    "top1_error": ("top-1 error", "points", 0.01),
    "top5_error": ("top-5 error", "points", 0.01),
    "gap": ("test minus training error, centre view, top-1", "points", 0.01),
    "train_top1_error": ("training error, centre view, top-1", "points", 0.01),
    "train_loss": ("training loss, centre view", "nats", 1.0),
    "first_epoch_loss": ("mean loss of the first epoch", "nats", 1.0),
    "epochs": ("epochs until the schedule of section 5 ends the run", "epochs", 1.0),
    "epochs_to_25": ("epochs to a training error of 25 %", "epochs", 1.0),
    "colour_gap": ("difference of conv1's share of colour between the halves of its kernels", "", 1.0),
    "five_top1_error": ("top-1 error of an ensemble of five nets minus the mean of the five", "points", 0.01),
    "five_top5_error": ("top-5 error of an ensemble of five nets minus the mean of the five", "points", 0.01),
    "retrieval": ("precision of the six nearest training images by fc7 minus that by pixels", "points", 0.01),
    "off_centre": (
        "top-1 error, centre view, of the half with objects far from the centre minus the other half",
        "points",
        0.01,
    ),
}
# Metrics of groups of runs, in seed order: (number of runs, metric of each).
GROUPED = {"five_top1_error": (5, "top1_error"), "five_top5_error": (5, "top5_error")}
OF_NETS = (*GROUPED, "retrieval")  # metrics that need the nets themselves: `report.py --nets` measures them
VIEWED = ("top1_error", "top5_error")  # metrics of single images, for which a view is chosen
VIEWS = ("ten", "center", "corner")  # corner: one of each image's four corner crops, in turn
VIEW_NAMES = {"ten": "ten views", "center": "centre view", "corner": "corner crops"}
EARLY = ("first_epoch_loss", "epochs_to_25")  # metrics of early learning
WAITING = (*EARLY, "epochs")  # metrics of the time of an event


class Verdict(Enum):
    """Verdicts; `alexlab.study.verdicts` has the rules."""

    reproduced = "reproduced"
    larger = "same direction, larger"
    same_direction = "same direction"
    size_open = "same direction, size open"
    smaller = "same direction, smaller"
    inconclusive = "inconclusive"
    negligible = "negligible"
    reversed = "reversed"
    does_not_train = "does not train"
    not_testable = "not testable here"


SIDES = ("lower", "higher")
RANGE_VERDICTS = tuple(one.value for one in Verdict if one not in (Verdict.does_not_train, Verdict.not_testable))


@dataclass
class Range:
    """A decision range of one claim: the verdict if the effect's whole interval lies between the bounds.

    A published effect is *reproduced* in a range without a bound on the claimed side only if it has the size that the
    general rule demands.
    """

    verdict: str = ""  # one of RANGE_VERDICTS
    words: Union[str, None] = None  # printed instead of the verdict
    above: Union[float, None] = None  # in the unit of the published figure; of a ratio, not its logarithm
    below: Union[float, None] = None


@dataclass
class Claim:
    """A statement and the comparison that tests it: the effect is `arm` minus `against`."""

    id: str = ""
    section: str = ""
    statement: str = ""  # in our words
    arm: list[str] = field(default_factory=list)  # overrides; none = the study's base
    against: list[str] = field(default_factory=list)
    metric: str = "top1_error"
    view: str = "ten"
    against_view: Union[str, None] = None  # another view of the same runs, instead of another arm
    # The published effect in the metric's unit, by metric; the claim's own metric carries the verdict.
    published: dict[str, float] = field(default_factory=dict)
    at_least: bool = False  # the published effect is a bound: "over 1 point"
    is_level: bool = False  # the published figure is the level of `arm` itself, in the metric's unit, not a difference
    one_arm: bool = False  # the metric of `arm` alone is the effect: it is a difference within each run
    every_run: bool = False  # the claim is about every run of `arm`, not only their mean: the verdict counts them
    ratio: bool = False  # the effect is arm / against instead of arm - against
    direction: Union[str, None] = None  # lower or higher, if there is no figure
    # The smallest effect of interest in the metric's unit, above 0, or for a ratio a factor above 1. By default half of
    # the published effect; a claim without a figure must state it, with the reason.
    smallest_effect: Union[float, None] = None
    smallest_effect_reason: Union[str, None] = None
    also: dict[str, str] = field(
        default_factory=dict
    )  # other metrics that the claim needs too: {metric: lower or higher}
    ranges: list[Range] = field(default_factory=list)  # instead of the general rule, tried in this order
    is_context: bool = False  # not a claim, but an effect that helps to interpret another row: it gets no verdict
    published_on: Union[str, None] = None  # the data set with the test images of the figures
    recipes: list[str] = field(default_factory=list)  # at which a verdict is given
    requires: list[str] = field(default_factory=list)  # key=value that the runs must have for the metric to make sense
    differs: list[str] = field(default_factory=list)  # the keys in which the two arms should differ
    authors: Union[str, None] = None  # the authors' own pair of runs, if known
    reproduced: Union[str, None] = None  # the rule for "reproduced" in words, if it is not the general one
    not_testable: Union[str, None] = None  # why records cannot test it, and what would
    source: str = ""  # the file: paper in conf/claims/paper.yaml

    def __post_init__(self) -> None:
        self.ranges = [one if isinstance(one, Range) else Range(**one) for one in self.ranges]  # a plan has mappings

    @property
    def compared(self) -> list[list[str]]:
        """The overrides of the arms whose runs the claim needs: `arm` and, unless it is about one arm, `against`."""
        is_of_one = self.is_level or self.one_arm or self.against_view is not None
        return [self.arm] if is_of_one else [self.arm, self.against]

    @property
    def name(self) -> str:
        return f"{self.source}/{self.id}"

    @property
    def sign(self) -> int:
        """The sign of the claimed effect."""
        if self.direction is not None:
            return -1 if self.direction == "lower" else 1
        if self.metric not in self.published:
            return 0
        size = self.published[self.metric]
        return -1 if (size < 1 if self.ratio else size < 0) else 1

    @property
    def unit(self) -> float:
        """The factor from a published figure to the scale of the measured one."""
        return 1.0 if self.ratio else METRICS[self.metric][2]

    @property
    def effect(self) -> float | None:
        """The published effect on the metric's own scale, errors as fractions; None if only its sign is claimed."""
        return self.published[self.metric] * self.unit if self.metric in self.published else None

    @property
    def least(self) -> float | None:
        """The smallest effect of interest on the scale of the interval; a ratio's is a logarithm. None: not stated."""
        if self.smallest_effect is not None:
            return math.log(self.smallest_effect) if self.ratio else self.smallest_effect * self.unit
        if self.effect is None:
            return None
        return abs(math.log(self.effect) if self.ratio else self.effect) / 2

    @property
    def is_early(self) -> bool:
        """Whether it is about early learning, so that no run may be stopped for not learning."""
        return self.metric in EARLY

    @property
    def waits(self) -> bool:
        """Whether its runs last until an event, so that another maximum length is no departure from the recipe."""
        return self.metric in WAITING


def claim_files(config_dir: str | None = None) -> dict[str, Path]:
    """{name: file} of every file of claims; the user's own folder takes precedence."""
    folders = [CONF_DIR, *([Path(config_dir).expanduser()] if config_dir else [])]
    return {path.stem: path for folder in folders for path in yaml_files(folder / "claims")}


def find_claims(names: list[str], config_dir: str | None = None) -> list[Claim]:
    """Look up claims by file (`paper`) or one by one (`paper/lrn`), in that order and without duplicates.

    Raises:
        ConfigError: for an unknown name, and for a mistake in a file.
    """
    files = claim_files(config_dir)
    found: dict[str, Claim] = {}
    for name in names:
        source, _, wanted = name.partition("/")
        if source not in files:
            near = did_you_mean(source, files)
            raise ConfigError(f"study.claims: there is no {source}{near} (there are: {', '.join(files)})")
        claims = read_claims(files[source])
        chosen = [claim for claim in claims if wanted in ("", claim.id)]
        if not chosen:
            near = did_you_mean(wanted, [claim.id for claim in claims])
            raise ConfigError(f"study.claims: {files[source].name} has no claim '{wanted}'{near}")
        found.update({claim.name: claim for claim in chosen})
    return list(found.values())


def read_claims(path: Path) -> list[Claim]:
    """Read the claims of a file.

    Raises:
        ConfigError: naming file, claim and key.
    """
    return list(_read(path, path.stat().st_mtime_ns))


def digest(claims: list[Claim]) -> str:
    """A hash of all claims, which shows that they were not changed after the study had started."""
    text = yaml.safe_dump([dataclasses.asdict(claim) for claim in claims], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:12]


@cache
def _read(path: Path, changed: int) -> tuple[Claim, ...]:
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise ConfigError(f"{path}: must be a list of claims, each with its id, statement and arms")
    if len(content) > _MAX_CLAIMS:
        raise ConfigError(f"{path}: has {len(content):,} claims, at most {_MAX_CLAIMS} are allowed; make several files")
    try:
        claims = tuple(_claim(path, one) for one in content)
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply") from error
    ids = [claim.id for claim in claims]
    for name in ids:
        if ids.count(name) > 1:
            raise ConfigError(f"{path.name}: {name}: there are two claims with this id; rename one of them")
    return claims


def text_of_at_most(longest: int) -> Kind:
    """The type of a text that can be printed."""

    def holds(value: Any) -> bool:
        return TEXT.holds(value) and len(value) <= longest and printable(value) == value

    return Kind(f"text of at most {longest:,} characters, none of them a control character", holds)


# Types and limits of a claim's values, in files and in plans.
_LINE = text_of_at_most(2000)
_TYPES: dict[str, Schema] = {
    **{"str": _LINE, "Union[str, None]": _LINE | NULL, "bool": BOOL, "Union[float, None]": NUMBER | NULL},
    **{"list[str]": [_LINE], "dict[str, float]": {ANY: NUMBER}, "dict[str, str]": {ANY: _LINE}},
}
_TYPES["list[Range]"] = [{entry.name: _TYPES[str(entry.type)] for entry in dataclasses.fields(Range)}]
CLAIM_TYPES: dict[str, Schema] = {entry.name: _TYPES[str(entry.type)] for entry in dataclasses.fields(Claim)}
CLAIM_TYPES["id"] = text_of_at_most(100)
_MAX_CLAIMS, _MAX_ITEMS = 300, 100

# What an arm may not set: keys that start and record runs, and the user's folders.
_NOT_AN_ARMS = ("paths", "logger", "weights", "study", "retry", "data.raw", "data.root", "data.cache", "data.stage")
_OVERRIDE = re.compile(r"\s*\+{0,2}\s*([\w.]+)\s*=.*")  # a key or group; none of Hydra's deletions, packages or paths


def overridden(override: str, config_dir: str | Path | None = None) -> str | None:
    """The key or group of the project that an override sets; None if it is anything else, such as one of Hydra's."""
    found = _OVERRIDE.fullmatch(override)
    if found is None or "${" in override:
        return None
    return found[1] if found[1] in _keys() or found[1] in _groups(config_dir) else None


def is_of_net(override: str, config_dir: str | Path | None = None) -> bool:
    """Whether an override sets a key or group of the project that affects what is trained, as an arm's must."""
    name = overridden(override, config_dir)
    return name is not None and not any(name == one or name.startswith(f"{one}.") for one in _NOT_AN_ARMS)


@cache
def _keys() -> frozenset[str]:
    return frozenset(flat(Config()))


def _groups(config_dir: str | Path | None) -> set[str]:
    folders = [CONF_DIR, *([Path(config_dir).expanduser()] if config_dir else [])]
    return {path.name for folder in folders for path in folder.glob("*/") if path.name not in ("claims", "hydra")}


def _claim(path: Path, given: dict[str, Any]) -> Claim:
    where = f"{path.name}: {str(given.get('id', 'a claim without id'))[:100]}"
    for name, value in given.items():
        if "${" in str(value):  # it would be resolved, possibly from the environment
            raise ConfigError(f"{where}: {name}: holds an interpolation, ${{...}}; write the value itself")
    known = [entry.name for entry in dataclasses.fields(Claim) if entry.name != "source"]
    for name in given:
        if name not in known:
            name = str(name)[:60]
            raise ConfigError(f"{where}: there is no key '{name}'{did_you_mean(name, known)}")
    try:
        claim = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Claim), given, {"source": path.stem}))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error.msg or error).splitlines()[0]}") from error
    assert isinstance(claim, Claim)
    _check(claim, where)
    _check_arms(claim, where, path.parent.parent)
    if claim.not_testable is None:
        _check_recipes(claim, where)
        _check_stated_size(claim, where)
        _check_requires(claim, where)
    return claim


def _check_recipes(claim: Claim, where: str) -> None:
    if not claim.recipes and not claim.is_context:
        raise ConfigError(f"{where}: recipes: is missing; name the recipes at which a verdict may be given: [demo]")
    if claim.also and len(claim.compared) == 1:
        raise ConfigError(f"{where}: also: compares two arms, and this claim is about one; remove it")


def check_plan_claim(given: dict[str, Any]) -> None:
    """Raise ValueError for a claim of a plan that no version of this code has written."""
    for name in given.keys() - CLAIM_TYPES.keys():
        raise ValueError(f"there is no key '{name}' of a claim")
    _check(Claim(**given), f"claim {given['id']}")


def check_line(overrides: Sequence[str], arms: Iterable[Sequence[str]], config_dir: str | None = None) -> None:
    """Check the command line of a study against its arms.

    Raises:
        ConfigError: for a key or group that an arm also sets, itself or in an option's file: the command line comes
        last, so the arm would be identical to the base.
    """
    given = {override.partition("=")[0].lstrip("+~ ").strip() for override in overrides}
    for arm in arms:
        for override in arm:
            for name in (override.partition("=")[0], *_keys_of_option(override, config_dir)):
                if name in given:
                    raise ConfigError(f"{name}: the study's arms set it ({override}); remove it")


def _keys_of_option(override: str, config_dir: str | None) -> list[str]:
    """The keys that the file of an option such as `ablation=no_lrn` sets; none for a key."""
    group, _, option = override.partition("=")
    for folder in ([Path(config_dir).expanduser()] if config_dir else []) + [CONF_DIR]:
        path = folder / group / f"{option}.yaml"
        if group in _groups(config_dir) and path.is_file():
            with suppress(ValueError, AttributeError):  # composing the arm reports it
                return [name for name in flatten(read_yaml(path)) if name != "defaults"]
    return []


def _check_arms(claim: Claim, where: str, config_dir: Path) -> None:
    """Check that the arms set groups and keys of the project, or groups in the user's `config_dir`."""
    for line in (*claim.arm, *claim.against):
        if not is_of_net(line, config_dir):
            near = did_you_mean(line.partition("=")[0], [*_keys(), *_groups(config_dir)])
            raise ConfigError(
                f"{where}: {line}: a claim may not set this; an arm consists of groups and keys of the net{near}"
            )


def _check(claim: Claim, where: str) -> None:
    """Raise ConfigError for a claim that cannot be judged."""
    content = dataclasses.asdict(claim)
    try:
        check_types(content, CLAIM_TYPES)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    for name, value in content.items():
        if isinstance(value, list | dict) and len(value) > _MAX_ITEMS:
            raise ConfigError(f"{where}: {name}: has {len(value):,} entries, at most {_MAX_ITEMS} are allowed")
    for name in ("id", "section", "statement"):
        if not getattr(claim, name).strip():
            raise ConfigError(f"{where}: has no {name}; add it")
    if claim.not_testable is not None:
        return
    for name in (claim.metric, *claim.published):
        if name not in METRICS:
            raise ConfigError(f"{where}: '{name}' is not a metric{did_you_mean(name, METRICS)} ({', '.join(METRICS)})")
    for view in (claim.view, claim.against_view):
        if view is not None and view not in VIEWS:
            raise ConfigError(f"{where}: '{view}' is not a view (there are: {', '.join(VIEWS)})")
    if claim.direction not in (None, "lower", "higher"):
        raise ConfigError(f"{where}: direction={claim.direction}: must be lower or higher")
    if claim.metric not in claim.published and claim.direction is None and not claim.is_context:
        raise ConfigError(f"{where}: has neither a published figure of its metric, {claim.metric}, nor a direction")
    if claim.is_level and (claim.against or claim.against_view or claim.ratio):
        raise ConfigError(f"{where}: is_level: the figure is of one arm; leave out against, against_view and ratio")
    figure = claim.published.get(claim.metric)
    if not all(map(math.isfinite, claim.published.values())):
        raise ConfigError(f"{where}: a published figure must be finite")
    if claim.is_level and figure is None:
        raise ConfigError(f"{where}: is_level: has no published figure of {claim.metric}")
    if figure is not None and not claim.is_level and not claim.is_context:
        if figure <= 0 and claim.ratio:
            raise ConfigError(f"{where}: a published ratio must be above 0")
        if figure == (1 if claim.ratio else 0):
            raise ConfigError(f"{where}: a published effect of zero has no direction; set is_context: true")
        if claim.direction is not None and (claim.direction == "lower") != (figure < (1 if claim.ratio else 0)):
            bound = "at_least " if claim.at_least else ""
            raise ConfigError(
                f"{where}: direction={claim.direction}: the published figure, {bound}{figure:g}, is on the other side; "
                "change its sign or leave direction out"
            )
    _check_size(claim, where, figure)
    if claim.one_arm and (claim.is_level or claim.against or claim.against_view or claim.ratio):
        raise ConfigError(f"{where}: one_arm: leave out is_level, against, against_view and ratio")
    if claim.metric in GROUPED and not claim.one_arm:
        raise ConfigError(f"{where}: {claim.metric} is measured on groups of one arm's runs; set one_arm: true")
    if claim.every_run and len(claim.compared) < 2:
        raise ConfigError(f"{where}: every_run: each run is compared with all runs of another arm; set against")
    if "corner" in (claim.view, claim.against_view) and claim.metric != "top1_error":
        raise ConfigError(f"{where}: view corner: records have only its top1_error; set metric: top1_error")
    if len(claim.compared) == 2 and claim.arm == claim.against:
        raise ConfigError(f"{where}: its two arms are the same; change one, or set against_view")
    if claim.against_view is not None and claim.metric not in VIEWED:
        raise ConfigError(f"{where}: against_view: {claim.metric} does not depend on the view; remove against_view")


def _check_size(claim: Claim, where: str, figure: float | None) -> None:
    """Check the claim's sizes: a bound, a smallest effect of interest, ranges of its own."""
    if claim.at_least and figure is None:
        raise ConfigError(
            f"{where}: at_least: has no published figure to exceed; add published: {{{claim.metric}: ...}} or leave "
            "at_least out"
        )
    if claim.smallest_effect is not None:
        least = 1 if claim.ratio else 0
        if not (math.isfinite(claim.smallest_effect) and claim.smallest_effect > least):
            raise ConfigError(f"{where}: smallest_effect={claim.smallest_effect:g}: must be a size above {least}")
        if not (claim.smallest_effect_reason or "").strip():
            raise ConfigError(f"{where}: smallest_effect: has no reason; add smallest_effect_reason: ...")
        if figure is not None and not claim.is_level:
            size = max(figure, 1 / figure) if claim.ratio else abs(figure)
            if claim.smallest_effect > size:
                raise ConfigError(
                    f"{where}: smallest_effect={claim.smallest_effect:g}: is more than the published effect, {size:g}; "
                    "lower it"
                )
    for metric, side in claim.also.items():
        if metric not in METRICS or metric == claim.metric:
            raise ConfigError(f"{where}: also: '{metric}' is not another metric{did_you_mean(metric, METRICS)}")
        if side not in SIDES:
            raise ConfigError(f"{where}: also: {metric}: {side}: must be lower or higher")
    for one in claim.ranges:
        _check_range(claim, one, where, figure)


def _check_stated_size(claim: Claim, where: str) -> None:
    """Check that a claim without a figure states its smallest effect of interest, which older plans need not do."""
    is_stated = claim.smallest_effect is not None or claim.metric in claim.published
    if not (is_stated or claim.is_context or claim.is_level or claim.ranges):
        unit = "a factor above 1" if claim.ratio else METRICS[claim.metric][1] or "its own unit"
        raise ConfigError(
            f"{where}: has no figure and no smallest effect of interest; add smallest_effect: ... ({unit}) and "
            "smallest_effect_reason: ..."
        )


def _check_range(claim: Claim, one: Range, where: str, figure: float | None) -> None:
    if one.verdict not in RANGE_VERDICTS:
        near = did_you_mean(one.verdict, RANGE_VERDICTS)
        raise ConfigError(f"{where}: ranges: '{one.verdict}' is not a verdict{near} ({'; '.join(RANGE_VERDICTS)})")
    bounds = [bound for bound in (one.above, one.below) if bound is not None]
    if not bounds or not all(map(math.isfinite, bounds)) or (claim.ratio and min(bounds) <= 0):
        kind = "ratios above 0" if claim.ratio else "numbers"
        raise ConfigError(f"{where}: ranges: {one.verdict}: needs above, below or both, {kind}")
    low, high = -math.inf if one.above is None else one.above, math.inf if one.below is None else one.below
    if low >= high:
        raise ConfigError(f"{where}: ranges: {one.verdict}: above={low:g} is not less than below={high:g}; swap them")
    if one.verdict == Verdict.reproduced.value and figure is not None and not low <= figure <= high:
        raise ConfigError(f"{where}: ranges: reproduced: does not contain the published {figure:g}; change its bounds")


def _check_requires(claim: Claim, where: str) -> None:
    """Check that some configuration has what a claim requires, spelled as a configuration prints it."""
    seen: dict[str, str] = {}
    for required in claim.requires:
        name, sign, value = required.partition("=")
        known = flat(Config())
        if not sign or name not in known:
            raise ConfigError(f"{where}: requires {required}: no such key{did_you_mean(name, known)}")
        try:
            made = OmegaConf.to_object(
                OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.from_dotlist([required]))
            )
        except OmegaConfBaseException as error:
            reason = str(error.msg or error).splitlines()[0]
            raise ConfigError(f"{where}: requires {required}: no recipe can meet it: {reason}") from error
        assert isinstance(made, Config)
        spelled = shown(flat(made)[name])
        if spelled != value:
            raise ConfigError(f"{where}: requires {required}: no recipe can meet it; write {name}={spelled}")
        if seen.setdefault(name, value) != value:
            raise ConfigError(
                f"{where}: requires {name}={seen[name]} and {required}: no recipe can meet both; remove one"
            )
