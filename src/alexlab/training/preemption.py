"""Signals as requests to stop: SIGTERM, SIGUSR1, SIGUSR2, SIGHUP and Ctrl-C end a run where nothing is lost.

While something is `held`, a request waits until whoever holds it looks at `requested()`; else it ends the work at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Preempted(BaseException):
    """The run was asked to stop; what it needs to go on is saved. No Exception, so that nothing catches it."""


_requested = _is_held = False


def install() -> None:
    """Listen to the signals, those that have come already included; in the main thread alone."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # which nohup ignores
                signal.signal(number, _note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def request() -> None:
    """Ask for an end, as a signal does."""
    global _requested
    _requested = True
    if not _is_held:
        raise Preempted


def requested() -> bool:
    return _requested


def _note(number: int, frame: Any) -> None:
    request()


@contextmanager
def held() -> Iterator[None]:
    """Let requests wait; one that nobody has looked at is obeyed at the end."""
    global _is_held
    _is_held = True
    try:
        yield
    finally:
        _is_held = False
    if _requested:
        raise Preempted
