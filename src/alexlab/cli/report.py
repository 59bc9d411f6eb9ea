"""`alexlab report`: a study's or a sweep's records as tables, plots and one page, under `reports/<name>/`.

Only records are read, so a copy of `runs/` on a laptop is enough.
"""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

from alexlab.cli.json_output import FLAG, Answer, json_answer
from alexlab.command import run_command
from alexlab.console import Console
from alexlab.errors import UserError
from alexlab.spelling import for_word

USAGE = """\
usage: python src/report.py [FLAGS] [study=NAME] [runs=PATH] [out=FOLDER] ...
       python src/report.py [FLAGS] sweep=last|ID|FILE [runs=PATH] [out=FOLDER]
       python src/report.py compare top1=ERROR [--like KEY=VALUE ...] ...

Judge the claims of a study by its records, or show a sweep, and write below
reports/: report.html (one file), report.md, tables as CSV and LaTeX
(booktabs), and plots as PNG and SVG.

  python src/report.py                              every study that has started
  python src/report.py study=paper recipe=demo      one of them
  python src/report.py sweep=last                   the newest sweep: every
                                                    seed, curves and intervals,
                                                    without verdicts
  python src/report.py compare top1=42.9            compare an error with the
                                                    runs of a recipe; see
                                                    compare --help
  python src/report.py 'runs=[runs,/mnt/box/runs]'  records of several folders,
                                                    merged by run id
  python src/report.py sweep=last --open            also open the page
  python src/report.py study=paper --pdf            figures as PDF too, 113 mm
                                                    wide, for print
  python src/report.py study=paper --pictures       figure 4 too, from a run's
                                                    weights and its data; also
                                                    with sweep=
  python src/report.py study=paper --nets           first measure the nets for
                                                    claims that need it
                                                    (ensembles of five,
                                                    retrieval); results are
                                                    stored with the records
  python src/report.py study=paper --json           print verdicts and numbers as
                                                    a JSON document; also with
                                                    sweep=
  python src/report.py study=paper --wandb logger.project=NAME
                                                    also as a W&B workspace and
                                                    report

out=FOLDER writes there instead of reports/. study=... accepts the same overrides
as python src/train.py, whose --help says how to run a study. A claim gets a
verdict once all planned runs are done, at the recipes that it names.
Exit status: 0 done, 1 a file or folder failed, 2 a mistake in the command."""

FLAGS = ("--wandb", "--pictures", "--nets", "--pdf", "--open")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["compare"]:
        from alexlab.cli import report_compare

        return report_compare.main(argv[1:])
    flags = [argument for argument in argv if argument in FLAGS]
    arguments = [argument for argument in argv if argument not in (*flags, FLAG)]
    with json_answer(argv) as answer:
        return run_command(
            arguments, USAGE, ".", lambda given, folder, console: _obey(given, folder, console, flags, answer)
        )


def _obey(given: list[str], config_dir: str | None, console: Console, flags: list[str], answer: Answer) -> int:
    for place, word in enumerate(given):
        if "=" not in word:
            if Path(word).exists():
                raise UserError(f"{word}: write runs={word}")
            raise UserError(for_word(given, place))
    # Imported once they are needed: --help answers at once.
    if any(one.partition("=")[0] == "sweep" for one in given):
        from alexlab.cli.sweep_report import report_sweep

        pages = report_sweep(given, config_dir, console, flags, answer)
    else:
        from alexlab.cli.study_report import report_studies

        pages = report_studies(given, config_dir, console, flags, answer)
    if "--open" in flags:
        for page in pages:
            if not webbrowser.open(page.resolve().as_uri()):
                console.print("--open: there is no browser here; copy the page to a machine that has one")
    return 0
