"""Progress of long work: a live bar in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Context that shows how far `total` pieces of work have come, with the time left.

    Outside a terminal it prints a line at the start and one at the end. A `transient` bar is gone when it is done.
    """

    def __init__(self, title: str, total: int, transient: bool = False) -> None:
        self._title, self._total = title, total
        self._live = sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(stderr=True), disable=not self._live, transient=transient)
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        if self._live:
            self._bar.start()
        else:
            print(f"{self._title}: {self._total} images ...", file=sys.stderr, flush=True)
        self._task = self._bar.add_task(self._title, total=self._total)
        return self

    def advance(self, done: int) -> None:
        self._bar.advance(self._task, done)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()
        if kind is None and not self._live:
            print(f"{self._title}: done in {time.monotonic() - self._started:.0f} s", file=sys.stderr, flush=True)
