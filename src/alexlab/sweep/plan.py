"""The plan of a command line: all of its runs, composed, checked and identified before the first one starts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from omegaconf import DictConfig

from alexlab.compose import Composer, Job
from alexlab.config import CONF_DIR, Config, ConfigError, flat, shown
from alexlab.data.locate import has_store
from alexlab.files import write_atomic
from alexlab.runs.identity import SEEDS, arm_id, arm_label, run_id, spelled
from alexlab.runs.names import RunName, run_name
from alexlab.runs.record import Record
from alexlab.runs.supervisor import needs_work
from alexlab.sweep.study_plan import Study, is_study, make_study

_JOBLIB_UNUSED = [
    f"hydra.launcher.{name}"
    for name in ("backend", "prefer", "require", "verbose", "timeout", "pre_dispatch", "batch_size", "temp_folder")
]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan."""

    run_id: str
    arm: str  # hash of what the arm's runs share
    varied: str  # what differs between the plan's overrides, seeds aside, with this run's values
    values: dict[str, str]  # the same by key or group: {"model.lrn": "false"}
    overrides: tuple[str, ...]
    config: Config
    choices: dict[str, str]  # the option chosen in each config group
    labels: dict[str, str]

    @property
    def record(self) -> Record:
        return Record(self.config.paths.runs, self.run_id)

    @property
    def is_pending(self) -> bool:
        """Whether its command starts it: a try-out always, else unless it is done or failed and is not retried."""
        return self.config.is_tryout or needs_work(self.record.status(), self.config.retry)

    @property
    def name(self) -> RunName:
        return run_name(self.labels["ablation"], flat(self.config))


@dataclass(frozen=True)
class Plan:
    """All runs of a command line, in order, each once."""

    runs: list[PlannedRun]
    varying: list[str]  # the keys and groups, seeds aside, in which the jobs' overrides differ
    jobs: list[PlannedRun]  # one for each job of the sweep; some may be the same run
    is_sweep: bool
    merged: list[tuple[str, str]]  # jobs that are the same run as an earlier one: what varied in each
    for_launcher: DictConfig  # the whole line, composed with Hydra's own part
    study: Study | None = None

    @property
    def choices(self) -> dict[str, str]:
        """The options of the first job."""
        return self.jobs[0].choices

    @property
    def is_tryout(self) -> bool:
        return any(run.config.is_tryout for run in self.runs)

    @property
    def num_jobs(self) -> int:
        return len(self.jobs)

    @property
    def sweep_id(self) -> str:
        """A hash of the runs in their order."""
        return sha256(" ".join(run.run_id for run in self.runs).encode()).hexdigest()[:12]


def make_plan(
    overrides: list[str], multirun: bool = False, config_dir: str | None = None, composer: Composer | None = None
) -> Plan:
    """Compose and check every run of a command line.

    `composer`: of the same `config_dir`; what it composed before is not read from files again.

    Raises:
        ConfigError: for the first mistake in any of them.
    """
    composer = composer or Composer(config_dir)
    for override in composer.parse(overrides):
        if override.key_or_group in ("hydra.run.dir", "hydra.sweep.dir"):
            raise ConfigError(f"{override.input_line}: records have their own folders; use paths.runs=DIR")
        if override.key_or_group in _JOBLIB_UNUSED and "hydra/launcher=joblib" in overrides:
            raise ConfigError(f"{override.input_line}: has no effect here; hydra/launcher=joblib supports only n_jobs")
    study = make_study(composer, overrides, config_dir) if is_study(overrides) else None
    arms: list[str] = []
    if study is not None:
        arms, jobs = map(list, zip(*study.jobs(), strict=True))
        is_sweep = True
    else:
        expanded, is_sweep = composer.expand(overrides, multirun)
        jobs = [composer.job(job) for job in expanded]
    if len({job.config.trainer.fast_dev_run for job in jobs}) > 1:
        raise ConfigError("trainer.fast_dev_run: must be the same for all jobs; a sweep keeps all records or none")
    if len({job.config.debug.name for job in jobs}) > 1:
        raise ConfigError("debug: must be the same for all jobs; a sweep keeps all records or none")
    if len({job.config.paths.runs for job in jobs}) > 1:
        raise ConfigError("paths.runs: must be the same for all jobs; a sweep has one folder of records")
    if len({job.config.max_hours for job in jobs}) > 1:
        raise ConfigError("max_hours: must be the same for all jobs; it counts from the command's start")
    varying = ["arm"] if study is not None else what_varies(jobs)
    planned: list[PlannedRun] = []
    runs: dict[str, PlannedRun] = {}
    merged: list[tuple[str, str]] = []
    for number, job in enumerate(jobs):
        names = labels(job, config_dir)
        values = {"arm": arms[number]} if arms else varied_values(job, varying)
        what = arms[number] if arms else spelled(values) or names["ablation"]
        ids = run_id(job.config), arm_id(job.config)
        run = PlannedRun(*ids, what, values, job.overrides, job.config, job.choices, names)
        planned.append(run)
        first = runs.setdefault(run.run_id, run)
        if first.varied != run.varied:
            merged.append((run.varied, first.varied))
    for run in runs.values():
        if not run.record.is_done:
            _check_folder("paths.runs", Path(run.config.paths.runs))
            if run.config.data.stage is not None:
                _check_folder("data.stage", Path(run.config.data.stage))
            if not has_store(run.config.data):
                _check_folder("data.cache", Path(run.config.data.cache))
    return Plan(
        list(runs.values()),
        varying,
        planned,
        is_sweep,
        list(dict.fromkeys(merged)),
        composer.for_launcher(overrides),
        study,
    )


def _check_folder(name: str, folder: Path) -> None:
    """Reject a folder that cannot be created or written, before anything runs."""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            raise ConfigError(f"{name}={folder}: {existing} is a file; name a folder")
        is_writable = os.access(existing, os.W_OK | os.X_OK)
    except OSError as error:
        raise ConfigError(f"{name}={folder}: {error.strerror}; name another folder") from error
    if not is_writable:
        raise ConfigError(f"{name}={folder}: {existing} is not writable; name another folder")


def labels(job: Job, config_dir: str | None = None) -> dict[str, str]:
    """The names of a run: protocol, recipe, model, ablation (or the change itself), and the arm's hash."""
    names = {name: job.choices[name] for name in ("protocol", "recipe", "model")}
    chosen = [f"{name}={job.choices[name]}" for name in ("data", "model", "protocol", "recipe", "study")]
    if job.choices["data"] == "folder":
        chosen.append(f"data.num_classes={job.config.data.num_classes}")  # known only from the store
    base = _base(config_dir, *chosen)
    folders = [Path(folder) / "ablation" for folder in (config_dir, CONF_DIR) if folder]
    return {**names, "ablation": arm_label(job.config, base, folders), "arm": arm_id(job.config)}


_bases: dict[tuple[str | None, tuple[str, ...]], Config] = {}


def _base(config_dir: str | None, *choices: str) -> Config:
    """The configuration without any ablation or override."""
    key = config_dir, choices
    if key not in _bases:
        _bases[key] = Composer(config_dir).job([*choices, "ablation=none"], stored=False).config
    return _bases[key]


def varied(job: Job, varying: list[str]) -> str:
    """The values of a job in what a sweep varies, as text."""
    return spelled(varied_values(job, varying))


def varied_values(job: Job, varying: list[str]) -> dict[str, str]:
    """The values of a job in what a sweep varies, as overrides gave them: `ablation=six_convs`, not its five keys."""
    values = {**_given(job.overrides), **{name: shown(value) for name, value in flat(job.config).items()}}
    return {name: values[name] for name in varying if name in values}


def _given(overrides: tuple[str, ...]) -> dict[str, str]:
    return dict(override.lstrip("+").split("=", 1) for override in overrides)


def what_varies(jobs: list[Job]) -> list[str]:
    """The keys and groups, seeds aside, in which the jobs' overrides differ."""
    given = [_given(job.overrides) for job in jobs]
    names = dict.fromkeys(name for one in given for name in one if name not in SEEDS)
    return [name for name in names if len({one.get(name) for one in given}) > 1]


def write_sweep(plan: Plan, folder: Path) -> Path:
    """Write `<folder>/<sweep id>.json`, the runs of a sweep; their results are only in their records."""
    document = {
        "sweep_id": plan.sweep_id,
        "choices": {name: plan.choices[name] for name in ("protocol", "recipe", "model", "data")},
        "factors": list(plan.varying),
        "runs": [
            {
                "run_id": run.run_id,
                "arm": run.arm,
                "seed": run.config.seed,
                "data_seed": run.config.data.seed,
                "values": run.values,
                "varied": run.varied,
                "overrides": list(run.overrides),
            }
            for run in plan.runs
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plan.sweep_id}.json"
    write_atomic(path, json.dumps(document, indent=1) + "\n")
    return path
