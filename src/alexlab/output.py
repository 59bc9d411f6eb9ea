"""What a process prints where its terminal or pipe may be closed: printing never ends work."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any


class Output:
    """A text stream that drops what it cannot write, as after `| head` or once a terminal is closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def survive_closed() -> None:
    """Let this process go on when its standard output or error is closed, now or from the start.

    Streams closed from the start, as `2>&-` and some daemons leave them, lead nowhere: else a file that is opened later
    would get such a stream's number, and what libraries write there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Output):
            setattr(sys, name, Output(stream))
