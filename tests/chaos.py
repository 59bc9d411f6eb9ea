"""Kill a command at random moments, type it again until it is done, and compare what it leaves with the undisturbed.

    python tests/chaos.py --kills 200 --seed 0      (make chaos KILLS=200)

Moments are drawn over the whole life of a training process: start, steps, saves, validation, evaluation, last writes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conftest import TINY
from launched import PATIENCE, descendants, start

SCALE = [*TINY, "data.train_images=120", "trainer.max_epochs=10", "checkpoint.every_steps=1"]
# What ends the command: its training process is killed, or all of it, as when a machine stops; or it is asked to stop,
# by a signal to the command or, as clusters do it, to all of its processes.
MEANS = ("worker", "all", "SIGTERM", "SIGINT", "SIGUSR1", "SIGTERM to all")


def content(record: Path) -> dict[str, Any]:
    """What a finished run leaves, in a form that compares by bits."""
    found: dict[str, Any] = {"metrics.csv": (record / "metrics.csv").read_bytes()}
    for name in ("last", "best"):
        state = torch.load(record / "checkpoints" / f"{name}.ckpt")["state_dict"]
        found.update({f"{name} {key}": value.numpy().tobytes() for key, value in state.items()})
    with np.load(record / "predictions.npz") as arrays:
        found.update({f"predictions {key}": value.tobytes() for key, value in arrays.items()})
    result = json.loads((record / "result.json").read_text())
    found.update({key: result[key] for key in ("run_id", "epochs", "steps", "test", "train", "data")})
    return found


def contents(runs: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: content(path.parent) for path in sorted(runs.glob("*/result.json"))}


@dataclass
class Command:
    """One command line, to be broken off and typed again."""

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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
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
