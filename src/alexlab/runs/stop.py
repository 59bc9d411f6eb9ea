"""Ctrl-C, SIGTERM and SIGUSR1 to a command: its runs save their state and end, and the same line goes on."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from rich.console import Console

from alexlab.runs.execute import SIGNALS, Launch

STOPPED_STATUS = 75  # EX_TEMPFAIL: a job script may start the same line again


class Stopped(BaseException):
    """The command was told to stop, and has nothing under way any more."""


class Stop:
    """Context in which a signal is passed on to the processes that train, by way of the launch's folder.

    The first one lets them finish their step and save; a second one ends them at once. Without a launch there is
    nothing to finish yet, and Stopped is raised.
    """

    def __init__(self, launch: Launch | None = None, console: Console | None = None) -> None:
        self._launch, self._console = launch, console
        self._before: dict[int, Any] = {}
        self._count = 0

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # no other may
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._launch is None:
            raise Stopped
        self._launch.stop.touch()  # first, for a process that is not in the list yet
        for mark in self._launch.folder.iterdir():
            if mark.name.isdecimal():
                with suppress(ProcessLookupError):
                    os.kill(int(mark.name), signal.SIGTERM if self._count == 1 else signal.SIGKILL)
        if self._console is not None and self._count == 1:
            self._console.print("\nStopping: the step under way is finished and saved. Once more ends it at once.")
