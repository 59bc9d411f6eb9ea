"""Trackers, which get copies of records: W&B, TensorBoard and MLflow.

The rows of metrics.csv, each at its own training step, are copied while the run trains or at any later time; the final
errors and pictures follow at its end. Sending a record again creates no duplicates. A tracker's error never ends a run.
"""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from alexlab.config import TRACKERS, Config, LoggerConfig
from alexlab.console import printable_line
from alexlab.errors import UserError
from alexlab.files import is_first_time
from alexlab.runs.mlflow_copy import MlflowCopy
from alexlab.runs.record import Record
from alexlab.runs.tensorboard_copy import TensorboardCopy
from alexlab.runs.wandb_copy import WandbCopy

T = TypeVar("T")
log = logging.getLogger(__name__)
_LONGEST_REASON = 300  # characters of an error, which may be an HTML page
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY")


class Copy(Protocol):
    """A tracker's copy of one run. Each method may raise whatever the tracker's library raises."""

    title: str

    def __init__(self, config: Config, record: Record, say: Callable[[str], None]) -> None:
        """`say`: prints a message, once for all runs of a command."""

    @staticmethod
    def place(logger: LoggerConfig) -> str:
        """The destination of copies, such as `online`.

        Raises:
            UserError: if it cannot be reached.
        """
        ...

    def is_complete(self) -> bool:
        """Whether the tracker has the complete record of a run that has ended."""
        ...

    def start(self) -> bool:
        """Start or resume the copy; False if the tracker is switched off."""
        ...

    def row(self, row: dict[str, Any]) -> None:
        """Copy a row of metrics.csv, unless the tracker has it already."""

    def finish(self) -> None:
        """Copy the run's outcome, and close the copy."""


COPIES: dict[str, type[Copy]] = {"wandb": WandbCopy, "tensorboard": TensorboardCopy, "mlflow": MlflowCopy}
assert tuple(COPIES) == TRACKERS


class Copies:
    """The copies of one run that its configuration asks for.

    A tracker's first error is printed as one line and ends its copy; `alexlab runs copy` sends the rest later.
    """

    def __init__(
        self, config: Config, record: Record, messages: Path | None = None, names: Sequence[str] | None = None
    ) -> None:
        """`messages`: the folder that marks which messages of a sweep were printed. `names`: only these trackers."""
        wanted = config.logger.trackers if names is None else names
        self._config, self._messages = config, messages
        self._wanted = {name: COPIES[name](config, record, self._say) for name in wanted if not config.is_tryout}
        self._started: dict[str, Copy] = {}

    def start(self) -> bool:
        """Start or resume the copies; return whether any has started."""
        self._started = self._wanted
        self._started = self._each(lambda copy: copy.start(), "did not start")
        return bool(self._started)

    def row(self, row: dict[str, Any]) -> None:
        """Copy a row of metrics.csv to the trackers that do not have it."""
        self._each(lambda copy: copy.row(row), "stopped accepting data")

    def finish(self) -> bool:
        """Copy the run's outcome, and close the copies; return whether any is complete."""
        self._each(lambda copy: copy.finish(), "did not accept everything")
        return bool(self._started)

    def abandon(self) -> None:
        """Leave the copies to the process that resumes the run."""
        self._started = {}

    def _each(self, action: Callable[[Copy], bool | None], what: str) -> dict[str, Copy]:
        """Apply an action to each copy, and drop copies that raise an error; return those for which it was true."""
        found = {}
        for name, copy in [*self._started.items()]:
            try:
                if action(copy):
                    found[name] = copy
            except Exception as error:  # whatever the library raises, the record is what counts
                del self._started[name]
                project = self._config.logger.project
                given = "" if project == Config().logger.project else f" logger.project={project}"
                hint = f"the record is complete, `alexlab runs copy logger={name}{given}` sends it later"
                message = f"logger={name}: {copy.title} {what} ({reason(error)}); {hint}"
                if log.hasHandlers():  # a run has train.log's; without any, logging would print it as well
                    log.warning(message)
                self._say(message)
        return found

    def _say(self, message: str) -> None:
        """Print a message, once for all runs of a command."""
        if is_first_time(self._messages, message):
            print(message, flush=True)


def reason(error: Exception) -> str:
    """An error of a tracker in one line, without passwords and keys."""
    text = printable_line(error) or type(error).__name__
    in_uri = re.findall(r"://[^/\s:]*:([^/\s]+)@", os.environ.get("MLFLOW_TRACKING_URI", ""))
    text = re.sub(r"(?<=://)[^/\s]*@", "", text)
    secrets = [*in_uri, *map(unquote, in_uri), *(os.environ.get(name, "") for name in _SECRETS)]
    for secret in filter(None, map(str.strip, secrets)):
        for spelling in (secret, printable_line(secret), repr(secret)[1:-1]):
            text = text.replace(spelling, "***")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def send(name: str, config: Config, record: Record) -> bool:
    """Send a record to a tracker, which may already have part of it; return whether that succeeded."""
    copies = Copies(config, record, names=[name])
    if not copies.start():
        return False
    with record.file("metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            copies.row({name: _number(value) for name, value in row.items()})
    return copies.finish()


def _number(text: str) -> int | float | str:
    if text == "":
        return text
    return int(text) if text.isdecimal() else float(text)


class Unreachable(UserError):
    """A tracker that cannot be reached."""


def place(name: str, logger: LoggerConfig) -> str:
    """The destination of a tracker's copies, such as `online`.

    Raises:
        Unreachable: if it cannot be reached.
        UserError: if the tracker's settings cannot work.
    """
    return _reached(name, lambda: COPIES[name].place(logger))


def is_copied(name: str, config: Config, record: Record) -> bool:
    """Whether a tracker already has the complete record.

    Raises:
        Unreachable: if it cannot be reached.
        UserError: if the record is corrupt.
    """
    return _reached(name, COPIES[name](config, record, print).is_complete)


def _reached(name: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except UserError:
        raise
    except Exception as error:  # whatever the library raises
        raise Unreachable(f"logger={name}: {COPIES[name].title} cannot be reached ({reason(error)})") from error
