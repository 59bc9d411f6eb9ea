"""Signals as stop requests: SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP stop a run without losing work.

Inside `held()` a request waits until the code there checks `requested()`; elsewhere it raises `Preempted` immediately.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alexlab.signals import SIGNALS, handled, is_repeat


class Preempted(BaseException):
    """The run was asked to stop, and its state is saved. Not an Exception, so that no `except Exception` catches it."""


_requested = _is_held = False


def install() -> None:
    """Handle the signals, including those that are pending; only in the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number in handled():
            signal.signal(number, _handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def request() -> None:
    """Request a stop, as a signal does."""
    global _requested
    _requested = True
    if not _is_held:
        raise Preempted


def requested() -> bool:
    return _requested


def _handle(number: int, frame: Any) -> None:
    if not is_repeat():  # a repeat would interrupt the saving that the first one started
        request()


@contextmanager
def held() -> Iterator[None]:
    """Defer requests; one that is still pending at the end of the block raises `Preempted` there."""
    global _is_held
    _is_held = True
    try:
        yield
    finally:
        _is_held = False
    if _requested:
        raise Preempted
