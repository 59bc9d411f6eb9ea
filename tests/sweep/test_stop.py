"""Signals that arrive together are one request to stop, in the command, in a launcher's process and in a run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from alexlab import signals
from alexlab.runs.process import Launch
from alexlab.sweep import stop as stops
from alexlab.sweep.stop import Budget, Stop, Stopped
from alexlab.training import preemption
from support.commands import until

TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL
# `timeout` signals a process and then its group, a terminal all of a job; each with the second at which it arrives.
TOGETHER = [[(0, TERM), (0.01, TERM)], [(0, INT), (0.1, TERM)], [(0, TERM), (0.6, INT), (1, TERM)], [(0, INT)]]


class Clock:
    """A clock that is set."""

    now = 0.0
    looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return 1000 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(signals, "time", found)
    monkeypatch.setattr(signals, "_burst_began", float("-inf"))
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What is sent to processes."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(stops.os, "kill", lambda pid, number: found.append((pid, number)))
    return found


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """A launch of which process 77 trains a run."""
    (tmp_path / "77").touch()
    return Launch(tmp_path)


def arrive(clock: Clock, arrivals: list[tuple[float, signal.Signals]]) -> None:
    for clock.now, number in arrivals:
        signal.raise_signal(number)


@pytest.mark.parametrize("arrivals", TOGETHER)
def test_those_of_a_second_are_one(clock: Clock, sent: list, launch: Launch, arrivals: list):
    with Stop(launch) as stop:
        arrive(clock, arrivals)
    assert (stop.count, launch.requests, sent) == (1, 1, [(77, TERM)])


@pytest.mark.parametrize("arrivals", TOGETHER)
def test_a_later_one_ends_at_once(clock: Clock, sent: list, launch: Launch, arrivals: list):
    with Stop(launch) as stop:
        arrive(clock, [*arrivals, (1.1, TERM)])
    assert (stop.count, launch.requests, sent) == (2, 2, [(77, TERM), (77, KILL)])


def test_hammering_ends_at_once(clock: Clock, sent: list, launch: Launch):
    with Stop(launch):
        arrive(clock, [(0.3 * i, INT) for i in range(5)])
    assert sent == [(77, TERM), (77, KILL)]


def test_a_command_that_is_leaving_its_launch(clock: Clock, sent: list, launch: Launch):
    """Its first signal was the launch's; the second of the two is no request to leave without the table."""
    with Stop():
        with Stop(launch):
            arrive(clock, [(0, TERM)])
        arrive(clock, [(0.2, TERM)])
        with pytest.raises(Stopped):
            arrive(clock, [(1.5, TERM)])


@pytest.mark.parametrize(
    ("arrivals", "count"), [([(0, 1)], 1), ([(0, 1), (0.2, 2)], 2), ([(0, 1), (0.5, 1)], 1), ([(5, 2)], 2)]
)
def test_a_launchers_process_counts_the_commands_requests(
    clock: Clock, sent: list, launch: Launch, tmp_path: Path, arrivals: list, count: int
):
    """Not the signals by which it hears of them: those come late, and may be one more of the group's."""
    (folder := tmp_path / "command").mkdir()
    command = Launch(folder)
    with Stop(launch, command=command) as stop:
        for clock.now, requests in arrivals:
            command.stop.write_bytes(b"." * requests)
            signal.raise_signal(TERM)
    assert stop.count == count
    assert sent[-1] == (77, TERM if count == 1 else KILL)


def test_a_request_that_has_reached_a_launchers_process_is_not_sent_to_it_again(
    tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
):
    (folder := tmp_path / "command").mkdir()
    command, heard, looks = Launch(folder), [], []
    requests = Launch.requests.fget
    assert requests is not None
    monkeypatch.setattr(Launch, "requests", property(lambda self: (looks.append(1), requests(self))[1]))
    before = signal.signal(TERM, lambda *_: heard.append(1))
    try:
        stop = Stop(launch, command=command)
        command.stop.write_bytes(b".")
        stop.count = 1
        with stops.following(stop, command, os.getpid()):
            until(lambda: len(looks) >= 2)  # what the first one had sent would have arrived
        assert not heard
    finally:
        signal.signal(TERM, before)


@pytest.mark.parametrize("arrivals", TOGETHER)
def test_a_run_is_interrupted_once(clock: Clock, monkeypatch: pytest.MonkeyPatch, arrivals: list):
    """A second signal would end the saving that the first one began."""
    monkeypatch.setattr(preemption, "_requested", False)
    preemption.install()
    (now, first), *others = arrivals
    with pytest.raises(preemption.Preempted):
        arrive(clock, [(now, first)])
    arrive(clock, others)
    assert preemption.requested()


def budgeted(clock: Clock, launch: Launch, monkeypatch: pytest.MonkeyPatch, hours: float = 1) -> Stop:
    monkeypatch.setattr(stops, "time", clock)
    return Stop(launch, budget=Budget(hours, clock.monotonic()))


def test_the_end_of_the_hours_is_one_request(clock: Clock, sent: list, launch: Launch, monkeypatch: pytest.MonkeyPatch):
    """A signal in the same second is the same request; a later one ends at once."""
    with budgeted(clock, launch, monkeypatch) as stop, stop.limited():
        assert not launch.is_ending
        clock.now = 3600
        until(lambda: sent)
        signal.raise_signal(TERM)
        assert (stop.count, launch.requests, sent) == (1, 1, [(77, TERM)])
        clock.now = 3602
        signal.raise_signal(TERM)
    assert sent == [(77, TERM), (77, KILL)]


def test_near_the_end_no_run_is_started_and_none_is_stopped(
    clock: Clock, sent: list, launch: Launch, monkeypatch: pytest.MonkeyPatch
):
    with budgeted(clock, launch, monkeypatch) as stop, stop.limited():
        clock.now = 3599
        until(lambda: launch.is_ending)
        assert (launch.is_stopped, sent) == (False, [])


def test_hours_that_are_over_start_nothing(clock: Clock, launch: Launch, monkeypatch: pytest.MonkeyPatch):
    """Without a wait for any thread, so that the first run is not started either."""
    stop = budgeted(clock, launch, monkeypatch, 1e-9)
    clock.now = 1
    with stop.limited():
        assert launch.is_ending


def test_a_short_budget_leaves_time_to_start(clock: Clock, launch: Launch, monkeypatch: pytest.MonkeyPatch):
    with budgeted(clock, launch, monkeypatch, 1 / 3600).limited():
        assert not launch.is_ending


def test_a_signal_before_the_end_is_no_matter_of_hours(
    clock: Clock, sent: list, launch: Launch, monkeypatch: pytest.MonkeyPatch
):
    with budgeted(clock, launch, monkeypatch) as stop, stop.limited():
        signal.raise_signal(TERM)
        clock.now, clock.looks = 7200, 0
        until(lambda: clock.looks >= 5)  # two for each time around, the first of which may have begun before
    assert (launch.requests, sent, launch.spent.exists()) == (1, [(77, TERM)], False)
