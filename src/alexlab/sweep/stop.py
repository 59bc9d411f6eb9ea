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

    After the first signal they finish their step and save; a second one ends them at once. Without a launch nothing is
    training yet, and Stopped is raised.
    """

    def __init__(self, launch: Launch | None = None, console: Console | None = None) -> None:
        self._launch, self._console = launch, console
        self._before: dict[int, Any] = {}
        self._count = 0
        self.number: int | None = None  # of the last signal received

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # only this thread may
            self._before = {number: signal.signal(number, self._note) for number in signals.handled()}
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
        with self._launch.stop.open("ab") as file:  # first, for a process that has no mark yet
            file.write(b".")
        for mark in self._launch.folder.iterdir():
            if mark.name.isdecimal():
                with suppress(ProcessLookupError):
                    os.kill(int(mark.name), signal.SIGTERM if self._count == 1 else signal.SIGKILL)
        if self._console is not None and self._count == 1:
            self._console.print("\nStopping: the current step is finished and saved. A second signal ends it at once.")


@contextmanager
def following(launch: Launch, command: int | None) -> Iterator[None]:
    """Context in which this process, one of a launcher, gets a SIGTERM for each signal to the command.

    `command`: the command's process id, on this machine; this process ends with it.
    """
    main = threading.main_thread().ident
    assert main is not None

    def follow(ended: threading.Event) -> None:
        forwarded = 0
        while not ended.wait(0.5):
            for _ in range(forwarded, launch.requests):
                forwarded += 1
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
