"""`alexlab runs`: list and watch records, compare two, remove some, send or bundle them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from alexlab.cli import watch
from alexlab.cli.json_output import FLAG, Answer, json_answer
from alexlab.cli.runs.compare import compare
from alexlab.cli.runs.listing import list_runs
from alexlab.cli.runs.prune import prune
from alexlab.cli.runs.publish import copy, export, pack
from alexlab.cli.runs.request import Request, parse
from alexlab.cli.runs.show import show_run
from alexlab.cli.runs.studies import forget, list_studies
from alexlab.command import as_typed, run_command
from alexlab.compose import Composer
from alexlab.config import did_you_mean
from alexlab.console import Console
from alexlab.errors import UserError

USAGE = """\
usage: python src/runs.py VERB [FILTER=VALUE ...]

Look at records, remove some, or send copies of them.

  python src/runs.py list                           every run
  python src/runs.py list recipe=demo state=FAILED,PREEMPTED
                                                    some of them
  python src/runs.py watch [--once]                 a sweep or study, while it
                                                    runs (watch --help)
  python src/runs.py show ID                        one run
  python src/runs.py compare ID ID                  how two runs differ, and by
                                                    how much; or two sweeps, arm
                                                    by arm
  python src/runs.py list|show|compare|studies ... --json
                                                    the same as a JSON document
  python src/runs.py export sweep=last OUT.csv      a sweep as a table, one row
                                                    per run; or sweep=ID,
                                                    .parquet
  python src/runs.py prune                          remove runs that failed due
                                                    to the machine or the code
  python src/runs.py prune state=DONE ablation='no_*'
                                                    remove only these
  python src/runs.py copy logger=mlflow [logger.project=NAME]
                                                    send to W&B, TensorBoard or
                                                    MLflow, each step once;
                                                    wandb is copy logger=wandb
  python src/runs.py bundle OUT.zip [study=NAME] [submitter=NAME]
                                                    plans and finished records,
                                                    without weights, as a file
                                                    for report.py runs=OUT.zip
  python src/runs.py studies                        the plans of studies
  python src/runs.py forget STUDY                   remove a mistaken plan, if
                                                    no run of it is finished

list, prune, copy and bundle take filters: study, state, failure, recipe,
protocol, model, ablation, seed; several values with commas, * for any text. An
ID may be abbreviated; a sweep's is its file's name in runs/sweeps/, or last.
paths.runs=FOLDER looks elsewhere; list, show, compare, studies and bundle also
read a bundle: paths.runs=OUT.zip. prune asks for confirmation unless --yes is
given; it removes finished or stopped runs only if state= names them, and never
a running one. Corrupt records are reported and left out.
Exit status: 0 done, 1 a file or folder failed, 2 a mistake in the command."""


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["watch"]:
        return watch.main(argv[1:])
    is_sure = "--yes" in argv
    arguments = [argument for argument in argv if argument not in ("--yes", FLAG)]
    with json_answer(argv) as answer:
        return run_command(
            arguments, USAGE, ".", lambda given, folder, console: _obey(given, folder, console, is_sure, answer)
        )


def _obey(given: list[str], config_dir: str | None, console: Console, is_sure: bool, answer: Answer) -> int:
    verbs: dict[str, Callable[[Request, Console], None]] = {
        "list": list_runs,
        "show": show_run,
        "compare": compare,
        "export": export,
        "prune": prune,
        "copy": copy,
        "wandb": copy,  # as `copy logger=wandb`
        "bundle": pack,
        "studies": list_studies,
        "forget": forget,
    }
    if not given:
        console.print(as_typed(USAGE))
        return 0
    if given[0] not in verbs:
        raise UserError(f"{given[0]}: is not one of {', '.join(verbs)}{did_you_mean(given[0], verbs)}")
    if is_sure and given[0] != "prune":
        raise UserError("--yes: only prune asks for confirmation")
    if answer.is_wanted and given[0] not in ("list", "show", "compare", "studies"):
        raise UserError(f"{FLAG}: {given[0]} has no JSON output; list, show, compare and studies have")
    request = parse(given[0], given[1:], Composer(config_dir), is_sure, answer)
    try:
        verbs[given[0]](request, console)
    except UserError as error:
        raise UserError(request.source.named(str(error))) from error
    return 0
