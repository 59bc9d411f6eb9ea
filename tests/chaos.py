"""Kill or pause commands at many moments, run them again until they are done, and compare bits with undisturbed ones.

    python tests/chaos.py --kills 200 --seed 0      (make chaos KILLS=200)
    python tests/chaos.py --pauses

Kills come at random moments over the whole life of a training process: start, steps, saves, validation, evaluation,
last writes. Pauses come before each file operation of a run: another process finishes the run meanwhile, as if its
owner had been silent for too long, and then the owner continues.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from alexlab.runs import lease, process
from alexlab.runs.process import Launch
from alexlab.runs.supervisor import execute
from alexlab.sweep.plan import PlannedRun, make_plan
from support import pausing
from support.commands import PATIENCE, descendants, is_halted, start, until
from support.pausing import Operations
from support.records import SCALE, contents
from support.settings import TINY

PAUSED = [*TINY, "checkpoint.every_steps=2", "trainer.enable_progress_bar=false"]
# What ends the command: its training process is killed, or all of it, as when a machine stops; or it is asked to stop,
# by a signal to the command or, as clusters do it, to all of its processes.
MEANS = ("worker", "all", "SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGTERM to all")


@dataclass
class Command:
    """One command line, to be broken off and run again."""

    overrides: list[str]
    runs: Path

    def start(self) -> subprocess.Popen[str]:
        return start([*self.overrides, f"paths.runs={self.runs}"], {"OMP_NUM_THREADS": "1"})

    def finish(self) -> tuple[int, str]:
        process = self.start()
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output


@dataclass
class Report:
    kills: Counter[str] = field(default_factory=Counter)  # of commands that were not done
    too_late: int = 0
    states: Counter[str] = field(default_factory=Counter)  # of the runs after a kill
    differences: list[str] = field(default_factory=list)


def break_off(process: subprocess.Popen[str], means: str) -> None:
    below = descendants(process.pid)
    if means in ("all", "SIGTERM to all"):
        for pid in (process.pid, *below):
            _kill(pid, signal.SIGKILL if means == "all" else signal.SIGTERM)
    elif means == "worker":
        # below the command: multiprocessing's servers; below these, what trains, and its loaders
        for pid in {child for server in below for child in descendants(server)}:
            _kill(pid, signal.SIGKILL)
    else:
        _kill(process.pid, signal.Signals[means])


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def disturb(command: Command, kills: int, runs: int, seconds: float, rng: random.Random, report: Report) -> None:
    """Break a command of some runs off `kills` times, or until it is done, and then let it finish.

    `seconds`: how long its runs train and evaluate, undisturbed.
    """
    for _ in range(kills):
        before = _begun(command.runs)
        process = command.start()
        if rng.random() < 0.85:  # else somewhere in the seconds in which torch is loaded
            deadline = time.monotonic() + PATIENCE
            while _begun(command.runs) == before and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
        if process.poll() is not None:
            process.communicate()
            break  # it is done
        time.sleep(seconds * rng.random() ** 1.5)  # more often early, as there is less to do from break to break
        chosen = rng.choice(MEANS)
        break_off(process, chosen)
        output, _ = process.communicate(timeout=PATIENCE)
        if len(contents(command.runs)) == runs:
            report.too_late += 1
            break
        report.kills[chosen] += 1
        # Where Python has not loaded the command yet, or is leaving it, it has its own way with signals.
        if "alexlab:" in output and "Records:" not in output:
            assert "Traceback" not in output, output
            assert process.returncode == 75 or not chosen.startswith("SIG"), (process.returncode, output)
        for path in command.runs.glob("*/status.json"):
            report.states[json.loads(path.read_text())["state"]] += 1
    code, output = command.finish()
    assert code == 0, output


def _begun(runs: Path) -> dict[Path, int]:
    """When each run's process last began to work."""
    return {path: path.stat().st_mtime_ns for path in runs.glob("*/environment.json")}


def compare(expected: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]], report: Report) -> None:
    if expected.keys() != found.keys():
        report.differences.append(f"runs {sorted(found)} instead of {sorted(expected)}")
        return
    for run_id, parts in expected.items():
        for name, value in parts.items():
            if found[run_id].get(name) != value:
                report.differences.append(f"{run_id}: {name}")


def chaos(
    folder: Path, overrides: list[str], kills: int, seed: int, per_command: int = 4, tell: Callable[[str], None] = print
) -> Report:
    """Break off commands of this line `kills` times in all, each some times, and compare each with the undisturbed."""
    report, rng = Report(), random.Random(seed)
    plain = Command(overrides, folder / "undisturbed")
    code, output = plain.finish()
    assert code == 0, output
    expected = contents(plain.runs)
    lives = [json.loads(path.read_text())["seconds"] for path in plain.runs.glob("*/result.json")]
    seconds = sum(lives) + 0.4 * len(lives)  # to set up, and to write down what it came to
    number = 0
    while report.kills.total() < kills:
        number += 1
        command = Command(overrides, folder / f"disturbed_{number}")
        disturb(command, min(per_command, kills - report.kills.total()), len(expected), seconds, rng, report)
        compare(expected, contents(command.runs), report)
        tell(f"{report.kills.total()} kills {dict(report.kills)}, {len(report.differences)} differences")
    return report


@dataclass
class Owner:
    """A run whose process, or whose supervising thread in this one, pauses before a file operation."""

    run: PlannedRun
    part: str  # `worker`, or the `supervisor` that starts it and settles its status
    number: int  # of the operation; 0: none
    folder: Path  # of its own

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.mark = self.folder / "paused"
        self.counts = {"supervisor": 0, "worker": 0}
        self._paused, self._continued = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._errors: list[BaseException] = []

    def _supervise(self) -> None:
        def pause() -> None:
            self._paused.set()
            self._continued.wait()

        record = str(self.run.record.path)
        operations = Operations(record, self.number if self.part == "supervisor" else 0, pause)
        pausing.count_here(operations)
        try:
            execute(self.run.config, self.run.labels, "paused", Launch(self.folder))
        except BaseException as error:
            self._errors.append(error)
        self.counts["supervisor"] = operations.count

    def begin(self) -> bool:
        """Begin the run; whether it was paused before it was done."""
        number = self.number if self.part == "worker" else 0
        plain = process.train
        process.train = partial(pausing.train, str(self.run.record.path), number, str(self.mark))
        try:
            self._thread.start()
            until(lambda: self._paused.is_set() or self.mark.exists() or not self._thread.is_alive())
            if self.mark.exists():
                until(lambda: is_halted(int(self.mark.read_text())))
        finally:
            process.train = plain
        return self._thread.is_alive()

    def go_on(self) -> None:
        """Continue, to the end."""
        self._continued.set()
        if self.mark.exists():
            os.kill(int(self.mark.read_text()), signal.SIGCONT)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert not self._errors, self._errors
        if (count := self.folder / "paused.count").exists():
            self.counts["worker"] = int(count.read_text())


def pauses(
    folder: Path, overrides: list[str], every: int = 1, first: int = 1, tell: Callable[[str], None] = print
) -> list[str]:
    """Pause a run before each `every`-th operation, let another process finish it, continue it; the differences."""
    with patch.object(lease, "HEARTBEAT", 1e9):  # of the supervising thread, which goes on where a process would not
        return _pauses(folder, overrides, every, first, tell)


def _pauses(folder: Path, overrides: list[str], every: int, first: int, tell: Callable[[str], None]) -> list[str]:
    [planned] = make_plan([*overrides, f"paths.runs={folder / 'undisturbed'}"]).runs
    undisturbed = Owner(planned, "worker", 0, folder / "launch")
    assert not undisturbed.begin()
    undisturbed.go_on()
    expected = contents(folder / "undisturbed")
    [files] = [_names(path) for path in (folder / "undisturbed").iterdir()]
    report = Report()
    for part, count in undisturbed.counts.items():
        for number in range(first, count + 1, every):
            place = folder / f"{part}_{number}"
            config = replace(planned.config, paths=replace(planned.config.paths, runs=str(place)))
            run = replace(planned, config=config)
            owner = Owner(run, part, number, folder / f"launch_{part}_{number}")
            if owner.begin():
                for path in run.record.path.glob("claim.*"):
                    os.utime(path, (1, 1))  # as if it had been silent for longer than a lease lasts
                other = Owner(run, "worker", 0, folder / f"other_{part}_{number}")
                assert not other.begin()
                other.go_on()
                assert run.record.is_done, (part, number, run.record.status())
            owner.go_on()
            before = len(report.differences)
            compare(expected, contents(place), report)
            if (state := run.record.status().get("state")) != "DONE":
                report.differences.append(f"{state}")
            if (left := _names(run.record.path)) != files:
                report.differences.append(f"files {sorted(left ^ files)}")
            report.differences[before:] = [f"{part} {number}: {one}" for one in report.differences[before:]]
            tell(f"{part} {number} of {count}: {len(report.differences)} differences")
            shutil.rmtree(place)
    return report.differences


def _names(record: Path) -> set[str]:
    return {str(path.relative_to(record)) for path in record.rglob("*")}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pauses", action="store_true")
    args = parser.parse_args()
    if args.pauses:
        with tempfile.TemporaryDirectory(prefix="alexlab-pauses-") as folder:
            found = pauses(Path(folder), [*PAUSED, f"data.cache={folder}/cache"])
        print("\n".join(found) or "no differences")
        return int(bool(found))
    print(f"seed {args.seed}", flush=True)
    lines = {
        "one run": SCALE,
        "one run, two loaders": [*SCALE, "data.num_workers=2"],
        "one run, plateau, best weights": [*SCALE, "optim.schedule=plateau", "evaluate.checkpoint=best"],
        "a sweep": ["-m", "seed=0,1,2", *SCALE],
    }
    failed = False
    with tempfile.TemporaryDirectory(prefix="alexlab-chaos-") as folder:
        for number, (name, overrides) in enumerate(lines.items()):
            place = Path(folder) / str(number)
            share = args.kills // len(lines) + (number < args.kills % len(lines))
            report = chaos(
                place,
                [*overrides, f"data.cache={folder}/cache"],
                share,
                args.seed + number,
                tell=lambda told, name=name: print(f"{name}: {told}", flush=True),
            )
            print(f"{name}: {report}", flush=True)
            failed |= bool(report.differences)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
