"""`study=NAME`: the arms of its claims times seeds, in an order in which a stopped study leaves whole blocks.

What was planned is written down before the first run (`runs/studies/<id>.json`) and never changed: seeds that come
later are a second look, and the report says so.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shlex
import time
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from alexlab.claims import Claim, digest, find_claims
from alexlab.compose import Composer, Job
from alexlab.config import CHANCE_SHARE, CONF_DIR, Config, ConfigError, Dataset, Rate, StudyConfig, flat, shown
from alexlab.data.prepare import described
from alexlab.files import write_whole
from alexlab.runs.environment import code
from alexlab.runs.failure import RESULTS
from alexlab.runs.identity import DERIVED, arm_id, differences, run_id
from alexlab.runs.record import DONE, FAILED, Record

MIN_SEEDS = 3  # of an arm that a verdict is told of
CHOICE_SEEDS_FROM = 1000  # seeds that choose a learning rate are none of those that are compared
PLAN_VERSION = 1
MAX_RATE_STEP = 2.0  # between two rates that are tried; a wider grid adds noise of its own to an arm at its best rate
# What a study's file may set without departing from the recipe: its line may not.
STUDYS_OWN = ("optim.schedule", "optim.drops", "optim.drop_factor", "optim.num_drops", "optim.patience")
STUDYS_OWN += ("optim.threshold", "data.holdout", "trainer.precision")
# What a line may set, too: how numbers are computed.
SETTLED = ("data.num_classes", "trainer.channels_last", "trainer.compile", "trainer.fused_lrn")
SETTLED += ("trainer.fused_optimizer", "trainer.deterministic", "trainer.limit_val_batches")
NO_EARLY_STOP = "trainer.chance_epochs=null"
_PLANNED = ("id", "line", "name", "rate", "recipe", "unmet", "claims", "claims_digest", "arms")


@dataclass(frozen=True)
class Arm:
    """One arm of a study: what is typed for it beside the study's own line."""

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    job: Job  # of its first seed
    is_again: bool = False  # the same configuration once more, with seeds of its own

    @property
    def name(self) -> str:
        if self.is_again:
            return "none again"
        return " ".join(override.removeprefix("ablation=") for override in self.overrides) or "none"

    def jobs(self) -> list[tuple[int, Job]]:
        return [(seed, self._job(seed)) for seed in self.seeds]

    def _job(self, seed: int) -> Job:
        config = copy.deepcopy(self.job.config)
        if not any(override.startswith("data.seed=") for override in self.job.overrides):
            config.data.seed = seed
        config.seed = seed
        given = tuple(override for override in self.job.overrides if not override.startswith("seed="))
        return Job((*given, f"seed={seed}"), config, self.job.choices)


@dataclass(frozen=True)
class Study:
    """What a line with `study=` asks for."""

    overrides: tuple[str, ...]  # the line's
    base: Config
    choices: dict[str, str]
    claims: list[Claim]
    arms: list[Arm]  # the base first, where it is one
    departures: list[str]  # keys in which the base is not what the recipe makes it: no verdict is told of such
    config_dir: str | None

    @property
    def id(self) -> str:
        """The same for the same line, whatever its number of seeds."""
        settings = self.base.study
        rate = "" if settings.rate is Rate.protocol else f"-{settings.rate.name}"
        return f"{self.choices['study']}-{self.choices['recipe']}{rate}-{arm_id(self.base)[:6]}"

    @property
    def has_base(self) -> bool:
        """Whether the first run is one that all depends on.

        Not where rates are tried that may well be wrong, or where all claims are about early learning.
        """
        is_early = bool(self.claims) and all(claim.is_early for claim in self.claims)
        return not self.arms[0].overrides and not is_early

    def jobs(self) -> list[tuple[str, Job]]:
        """All runs with the names of their arms, seeds outermost."""
        numbered = [(place, arm.name, job) for arm in self.arms for place, (_, job) in enumerate(arm.jobs())]
        return [(name, job) for _, name, job in sorted(numbered, key=lambda one: one[0])]  # a stable sort


def is_study(overrides: list[str]) -> bool:
    """Whether a command line asks for a study."""
    named = [override.partition("=")[2] for override in overrides if override.partition("=")[0] == "study"]
    return bool(named) and named[-1] != "none"


def make_study(composer: Composer, overrides: list[str], config_dir: str | None = None, stored: bool = True) -> Study:
    """The study of a command line, composed and checked; with `stored=False` its data need not be here.

    Raises:
        ConfigError: for the first mistake in the line, its claims or any arm.
    """
    refuse_sweeps(composer, overrides)
    base = composer.job(overrides, stored=stored)
    settings = base.config.study
    _check_rates(settings)
    claims = find_claims(settings.claims, config_dir)
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    found: dict[tuple[str, ...], None] = {(): None}
    tested = [claim for claim in claims if claim.not_testable is None and not unmet(claim, base.config)]
    for claim in tested:
        found.update({tuple(arm): None for arm in claim.compared})
    for arm in found:
        for override in arm:
            if override.partition("=")[0] in given:
                raise ConfigError(f"{override.partition('=')[0]}: the study's arms set it ({override}); leave it out")
    if claims and not tested:
        told = "; ".join(f"{claim.name} requires {' '.join(unmet(claim, base.config))}" for claim in claims[:1])
        raise ConfigError(f"study={base.choices['study']}: none of its claims can be tested here: {told}")
    if claims and not any(not arm for claim in tested for arm in claim.compared):
        del found[()]  # no claim is against the base
    has_val = base.config.data.name is Dataset.shapes or not stored
    if settings.rate is not Rate.protocol and not has_val and described(base.config.data)["chosen_on_reported"]:
        raise ConfigError(
            f"study.rate={settings.rate.name}: rates would be chosen on the reported images; set data.holdout=50"
        )
    early = {tuple(arm) for claim in tested if claim.is_early for arm in claim.compared}  # which nothing ends early

    def line(arm: tuple[str, ...]) -> list[str]:
        return [*overrides, *([NO_EARLY_STOP] if arm in early and NO_EARLY_STOP.partition("=")[0] not in given else [])]

    base_seeds = settings.base_seeds or round(math.sqrt(max(1, len(found) - 1))) * settings.seeds
    if settings.first_seed + max(settings.seeds, base_seeds) * (1 if claims else 2) > CHOICE_SEEDS_FROM:
        raise ConfigError(f"study.first_seed={settings.first_seed}: seeds from {CHOICE_SEEDS_FROM} on choose the rates")
    arms = [
        arm
        for one in found
        for arm in _arms(composer, line(one), one, base, config_dir, stored, seeds=0 if one else base_seeds)
    ]
    if settings.data_seeds is not None and not claims:
        each = [(f"data.seed={number}",) for number in range(settings.data_seeds)]
        arms = [_arm(composer, overrides, one, arms[0].seeds, stored) for one in each]
    elif not claims and settings.rate is Rate.protocol:  # the base against itself
        again = tuple(seed + base_seeds for seed in arms[0].seeds)
        arms.append(dataclasses.replace(_arm(composer, overrides, (), again, stored), is_again=True))
    departures = _departures(composer, base)
    return Study(tuple(overrides), base.config, base.choices, claims, arms, departures, config_dir)


def _check_rates(settings: StudyConfig) -> None:
    rates = sorted(settings.rates)
    for low, high in pairwise(rates):
        if settings.rate is Rate.choose and high > low * MAX_RATE_STEP * (1 + 1e-9):
            raise ConfigError(
                f"study.rates={shown(settings.rates)}: from {low:g} to {high:g} is a factor of {high / low:.3g}; add "
                f"rates between, at most a factor of {MAX_RATE_STEP:g} apart"
            )


def _departures(composer: Composer, base: Job) -> list[str]:
    """The keys in which the base is not what its recipe makes it, nor what the study's file may set."""
    chosen = [f"{name}={base.choices[name]}" for name in ("recipe", "protocol", "model")]
    by_recipe = composer.job([*chosen, "ablation=none"], stored=False).config
    by_study = composer.job([*chosen, "ablation=none", f"study={base.choices['study']}"], stored=False).config
    changed, by_line = (
        {*differences(base.config, other), *differences(other, base.config)} for other in (by_recipe, by_study)
    )
    allowed = {*DERIVED, *SETTLED, *(name for name in STUDYS_OWN if name not in by_line)}
    if base.config.study.rate is not Rate.protocol:
        allowed.add("data.holdout")  # on which rates are chosen
    return sorted(changed - allowed)


def refuse_sweeps(composer: Composer, overrides: list[str]) -> None:
    """Raise ConfigError where a study's line asks for what the study itself varies."""
    for override in composer.parse(overrides):
        line = override.input_line or ""
        if override.is_sweep_override():
            raise ConfigError(f"{line}: a study has one value of each key; type its line once for each")
        if override.key_or_group == "seed":
            raise ConfigError(f"{line}: a study has seeds of its own; set study.seeds and study.first_seed")


def unmet(claim: Claim, config: Config) -> list[str]:
    """What a claim requires of the runs and does not find, as `key=value`."""
    keys = {name: shown(value) for name, value in flat(config).items()}
    for required in claim.requires:
        if required.partition("=")[0] not in keys:
            raise ConfigError(f"{claim.name}: requires {required}: there is no such key")
    return [required for required in claim.requires if keys[required.partition("=")[0]] != required.partition("=")[2]]


def _arms(
    composer: Composer,
    line: list[str],
    overrides: tuple[str, ...],
    base: Job,
    config_dir: str | None,
    stored: bool,
    seeds: int = 0,
) -> list[Arm]:
    """An arm of so many seeds, 0 for `study.seeds`; with `study.rate=choose` one for each rate that it is tried at."""
    settings = base.config.study
    given = [*line, *overrides]
    first = settings.first_seed
    if settings.rate is Rate.choose:
        tried = range(first + CHOICE_SEEDS_FROM, first + CHOICE_SEEDS_FROM + settings.rate_seeds)
        at_one = composer.job(given, stored=stored).config.optim.lr
        rates = [f"optim.lr={float(f'{at_one * factor:.6g}'):g}" for factor in settings.rates]
        return [_arm(composer, line, (*overrides, rate), tuple(tried), stored) for rate in rates]
    numbers = tuple(range(first, first + (seeds or settings.seeds)))
    if settings.rate is Rate.own:
        overrides_at = (*overrides, f"optim.lr={best_rate(composer, line, overrides, config_dir):g}")
        return [dataclasses.replace(_arm(composer, line, overrides_at, numbers, stored), overrides=overrides)]
    return [_arm(composer, line, overrides, numbers, stored)]


def _arm(composer: Composer, line: list[str], overrides: tuple[str, ...], seeds: tuple[int, ...], stored: bool) -> Arm:
    try:
        job = composer.job([*line, *overrides, f"seed={seeds[0]}"], stored=stored)
    except ConfigError as error:
        if not overrides:
            raise
        raise ConfigError(_misfit(composer.job(line, stored=stored).choices, overrides, error)) from error
    return Arm(overrides, seeds, job)


def _misfit(choices: dict[str, str], overrides: tuple[str, ...], error: ConfigError) -> str:
    """The line for an arm that the study's net or data cannot have, such as half of AlexNet's kernels on CIFAR-10."""
    recipe = choices["recipe"]
    studies = [path.stem for path in sorted((CONF_DIR / "study").glob("*.yaml")) if _recipe_of(path) == recipe]
    made_for = f"; studies made for recipe={recipe}: {', '.join(studies)}" if studies else ""
    where = f"recipe={recipe} model={choices['model']}"
    return f"study={choices['study']}: its arm {' '.join(overrides)} does not fit {where}{made_for} ({error})"


def _recipe_of(study: Path) -> str | None:
    """The recipe that a study's file chooses."""
    defaults = (yaml.safe_load(study.read_text()) or {}).get("defaults", [])
    return next(
        (one["override /recipe"] for one in defaults if isinstance(one, dict) and "override /recipe" in one), None
    )


def best_rate(composer: Composer, line: list[str], overrides: tuple[str, ...], config_dir: str | None) -> float:
    """The learning rate at which an arm was best on validation images, its runs at `study.rate=choose` done.

    A run that failed counts as one that is always wrong.

    Raises:
        ConfigError: where a run is missing, with the line that makes it.
    """
    chooses = [override for override in line if override.partition("=")[0] != "study.rate"] + ["study.rate=choose"]
    base = composer.job(chooses)
    errors: dict[float, float] = {}
    for arm in _arms(composer, chooses, overrides, base, config_dir, True):
        found = []
        for _, job in arm.jobs():
            record = Record(job.config.paths.runs, run_id(job.config))
            state = record.status().get("state")
            if state == FAILED:
                found.append(1.0)
            elif state == DONE:
                found.append(validation_error(record))
            else:
                raise ConfigError(
                    f"study.rate=own: {' '.join(overrides) or 'the base'} was not tried at all rates; first type: "
                    f"python src/train.py {shlex.join(chooses)}"
                )
        errors[arm.job.config.optim.lr] = mean(found)
    return min(errors, key=lambda rate: errors[rate])


def validation_error(record: Record) -> float:
    """Of a run's last epoch.

    Raises:
        ConfigError: where it had no validation.
    """
    rows = record.rows()
    error = rows[-1].get("val_top1_error") if rows else None
    if error is None:
        raise ConfigError(
            f"{record.path}: has no validation error to choose a rate by; set trainer.limit_val_batches=1.0"
        )
    return error


def does_not_learn(base: Path, config: Config) -> str | None:
    """What is wrong with a study's first run, where there is no point in going on; not of that run itself.

    `config`: of the run that is to be begun, whose number of classes is the base's.
    """
    if run_id(config) == base.name:
        return None
    record = Record(base.parent, base.name)
    status = record.status()
    if status.get("state") == FAILED and status.get("failure") in RESULTS:
        return f"failed: {status['failure']}"
    chance = CHANCE_SHARE * math.log(config.data.num_classes or 1)
    loss = record.result().get("train", {}).get("center", {}).get("loss", 0.0)
    return f"does not learn: its training loss is {loss:.3f}, that of guessing" if loss >= chance else None


def document(study: Study) -> dict[str, Any]:
    """What a study plans, as it is written down."""
    arms = []
    for arm in study.arms:
        runs = {str(seed): run_id(job.config) for seed, job in arm.jobs()}
        lr = arm.job.config.optim.lr
        arms.append({"overrides": list(arm.overrides), "name": arm.name, "lr": lr, "runs": runs})
    return {
        "version": PLAN_VERSION,
        "id": study.id,
        "line": list(study.overrides),
        "config_dir": study.config_dir,
        "departures": study.departures,
        "name": study.choices["study"],
        "rate": study.base.study.rate.name,
        **{group: study.choices[group] for group in ("recipe", "protocol", "model", "data")},
        "unmet": {claim.name: missing for claim in study.claims if (missing := unmet(claim, study.base))},
        "claims": [dataclasses.asdict(claim) for claim in study.claims],
        "claims_digest": digest(study.claims),
        "arms": arms,
    }


def register(plan: dict[str, Any], folder: Path) -> list[str]:
    """Write down what a study plans, before its first run; what to tell where it planned something else before."""
    path = folder / f"{plan['id']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    mark = sha256(json.dumps([plan["claims_digest"], plan["arms"]], sort_keys=True).encode()).hexdigest()[:12]
    looks = read_looks(path) if path.is_file() else []
    if any(look["digest"] == mark for look in looks):
        return []
    seen = [id for arm in plan["arms"] for id in arm["runs"].values() if Record(folder.parent, id).is_done]
    when = {"planned": time.time(), **code(), "finished_before": sorted(set(seen))}
    looks.append({"digest": mark, **when, **plan})
    write_whole(path, json.dumps({"version": PLAN_VERSION, "looks": looks}, indent=1) + "\n")
    if len(looks) == 1:
        return []
    return [f"{path.name} planned other runs before; this is look {len(looks)}, and the report says so"]


def read_looks(path: Path) -> list[dict[str, Any]]:
    """All that a study planned, the first time first.

    Raises:
        ConfigError: where the file is damaged.
    """
    try:
        content = json.loads(path.read_text())
        if content["version"] != PLAN_VERSION:
            raise ConfigError(f"{path}: is of version {content['version']}, this code reads version {PLAN_VERSION}")
        looks = list(content["looks"])
        if not looks or any(name not in look for look in looks for name in _PLANNED):
            raise ValueError("it does not say what was planned")
        return looks
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: is damaged ({error}); bring it back from a copy") from error
