"""Signals to a command (Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP): its runs save their state, and it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from rich.console import Console

from alexlab import threads
from alexlab.runs.process import SIGNALS, Launch

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
        self.number: int | None = None  # the signal that came

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # no other may
            heard = [number for number in SIGNALS if not _is_nohup(number)]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._count:
            return  # a closed terminal sends it, and then the shell again
        self._count, self.number = self._count + 1, number
        if self._launch is None:
            raise Stopped
        with self._launch.stop.open("ab") as file:  # first, for a process that is not in the list yet
            file.write(b".")
        for mark in self._launch.folder.iterdir():
            if mark.name.isdecimal():
                with suppress(ProcessLookupError):
                    os.kill(int(mark.name), signal.SIGTERM if self._count == 1 else signal.SIGKILL)
        if self._console is not None and self._count == 1:
            self._console.print("\nStopping: the step under way is finished and saved. Once more ends it at once.")


def _is_nohup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def following(launch: Launch, command: int | None) -> Iterator[None]:
    """Context in which this process, a launcher's own, is told to stop as often as the command is.

    `command`: the command's process, on this machine, with which this one ends.
    """
    main = threading.main_thread().ident
    assert main is not None

    def follow(ended: threading.Event) -> None:
        passed_on = 0
        while not ended.wait(0.5):
            for _ in range(passed_on, launch.requests):
                passed_on += 1
                signal.pthread_kill(main, signal.SIGTERM)
            if command is not None:
                try:
                    os.kill(command, 0)
                except ProcessLookupError:
                    os._exit(1)

    with threads.beside(follow):
        yield


def hand_on(number: int) -> None:
    """Let submitit hear of the signal on which its job's run was saved; SLURM's jobs end here.

    Its own signal puts the job back into the queue. A SIGTERM does so only where SLURM goes on with the job, as in the
    grace time of a preemption; else it cancels the job, or queues it again by itself.
    """
    if os.environ["SUBMITIT_EXECUTOR"] != "slurm":
        signal.raise_signal(number)
        return
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={os.environ['SLURM_JOB_ID']}"]
    state = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout.strip()
    if state in ("RUNNING", ""):
        signal.raise_signal(signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"])
    sys.exit(STOPPED_STATUS)  # without a result, for which the command would take it
