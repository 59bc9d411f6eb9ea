"""`alexlab runs watch`: a live table of a sweep or study, in another terminal or on another machine.

It only reads records and plans. A record's file is read again only when it has changed, and a finished record never, so
each update of thousands of runs costs only a few stat calls per run.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Group
from rich.live import Live
from rich.text import Text

from alexlab.cli.columns import Column, laid_out
from alexlab.command import as_typed, exit_status, given_values
from alexlab.config import Config, ConfigError, Rate
from alexlab.console import Console, duration, plural, printable_line
from alexlab.errors import UserError
from alexlab.files import json_files, read_regular
from alexlab.runs.failure import RESULTS
from alexlab.runs.lease import EXPIRY, HEARTBEAT
from alexlab.runs.record import DONE, FAILED, PREEMPTED, RUNNING, Record, find_record, find_records
from alexlab.study.own_rates import with_choices
from alexlab.study.plans import read_looks
from alexlab.study.sweeps import LAST, find_sweep, read_sweep_file

USAGE = """\
usage: python src/runs.py watch [sweep=ID|sweep=last|study=NAME|ID ...] [--once]

A live table of runs: state, epoch, validation error and its best, images per
second, age of the last sign of life, and when all are expected to end.
It only reads records, here or on another machine; Ctrl-C ends it.

  python src/runs.py watch                          the last sweep; all records if
                                                    there was none
  python src/runs.py watch sweep=4f1f02bb1c3d       another one: a file's name in
                                                    <paths.runs>/sweeps
  python src/runs.py watch study=lrn                all runs of a study's plan
  python src/runs.py watch ID ID                    these runs; an ID may be
                                                    abbreviated
  python src/runs.py watch --once                   print it once, for scripts

every=SECONDS between updates (default 2). paths.runs=FOLDER looks elsewhere.
Exit status: 0 all is done, or stopped from the keyboard, 2 a mistake in the
command."""

WAITING = "waiting"  # planned, without a record
SILENT = 3 * HEARTBEAT  # seconds without a heartbeat after which the lease's owner is looked for
_ORDER = (RUNNING, FAILED, PREEMPTED, WAITING, DONE)
_CONFIG = re.compile(r"^  (max_epochs|batch_size): (\d{1,9})$", re.MULTILINE)
_MAX_CONFIG = 2**20  # bytes


@dataclass(frozen=True)
class Run:
    """A run as the table shows it."""

    run_id: str
    what: str = ""
    seed: str = ""
    arm: str = ""
    state: str = WAITING
    failure: str = ""
    epoch: int = 0
    epochs: int | None = None
    error: float | None = None
    best: float | None = None
    rate: float | None = None  # images per second, over the whole run
    started: float | None = None
    seconds: float | None = None  # from the run's start to its end
    sign: float | None = None  # when it last showed a sign of life


class Watcher:
    """The `planned` runs, or all of a folder's; `look` returns their current state."""

    def __init__(self, runs: Path, planned: list[Run] | None) -> None:
        self.planned = planned
        self._runs = runs
        self._seen: dict[str, tuple[tuple[object, ...], Run]] = {}  # by run id, with the stamps of the files read
        self.reads = 0  # records read so far

    def look(self) -> list[Run]:
        """The current state of each run."""
        planned = self.planned
        if planned is None:
            planned = [Run(record.run_id) for record in find_records(self._runs)]
        return [self._look(run) for run in planned]

    def _look(self, planned: Run) -> Run:
        folder = self._runs / planned.run_id
        stamps = (_stamp(folder / "status.json"), _stamp(folder / "metrics.csv"))
        if stamps[0] is None:
            return planned
        before = self._seen.get(planned.run_id)
        if before is not None and before[0] == stamps:
            run = before[1]
        else:
            self.reads += 1
            try:
                run = _read(Record(self._runs, planned.run_id), planned)
            except (UserError, OSError) as error:
                run = replace(planned, state=FAILED, failure=printable_line(error)[:80])
            self._seen[planned.run_id] = stamps, run
        return self._alive(run) if run.state == RUNNING else run

    def _alive(self, run: Run) -> Run:
        """A running run with its last sign of life; FAILED (killed) if its process is known to be gone."""
        folder, signs = self._runs / run.run_id, [run.started or 0.0]
        with suppress(OSError), os.scandir(folder) as entries:
            signs += [entry.stat().st_mtime for entry in entries if entry.name.startswith(("claim.", "metrics."))]
        sign = max(signs)
        if time.time() - sign > SILENT:
            with suppress(UserError, OSError):
                seen = Record(self._runs, run.run_id).seen()
                return replace(run, state=seen.get("state", WAITING), failure=seen.get("failure", ""), sign=sign)
        return replace(run, sign=sign)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _read(record: Record, planned: Run) -> Run:
    status, rows = record.status(), record.rows()
    text = read_regular(record.file("config.yaml"), _MAX_CONFIG).decode("utf-8-sig", "replace")
    lengths = {name: int(value) for name, value in _CONFIG.findall(text)}
    errors = [error for row in rows if (error := row.get("val_top1_error")) is not None]
    started, ended = status.get("started"), status.get("ended")
    seconds = None
    state = status.get("state", WAITING)  # its record may just have been removed
    if state == DONE:
        seconds = record.result().get("seconds")
    elif rows and started is not None and status.get("attempt") == 1:  # a resumed run began in the middle
        seconds = record.file("metrics.csv").stat().st_mtime - started
    images = (rows[-1].get("step") or 0) * lengths.get("batch_size", 0) if rows else 0
    labels = status.get("labels", {})
    return replace(
        planned,
        what=planned.what or labels.get("ablation", ""),
        seed=planned.seed or (found[1] if (found := re.search(r"^seed: (\d{1,19})$", text, re.MULTILINE)) else ""),
        arm=planned.arm or labels.get("arm", ""),
        state=state,
        failure=status.get("failure", ""),
        epoch=int(rows[-1].get("epoch") or 0) if rows else 0,
        epochs=lengths.get("max_epochs"),
        error=errors[-1] if errors else None,
        best=min(errors, default=None),
        rate=images / seconds if images and seconds else None,
        started=started,
        seconds=seconds if state == DONE else None,
        sign=ended,
    )


def seconds_left(runs: list[Run], now: float) -> tuple[float, str] | None:
    """Estimate the seconds until all runs are done, and name the basis; None if there is no basis.

    A running run is extrapolated from its own epochs so far, if it has any. Any other run takes the median time of its
    arm's finished runs, else of all finished ones, else of the running ones. As many run at a time as do now.
    """
    done = [run for run in runs if run.state == DONE and run.seconds]
    by_arm: dict[str, list[float]] = {}
    for run in done:
        by_arm.setdefault(run.arm, []).append(run.seconds or 0)
    typical = median([run.seconds or 0 for run in done]) if done else None
    running = [run for run in runs if run.state == RUNNING]
    waiting = [run for run in runs if run.state in (WAITING, PREEMPTED)]
    left: list[float] = []
    for run in running:
        elapsed = _elapsed(run, now)
        total = median(by_arm[run.arm]) if run.arm in by_arm else typical
        if run.epoch and run.epochs and run.rate:  # its own progress is the better basis
            total = elapsed / run.epoch * run.epochs
        if total is None:
            return None
        left.append(max(0.0, total - elapsed))
    if waiting and typical is None:
        full = [seconds + _elapsed(run, now) for seconds, run in zip(left, running, strict=True)]
        if not full:
            return None
        typical = median(full)
    later = sum(median(by_arm[run.arm]) if run.arm in by_arm else typical or 0 for run in waiting)
    seconds = max([*left, (sum(left) + later) / max(1, len(running))])
    name = plural(len(done), "finished run") if done else "the epochs so far"
    return seconds, name


def _elapsed(run: Run, now: float) -> float:
    return 0.0 if run.started is None else now - run.started


def is_over(runs: list[Run]) -> bool:
    """Whether no run will change any more, unless a command is run again."""
    return not any(run.state in (RUNNING, WAITING) for run in runs)


def shown(runs: list[Run], now: float, title: str, width: int, height: int | None = None) -> Group:
    """The table, of at most `height` rows, and the forecast."""
    runs, shared = _without_shared(runs)
    keys = {run.what.partition("=")[0] if run.what.count("=") == 1 else "" for run in runs}
    key = keys.pop() if len(keys) == 1 else ""  # the only one that varies, which is the heading
    names = ("seed", "state", "epoch", "val %", "best %", "images/s", "sign of\nlife", "run id")
    ranks = {"images/s": 2, "sign of\nlife": 1}
    what = Column(key or "what", wraps=True)
    columns = [
        Column(name, right=name not in ("state", "run id"), rank=ranks.get(name, 0), wraps=name == "state")
        for name in names
    ]
    ordered = sorted(runs, key=lambda run: _ORDER.index(run.state) if run.state in _ORDER else 0)
    for run in ordered[:height]:
        what.cells.append(run.what.removeprefix(f"{key}="))
        for column, cell in zip(columns, (run.seed, *_cells(run, now), run.run_id), strict=True):
            column.cells.append(cell)
    table = columns if shared and not any(what.cells) else [what, *columns]  # without `what`, only the seeds vary
    lines = [f"{len(ordered) - len(what.cells)} more"] if len(what.cells) < len(ordered) else []
    counts = ", ".join(f"{number} {state}" for state in _ORDER if (number := sum(one.state == state for one in runs)))
    lines.append(f"{plural(len(runs), 'run')}: {counts}" if runs else "There is no record yet.")
    if not is_over(runs) and (forecast := seconds_left(runs, now)) is not None:
        seconds, source = forecast
        end = time.strftime("%a %H:%M", time.localtime(now + seconds))
        lines.append(f"All done in about {duration(seconds)} ({end}), from {source}")
    above = [Text(f"Settings: {' '.join(shared)}", "dim")] if shared else []
    return Group(*above, laid_out(title, table, width), Text("\n".join(lines)))


def _without_shared(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """The runs named by what differs between them, and the settings that all of them share.

    Names of a single setting are unchanged: its key is the heading of their column.
    """
    words = [run.what.split() for run in runs]
    if max(map(len, words), default=0) < 2 or any(one.count("[") != one.count("]") for line in words for one in line):
        return runs, []
    shared = [one for one in words[0] if "=" in one and all(one in line for line in words)]
    names = [" ".join(one for one in line if one not in shared) for line in words]
    return [replace(run, what=name) for run, name in zip(runs, names, strict=True)], shared


def _cells(run: Run, now: float) -> list[str]:
    sign = ""
    if run.state == RUNNING and run.sign is not None:
        sign = f"{duration(max(0.0, now - run.sign))}{' !' * (now - run.sign > EXPIRY)}"
    return [
        f"{run.state}: {run.failure}" if run.failure else run.state,
        f"{run.epoch}/{run.epochs}" if run.epochs else "",
        "" if run.error is None else f"{100 * run.error:.1f}",
        "" if run.best is None else f"{100 * run.best:.1f}",
        "" if run.rate is None else f"{run.rate:,.0f}",
        sign,
    ]


def main(argv: list[str]) -> int:
    """Run a command line; return its exit status."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--once", action="store_true")
    args, unknown = parser.parse_known_intermixed_args(argv)
    console = Console()

    def command() -> int:
        if args.help:
            console.print(as_typed(USAGE))
            return 0
        if unknown:
            raise UserError(f"{unknown[0]}: there is no such flag here; --help lists all")
        return _watch(args.words, args.once or not console.is_terminal, console)

    return exit_status(command)


def _watch(words: list[str], is_once: bool, console: Console) -> int:
    keys = given_values(words)
    ids = [word for word in words if "=" not in word]
    for name in keys:
        if name not in ("sweep", "study", "paths.runs", "every"):
            raise UserError(f"{name}={keys[name]}: cannot be set here; watch takes sweep, study, paths.runs and every")
    if bool(ids) + ("sweep" in keys) + ("study" in keys) > 1:
        raise UserError("give only one of sweep=, study= and run ids")
    try:
        every = float(keys.get("every", 2))
    except ValueError:
        every = 0.0
    if not 0.1 <= every <= 3600:
        raise UserError(f"every={keys['every']}: must be a number of seconds from 0.1 to 3600")
    runs = Path(keys.get("paths.runs", Config().paths.runs)).expanduser().absolute()
    if not runs.is_dir():
        raise ConfigError(f"paths.runs={runs}: no such folder")
    asked = _asked(runs, ids, keys)
    watcher = Watcher(runs, asked.runs)
    found = watcher.look()
    if is_once:
        console.print(shown(found, time.time(), asked.title, console.width))
        return 0
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            height = max(1, console.height - 6)
            live.update(shown(found, time.time(), asked.title, console.width, height), refresh=True)
            if is_over(found) and not _has_more(found, asked.trials):
                return 0
            time.sleep(every)
            if "study" in keys:  # its search for learning rates may have planned more trials
                asked = _asked(runs, ids, keys)
                watcher.planned = asked.runs
            found = watcher.look()
    return 0


@dataclass(frozen=True)
class Asked:
    """What a command line asks for."""

    title: str
    runs: list[Run] | None  # None: all records
    trials: frozenset[str] = frozenset()  # run ids of unfinished searches for learning rates


def _has_more(found: list[Run], trials: frozenset[str]) -> bool:
    """Whether a search plans its next trials now; it does not after a trial that failed without a result."""
    return bool(trials) and all(run.state == DONE or run.failure in RESULTS for run in found if run.run_id in trials)


def _asked(runs: Path, ids: list[str], keys: dict[str, str]) -> Asked:
    if ids:
        return Asked("Runs", [Run(find_record(runs, one).run_id) for one in ids])
    if "study" in keys:
        return _study(runs, keys["study"])
    if "sweep" not in keys and not json_files(runs / "sweeps"):
        return Asked(f"Runs of {runs}", None)
    sweep = read_sweep_file(find_sweep(keys.get("sweep", LAST), runs))
    planned = [
        Run(
            run["run_id"],
            run.get("varied", ""),
            "" if run["seed"] is None else str(run["seed"]),
            run.get("arm", ""),
        )
        for run in sweep["runs"]
    ]
    return Asked(f"Sweep {sweep['sweep_id']}", planned)


def _study(runs: Path, name: str) -> Asked:
    """The runs of the last look of each plan of a study; `name`: its name, or its id."""
    start = re.sub(r"-choose-\w{6}$", "", name)  # with the plan that follows from a search
    paths = [path for path in json_files(runs / "studies") if path.stem.startswith(start)]  # others may be corrupt
    started = {path.stem: read_looks(path) for path in paths}
    found: dict[str, Run] = {}
    trials: set[str] = set()
    for looks in started.values():
        plan = with_choices(looks[-1], started)
        if name not in (plan["name"], plan["id"]):
            continue
        planned = [Run(run_id, arm["name"], seed) for arm in plan["arms"] for seed, run_id in arm["runs"].items()]
        found |= {run.run_id: run for run in planned if run.run_id not in found}
        if plan["rate"] == Rate.choose.name and any(
            rate["lr"] is rate["warning"] is None for rate in plan.get("rates", ())
        ):
            trials.update(run.run_id for run in planned)
    if not found:
        raise UserError(f"study={name}: has no plan in {runs / 'studies'}; paths.runs=FOLDER looks elsewhere")
    return Asked(f"Study {name}", list(found.values()), frozenset(trials))
