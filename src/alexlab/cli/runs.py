"""`python src/runs.py`: what there is of records, how two differ, and which can go."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alexlab.cli.tables import new_table, one_a_line
from alexlab.command import as_typed, run_command
from alexlab.compose import Composer, read_config
from alexlab.config import Config, ConfigError, did_you_mean, shown
from alexlab.data.store import gigabytes
from alexlab.progress import Progress
from alexlab.runs import bundle
from alexlab.runs.failure import RESULTS
from alexlab.runs.lease import take
from alexlab.runs.record import DONE, FAILED, RUNNING, Record
from alexlab.study.intervals import paired_difference
from alexlab.tree import flatten

USAGE = """\
usage: python src/runs.py VERB [FILTER=VALUE ...]

Look at records, remove some, or send them to W&B.

  python src/runs.py list                           every run
  python src/runs.py list recipe=demo state=FAILED,PREEMPTED
                                                    some of them
  python src/runs.py show ID                        one run
  python src/runs.py compare ID ID                  in what two runs differ, and
                                                    by how much
  python src/runs.py prune                          remove what failed by fault
                                                    of the machine or the code
  python src/runs.py prune state=DONE ablation='no_*'
                                                    remove just these
  python src/runs.py wandb [logger.project=NAME]    send to W&B, each step once
  python src/runs.py bundle OUT.zip                 plans and finished records,
                                                    without weights, as a file
                                                    for report.py runs=OUT.zip

list, prune, wandb and bundle take filters: state, failure, recipe, protocol,
model, ablation, seed; several values with commas, * for any text. An ID may be
cut short. paths.runs=FOLDER looks elsewhere. prune asks first, unless --yes; it
removes no finished run, and none that was stopped, unless state= names them,
and never one that is under way.
Exit status: 0 done, 1 a file or folder failed, 2 a mistake in the command."""

_REMOVED = ".removed-"
FILTERS = ("state", "failure", "recipe", "protocol", "model", "ablation", "seed")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    is_sure = "--yes" in argv
    arguments = [argument for argument in argv if argument != "--yes"]
    return run_command(arguments, USAGE, ".", lambda given, folder, console: _obey(given, folder, console, is_sure))


def _obey(given: list[str], config_dir: str | None, console: Console, is_sure: bool) -> int:
    verbs: dict[str, Callable[[Request, Console], None]] = {
        "list": _list,
        "show": _show,
        "compare": _compare,
        "prune": _prune,
        "wandb": _wandb,
        "bundle": _bundle,
    }
    if not given:
        console.print(as_typed(USAGE))
        return 0
    if given[0] not in verbs:
        raise ConfigError(f"{given[0]}: is none of {', '.join(verbs)}{did_you_mean(given[0], verbs)}")
    if is_sure and given[0] != "prune":
        raise ConfigError("--yes: only prune asks")
    verbs[given[0]](_request(given[0], given[1:], Composer(config_dir), is_sure), console)
    return 0


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    ids: list[str]
    filters: dict[str, list[str]]
    settings: Config
    is_sure: bool

    @property
    def runs(self) -> Path:
        return Path(self.settings.paths.runs)


def _request(verb: str, given: list[str], composer: Composer, is_sure: bool) -> Request:
    ids = [argument for argument in given if "=" not in argument]
    wanted = {"show": 1, "compare": 2, "bundle": 1}.get(verb, 0)
    if verb == "bundle" and len(ids) != wanted:
        raise ConfigError(f"bundle: takes one file to write, not {len(ids)}; such as bundle study.zip")
    if len(ids) != wanted:
        raise ConfigError(f"{verb}: takes {wanted or 'no'} run id{'s' * (wanted != 1)}, not {len(ids)}")
    filters: dict[str, list[str]] = {}
    others = []
    for argument in given:
        name, sign, value = argument.partition("=")
        if sign and name in FILTERS and verb in ("list", "prune", "wandb", "bundle"):
            filters[name] = [item.strip() for item in value.strip("[]").split(",")]
        elif sign:
            allowed = ("paths.runs", *(("logger.project", "logger.entity") if verb == "wandb" else ()))
            if name not in allowed:
                near = did_you_mean(name, [*FILTERS, *allowed])
                raise ConfigError(f"{argument}: cannot be set here{near}; --help tells what can")
            others.append(argument)
    return Request(ids, filters, composer.job(["logger=wandb", *others]).config, is_sure)


@dataclass(frozen=True)
class Found:
    """A record with what its files say."""

    record: Record
    status: dict[str, Any]
    result: dict[str, Any]
    config: dict[str, Any]  # by dotted key

    @property
    def state(self) -> str:
        return f"{self.status['state']}: {self.status['failure']}" if "failure" in self.status else self.status["state"]

    def facts(self) -> dict[str, str]:
        """What filters look at."""
        labels = {**self.status.get("labels", {}), "seed": str(self.config.get("seed", ""))}
        return {**labels, "state": self.status["state"], "failure": self.status.get("failure", "")}

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.record.path.rglob("*") if path.is_file())


def _read(record: Record) -> Found:
    return Found(record, record.seen(), record.result(), record.keys())


def _records(request: Request) -> list[Found]:
    """The records that pass the filters, those that began first at the head."""
    if (
        not request.runs.is_dir() and request.settings.paths.runs != Config().paths.runs
    ):  # the first run creates that one
        raise ConfigError(f"paths.runs={request.runs}: no such folder")
    found = [_read(Record(request.runs, path.parent.name)) for path in request.runs.glob("*/status.json")]
    passed = [
        one
        for one in found
        if all(
            any(fnmatchcase(one.facts().get(name, ""), value) for value in values)
            for name, values in request.filters.items()
        )
    ]
    return sorted(passed, key=lambda one: one.status.get("started", 0.0))


def _one(request: Request, given: str) -> Found:
    known = sorted(path.parent.name for path in request.runs.glob("*/status.json"))
    fitting = [name for name in known if name.startswith(given)]
    if len(fitting) == 1:
        return _read(Record(request.runs, fitting[0]))
    if fitting:
        raise ConfigError(f"{given}: may be {', '.join(fitting)}; write more of it")
    hint = did_you_mean(given, known) or "; paths.runs=FOLDER looks elsewhere"
    raise ConfigError(f"{given}: there is no such run in {request.runs}{hint}")


def _list(request: Request, console: Console) -> None:
    found = _records(request)
    _print_records(found, "Runs", console)
    states = [one.state for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    console.print(f"{len(found)} runs in {request.runs}{': ' * bool(counts)}{counts}", style="dim", soft_wrap=True)


def _print_records(found: list[Found], title: str, console: Console) -> None:
    table: Table = new_table(title)
    table.add_column("ablation", ratio=1, overflow="fold")
    table.add_column("seed", justify="right")
    table.add_column("recipe")
    table.add_column("state", overflow="fold")
    table.add_column("top-1, %", justify="right", no_wrap=True)
    table.add_column("began", no_wrap=True)
    table.add_column("run id", no_wrap=True)
    for one in found:
        labels = one.status.get("labels", {})
        error = one.result.get("test", {}).get("ten", {}).get("top1_error")
        began = one.status.get("started")
        table.add_row(
            one_a_line(labels.get("ablation", "")),
            str(one.config.get("seed", "")),
            labels.get("recipe", ""),
            one.state,
            "" if error is None else f"{100 * error:.1f}",
            "" if began is None else time.strftime("%m-%d %H:%M", time.localtime(began)),
            one.record.run_id,
        )
    console.print(table)


def _show(request: Request, console: Console) -> None:
    one = _one(request, request.ids[0])
    lines = {"run id": one.record.run_id, "state": one.state}
    lines.update({name: str(one.status[name]) for name in ("message", "hint") if name in one.status})
    lines.update({name: str(value) for name, value in one.status.get("labels", {}).items()})
    lines["seed"] = str(one.config.get("seed", ""))
    lines["attempt"] = str(one.status.get("attempt", ""))
    for name in ("started", "ended"):
        if name in one.status:
            lines[name] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.status[name]))
    for name, value in flatten(one.result).items():
        if not name.startswith(("labels.", "run_id", "status", "seed", "attempt", "version")):
            lines[name] = f"{value:.6g}" if isinstance(value, float) else str(value)
    table = Table.grid(padding=(0, 2))
    for name, value in lines.items():
        table.add_row(name, value)
    console.print(table)
    console.print(f"{one.record.path}/  {gigabytes(one.size())}", style="dim", soft_wrap=True)


def _compare(request: Request, console: Console) -> None:
    one, other = (_one(request, given) for given in request.ids)
    ids = (one.record.run_id, other.record.run_id)
    keys = [name for name in dict.fromkeys([*one.config, *other.config]) if not name.startswith("paths.")]
    differing = [name for name in keys if one.config.get(name) != other.config.get(name)]
    table: Table = new_table("Configuration: what differs")
    for name, side in (("key", "left"), (ids[0], "right"), (ids[1], "right")):
        table.add_column(name, justify=side, overflow="fold")  # pyright: ignore[reportArgumentType]
    for name in differing:
        table.add_row(name, shown(one.config.get(name)), shown(other.config.get(name)))
    console.print(table if differing else "The configurations are the same.")
    console.print()
    table = new_table("Results")
    for name, side in (("", "left"), (ids[0], "right"), (ids[1], "right"), ("difference", "right")):
        table.add_column(name, justify=side, no_wrap=True)  # pyright: ignore[reportArgumentType]
    table.add_row("state", one.state, other.state, "")
    results = [flatten(found.result) for found in (one, other)]
    for name in dict.fromkeys([*results[0], *results[1]]):
        values = [result.get(name) for result in results]
        is_error = name.endswith("_error")
        if not (is_error or name in ("train.center.loss", "epochs", "steps", "parameters", "seconds")):
            continue
        cells = ["" if value is None else f"{100 * value:.2f} %" if is_error else f"{value:,.6g}" for value in values]
        table.add_row(name, *cells, _difference(name, values, one, other))
    console.print(table)
    console.print("±: 95 % interval over the test images alone; seeds differ too.", style="dim")


def _difference(name: str, values: list[Any], one: Found, other: Found) -> str:
    if None in values:
        return ""
    change = values[1] - values[0]
    if not name.endswith("_error"):
        return f"{change:+,.6g}"
    same_images = one.result["data"]["store"] == other.result["data"]["store"]
    if not name.startswith("test.") or not same_images:
        return f"{100 * change:+.2f}"
    kind, count = name.split(".")[1], 1 if "top1" in name else 5
    first, second = (_wrong(found, kind, count) for found in (one, other))
    difference, half = paired_difference(second, first)
    return f"{100 * difference:+.2f} ± {100 * half:.2f}"


def _wrong(found: Found, kind: str, count: int) -> np.ndarray:
    with np.load(found.record.file("predictions.npz")) as arrays:
        return (arrays[f"{kind}_top5"][:, :count] != arrays["labels"][:, None]).all(1)


def _prune(request: Request, console: Console) -> None:
    for half in request.runs.glob(f"{_REMOVED}*"):
        shutil.rmtree(half)  # of a prune that was stopped
    found = [one for one in _records(request) if one.status["state"] != RUNNING]
    if "state" not in request.filters:
        found = [one for one in found if one.status["state"] == FAILED and one.status.get("failure") not in RESULTS]
    if not found:
        console.print("There is nothing to remove.")
        return
    _print_records(found, "To be removed", console)
    size = gigabytes(sum(one.size() for one in found))
    done = sum(one.status["state"] == DONE for one in found)
    warning = f", {done} of them FINISHED," if done else ""
    if not request.is_sure:
        if not sys.stdin.isatty():
            raise ConfigError("prune: asks before it removes anything, and nobody is there; --yes says yes")
        if input(f"Remove {len(found)} records{warning} of {size}? [y/N] ").strip().lower() not in ("y", "yes"):
            console.print("Nothing is removed.")
            return
    removed = 0
    for one in found:
        lease = take(one.record.path, one.status.get("attempt", 0))  # nobody begins it meanwhile
        if lease is None or one.record.status().get("attempt") != one.status.get("attempt"):
            console.print(f"{one.record.run_id}: is being worked on, and stays")
            if lease is not None:
                lease.release()
            continue
        gone = one.record.path.with_name(f"{_REMOVED}{one.record.run_id}")
        one.record.path.replace(gone)  # at once, or somebody could begin the run amid what is being removed
        shutil.rmtree(gone)
        removed += 1
    console.print(f"Removed {removed} records, {size}.")


def _wandb(request: Request, console: Console) -> None:
    from alexlab.runs import trackers

    found = [one for one in _records(request) if one.record.file("metrics.csv").is_file()]
    free = [one for one in found if one.status["state"] != RUNNING]
    if len(free) < len(found):
        console.print(f"{len(found) - len(free)} runs are under way and left out.")
    mode = trackers.wandb_mode()
    todo = [one for one in free if not trackers.is_copied(one.record, mode)]
    sent = 0
    with Progress("Sending to W&B", len(todo), unit="runs") as progress:
        for one in todo:
            config = read_config(one.record.file("config.yaml"), stored=False)
            config.logger = request.settings.logger
            sent += trackers.publish(config, one.record)
            progress.advance(1)
    kept = f", {len(free) - len(todo)} were there before" if len(todo) < len(free) else ""
    console.print(f"{sent} of {len(todo)} runs sent to W&B ({mode}){kept}.")


def _bundle(request: Request, console: Console) -> None:
    """Write what is finished, or failed as a result, with all plans."""
    out = Path(request.ids[0]).expanduser()
    ended = [
        one
        for one in _records(request)
        if one.status["state"] == DONE or (one.status["state"] == FAILED and one.status.get("failure") in RESULTS)
    ]
    if not ended:
        raise ConfigError(f"bundle: no finished run in {request.runs}")
    bundle.pack(out, request.runs, [one.record.run_id for one in ended])
    console.print(f"{len(ended)} runs in {out}, {gigabytes(out.stat().st_size)}", soft_wrap=True)
