"""`alexlab runs prune`: remove records that failed due to the machine or the code, or those that filters select."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from alexlab.cli.runs.listing import print_runs
from alexlab.cli.runs.request import Request, read_runs
from alexlab.console import Console, ask, plural
from alexlab.data.store import gigabytes
from alexlab.errors import UserError
from alexlab.runs.failure import RESULTS
from alexlab.runs.lease import take
from alexlab.runs.record import FAILED, RUNNING, Record

_REMOVED = re.compile(r"\.removed-[0-9a-f]{12}")  # a record being removed


def prune(request: Request, console: Console) -> None:
    """Remove the records that the filters select, without `state=` only failed ones, after confirmation."""
    _finish_removals(request.runs)
    found, _ = read_runs(request, console)
    found = [run for run in found if run.status["state"] != RUNNING]
    if "state" not in request.filters:
        found = [run for run in found if run.status["state"] == FAILED and run.status.get("failure") not in RESULTS]
    kept = {run.run_id: why for run in found if (why := _why_kept(run.record)) is not None}
    for run_id, why in kept.items():
        console.print(f"{run_id}: {why}", soft_wrap=True)
    found = [run for run in found if run.run_id not in kept]
    if not found:
        console.print("There is nothing to remove.")
        return
    print_runs(found, "To be removed", console)
    size = {run.run_id: run.record.size for run in found}
    done = sum(run.is_done for run in found)
    warning = f", {done} of them DONE," if done else ""
    if not request.is_sure:
        if not sys.stdin.isatty():
            raise UserError("prune needs confirmation, but stdin is not a terminal; pass --yes")
        if not ask(f"Remove {plural(len(found), 'record')}{warning} of {gigabytes(sum(size.values()))}?"):
            console.print("Nothing was removed.")
            return
    removed = []
    for run in found:
        lease = take(run.record.path, run.status.get("attempt", 0))  # so that no process starts it meanwhile
        if lease is None or run.record.status().get("attempt") != run.status.get("attempt"):
            console.print(f"{run.run_id}: another process works on it, so it is kept")
            if lease is not None:
                lease.release()
            continue
        gone = run.record.path.with_name(f".removed-{run.run_id}")
        run.record.path.replace(gone)  # atomically, or another process could start the run while it is being removed
        shutil.rmtree(gone)
        removed.append(size[run.run_id])
    console.print(f"Removed {plural(len(removed), 'record')}, {gigabytes(sum(removed))}.")


def _why_kept(record: Record) -> str | None:
    """The reason to keep a record; None if it is a folder with nothing but files of runs."""
    if record.path.is_symlink():
        return "is a symbolic link, so it is kept; remove its target yourself"
    if others := record.foreign():
        names = ", ".join(sorted(str(path.relative_to(record.path)) for path in others)[:3])
        return f"contains {names}, which no run writes, so it is kept; move that away first"
    return None


def _finish_removals(runs: Path) -> None:
    """Finish the removals of a prune that was killed: folders named by it with nothing but files of runs."""
    for path in runs.glob(".removed-*"):
        is_folder = path.is_dir() and not path.is_symlink()
        if _REMOVED.fullmatch(path.name) and is_folder and not Record(runs, path.name).foreign():
            shutil.rmtree(path)
