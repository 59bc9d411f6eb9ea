"""What benchmarks conclude from seconds: turns, ratios within a round, and what is called worse."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_turns_go_both_ways_and_the_first_round_does_not_count(bench):
    order: list[str] = []
    seconds = bench("turns").take_turns({"a": lambda: order.append("a") or 2.0, "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "abbaabba"
    assert seconds["a"] == [2.0] * 3  # a turn that has measured itself
    assert all(0 <= took < 0.1 for took in seconds["b"])


def test_a_ratio_is_within_rounds(bench):
    """A machine that is ten times slower in the second round changes no ratio."""
    ratio = bench("turns").Ratio.of([1.0, 10.0, 1.0], [2.0, 20.0, 2.0])
    assert (ratio.low, ratio.median, ratio.high) == (0.5, 0.5, 0.5)
    assert bench("turns").Ratio.of([1.0, 2.0, 3.0, 4.0], [1.0] * 4).median == 2.5


@pytest.mark.parametrize(("now", "status"), [(1.09, 0), (1.11, 1), (0.5, 0)])
def test_ten_percent_worse_is_told(bench, capsys: pytest.CaptureFixture[str], now: float, status: int):
    assert bench("compare").show({"a step": 1.0, "old": 2.0}, {"a step": now, "new": 3.0}) == status
    told = capsys.readouterr().out
    assert ("| worse |" in told) == (status == 1)
    assert "| new | - | 3 | new | |" in told
    assert "| old | 2 | - | gone | |" in told


def test_what_a_contender_apart_raises_is_raised_here(bench):
    with pytest.raises(ZeroDivisionError):
        bench("turns").Apart(divmod, 1, 0)


def test_every_command_is_there_and_takes_its_arguments(bench, monkeypatch: pytest.MonkeyPatch):
    commands: list[list[str]] = [*bench("all").COMMANDS, *(one for of in bench("compare").BRIEF.values() for one in of)]

    class Parsed(Exception):
        pass

    def parsed(self: Any, arguments: Any = None, namespace: Any = None) -> Any:
        found = parse(self, arguments, namespace)
        raise Parsed(found)

    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    for command in commands:
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(Parsed):
            bench(Path(command[0]).stem).main()
