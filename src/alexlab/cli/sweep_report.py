"""`alexlab report sweep=...`: a sweep's page, tables and plots."""

from __future__ import annotations

from pathlib import Path

from alexlab.cli.json_output import Answer
from alexlab.cli.study_report import SETTINGS, find_places
from alexlab.cli.tables import from_here
from alexlab.command import given_values
from alexlab.compose import Composer
from alexlab.config import ConfigError
from alexlab.console import Console
from alexlab.study.sweeps import read_sweep


def report_sweep(
    given: list[str], config_dir: str | None, console: Console, flags: list[str], answer: Answer
) -> list[Path]:
    """Write the report of a sweep; return its page.

    Raises:
        UserError: if there is no such sweep, or the line asks for anything else.
    """
    which = given_values(given)["sweep"]
    others = [one for one in given if one.partition("=")[0] not in ("sweep", "runs", "out")]
    if wrong := [one for one in others if not one.startswith(SETTINGS)]:
        raise ConfigError(
            f"{wrong[0]}: a sweep's settings are fixed; with sweep= only runs=, out=, data.cache=, paths. and logger. "
            "may be set"
        )
    if "--nets" in flags:
        raise ConfigError("--nets: is for the claims of studies; remove it")
    places = find_places(given, Composer(config_dir))
    if len(places.sources) > 1:
        raise ConfigError(f"runs= names {len(places.sources)} folders; a sweep is in one of them; name that one")
    [source] = places.sources
    if source.is_bundle:
        raise ConfigError(f"runs={source.name}: is a bundle, which holds no sweeps; name the folder of its runs")
    sweep = read_sweep(which, source.folder)
    from alexlab.report.documents import sweep_document  # imports Matplotlib
    from alexlab.report.sweep import examine, sweep_summary, write_sweep_report

    report = examine(sweep)
    page = write_sweep_report(report, places.out / f"sweep-{sweep.sweep_id}", places.extras(flags))
    if answer.is_wanted:
        answer.give("report-sweep/1", sweep_document(report, from_here(page)))
    else:
        for sentence in sweep_summary(report):
            console.print(sentence, soft_wrap=True)
        console.print(f"Report: {page}", soft_wrap=True)
    if "--wandb" in flags:
        from alexlab.report.wandb_report import publish_sweep

        publish_sweep(report, page.parent, places.config.logger, console)
    return [page]
