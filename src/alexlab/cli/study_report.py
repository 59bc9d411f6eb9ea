"""`alexlab report study=...`: find the studies that a line asks for, judge and print them, and write their reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexlab.cli.columns import Column, print_columns
from alexlab.cli.json_output import Answer
from alexlab.cli.tables import from_here
from alexlab.command import given_values
from alexlab.compose import Composer
from alexlab.config import PROJECT_DIR, Config, ConfigError
from alexlab.console import Console
from alexlab.files import json_files
from alexlab.report.content import Extras
from alexlab.report.wording import printed, row_cells
from alexlab.runs import bundle
from alexlab.study.judge import judge
from alexlab.study.judgement import Judgement
from alexlab.study.plans import read_looks
from alexlab.study.records import read_archive
from alexlab.sweep.study_plan import document, is_study, make_study

SETTINGS = ("paths.", "logger.", "data.cache=")  # keys that do not choose a study
# What selects started studies: the name on the command line, and in their plans.
GROUPS = {name: name for name in ("recipe", "protocol", "model", "data")} | {"study": "name", "study.rate": "rate"}
Looks = list[dict[str, Any]]


@dataclass(frozen=True)
class Places:
    """Where records are, and where the report goes."""

    sources: list[bundle.Source]
    out: Path
    config: Config  # of the `SETTINGS` alone

    def extras(self, flags: list[str]) -> Extras:
        return Extras(self.config.data.cache if "--pictures" in flags else None, "--pdf" in flags)


def find_places(given: list[str], composer: Composer) -> Places:
    """Read `runs=`, `out=` and the `SETTINGS` of a line.

    Raises:
        UserError: for a mistake in them, or a key that the line gives twice.
    """
    settings = given_values(given)
    config = composer.job([one for one in given if one.startswith(SETTINGS)], trains=False, stored=False).config
    paths = _folders(settings["runs"]) if "runs" in settings else [Path(config.paths.runs)]
    out = Path(settings["out"]).expanduser() if "out" in settings else PROJECT_DIR / "reports"
    return Places([bundle.source(path) for path in paths], out, config)


def report_studies(
    given: list[str], config_dir: str | None, console: Console, flags: list[str], answer: Answer
) -> list[Path]:
    """Judge the studies of a line and write their reports; return the pages."""
    line = [one for one in given if one.partition("=")[0] not in ("runs", "out")]
    composer = Composer(config_dir)
    places = find_places(given, composer)
    archive = read_archive(places.sources)
    started = read_plans(places.sources)
    known = {id for looks in started.values() for look in looks for arm in look["arms"] for id in arm["runs"].values()}
    plans = find_plans([one for one in line if not one.startswith(SETTINGS)], started, composer, config_dir)
    if "--nets" in flags:
        from alexlab.cli.nets import measure

        for plan in plans.values():
            measure(judge(plan.looks, archive, known=known), places.config.data.cache, composer, console)
    judged = {name: judge(plan.looks, archive, plan.own, known, started, config_dir) for name, plan in plans.items()}
    from alexlab.report.documents import study_document  # imports Matplotlib, so only once the line is checked
    from alexlab.report.write import write

    pages = {}
    for name, judgement in judged.items():
        if not answer.is_wanted:
            print_claims(judgement, console)
        pages[name] = write(judgement, archive, places.out / name, places.extras(flags))
        if not answer.is_wanted:
            console.print(f"Report: {pages[name]}", soft_wrap=True)
    if answer.is_wanted:
        studies = [study_document(one, archive, from_here(pages[name])) for name, one in judged.items()]
        answer.give("report-study/1", {"studies": studies})
    if "--wandb" in flags:  # last, since W&B may not answer
        from alexlab.report.wandb_report import publish

        for name, judgement in judged.items():
            publish(judgement, archive, places.out / name, places.config.logger, console)
    return list(pages.values())


def _folders(given: str) -> list[Path]:
    names = [one.strip(" '\"") for one in given.strip("[] ").split(",")]
    if not all(names):
        raise ConfigError(f"runs={given}: a folder is empty; separate folders with commas")
    return [Path(name).expanduser() for name in names]


@dataclass(frozen=True)
class Planned:
    """A study's plans, and those for each arm's own learning rate, if there are any."""

    looks: list[dict[str, Any]]
    own: list[dict[str, Any]] | None


def find_plans(
    line: list[str], started: dict[str, Looks], composer: Composer, config_dir: str | None
) -> dict[str, Planned]:
    """Return the studies that a line asks for, by id, out of those that were `started`.

    A study that was not started is composed, so that finished runs of its arms count and the missing ones are listed.

    Raises:
        ConfigError: if the line has a mistake, or asks for a started study with other runs or claims.
    """
    wanted = given_values(line)
    for name in wanted.keys() & GROUPS.keys():
        if all(looks[-1][GROUPS[name]] != wanted[name] for looks in started.values()):
            composer.check(f"{name}={wanted[name]}")
    found = {
        id: looks
        for id, looks in started.items()
        if all(looks[-1][GROUPS[name]] == value for name, value in wanted.items() if name in GROUPS)
    }
    if not found or wanted.keys() - GROUPS.keys():
        given = line if is_study(line) else ["study=paper", *line]
        study = make_study(composer, given, config_dir, stored=False)
        plan = document(study)
        looks = started.get(study.id)
        if looks is not None and (looks[-1]["arms"], looks[-1]["claims"]) != (plan["arms"], plan["claims"]):
            raise ConfigError(
                f"{' '.join(given)}: this study was started with other claims or seeds; leave out what changes "
                "them, or run it first"
            )
        found = {study.id: looks or [{"digest": None, **plan}]}
    return {
        id: Planned(looks, started.get(f"{id[:-7]}-own{id[-7:]}"))
        for id, looks in found.items()
        if looks[-1]["rate"] != "own" or "study.rate" in wanted or f"{id[:-11]}{id[-7:]}" not in found
    }


def read_plans(sources: list[bundle.Source]) -> dict[str, Looks]:
    """Read every plan of each study, by study id; those of several sources are merged by time.

    Raises:
        ConfigError: if a plan is corrupt.
    """
    started: dict[str, dict[str, dict[str, Any]]] = {}
    for source in sources:
        for path in json_files(source.folder / "studies"):
            try:
                looks = read_looks(path)
            except ConfigError as error:
                raise ConfigError(source.named(str(error))) from error
            started.setdefault(path.stem, {}).update({look["digest"]: look for look in looks})
    return {id: sorted(looks.values(), key=lambda look: look.get("planned", 0)) for id, looks in started.items()}


def print_claims(judgement: Judgement, console: Console) -> None:
    """Print the claims in the terminal, one row each."""
    plan = judgement.plan
    columns = [Column("claim", wraps=True), *(Column(name, right=True) for name in ("paper", "measured", "runs"))]
    columns.append(Column("verdict", wraps=True))
    for row in judgement.rows:
        if row.claim.not_testable is None:
            for column, cell in zip(columns, row_cells(row, judgement.is_rehearsal), strict=True):
                column.cells.append(cell)
    shown = [column for column in columns if any(column.cells)]  # at a rehearsal there are no verdicts
    console.print()
    if judgement.is_choosing:
        console.say(f"{plan['name']}: {plan['recipe']}, trials of learning rates")
    else:
        title = f"{plan['name']}: {plan['recipe']}, effects as arm minus other, study-wise intervals"
        print_columns(title, shown, console)
    for line in printed(judgement):
        if line == judgement.command:
            console.print(line, style="dim", soft_wrap=True)  # to be copied
        else:
            console.say(line, "dim")
