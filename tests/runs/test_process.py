"""The processes of one run: whether all of them end."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

import pytest

from alexlab.runs import process
from alexlab.runs.process import ENDED_BY_US
from support.commands import PATIENCE

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
HANG = None


def _end(status: int | None) -> None:
    if status is None:
        time.sleep(PATIENCE)
    sys.exit(status)


@contextmanager
def started(*statuses: int | None) -> Iterator[list[BaseProcess]]:
    """Processes by rank, each of which exits with a status or hangs."""
    context = multiprocessing.get_context("fork")
    found: list[BaseProcess] = [context.Process(target=_end, args=(status,)) for status in statuses]
    for one in found:
        one.start()
    try:
        yield found
    finally:
        for one in found:
            one.kill()
            one.join()


@pytest.mark.parametrize(
    ("statuses", "codes"),
    [
        ((3, HANG), [3, ENDED_BY_US]),
        ((HANG, 3), [ENDED_BY_US, 3]),
        ((0, HANG), [0, ENDED_BY_US]),
        ((0, 3), [0, 3]),
    ],
)
def test_what_hangs_after_another_has_ended_is_killed(
    statuses: tuple[int | None, ...], codes: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "_GRACE", 0.1)
    with started(*statuses) as processes:
        assert process._ends(processes, lambda: False) == codes


def looks(at: BaseProcess, number: int, seen: list[bool]) -> Callable[[], bool]:
    """Whether the first one is ending: at so many looks it is. `seen`: whether the other is alive at each."""

    def is_ending() -> bool:
        seen.append(at.is_alive())
        return len(seen) <= number

    return is_ending


def test_while_the_first_one_is_ending_the_others_have_more_time(monkeypatch: pytest.MonkeyPatch):
    """As it does while it uploads to W&B."""
    monkeypatch.setattr(process, "_GRACE", 0.1)
    monkeypatch.setattr(process, "_UPLOAD_GRACE", PATIENCE)
    seen: list[bool] = []
    with started(3, HANG) as processes:
        assert process._ends(processes, looks(processes[1], 3, seen)) == [3, ENDED_BY_US]
    assert seen == [True] * 4
