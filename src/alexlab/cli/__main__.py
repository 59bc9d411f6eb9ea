"""The command `alexlab`: find the subcommand, and load nothing else before that."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import alexlab
from alexlab import signals
from alexlab.output import show_notice, survive_closed

COMMANDS = {
    "train": "Train one run, a sweep or a study",
    "prepare": "Prepare a data set, or check one",
    "evaluate": "Evaluate an ensemble of finished runs, or a file of weights",
    "predict": "Classify image files with a finished run's network",
    "runs": "List, show, compare and remove records, or send them to W&B",
    "report": "Judge the claims of a study by its records",
}
USAGE = "\n".join(
    [
        "usage: alexlab COMMAND ...",
        "",
        "AlexNet (2012) re-run as a controlled study.",
        "",
        *(f"  alexlab {name:<10}{meaning}" for name, meaning in COMMANDS.items()),
        "",
        "alexlab COMMAND --help lists its options, alexlab --version prints the version.",
        'eval "$(alexlab --completion bash)", or zsh, lets Tab complete its command line.',
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--help", "-h"):
        print(USAGE)
        return 0
    if name == "--version":
        print(f"alexlab {alexlab.__version__}")
        return 0
    if name in ("--completion", "--complete"):
        from alexlab.cli import completion

        return (completion.print_script if name == "--completion" else completion.print_words)(*rest[:1])
    if name not in COMMANDS:
        from alexlab.config import did_you_mean

        near = did_you_mean(name, COMMANDS)
        print(f"error: {name}: no such command{near} (there are: {', '.join(COMMANDS)})", file=sys.stderr)
        return 2
    if argv is not None:
        return import_module(f"alexlab.cli.{name}").main(rest)
    typed = "python -m alexlab" if sys.argv[0].endswith("__main__.py") else "alexlab"
    sys.argv = [f"{typed} {name}", *rest]  # so that a usage line names the command
    return run(name)


def run(name: str) -> int:
    """Run a subcommand with this process's own arguments; return its exit status."""
    survive_closed()
    os.environ["MPLBACKEND"] = "agg"  # commands draw into files, and an unknown name ends the import of Matplotlib
    if not {"--help", "-h"} & {*sys.argv}:
        show_notice("starting ...")  # importing takes a second or more
    if name == "train":
        # Until the command itself listens.
        for number in signals.handled():
            signal.signal(number, lambda *_: os._exit(75))
    return import_module(f"alexlab.cli.{name}").main()


if __name__ == "__main__":
    sys.exit(main())
