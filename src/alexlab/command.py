"""What commands share: their exit status, and the line of those that Hydra does not launch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from alexlab.config import ConfigError
from alexlab.console import Console, printable


def run_command(
    argv: list[str] | None, usage: str, stopped: str, obey: Callable[[list[str], str | None, Console], int]
) -> int:
    """Run a line of overrides with --help and --config-dir; return its exit status.

    `obey(overrides, config_dir, console)` does what it says; `stopped` is told where the keyboard stops it.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    args, unknown = parser.parse_known_intermixed_args(sys.argv[1:] if argv is None else argv)
    console = Console()

    def command() -> int:
        if unknown:
            raise ConfigError(f"{unknown[0]}: there is no such flag here; --help shows what there is")
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
    """What a command returns; 2 for a mistake in it and 1 for a file or folder that failed, told in one line."""
    try:
        return command()
    except ConfigError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder that is gone
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1


def _one_line(error: Exception) -> str:
    return " ".join(printable(str(error)).splitlines())
