"""Handle Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP: runs save their state and end; the same command resumes them.

The end of the hours that a command may take (`max_hours`) does the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from alexlab import signals, threads
from alexlab.console import Console
from alexlab.runs.process import Launch

STOPPED_STATUS = 75  # EX_TEMPFAIL: a job script may run the same command again
_STARTING = 30.0  # seconds: a run started closer to the end than this would be stopped before it has trained


class Stopped(BaseException):
    """The command was asked to stop, and none of its runs is training any more."""


@dataclass(frozen=True)
class Budget:
    """The wall-clock hours that a command may take, counted from its start (`max_hours`)."""

    hours: float
    started: float  # by time.monotonic()

    @property
    def seconds_left(self) -> float:
        return 3600 * self.hours - (time.monotonic() - self.started)

    @property
    def last_start(self) -> float:
        """Seconds before the end within which no run is started; a tenth of a short budget."""
        return min(_STARTING, 360 * self.hours)


class Stop:
    """Context that forwards signals to the processes that train, which are listed in the launch's folder.

    After the first request they finish their step and save; a second one ends them at once. Signals within a second
    are one request. Without a launch nothing is training yet, and Stopped is raised.

    `command`: in a launcher's process, the launch of the command, whose requests count here as well. `budget`: the
    hours that the command may take; they end it within `limited()`.
    """

    def __init__(
        self,
        launch: Launch | None = None,
        console: Console | None = None,
        command: Launch | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._launch, self._console, self._command, self._budget = launch, console, command, budget
        self.started = time.monotonic()
        self._before: dict[int, Any] = {}
        self.count = 0  # requests so far
        self.number: int | None = None  # of the last signal received

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # only this thread may
            self._before = {number: signal.signal(number, self._note) for number in signals.handled()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self.count:
            return  # a closed terminal sends it, and then the shell again
        own = self.count if signals.is_repeat() else self.count + 1
        # The command's second request may follow its first one here by less than a second.
        count = max(own, self._command.requests if self._command is not None else 0)
        if count == self.count:
            return
        self.count, self.number = count, number
        if self._launch is None:
            raise Stopped
        with self._launch.stop.open("ab") as file:  # first, for a process that has no mark yet
            file.write(b".")
        for mark in self._launch.folder.iterdir():
            if mark.name.isdecimal():
                with suppress(ProcessLookupError):
                    os.kill(int(mark.name), signal.SIGTERM if count == 1 else signal.SIGKILL)
        if self._console is not None and count == 1:
            why, which = ("max_hours is used up", "A") if self._launch.spent.exists() else ("Stopping", "A second")
            self._console.print(f"\n{why}: the current step is finished and saved. {which} signal ends it at once.")

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Context in which the budget counts: near its end no run is started, at its end all are saved and stopped."""
        budget, launch = self._budget, self._launch
        if budget is None or launch is None:
            yield
            return

        def watch(ended: threading.Event) -> None:
            while not ended.wait(0.5):
                close()
                if budget.seconds_left <= 0 and not self.count:
                    self._note(signal.SIGTERM, None)

        def close() -> None:
            if budget.seconds_left <= budget.last_start and not self.count:
                launch.spent.touch()

        close()
        with threads.background(watch):
            yield


@contextmanager
def following(stop: Stop, launch: Launch, command: int | None) -> Iterator[None]:
    """Context in which this process, one of a launcher, gets a SIGTERM for each of the command's requests.

    A request that has reached it already, as a signal to their process group does, is not sent again.
    `command`: the command's process id, on this machine; this process ends with it.
    """
    main = threading.main_thread().ident
    assert main is not None

    def follow(ended: threading.Event) -> None:
        while not ended.wait(0.5):
            if launch.requests > stop.count:
                signal.pthread_kill(main, signal.SIGTERM)
            if command is not None:
                try:
                    os.kill(command, 0)
                except ProcessLookupError:
                    os._exit(1)

    with threads.background(follow):
        yield


def hand_on(number: int) -> None:
    """Pass the signal on which a run was saved to submitit, whose job this process is; a SLURM job ends here.

    Submitit's own signal requeues the job. A SIGTERM does so only while SLURM keeps the job running, as in the grace
    time of a preemption; otherwise SLURM cancels the job, or requeues it itself.
    """
    if os.environ["SUBMITIT_EXECUTOR"] != "slurm":
        signal.raise_signal(number)
        return
    command = ["squeue", "--noheader", "--format=%T", f"--jobs={os.environ['SLURM_JOB_ID']}"]
    state = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout.strip()
    if state in ("RUNNING", ""):
        signal.raise_signal(signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"])
    sys.exit(STOPPED_STATUS)  # without a result file, which would tell the command that the job is done
