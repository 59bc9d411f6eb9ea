"""What all commands share: their exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from alexlab.config import ConfigError


def exit_status(command: Callable[[], int]) -> int:
    """What a command returns; 2 for a mistake in it and 1 for a file or folder that failed, told in one line."""
    try:
        return command()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder that is gone
        print(f"error: {error}", file=sys.stderr)
        return 1
