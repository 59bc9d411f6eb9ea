"""The signals that ask a command, or a run, to stop; a closed terminal sends SIGHUP, submitit SIGUSR2."""

from __future__ import annotations

import math
import signal
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
BURST = 1.0  # seconds: `timeout` signals a process and then its group, a shell and a scheduler may each send their own

_burst_began = -math.inf


def is_repeat() -> bool:
    """Whether the signal that has just arrived is part of an earlier request, having come within BURST of it."""
    global _burst_began
    now = time.monotonic()
    if now - _burst_began <= BURST:
        return True
    _burst_began = now
    return False


def handled() -> list[signal.Signals]:
    """The signals that this process should handle: all of SIGNALS, except an ignored SIGHUP, as under nohup."""
    return [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]
