"""What benchmarks conclude from seconds: turns, ratios within a round, and what is called worse."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    with patch.dict(os.environ):  # importing a benchmark sets variables for its child processes
        yield importlib.import_module


def test_a_benchmark_runs_the_code_of_its_own_tree_and_sets_how_threads_wait_before_torch_loads(tmp_path: Path):
    (tmp_path / "alexlab").mkdir()
    (tmp_path / "alexlab" / "__init__.py").write_text("raise SystemExit('another checkout')")
    waiting = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
    report = f"print(alexlab.__file__, any(name in os.environ for name in {waiting}))"
    (tmp_path / "torch.py").write_text(f"import alexlab, os\n{report}\nraise SystemExit(42)\n")
    environment = {name: value for name, value in os.environ.items() if name not in (*waiting, "PYTHONSAFEPATH")}
    environment["PYTHONPATH"] = str(tmp_path)
    line = [sys.executable, str(FOLDER / "step.py")]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(FOLDER.parent / "src" / "alexlab" / "__init__.py"), "True"]
    assert done.returncode == 42


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_a_benchmark_imports_turns_before_any_package(file: Path):
    names = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    packages = [name for name in names if name and name.partition(".")[0] not in sys.stdlib_module_names]
    assert packages[:1] in ([], ["alexlab"] if file.stem == "turns" else ["turns"])


def test_turns_go_both_ways_and_the_first_round_does_not_count(bench):
    order: list[str] = []
    times = bench("turns").take_turns({"a": lambda: order.append("a") or 2.0, "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "abbaabba"
    assert times.quiet["a"] == [2.0] * 3  # a turn that has measured itself
    assert all(0 <= took < 2 for took in times.quiet["b"])
    assert times.busy == {}


def test_busy_turns_are_in_the_same_rounds_beside_the_loops(bench):
    order: list[str] = []

    @contextmanager
    def beside():
        order.append("[")
        yield
        order.append("]")

    turns = {
        "a": lambda: order.append("a") or 1.0 + order.count("["),
        "b": lambda: order.append("b") or {"c": 1.0, "d": 2.0},
    }
    times = bench("turns").take_turns(turns, 2, True, beside)
    assert "".join(order) == "ab[ab]ba[ba]ab[ab]"
    assert times.quiet == {"a": [2.0, 3.0], "c": [1.0, 1.0], "d": [2.0, 2.0]}
    assert times.busy == {"a": [3.0, 4.0], "c": [1.0, 1.0], "d": [2.0, 2.0]}


def test_one_busy_loop_per_usable_core_until_the_block_fails(bench, monkeypatch: pytest.MonkeyPatch):
    turns, loops = bench("turns"), []
    start = subprocess.Popen
    monkeypatch.setattr(turns.threads, "cores", lambda: 3)
    monkeypatch.setattr(
        turns.subprocess, "Popen", lambda *given, **named: loops.append(start(*given, **named)) or loops[-1]
    )

    def fail() -> None:
        with turns.busy_loops():
            assert [loop.poll() for loop in loops] == [None] * 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(loop.poll() is not None for loop in loops)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_busy_loops_end_with_a_benchmark_that_is_interrupted(number: int):
    """The loops keep a copy of its standard output open, which ends when the last of them has gone."""
    script = f"""
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.path.insert(0, {str(FOLDER)!r})
        import turns
        start, copy = subprocess.Popen, os.dup(1)
        subprocess.Popen = lambda *given, **named: start(*given, **named, pass_fds=[copy])
        turns.threads.cores = lambda: 2
        with turns.busy_loops():
            print("running", flush=True)
            time.sleep(600)
    """
    line = [sys.executable, "-c", textwrap.dedent(script)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    process.send_signal(number)
    assert process.stdout.read() == b""
    assert process.wait() != 0
    process.stdout.close()


def test_the_threads_of_a_contender_wait_as_its_variables_say(bench, monkeypatch: pytest.MonkeyPatch):
    turns = bench("turns")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    own = dict(os.environ)
    with turns.environment({"OMP_WAIT_POLICY": "ACTIVE"}):
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
        assert "GOMP_SPINCOUNT" not in os.environ
    assert dict(os.environ) == own


def test_a_table_has_both_and_the_file_too(bench, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    turns = bench("turns")
    quiet, busy = {"plain": [0.2, 0.4], "ours": [0.1, 0.2]}, {"plain": [0.8, 1.6], "ours": [0.2, 0.4]}
    turns.tell("a step", turns.Times(quiet, busy), "plain", tmp_path / "ratios.json", {"images/s": {"ours": "9"}})
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| ours"))
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("ours", "150", "0.5", "0.5 to 0.5", "9"),
        *("300", "0.25", "0.50"),  # a quarter of plain's time, half of its own quiet speed
    ]
    assert json.loads((tmp_path / "ratios.json").read_text()) == {"a step: ours": 0.5, "a step, busy: ours": 0.25}


def test_speeds_by_ways_of_waiting(bench, capsys: pytest.CaptureFixture[str]):
    """A way that is as fast as spinning when quiet and keeps half of its speed beside the loops."""
    module, turns = bench("threads"), bench("turns")
    times = turns.Times(
        {module.SHIPPED: [0.1, 0.1], "other": [0.125, 0.125]}, {module.SHIPPED: [1.0, 1.0], "other": [0.25] * 2}
    )
    module.show("demo", 10, times)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| other"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == ["other", "80", "0.8", "0.8 to 0.8", "40", "0.50", "0.40"]


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
