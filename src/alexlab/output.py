"""What a process prints where its terminal or pipe may be closed: printing never ends work."""

from __future__ import annotations

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
    """Let this process go on when its standard output or error is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Output):
            setattr(sys, name, Output(stream))
