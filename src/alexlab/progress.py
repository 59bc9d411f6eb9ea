"""Progress of long work: a live bar in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from alexlab.console import Console, duration, printable

_SECONDS_BETWEEN_LINES = 60  # outside a terminal
BESIDE_OTHERS = "ALEXLAB_BESIDE_OTHERS"  # in the environment of processes that share a terminal


def is_live() -> bool:
    """Whether this process can show a live bar: it has a terminal and does not share it."""
    return sys.stderr.isatty() and BESIDE_OTHERS not in os.environ


class Progress:
    """Context that shows how many of `total` items are done, the rate, and the time left.

    Outside a terminal it prints a line at the start, one a minute and one at the end. A `transient` bar disappears at
    the end. `done`: items that were done before.
    """

    def __init__(self, title: str, total: int, transient: bool = False, unit: str = "images", done: int = 0) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._before = self._done = done
        self._live = is_live()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
        )
        self._bar = RichProgress(*columns, console=Console(stderr=True), disable=not self._live, transient=transient)
        self._started = self._last_line_at = time.monotonic()

    def __enter__(self) -> Progress:
        if self._live:
            self._bar.start()
        else:
            self._print(f"{self._total} {self._unit} ..." + (f" {self._before} are done" if self._before else ""))
        self._task = self._bar.add_task(self._title, total=self._total, completed=self._before, rate="")
        return self

    def advance(self, done: int) -> None:
        """Count `done` more items."""
        self._done += done
        now = time.monotonic()
        rate = (self._done - self._before) / max(now - self._started, 1e-3)
        self._bar.update(self._task, advance=done, rate=f"{rate:,.0f} {self._unit}/s")
        if not self._live and now - self._last_line_at > _SECONDS_BETWEEN_LINES:
            self._last_line_at = now
            left = (self._total - self._done) / max(rate, 1e-9)
            self._print(f"{self._done} of {self._total}, {rate:,.0f} {self._unit}/s, {duration(left)} left")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()
        if kind is None and not self._live:
            self._print(f"done in {duration(time.monotonic() - self._started)}")

    def _print(self, text: str) -> None:
        print(printable(f"{self._title}: {text}"), file=sys.stderr, flush=True)
