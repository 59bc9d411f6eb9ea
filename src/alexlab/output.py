"""Output to a terminal or pipe that may be closed, so that printing never ends work.

Also a notice on a terminal, such as "starting ...", that the next output replaces.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

_notice_is_shown = False


def show_notice(text: str) -> None:
    """Show a line on stderr, if that is a terminal, until this process prints something else."""
    global _notice_is_shown
    if _has_terminal():
        sys.stderr.write(text)
        sys.stderr.flush()
        _notice_is_shown = True


def take_over_notice() -> None:
    """Make this process's first output replace the notice of its parent."""
    global _notice_is_shown
    _notice_is_shown = True


def _clear_notice() -> None:
    global _notice_is_shown
    if _notice_is_shown:
        _notice_is_shown = False
        if _has_terminal():
            sys.stderr.write("\r\x1b[K")  # go to the line's beginning and erase it
            sys.stderr.flush()


def _has_terminal() -> bool:
    return isinstance(sys.stderr, Output) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Output:
    """A text stream that drops what it cannot write, as after `| head` or once a terminal is closed."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if text:
            _clear_notice()
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def write_answer(text: str) -> None:
    """Write a document for another program to standard output, completely unless that program has ended.

    Raises:
        OSError: such as on a full disk.
    """
    _clear_notice()
    stream = sys.stdout.stream if isinstance(sys.stdout, Output) else sys.stdout
    with suppress(BrokenPipeError):  # such as from `| head`
        stream.write(text)
        stream.flush()


def survive_closed() -> None:
    """Let this process continue when its standard output or error is closed, now or from the start.

    Streams closed from the start, as by `2>&-` and some daemons, are connected to /dev/null: otherwise a file opened
    later would get such a stream's descriptor, and with it the output of libraries.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest free descriptor
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Output):
            setattr(sys, name, Output(stream))
