"""A command line of `alexlab runs`, parsed, and the records that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from alexlab.cli.json_output import Answer
from alexlab.cli.runs.facts import name_of
from alexlab.compose import Composer
from alexlab.config import Config, ConfigError, did_you_mean
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.runs.record import find_record, find_records
from alexlab.study.records import RunData, one_line

WRITERS = {"bundle": "bundle study.zip", "export": "export sweep=last OUT.csv"}
FILTERS = ("state", "failure", "recipe", "protocol", "model", "ablation", "seed")


@dataclass(frozen=True)
class Request:
    """A command line, parsed."""

    ids: list[str]
    filters: dict[str, list[str]]
    settings: Config
    is_sure: bool
    answer: Answer
    submitter: str | None = None  # of a bundle
    sweep: str | None = None  # of `export`

    @property
    def runs(self) -> Path:
        return Path(self.settings.paths.runs)


def parse(verb: str, given: list[str], composer: Composer, is_sure: bool, answer: Answer) -> Request:
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
            submitter = " ".join(value.split())
        elif sign and name in FILTERS and verb in ("list", "prune", "wandb", "bundle"):
            value = value.upper() if name == "state" else value
            filters[name] = [item.strip() for item in value.strip("[]").split(",")]
        elif sign and name == "sweep" and verb == "export":
            if sweep is not None:
                raise UserError("sweep= is given twice; one table is of one sweep")
            sweep = value
        elif sign:
            allowed = ("paths.runs", *(("logger.project", "logger.entity") if verb == "wandb" else ()))
            if name not in allowed:
                near = did_you_mean(name, [*FILTERS, *allowed])
                raise UserError(f"{argument}: cannot be set here{near}; --help lists what can")
            others.append(argument)
    return Request(ids, filters, composer.job(["logger=wandb", *others]).config, is_sure, answer, submitter, sweep)


def _filtered(run: RunData) -> dict[str, str]:
    """What filters look at."""
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
    return "" if run.seed is None else str(run.seed)


def size_of(run: RunData) -> int:
    return sum(path.stat().st_size for path in run.record.path.rglob("*") if path.is_file())


def check_folder(request: Request) -> None:
    is_default = request.settings.paths.runs == Config().paths.runs  # which the first run creates
    if not request.runs.is_dir() and not is_default:
        raise ConfigError(f"paths.runs={request.runs}: no such folder")


def read_runs(request: Request, console: Console) -> tuple[list[RunData], list[str]]:
    """The runs that pass the filters, by when they started, and a printed line for each corrupt record."""
    check_folder(request)
    passed, problems = [], []
    for record in find_records(request.runs):
        try:
            run = RunData(record, record.seen())
            if not run.status:
                continue  # removed meanwhile
            facts = _filtered(run)
        except (UserError, OSError) as error:
            problems.append(one_line(record, error))
            console.print(problems[-1], soft_wrap=True)
            continue
        if all(_passes(name, values, facts, run) for name, values in request.filters.items()):
            passed.append(run)
    return sorted(passed, key=lambda run: run.status.get("started", 0.0)), problems


def read_run(request: Request, given: str) -> RunData:
    record = find_record(request.runs, given)
    return RunData(record, record.seen())
