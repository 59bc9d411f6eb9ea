"""`alexlab runs export|wandb|bundle`: records as a table, at W&B, or as one file."""

from __future__ import annotations

from pathlib import Path

from alexlab.cli.runs.request import WRITERS, Request, read_runs
from alexlab.compose import read_config
from alexlab.console import Console, plural
from alexlab.data.store import gigabytes
from alexlab.errors import UserError
from alexlab.files import write_atomic
from alexlab.progress import Progress
from alexlab.runs import bundle
from alexlab.runs.record import RUNNING
from alexlab.study.records import one_line
from alexlab.study.sweeps import load_sweep


def export(request: Request, console: Console) -> None:
    out = Path(request.ids[0]).expanduser()
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"export: {out} is neither .csv nor .parquet; name one, such as {WRITERS['export']}")
    if request.sweep is None:
        raise UserError(f"export: needs a sweep; such as {WRITERS['export']}")
    table = load_sweep(request.sweep, request.runs)
    try:
        content = table.to_csv(index=False).encode() if out.suffix == ".csv" else table.to_parquet(index=False)
    except ImportError as error:
        raise UserError(f"export: {out} needs pyarrow: pip install 'alexlab[parquet]'; or write .csv") from error
    write_atomic(out, content)
    console.print(f"{plural(len(table), 'run')} in {out}", soft_wrap=True)


def send(request: Request, console: Console) -> None:
    from alexlab.runs import trackers

    found, _ = read_runs(request, console)
    found = [run for run in found if run.record.file("metrics.csv").is_file()]
    free = [run for run in found if run.status["state"] != RUNNING]
    if len(free) < len(found):
        console.print(f"{len(found) - len(free)} runs are running and left out.")
    if outer := trackers.outer_run():
        console.print(f"{', '.join(outer)} of the environment are ignored: each run has its own id")
    mode = trackers.wandb_mode()
    todo = []
    for run in [*free]:
        try:
            if not trackers.is_copied(run.record, mode):
                todo.append((run.record, read_config(run.record.file("config.yaml"), stored=False)))
        except (UserError, OSError) as error:
            console.print(one_line(run.record, error), soft_wrap=True)
            free.remove(run)
    sent = 0
    with Progress("Sending to W&B", len(todo), unit="runs") as progress:
        for record, config in todo:
            config.logger = request.settings.logger
            sent += trackers.publish(config, record)
            progress.advance(1)
    kept = f", {len(free) - len(todo)} were there before" if len(todo) < len(free) else ""
    console.print(f"{sent} of {len(todo)} runs sent to W&B ({mode}){kept}.")


def pack(request: Request, console: Console) -> None:
    """Write what is finished, or failed as a result, with all plans."""
    out = Path(request.ids[0]).expanduser()
    found, _ = read_runs(request, console)
    ended = [run for run in found if run.is_terminal]
    if not ended:
        raise UserError(f"bundle: no finished run in {request.runs}")
    bundle.pack(out, request.runs, [run.run_id for run in ended], request.submitter)
    console.print(f"{plural(len(ended), 'run')} in {out}, {gigabytes(out.stat().st_size)}", soft_wrap=True)
