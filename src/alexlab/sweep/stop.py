"""Handle Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP: runs save their state and end; the same command resumes them."""

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

from alexlab import signals, threads
from alexlab.console import Console
from alexlab.runs.process import Launch

STOPPED_STATUS = 75  # EX_TEMPFAIL: a job script may run the same command again


class Stopped(BaseException):
    """The command was asked to stop, and none of its runs is training any more."""


class Stop:
    """Context that forwards signals to the processes that train, which are listed in the launch's folder.

    After the first request they finish their step and save; a second one ends them at once. Signals within a second
    are one request. Without a launch nothing is training yet, and Stopped is raised.

    `command`: in a launcher's process, the launch of the command, whose requests count here as well.
    """

    def __init__(
        self, launch: Launch | None = None, console: Console | None = None, command: Launch | None = None
    ) -> None:
        self._launch, self._console, self._command = launch, console, command
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
            self._console.print("\nStopping: the current step is finished and saved. A second signal ends it at once.")


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

    with threads.beside(follow):
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
