"""Copies of records for TensorBoard: event files in the record's folder `tensorboard`.

Each attempt writes all rows again to a file of its own, whose first event makes TensorBoard discard the earlier ones.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from alexlab.config import Config, LoggerConfig, shown
from alexlab.runs import tracked
from alexlab.runs.record import DONE, Record

_FILES = f"*/events.out.tfevents.{'[0-9]' * 6}"
_LONGEST_NAME = 100  # of a folder, which TensorBoard shows as the run's name


class TensorboardCopy:
    """TensorBoard's copy of one run, in the record itself."""

    title = "TensorBoard"

    def __init__(self, config: Config, record: Record, say: Callable[[str], None]) -> None:
        self._config, self._record = config, record
        self._path = Path()
        self._step = 0  # of the last row

    @staticmethod
    def place(logger: LoggerConfig) -> str:
        return "in each record"

    def is_complete(self) -> bool:
        return False  # writing them again takes less than a second

    def start(self) -> bool:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from torch.utils.tensorboard.summary import hparams

        name = tracked.title(self._config, tracked.named(self._config, self._record))
        self._path = self._new_file(re.sub(r"[^\w.,:=+\[\] -]", "_", name)[:_LONGEST_NAME].strip())
        self._write(file_version="brain.Event:2")
        self._write(session_log=SessionLog(status=SessionLog.START))
        values = {**tracked.facts(self._config, self._record), **tracked.public_config(self._config)}
        plain = {key: value if type(value) in (int, float) else shown(value) for key, value in values.items()}
        # Without a list of metrics, TensorBoard's HParams page takes them from all runs.
        _, begun, self._ended = hparams(plain, {})
        self._write(summary=begun)
        return True

    def _new_file(self, name: str) -> Path:
        """The next event file, numbered since TensorBoard reads them in order; removes earlier ones except the last.

        A running TensorBoard may be reading the last one, and would not find the new one without it.
        """
        folder = tracked.own_folder(self._record, "tensorboard")
        own = tracked.own_folder(self._record, f"tensorboard/{name}")
        own.mkdir(parents=True, exist_ok=True)
        others = [path for path in folder.glob(_FILES) if not path.parent.is_symlink() and path.parent != own]
        *older, last = [None, *sorted(path for path in folder.glob(_FILES) if path.parent == own)]
        for path in filter(None, [*others, *older]):
            path.unlink()
            with suppress(OSError):  # it is not empty
                path.parent.rmdir()
        number = 0 if last is None else int(last.name[-6:])
        return own / f"events.out.tfevents.{number + 1:06}"

    def row(self, row: dict[str, Any]) -> None:
        self._step = max(self._step, row["step"])
        self._numbers({name: value for name, value in row.items() if value != "" and name != "step"}, row["step"])

    def finish(self) -> None:
        if self._record.status()["state"] == DONE:
            self._numbers(tracked.final_numbers(self._record.result()), self._step)
            self._picture("conv1", tracked.kernels(self._record))
            if (found := tracked.predictions(self._config, self._record)) is not None:
                self._picture("confusion", tracked.confusion(found))
            self._write(summary=self._ended)

    def _numbers(self, values: dict[str, float], step: int) -> None:
        from torch.utils.tensorboard.summary import scalar

        for name, value in values.items():
            self._write(step=step, summary=scalar(name, value))

    def _picture(self, name: str, picture: np.ndarray | None) -> None:
        from torch.utils.tensorboard.summary import image

        if picture is not None:
            self._write(step=self._step, summary=image(name, picture, dataformats="HWC"))

    def _write(self, step: int = 0, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        event = Event(wall_time=time.time(), step=step, **content)
        # Unbuffered and in this thread, so that errors are raised here; torch's SummaryWriter prints them in its own.
        with self._path.open("ab", buffering=0) as file:
            RecordWriter(file).write(event.SerializeToString())
