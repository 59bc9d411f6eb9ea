"""`alexlab runs export|copy|bundle`: write records as a table, to trackers, or to one file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from alexlab.cli.runs.request import WRITERS, Request, read_runs, selected_plans
from alexlab.compose import read_config
from alexlab.console import Console, plural
from alexlab.data.store import gigabytes
from alexlab.errors import UserError
from alexlab.files import write_atomic
from alexlab.progress import Progress
from alexlab.runs import bundle
from alexlab.runs.record import RUNNING
from alexlab.study.records import RunData, why_left_out
from alexlab.study.sweeps import load_sweep

_MOST_NAMED = 5  # missing runs, or changed files
_FILE_OF_DIFF = re.compile(r'^diff --git (?:"?a/.*" "b/(.*)"|a/(.*) b/\2)$', re.M)


def export(request: Request, console: Console) -> None:
    """Write a sweep as a table, one row per run."""
    out = Path(request.ids[0]).expanduser()
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"export: {out} is neither .csv nor .parquet; name one, such as {WRITERS['export']}")
    if request.sweep is None:
        raise UserError(f"export: needs a sweep; such as {WRITERS['export']}")
    table = load_sweep(request.sweep, request.runs)
    try:
        content = table.to_csv(index=False).encode() if out.suffix == ".csv" else table.to_parquet(index=False)
    except ImportError as error:
        raise UserError(f"export: {out} needs pyarrow: pip install '.[parquet]'; or write .csv") from error
    write_atomic(out, content)
    console.print(f"{plural(len(table), 'run')} in {out}", soft_wrap=True)


def copy(request: Request, console: Console) -> None:
    from alexlab.runs import trackers
    from alexlab.runs.wandb_copy import outer_run

    names = request.settings.logger.trackers
    if not names:
        raise UserError("copy: needs a tracker, such as logger=mlflow or 'logger=[wandb,tensorboard]'")
    found, _ = read_runs(request, console)
    found = [run for run in found if run.record.file("metrics.csv").is_file()]
    free = [run for run in found if run.status["state"] != RUNNING]
    if len(free) < len(found):
        console.print(f"{plural(len(found) - len(free), 'run')} left out, still running")
    if "wandb" in names and (outer := outer_run()):
        console.print(f"{', '.join(outer)} in the environment are ignored: each run has its own id")
    places = {name: trackers.place(name, request.settings.logger) for name in names}
    for name, place in places.items():
        _send(name, place, free, request, console)


def _send(name: str, place: str, runs: list[RunData], request: Request, console: Console) -> None:
    """Send runs to a tracker that does not have them."""
    from alexlab.runs import trackers

    todo, before = [], 0
    for run in runs:
        try:
            config = read_config(run.record.file("config.yaml"), stored=False)
            config.logger = request.settings.logger
            if trackers.is_copied(name, config, run.record):
                before += 1
            else:
                todo.append((config, run.record))
        except trackers.Unreachable:
            raise
        except (UserError, OSError) as error:
            console.print(why_left_out(run.record, error), soft_wrap=True)
    title, sent = trackers.COPIES[name].title, 0
    with Progress(f"Sending to {title}", len(todo), unit="runs") as progress:
        for config, record in todo:
            if trackers.send(name, config, record):
                sent += 1
            else:
                trackers.place(name, request.settings.logger)  # else all later ones would wait in vain
            progress.advance(1)
    kept = f", {before} already there" if before else ""
    console.print(f"{sent} of {plural(len(todo), 'run')} sent to {title} ({place}){kept}.")


def pack(request: Request, console: Console) -> None:
    """Write the runs that finished or whose failure is a result, with the plans of their studies."""
    out = Path(request.ids[0]).expanduser()
    _check_out(out)
    submitter = _submitter(request)
    plans = selected_plans(request, console) if "study" in request.filters else None
    found, _ = read_runs(request, console, plans)
    ids = [run.run_id for run in found if run.is_terminal]
    if not ids:
        given = " ".join(f"{name}={','.join(values)}" for name, values in request.filters.items())
        raise UserError(f"bundle: no finished run in {request.source}{f' with {given}' if given else ''}")
    replaced = ", replacing the previous bundle" if out.exists() else ""
    bundle.pack(out, request.runs, ids, submitter, None if plans is None else [plan.path for plan in plans])
    size = gigabytes(out.stat().st_size)
    console.print(f"{plural(len(ids), 'run')} in {out}, {size}{replaced}", soft_wrap=True)
    packed = [run for run in found if run.is_terminal]
    if (changes := _changes(packed)) is not None:
        console.say(changes, "yellow")
    if nets := sum(run.record.file("net.py").is_file() for run in packed):
        console.say(f"It contains the code of your own net (net.py of {plural(nets, 'run')})", "yellow")
    held = set(ids)
    for plan in plans or ():
        missing = [f"{arm} seed {seed}" for arm, seed, id in plan.last if id not in held]
        if missing:
            named = f"{', '.join(missing[:_MOST_NAMED])}{' ...' * (len(missing) > _MOST_NAMED)}"
            planned = plural(len(plan.last), "planned run")
            console.say(f"{plan.path.stem}: {len(missing)} of {planned} not in it: {named}", "dim")


def _changes(runs: Sequence[RunData]) -> str | None:
    """A note on the author's uncommitted changes in the records, which a bundle makes public; None without any."""
    files: dict[str, None] = {}
    count = 0
    for run in runs:
        changes = run.environment.get("changes") or {}
        untracked = [name for name, one in (changes.get("untracked") or {}).items() if "content" in one]
        diff = changes.get("diff") or ""
        if diff or untracked:
            count += 1
            changed = [match[1] or match[2] for match in _FILE_OF_DIFF.finditer(diff)]
            files.update(dict.fromkeys([*changed, *untracked]))
    if not count:
        return None
    named = [" ".join(name.split()) for name in files][:_MOST_NAMED] + ["..."] * (len(files) > _MOST_NAMED)
    return (
        f"It contains uncommitted changes as text (`changes` in environment.json of {plural(count, 'run')}); read them "
        f"before you publish it: {', '.join(named)}"
    )


def _check_out(out: Path) -> None:
    if not out.parent.is_dir():
        raise UserError(f"bundle: {out}: there is no folder {out.parent}; create it first")
    if out.exists() and not bundle.is_bundle(out):
        raise UserError(f"bundle: {out} exists and is not a bundle, so it is not replaced; name another file")


def _submitter(request: Request) -> str | None:
    """The submitter of the runs; the runs of a bundle keep theirs."""
    given, own = request.submitter, request.source.submitter
    if given is not None:
        try:
            bundle.check_submitter(given)
        except ValueError as error:
            raise UserError(f"bundle: {error}") from error
    if own is not None and given not in (None, own):
        raise UserError(f"submitter={given}: {request.source} already has a submitter; leave submitter= out")
    return own or given
