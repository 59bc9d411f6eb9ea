"""A command line of `alexlab runs`, parsed, and the records that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from alexlab.cli.json_output import Answer
from alexlab.cli.runs.facts import name_of
from alexlab.compose import Composer
from alexlab.config import Config, ConfigError, did_you_mean
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.files import json_files
from alexlab.runs.bundle import Source, source
from alexlab.runs.record import Record, find_record, find_records
from alexlab.study.plans import read_looks
from alexlab.study.records import RunData, why_left_out

WRITERS = {"bundle": "bundle study.zip", "export": "export sweep=last OUT.csv"}
READERS = ("list", "show", "compare", "studies", "bundle")  # of a bundle too
_COPIED = {
    "copy": ("logger", "logger.project", "logger.entity", "logger.tracking_uri"),
    "wandb": ("logger.project", "logger.entity"),
}
FILTERS = ("study", "state", "failure", "recipe", "protocol", "model", "ablation", "seed")


@dataclass(frozen=True)
class Request:
    """A command line, parsed."""

    ids: list[str]
    filters: dict[str, list[str]]
    settings: Config
    source: Source
    is_sure: bool
    answer: Answer
    submitter: str | None = None  # of a bundle
    sweep: str | None = None  # of `export`

    @property
    def runs(self) -> Path:
        return self.source.folder


@dataclass(frozen=True)
class Planned:
    """A registered study: all of its plans, and those of their runs that have a record."""

    path: Path
    looks: list[dict[str, Any]]
    run_ids: list[str]
    found: list[RunData]

    @property
    def finished(self) -> int:
        return sum(run.is_terminal for run in self.found)

    @property
    def names(self) -> tuple[str, str]:
        """The names that select it: the study's name and its id."""
        return self.looks[-1]["name"], self.path.stem

    @property
    def last(self) -> list[tuple[str, str, str]]:
        """Arm, seed and run id of each run of the last plan."""
        return [(arm["name"], seed, id) for arm in self.looks[-1]["arms"] for seed, id in arm["runs"].items()]


def parse(verb: str, given: list[str], composer: Composer, is_sure: bool, answer: Answer) -> Request:
    """Parse the words after a verb.

    Raises:
        UserError: for a word that the verb does not take, or a bundle that cannot be read.
    """
    ids = [argument for argument in given if "=" not in argument]
    wanted = {"show": 1, "compare": 2, "bundle": 1, "export": 1, "forget": 1}.get(verb, 0)
    if verb == "forget" and len(ids) != wanted:
        raise UserError(f"forget: takes the id of one study, not {len(ids)}; `studies` lists them")
    if verb in WRITERS and len(ids) != wanted:
        raise UserError(f"{verb}: takes one file to write, not {len(ids)}; such as {WRITERS[verb]}")
    if len(ids) != wanted:
        raise UserError(f"{verb}: takes {wanted or 'no'} run id{'' if wanted == 1 else 's'}, not {len(ids)}")
    filters: dict[str, list[str]] = {}
    others, submitter, sweep = [], None, None
    for argument in given:
        name, sign, value = argument.partition("=")
        if sign and name == "submitter" and verb == "bundle":
            if submitter is not None:
                raise UserError("submitter= is given twice; a bundle has one, such as submitter='Lab A and Lab B'")
            submitter = value
        elif sign and name in FILTERS and verb in ("list", "prune", "copy", "wandb", "bundle"):
            if name in filters:
                raise UserError(f"{name}= is given twice; write {name}={','.join([*filters[name], value])}")
            value = value.upper() if name == "state" else value
            filters[name] = [item.strip() for item in value.strip("[]").split(",")]
        elif sign and name == "sweep" and verb == "export":
            if sweep is not None:
                raise UserError("sweep= is given twice; a table has one sweep")
            sweep = value
        elif sign:
            allowed = ("paths.runs", *_COPIED.get(verb, ()))
            if name not in allowed:
                near = did_you_mean(name, [*FILTERS, *allowed])
                raise UserError(f"{argument}: cannot be set here{near}; --help lists what can")
            others.append(argument)
    settings = composer.job([*(["logger=wandb"] if verb == "wandb" else []), *others]).config
    place = Path(settings.paths.runs)
    if verb not in READERS and place.is_file():
        raise UserError(f"{verb}: {place} is a file, but only {', '.join(READERS)} read a bundle; name a folder")
    return Request(ids, filters, settings, source(place), is_sure, answer, submitter, sweep)


def _filtered(run: RunData) -> dict[str, str]:
    """The facts about a run that filters compare with."""
    return {
        **run.labels,
        "seed": seed_text(run),
        "state": run.status["state"],
        "failure": run.status.get("failure", ""),
    }


def _passes(name: str, values: list[str], facts: dict[str, str], run: RunData) -> bool:
    given = [facts.get(name, ""), *([name_of(run).arm] if name == "ablation" else [])]
    return any(fnmatchcase(one, value) for one in given for value in values)


def seed_text(run: RunData) -> str:
    """The seed for tables and filters; empty if unknown."""
    return "" if run.seed is None else str(run.seed)


def check_folder(request: Request) -> None:
    """Raise ConfigError if `paths.runs` names a folder that is missing."""
    is_default = request.settings.paths.runs == Config().paths.runs  # which the first run creates
    if not request.runs.is_dir() and not is_default:
        raise ConfigError(f"paths.runs={request.runs}: no such folder")


def read_runs(
    request: Request, console: Console, plans: list[Planned] | None = None
) -> tuple[list[RunData], list[str]]:
    """The runs that pass the filters, by start time, and the line that is printed for each corrupt record.

    `plans`: those that `study=` selects, if already known.
    """
    check_folder(request)
    filters = dict(request.filters)
    planned = None
    if filters.pop("study", None) is not None:
        planned = {id for plan in plans or selected_plans(request, console) for id in plan.run_ids}
    passed, problems = [], []
    for record in find_records(request.runs):
        if planned is not None and record.run_id not in planned:
            continue
        try:
            run = RunData(record, record.seen())
            if not run.status:
                continue  # removed meanwhile
            facts = _filtered(run)
        except (UserError, OSError) as error:
            problems.append(request.source.named(why_left_out(record, error)))
            console.print(problems[-1], soft_wrap=True)
            continue
        if all(_passes(name, values, facts, run) for name, values in filters.items()):
            passed.append(run)
    return sorted(passed, key=lambda run: run.status.get("started", 0.0)), problems


def read_plans(request: Request, console: Console) -> tuple[list[Planned], list[str]]:
    """The registered studies, by the time of their first plan, and a printed line for each that cannot be read."""
    check_folder(request)
    plans, problems = [], []
    for path in json_files(request.runs / "studies"):
        try:
            looks = read_looks(path)
            arms = [arm for look in looks for arm in look["arms"]]
            trials = [trial for look in looks for rate in look.get("rates", ()) for trial in rate["trials"]]
            ids = dict.fromkeys([id for arm in arms for id in arm["runs"].values()] + [one["run"] for one in trials])
            records = [Record(request.runs, id) for id in ids]
            found = [RunData(record, status) for record in records if (status := record.seen())]
            plans.append(Planned(path, looks, list(ids), found))
        except (UserError, OSError) as error:
            problems.append(request.source.named(str(error)))
            console.print(problems[-1], soft_wrap=True)
    return sorted(plans, key=lambda plan: plan.looks[0].get("planned", 0)), problems


def selected_plans(request: Request, console: Console) -> list[Planned]:
    """The studies that `study=` names, with the recipe, protocol and model that the other filters require.

    Raises:
        UserError: if a value names no study.
    """
    plans, _ = read_plans(request, console)
    known = [name for plan in plans for name in plan.names]
    for value in request.filters["study"]:
        if not any(fnmatchcase(name, value) for name in known):
            hint = did_you_mean(value, known) or "; `studies` lists them"
            raise UserError(f"study={value}: no such study in {request.source}{hint}")
    return [plan for plan in plans if _is_selected(plan, request.filters)]


def _is_selected(plan: Planned, filters: dict[str, list[str]]) -> bool:
    names = {"study": plan.names} | {name: (plan.looks[-1][name],) for name in ("recipe", "protocol", "model")}
    return all(
        any(fnmatchcase(own, value) for own in names[name] for value in values)
        for name, values in filters.items()
        if name in names
    )


def read_run(request: Request, given: str) -> RunData:
    """Read the run whose id begins with `given`."""
    record = find_record(request.runs, given)
    return RunData(record, record.seen())
