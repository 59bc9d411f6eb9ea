"""Plan a study (`study=NAME`): the arms of its claims times the seeds, seeds outermost, so that a stopped study has
complete blocks.

The plan is registered before the first run (`runs/studies/<id>.json`) and never changed: seeds added later are a second
look, which the report states.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from alexlab.compose import Composer, Job
from alexlab.config import (
    CHANCE_SHARE,
    CONF_DIR,
    RACE_ERRORS,
    Config,
    ConfigError,
    Dataset,
    Rate,
    RateSearch,
    StudyConfig,
    flat,
    shown,
)
from alexlab.crossings import THRESHOLD, epochs_to
from alexlab.data.locate import described, fingerprint
from alexlab.data.store import locked
from alexlab.files import write_atomic
from alexlab.runs.environment import code
from alexlab.runs.failure import RESULTS
from alexlab.runs.identity import DERIVED, arm_id, differences, run_id
from alexlab.runs.record import DONE, FAILED, Record
from alexlab.study.claims import Claim, check_line, digest, find_claims
from alexlab.study.plans import PLAN_VERSION, read_looks
from alexlab.study.rates import LENGTH, RACE, SPEED
from alexlab.study.records import RunData
from alexlab.sweep.rate_search import Choice, Search, Trial, TrialResult, extending_search, grid_search, replay, rounded

MIN_SEEDS = 3  # of each arm, for a verdict to be given
CHOICE_SEEDS_FROM = 1000  # learning rates are chosen on other seeds than those compared
# A study of speed alone may set these in its file, too: a run ends when it reaches the error.
SPEEDS_OWN = ("trainer.max_epochs", "trainer.train_error_every", "trainer.stop_at_train_error")
MAX_RATE_STEP = 2.0  # between two trial rates; a coarser grid adds noise to each arm's best rate
# Keys that a study's file may set without departing from the recipe; its command line may not.
STUDYS_OWN = ("optim.schedule", "optim.drops", "optim.drop_factor", "optim.num_drops", "optim.patience")
STUDYS_OWN += ("optim.threshold", "data.holdout", "trainer.precision")
# Keys that a command line may set, too: they change how numbers are computed.
SETTLED = ("data.num_classes", "trainer.channels_last", "trainer.compile", "trainer.fused_lrn")
SETTLED += ("trainer.fused_optimizer", "trainer.deterministic", "trainer.limit_val_batches")
NO_EARLY_STOP = "trainer.chance_epochs=null"


def arm_name(overrides: tuple[str, ...]) -> str:
    """An arm's overrides, with the limits of a race as one word."""
    parts = [override.removeprefix("ablation=") for override in overrides if not override.startswith(RACE)]
    return " ".join([*parts, *["(raced)"] * (len(parts) < len(overrides))]) or "none"


@dataclass(frozen=True)
class PlannedArm:
    """One arm of a study, with its overrides in addition to those of the study."""

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    job: Job  # of its first seed
    is_again: bool = False  # the base's configuration again, with other seeds

    @property
    def name(self) -> str:
        return "none again" if self.is_again else arm_name(self.overrides)

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
class ArmRate:
    """The search for an arm's learning rate: its trials in order, and the choice once all are finished."""

    overrides: tuple[str, ...]
    metric: str
    rounds: list[list[Trial]]
    results: dict[Trial, TrialResult]
    runs: dict[Trial, str]  # run ids
    choice: Choice | None

    @property
    def name(self) -> str:
        return arm_name(self.overrides)

    def shown(self, trial: Trial) -> str:
        """Describe a trial in words."""
        result = self.results.get(trial)
        outcome = "to do" if result is None else self._value(result)
        return f"{self.name} optim.lr={trial.lr:g} seed={trial.seed}: {outcome}"

    def _value(self, result: TrialResult) -> str:
        if result.failure is not None:
            return result.failure
        if self.metric == SPEED:
            is_there = math.isfinite(result.score)
            return f"25 % after {math.exp(result.score):.2f} epochs" if is_there else "stopped before 25 %"
        return f"validation error {100 * result.score:.2f} %"

    def document(self) -> dict[str, Any]:
        trials = [trial for round_ in self.rounds for trial in round_]
        return {
            "overrides": list(self.overrides),
            "name": self.name,
            "metric": self.metric,
            "lr": self.choice.lr if self.choice else None,
            "warning": self.choice.warning if self.choice else None,
            "trials": [
                {
                    "lr": trial.lr,
                    "seed": trial.seed,
                    "race_epochs": list(trial.race_epochs),
                    "run": self.runs[trial],
                    "value": _finite(self.results.get(trial), self.metric),
                }
                for trial in trials
            ],
        }


def _finite(result: TrialResult | None, metric: str) -> float | None:
    """A trial's value in the metric's unit; None if it has none (yet)."""
    if result is None or not math.isfinite(result.score):
        return None
    return math.exp(result.score) if metric == SPEED else result.score


@dataclass(frozen=True)
class Study:
    """The runs of a command line with `study=`, or the trials of learning rates that must come first."""

    overrides: tuple[str, ...]  # of the command line
    base: Config
    choices: dict[str, str]
    claims: list[Claim]
    arms: list[PlannedArm]  # the base first, if it is one of them
    departures: list[str]  # keys in which the base differs from its recipe: then no verdict is given
    config_dir: str | None
    rate: Rate = Rate.protocol  # `choose` if the line sets `own` and trials are missing
    rates: list[ArmRate] = field(default_factory=list)
    round: list[PlannedArm] = field(default_factory=list)  # the next trials, while rates are being chosen

    @property
    def id(self) -> str:
        """An id that depends on the command line, but not on its number of seeds."""
        rate = "" if self.rate is Rate.protocol else f"-{self.rate.name}"
        return f"{self.choices['study']}-{self.choices['recipe']}{rate}-{arm_id(self.base)[:6]}"

    @property
    def has_base(self) -> bool:
        """Whether the first run must learn for the rest to make sense.

        It need not for trials of rates, which may diverge, or if all claims are about early learning.
        """
        is_early = bool(self.claims) and all(claim.is_early for claim in self.claims)
        return not self.arms[0].overrides and not is_early

    def jobs(self) -> list[tuple[str, Job]]:
        """All runs with their arms' names, seeds outermost; while rates are being chosen, the next trials only."""
        arms = self.round or self.arms
        numbered = [(index, arm.name, job) for arm in arms for index, (_, job) in enumerate(arm.jobs())]
        return [(name, job) for _, name, job in sorted(numbered, key=lambda one: one[0])]  # a stable sort


def is_study(overrides: list[str]) -> bool:
    """Whether a command line asks for a study."""
    named = [override.partition("=")[2] for override in overrides if override.partition("=")[0] == "study"]
    return bool(named) and named[-1] != "none"


def make_study(composer: Composer, overrides: list[str], config_dir: str | None = None, stored: bool = True) -> Study:
    """Compose and check the study of a command line; with `stored=False` its data need not be on this machine.

    Raises:
        ConfigError: for the first error in the line, its claims or any arm.
    """
    refuse_sweeps(composer, overrides)
    composer.check_once(overrides, can_sweep=False)
    base = composer.job(overrides, stored=stored)
    if stored:
        fingerprint(base.config.data)  # fail now rather than look for a missing store in each arm
    settings = base.config.study
    _check_rates(settings)
    claims = find_claims(settings.claims, config_dir)
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    found: dict[tuple[str, ...], None] = {(): None}
    tested = [claim for claim in claims if claim.not_testable is None and not unmet(claim, base.config)]
    for claim in tested:
        found.update({tuple(arm): None for arm in claim.compared})
    check_line(overrides, found, config_dir)
    if claims and not tested:
        missing = "; ".join(f"{claim.name} requires {' '.join(unmet(claim, base.config))}" for claim in claims[:1])
        raise ConfigError(f"study={base.choices['study']}: none of its claims can be tested here: {missing}")
    if claims and not any(not arm for claim in tested for arm in claim.compared):
        del found[()]  # no claim is against the base
    is_of_speed = bool(tested) and all(claim.metric == SPEED for claim in tested)
    has_val = base.config.data.name is Dataset.shapes or not stored or is_of_speed
    if settings.rate is not Rate.protocol and not has_val and described(base.config.data)["chosen_on_reported"]:
        raise ConfigError(
            f"study.rate={settings.rate.name}: rates would be chosen on the reported images; set data.holdout=50"
        )
    # Arms whose runs must not end early.
    early = {tuple(arm) for claim in tested if claim.is_early for arm in claim.compared}

    def line(arm: tuple[str, ...]) -> list[str]:
        return [*overrides, *([NO_EARLY_STOP] if arm in early and NO_EARLY_STOP.partition("=")[0] not in given else [])]

    base_seeds = settings.base_seeds or round(math.sqrt(max(1, len(found) - 1))) * settings.seeds
    if settings.first_seed + max(settings.seeds, base_seeds) * (1 if claims else 2) > CHOICE_SEEDS_FROM:
        raise ConfigError(f"study.first_seed={settings.first_seed}: seeds from {CHOICE_SEEDS_FROM} on choose rates")

    def seeds(arm: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(range(settings.first_seed, settings.first_seed + (settings.seeds if arm else base_seeds)))

    departures = _departures(composer, base, SPEEDS_OWN if is_of_speed else ())
    study = Study(tuple(overrides), base.config, base.choices, claims, [], departures, config_dir, settings.rate)
    if settings.rate is Rate.protocol:
        arms = [_arm(composer, line(arm), arm, seeds(arm), stored) for arm in found]
        if settings.data_seeds is not None and not claims:
            each = [(f"data.seed={number}",) for number in range(settings.data_seeds)]
            arms = [_arm(composer, overrides, one, seeds(()), stored) for one in each]
        elif not claims:  # the base against itself
            again = tuple(seed + base_seeds for seed in seeds(()))
            arms.append(dataclasses.replace(_arm(composer, overrides, (), again, stored), is_again=True))
        return dataclasses.replace(study, arms=arms)
    metric = SPEED if is_of_speed else "val_top1_error"
    searched = [_search(composer, line(arm), arm, settings, metric, stored) for arm in found]
    rates = [rate for rate, _, _ in searched]
    is_searching = any(rate.choice is None for rate in rates)
    if settings.rate is Rate.choose or is_searching:
        tried = [arm for _, arms, _ in searched for arm in arms]
        coming = [arm for _, _, arms in searched for arm in arms]
        return dataclasses.replace(study, arms=tried, rate=Rate.choose, rates=rates, round=coming)
    arms = []
    for rate in rates:
        assert rate.choice is not None
        if rate.choice.lr is not None:
            at_own = (*rate.overrides, f"optim.lr={rate.choice.lr:g}")
            arm = _arm(composer, line(rate.overrides), at_own, seeds(rate.overrides), stored)
            arms.append(dataclasses.replace(arm, overrides=rate.overrides))
    if not arms:
        raise ConfigError(f"study.rate=own: {rates[0].choice.warning if rates[0].choice else ''}")
    return dataclasses.replace(study, arms=arms, rates=rates)


def _check_rates(settings: StudyConfig) -> None:
    if settings.rate is Rate.protocol:
        return
    for low, high in pairwise(sorted(settings.rates)):
        if high > low * MAX_RATE_STEP * (1 + 1e-9):
            raise ConfigError(
                f"study.rates={shown(settings.rates)}: from {low:g} to {high:g} is a factor of {high / low:.3g}; add "
                f"rates between them, at most a factor of {MAX_RATE_STEP:g} apart"
            )
    if settings.rate_search is RateSearch.extend and len(settings.rates) > 1:
        raise ConfigError(f"study.rates={shown(settings.rates)}: rate_search=extend starts at one rate; set one")


def _departures(composer: Composer, base: Job, studys_own: tuple[str, ...]) -> list[str]:
    """The keys in which the base differs from its recipe, apart from those that the study's file may set."""
    chosen = [f"{name}={base.choices[name]}" for name in ("recipe", "protocol", "model")]
    by_recipe = composer.job([*chosen, "ablation=none"], stored=False).config
    by_study = composer.job([*chosen, "ablation=none", f"study={base.choices['study']}"], stored=False).config
    changed, by_line = (
        {*differences(base.config, other), *differences(other, base.config)} for other in (by_recipe, by_study)
    )
    allowed = {*DERIVED, *SETTLED, *(name for name in (*STUDYS_OWN, *studys_own) if name not in by_line)}
    if base.config.study.rate is not Rate.protocol:
        allowed.add("data.holdout")  # rates are chosen on it
    return sorted(changed - allowed)


def refuse_sweeps(composer: Composer, overrides: list[str]) -> None:
    """Raise ConfigError if a study's command line sets what the study itself varies."""
    for override in composer.parse(overrides):
        line = override.input_line or ""
        if override.is_sweep_override():
            raise ConfigError(f"{line}: a study takes one value per key; run one command for each")
        if override.key_or_group == "seed":
            raise ConfigError(f"{line}: a study sets the seeds; use study.seeds and study.first_seed")


def unmet(claim: Claim, config: Config) -> list[str]:
    """The requirements of a claim (`key=value`) that a configuration does not meet."""
    keys = {name: shown(value) for name, value in flat(config).items()}
    if config.study.rate is Rate.choose:
        keys["study.rate"] = Rate.own.name  # its runs are the trials for that
    for required in claim.requires:
        if required.partition("=")[0] not in keys:
            raise ConfigError(f"{claim.name}: requires {required}: there is no such key")
    return [required for required in claim.requires if keys[required.partition("=")[0]] != required.partition("=")[2]]


def _arm(
    composer: Composer, line: list[str], overrides: tuple[str, ...], seeds: tuple[int, ...], stored: bool
) -> PlannedArm:
    try:
        job = composer.job([*line, *overrides, f"seed={seeds[0]}"], stored=stored)
    except ConfigError as error:
        if not overrides:
            raise
        raise ConfigError(_misfit(composer.job(line, stored=stored).choices, overrides, error)) from error
    return PlannedArm(overrides, seeds, job)


def _misfit(choices: dict[str, str], overrides: tuple[str, ...], error: ConfigError) -> str:
    """The error message for an arm that does not fit the study's network or data, such as `half_net` on CIFAR-10."""
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


def _search(
    composer: Composer, line: list[str], overrides: tuple[str, ...], settings: StudyConfig, metric: str, stored: bool
) -> tuple[ArmRate, list[PlannedArm], list[PlannedArm]]:
    """Search an arm's learning rate in its records; return the search, and all trials and the next ones as arms."""
    first = settings.first_seed + CHOICE_SEEDS_FROM
    seeds = list(range(first, first + settings.rate_seeds))
    arm = _arm(composer, line, overrides, tuple(seeds), stored)
    at_one = arm.job.config.optim.lr
    search: Search
    if settings.rate_search is RateSearch.extend:
        search = extending_search(at_one * settings.rates[0], seeds)
    else:
        search = grid_search([rounded(at_one * factor) for factor in settings.rates], seeds)
    results: dict[Trial, TrialResult] = {}
    runs: dict[Trial, str] = {}

    def look(trial: Trial) -> TrialResult | None:
        config = _trials(arm, [trial], settings)[0].jobs()[0][1].config
        runs[trial] = run_id(config)
        result = trial_result(Record(config.paths.runs, runs[trial]), metric)
        if result is not None:
            results[trial] = result
        return result

    rounds, choice = replay(search, look)
    rate = ArmRate(overrides, metric, rounds, results, runs, choice)
    tried = _trials(arm, [trial for round_ in rounds for trial in round_], settings)
    return rate, tried, _trials(arm, rounds[-1], settings) if choice is None else []


def _trials(arm: PlannedArm, trials: list[Trial], settings: StudyConfig) -> list[PlannedArm]:
    """Group trials into arms: those that differ only in the seed are one."""
    seeds: dict[tuple[str, ...], list[int]] = {}
    epochs = max(1, round(settings.rate_length * arm.job.config.trainer.max_epochs))
    jobs: dict[tuple[str, ...], Job] = {}
    for trial in trials:
        config = copy.deepcopy(arm.job.config)
        config.optim.lr = trial.lr
        given = [f"optim.lr={trial.lr:g}"]
        if trial.race_epochs:
            config.trainer.race_epochs = list(trial.race_epochs)
            given.append(f"{RACE}{shown(config.trainer.race_epochs).replace(' ', '')}")
        if epochs != config.trainer.max_epochs:
            config.trainer.max_epochs = epochs
            given.append(f"{LENGTH}{epochs}")
        seeds.setdefault(tuple(given), []).append(trial.seed)
        jobs[tuple(given)] = Job((*arm.job.overrides, *given), config, arm.job.choices)
    return [PlannedArm((*arm.overrides, *given), tuple(found), jobs[given]) for given, found in seeds.items()]


def trial_result(record: Record, metric: str) -> TrialResult | None:
    """Read the result of a trial from its record; None if it is not finished.

    Raises:
        UserError: if the record lacks what the metric needs.
    """
    status = record.status()
    if status.get("state") == FAILED and status.get("failure") in RESULTS:
        return TrialResult(math.inf, status["failure"])
    if status.get("state") != DONE:
        return None
    run = RunData(record, status)
    if metric != SPEED:
        if run.validation_error is None:
            raise ConfigError(
                f"{record.path}: has no validation error to choose a rate by; set trainer.limit_val_batches=1.0"
            )
        return TrialResult(run.validation_error)
    epochs, errors = run.train_errors
    reached, *levels = (epochs_to(errors, level, epochs) for level in (THRESHOLD, *RACE_ERRORS))
    return TrialResult(math.inf if math.isnan(reached) else math.log(reached), reached=tuple(levels))


def does_not_learn(base: Path, config: Config) -> str | None:
    """The reason why a study's first run makes the others pointless; None if there is none, and for that run itself.

    `config`: of the run to start, which has the base's number of classes.
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
    """The plan of a study, as it is registered."""
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
        "rate": study.rate.name,
        "rates": [rate.document() for rate in study.rates],
        **{group: study.choices[group] for group in ("recipe", "protocol", "model", "data")},
        "unmet": {claim.name: missing for claim in study.claims if (missing := unmet(claim, study.base))},
        "claims": [dataclasses.asdict(claim) for claim in study.claims],
        "claims_digest": digest(study.claims),
        "arms": arms,
    }


def register(plan: dict[str, Any], folder: Path) -> list[str]:
    """Register the plan of a study before its first run; return warnings if it had another plan before."""
    path = folder / f"{plan['id']}.json"
    mark = sha256(json.dumps([plan["claims_digest"], plan["arms"]], sort_keys=True).encode()).hexdigest()[:12]
    if any(look["digest"] == mark for look in _looks(plan, path)):
        return []
    with locked(path.with_name(f".{path.stem}.lock")):  # two commands at once must not lose each other's look
        return _add_look(plan, path, mark)


def _looks(plan: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The looks so far; none for a search, which plans its rounds one after another and gives no verdicts."""
    return read_looks(path) if path.is_file() and plan["rate"] != Rate.choose.name else []


def _add_look(plan: dict[str, Any], path: Path, mark: str) -> list[str]:
    folder, looks = path.parent, _looks(plan, path)
    if any(look["digest"] == mark for look in looks):
        return []
    seen = [id for arm in plan["arms"] for id in arm["runs"].values() if Record(folder.parent, id).is_done]
    when = {"planned": time.time(), **code(), "finished_before": sorted(set(seen))}
    looks.append({"digest": mark, **when, **plan})
    write_atomic(path, json.dumps({"version": PLAN_VERSION, "looks": looks}, indent=1) + "\n")
    if len(looks) == 1:
        return []
    return [f"{path.name} planned other runs before; this is look {len(looks)}, and the report says so"]
