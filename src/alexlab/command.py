"""What the commands share: their exit statuses, and parsing for those that Hydra does not launch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rich.console import Console

from alexlab.errors import UserError


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
    args, unknown = parser.parse_known_intermixed_args(sys.argv[1:] if argv is None else argv)
    console = Console(highlight=False, markup=False)

    def command() -> int:
        if unknown:
            raise UserError(f"{unknown[0]}: there is no such flag here; --help lists all")
        if args.help:
            console.print(usage)
            return 0
        return obey(args.overrides, args.config_dir, console)

    try:
        return exit_status(command)
    except KeyboardInterrupt:
        console.print(f"\nStopped{stopped}")
        return 130


def exit_status(command: Callable[[], int]) -> int:
    """Run a command and return its status; 2 after a mistake of the user's and 1 after an error of a file or disk."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder that is gone
        print(f"error: {error}", file=sys.stderr)
        return 1
