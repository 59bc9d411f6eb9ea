"""Code that the commands share: exit statuses, and parsing for commands that Hydra does not launch."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from alexlab.console import Console, printable
from alexlab.errors import UserError
from alexlab.spelling import for_flag


def run_command(
    argv: list[str] | None, usage: str, stopped: str, obey: Callable[[list[str], str | None, Console], int]
) -> int:
    """Parse overrides, --help and --config-dir, and call `obey(overrides, config_dir, console)`; return its status.

    `stopped`: what is printed after "Stopped" on Ctrl-C.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    line = sys.argv[1:] if argv is None else argv
    args, unknown = parser.parse_known_intermixed_args(line)
    console = Console()

    def command() -> int:
        if unknown:
            raise UserError(for_flag(line, unknown[0], ("--help", "--config-dir"), ()))
        if args.help:
            console.print(as_typed(usage))
            return 0
        return obey(args.overrides, args.config_dir, console)

    try:
        return exit_status(command)
    except KeyboardInterrupt:
        console.print(f"\nStopped{stopped}")
        return 130


def given_values(words: Iterable[str]) -> dict[str, str]:
    """The values of the words `KEY=VALUE` of a command line, by key; other words are left out.

    Raises:
        UserError: for a key that is given twice.
    """
    values: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name in values:
            raise UserError(f"{name}={values[name]} {word}: {name} is given twice; remove one")
        if sign:
            values[name] = value
    return values


def program(name: str) -> str:
    """A command of the project, spelled as the current one was: `alexlab train` or `python src/train.py`."""
    start = sys.argv[0].rpartition(" ")[0]  # of "alexlab train" or "python -m alexlab train"
    script = Path(sys.argv[0]).parent / f"{name}.py"
    if script.is_file() and not start.endswith("alexlab"):
        return f"python {script}"
    return f"{start if start.endswith('alexlab') else 'alexlab'} {name}"


def as_typed(usage: str) -> str:
    """A usage text in which `python src/train.py` and the like are spelled as by `program`; columns stay aligned."""

    def typed(match: re.Match[str]) -> str:
        command, rest = program(match[1]), match[2]
        return f"{command}{rest.rstrip()}".ljust(len(match[0]) - 2) + "  " if rest else command

    return re.sub(r"python src/(\w+)\.py(.*?  +)?", typed, usage)


def exit_status(command: Callable[[], int]) -> int:
    """Run a command and return its status: 2 after a user's mistake, 1 after a file or disk error."""
    try:
        return command()
    except UserError as error:
        print(f"error: {as_typed(_message(error))}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder that is gone
        print(f"error: {_message(error)}", file=sys.stderr)
        return 1


def _message(error: Exception) -> str:
    """An error's message as one printable line; unlike `printable_line`, a path in it keeps its spaces."""
    return " ".join(line.strip() for line in printable(str(error)).splitlines())
