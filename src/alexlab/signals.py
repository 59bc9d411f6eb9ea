"""The signals that ask a command, or a run, to stop; a closed terminal sends SIGHUP, submitit SIGUSR2."""

from __future__ import annotations

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def handled() -> list[signal.Signals]:
    """Those of SIGNALS that this process is to handle: all, but SIGHUP if it ignores it, as nohup makes it do."""
    return [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]
