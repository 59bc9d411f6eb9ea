"""`alexlab runs studies|forget`: the plans of studies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexlab.cli.columns import Column, print_columns
from alexlab.cli.runs.request import Request, check_folder
from alexlab.config import did_you_mean
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.files import json_files
from alexlab.runs.record import RUNNING, Record
from alexlab.study.plans import read_looks
from alexlab.study.records import RunData


@dataclass(frozen=True)
class _Planned:
    """A registered study: all plans of it, and those of their runs that have a record."""

    path: Path
    looks: list[dict[str, Any]]
    run_ids: list[str]
    found: list[RunData]

    @property
    def finished(self) -> int:
        return sum(run.is_terminal for run in self.found)


def _plans(request: Request, console: Console) -> list[_Planned]:
    """The registered studies, by when they were planned first; those that cannot be read are named."""
    check_folder(request)
    plans = []
    for path in json_files(request.runs / "studies"):
        try:
            looks = read_looks(path)
            arms = [arm for look in looks for arm in look["arms"]]
            trials = [trial for look in looks for rate in look.get("rates", ()) for trial in rate["trials"]]
            ids = dict.fromkeys([id for arm in arms for id in arm["runs"].values()] + [one["run"] for one in trials])
            records = [Record(request.runs, id) for id in ids]
            found = [RunData(record, status) for record in records if (status := record.seen())]
            plans.append(_Planned(path, looks, list(ids), found))
        except (UserError, OSError) as error:
            console.print(str(error), soft_wrap=True)
    return sorted(plans, key=lambda plan: plan.looks[0].get("planned", 0))


def list_studies(request: Request, console: Console) -> None:
    plans = _plans(request, console)
    columns = [Column("study", wraps=True), Column("recipe", wraps=True), Column("rate", rank=1)]
    columns += [Column("looks", right=True), Column("finished", right=True), Column("planned", rank=2)]
    for plan in plans:
        first, last = plan.looks[0], plan.looks[-1]
        planned = time.strftime("%m-%d %H:%M", time.localtime(first["planned"])) if "planned" in first else ""
        finished = f"{plan.finished} of {len(plan.run_ids)}"
        row = plan.path.stem, last["recipe"], last["rate"], str(len(plan.looks)), finished, planned
        for column, cell in zip(columns, row, strict=True):
            column.cells.append(cell)
    print_columns("Studies", columns, console)
    console.print(f"{len(plans)} studies in {request.runs / 'studies'}", style="dim", soft_wrap=True)


def forget(request: Request, console: Console) -> None:
    """Remove the plan of a study of which nothing is known yet: later it would hide that its result was seen."""
    [given] = request.ids
    plans = {plan.path.stem: plan for plan in _plans(request, console)}
    fitting = [given] if given in plans else [name for name in plans if name.startswith(given)]
    if len(fitting) != 1:
        near = (
            f"may be {', '.join(fitting)}; write more of it"
            if fitting
            else f"no such study{did_you_mean(given, plans)}"
        )
        raise UserError(f"{given}: {near}; `studies` lists them")
    plan = plans[fitting[0]]
    if plan.finished:
        raise UserError(
            f"{plan.path.stem}: {plan.finished} of its {len(plan.run_ids)} runs are finished, so its plan stays: the "
            "report of a study with the same claims has to say that this one was started"
        )
    if active := [run.run_id for run in plan.found if run.status["state"] == RUNNING]:
        raise UserError(f"{plan.path.stem}: its run {active[0]} is running, so its plan stays; stop it first")
    plan.path.unlink()
    console.print(f"Removed {plan.path}; records of its runs stay.", soft_wrap=True)
