"""`alexlab runs`: list and watch records, compare two, remove some, send or bundle them."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from alexlab.cli import watch
from alexlab.cli.columns import Column, factor_columns, print_columns
from alexlab.cli.tables import effect_shown, spread
from alexlab.command import as_typed, run_command
from alexlab.compose import Composer, read_config
from alexlab.config import Config, ConfigError, did_you_mean, shown
from alexlab.console import Console, duration, plural, wrap
from alexlab.data.store import gigabytes
from alexlab.errors import UserError
from alexlab.files import json_files, write_atomic
from alexlab.progress import Progress
from alexlab.runs import bundle
from alexlab.runs.failure import RESULTS
from alexlab.runs.lease import take
from alexlab.runs.names import BASE, RunName, run_name
from alexlab.runs.record import FAILED, RUNNING, Record, find_record, find_records
from alexlab.study.intervals import paired_difference
from alexlab.study.plans import read_looks
from alexlab.study.records import RunData, one_line
from alexlab.study.sweeps import LAST, Sweep, load_sweep, read_sweep
from alexlab.tree import NUMBER, flatten

USAGE = """\
usage: python src/runs.py VERB [FILTER=VALUE ...]

Look at records, remove some, or send them to W&B.

  python src/runs.py list                           every run
  python src/runs.py list recipe=demo state=FAILED,PREEMPTED
                                                    some of them
  python src/runs.py watch [--once]                 a sweep or study, while it
                                                    runs (watch --help)
  python src/runs.py show ID                        one run
  python src/runs.py compare ID ID                  in what two runs differ, and
                                                    by how much; or two sweeps,
                                                    arm by arm
  python src/runs.py export sweep=last OUT.csv      a sweep as a table, a row a
                                                    run; or sweep=ID, .parquet
  python src/runs.py prune                          remove what failed by fault
                                                    of the machine or the code
  python src/runs.py prune state=DONE ablation='no_*'
                                                    remove just these
  python src/runs.py wandb [logger.project=NAME]    send to W&B, each step once
  python src/runs.py bundle OUT.zip [submitter=NAME]
                                                    plans and finished records,
                                                    without weights, as a file
                                                    for report.py runs=OUT.zip
  python src/runs.py studies                        the plans of studies
  python src/runs.py forget STUDY                   remove a mistaken plan, if
                                                    no run of it is finished

list, prune, wandb and bundle take filters: state, failure, recipe, protocol,
model, ablation, seed; several values with commas, * for any text. An ID may be
cut short; a sweep's is that of its file in runs/sweeps/, or last.
paths.runs=FOLDER looks elsewhere. prune asks first, unless --yes; it
removes no finished run, and none that was stopped, unless state= names them,
and never one that is running. A corrupt record is named and left out.
Exit status: 0 done, 1 a file or folder failed, 2 a mistake in the command."""

_TESTED = [f"test.{view}.{metric}" for view in ("ten", "center") for metric in ("top1_error", "top5_error")]
_REMOVED = re.compile(r"\.removed-[0-9a-f]{12}")  # a record on its way out
_LONGEST_LABEL, _LONGEST_ARM = 2000, 200  # characters: a record may come from anyone
_WRITERS = {"bundle": "bundle study.zip", "export": "export sweep=last OUT.csv"}
FILTERS = ("state", "failure", "recipe", "protocol", "model", "ablation", "seed")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["watch"]:
        return watch.main(argv[1:])
    is_sure = "--yes" in argv
    arguments = [argument for argument in argv if argument != "--yes"]
    return run_command(arguments, USAGE, ".", lambda given, folder, console: _obey(given, folder, console, is_sure))


def _obey(given: list[str], config_dir: str | None, console: Console, is_sure: bool) -> int:
    verbs: dict[str, Callable[[Request, Console], None]] = {
        "list": _list,
        "show": _show,
        "compare": _compare,
        "export": _export,
        "prune": _prune,
        "wandb": _wandb,
        "bundle": _bundle,
        "studies": _studies,
        "forget": _forget,
    }
    if not given:
        console.print(as_typed(USAGE))
        return 0
    if given[0] not in verbs:
        raise UserError(f"{given[0]}: is none of {', '.join(verbs)}{did_you_mean(given[0], verbs)}")
    if is_sure and given[0] != "prune":
        raise UserError("--yes: only prune asks")
    verbs[given[0]](_request(given[0], given[1:], Composer(config_dir), is_sure), console)
    return 0


@dataclass(frozen=True)
class Request:
    """A command line, parsed."""

    ids: list[str]
    filters: dict[str, list[str]]
    settings: Config
    is_sure: bool
    submitter: str | None = None  # of a bundle
    sweep: str | None = None  # of `export`

    @property
    def runs(self) -> Path:
        return Path(self.settings.paths.runs)


def _request(verb: str, given: list[str], composer: Composer, is_sure: bool) -> Request:
    ids = [argument for argument in given if "=" not in argument]
    wanted = {"show": 1, "compare": 2, "bundle": 1, "export": 1, "forget": 1}.get(verb, 0)
    if verb == "forget" and len(ids) != wanted:
        raise UserError(f"forget: takes the id of one study, not {len(ids)}; `studies` lists them")
    if verb in _WRITERS and len(ids) != wanted:
        raise UserError(f"{verb}: takes one file to write, not {len(ids)}; such as {_WRITERS[verb]}")
    if len(ids) != wanted:
        raise UserError(f"{verb}: takes {wanted or 'no'} run id{'' if wanted == 1 else 's'}, not {len(ids)}")
    filters: dict[str, list[str]] = {}
    others, submitter, sweep = [], None, None
    for argument in given:
        name, sign, value = argument.partition("=")
        if sign and name == "submitter" and verb == "bundle":
            submitter = " ".join(value.split())
        elif sign and name in FILTERS and verb in ("list", "prune", "wandb", "bundle"):
            value = value.upper() if name == "state" else value
            filters[name] = [item.strip() for item in value.strip("[]").split(",")]
        elif sign and name == "sweep" and verb == "export":
            if sweep is not None:
                raise UserError("sweep= is given twice; one table is of one sweep")
            sweep = value
        elif sign:
            allowed = ("paths.runs", *(("logger.project", "logger.entity") if verb == "wandb" else ()))
            if name not in allowed:
                near = did_you_mean(name, [*FILTERS, *allowed])
                raise UserError(f"{argument}: cannot be set here{near}; --help lists what can")
            others.append(argument)
    return Request(ids, filters, composer.job(["logger=wandb", *others]).config, is_sure, submitter, sweep)


def _facts(run: RunData) -> dict[str, str]:
    """What filters look at."""
    return {**run.labels, "seed": _seed(run), "state": run.status["state"], "failure": run.status.get("failure", "")}


def _name(run: RunData) -> RunName:
    """The run's name; its configuration is read only where its label spells changes."""
    label = run.status.get("labels", {}).get("ablation", "")[:_LONGEST_LABEL]
    if "=" not in label:
        return run_name(label)
    try:
        return run_name(label, run.keys)
    except (UserError, OSError):
        return run_name(label)


def _passes(name: str, values: list[str], facts: dict[str, str], run: RunData) -> bool:
    given = [facts.get(name, ""), *([_name(run).arm] if name == "ablation" else [])]
    return any(fnmatchcase(one, value) for one in given for value in values)


def _seed(run: RunData) -> str:
    return "" if run.seed is None else str(run.seed)


def _size(run: RunData) -> int:
    return sum(path.stat().st_size for path in run.record.path.rglob("*") if path.is_file())


def _check_folder(request: Request) -> None:
    is_default = request.settings.paths.runs == Config().paths.runs  # which the first run creates
    if not request.runs.is_dir() and not is_default:
        raise ConfigError(f"paths.runs={request.runs}: no such folder")


def _read_runs(request: Request, console: Console) -> list[RunData]:
    """The runs that pass the filters, by when they started; records that cannot be read are named."""
    _check_folder(request)
    passed = []
    for record in find_records(request.runs):
        try:
            run = RunData(record, record.seen())
            if not run.status:
                continue  # removed meanwhile
            facts = _facts(run)
        except (UserError, OSError) as error:
            console.print(one_line(record, error), soft_wrap=True)
            continue
        if all(_passes(name, values, facts, run) for name, values in request.filters.items()):
            passed.append(run)
    return sorted(passed, key=lambda run: run.status.get("started", 0.0))


def _one(request: Request, given: str) -> RunData:
    record = find_record(request.runs, given)
    return RunData(record, record.seen())


def _list(request: Request, console: Console) -> None:
    found = _read_runs(request, console)
    _print_runs(found, "Runs", console)
    states = [run.state for run in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    runs = plural(len(found), "run")
    console.say(f"{runs} in {request.runs}{': ' * bool(counts)}{counts}", "dim")


def _print_runs(found: list[RunData], title: str, console: Console) -> None:
    arm, seed, recipe = Column("arm", wraps=True), Column("seed", right=True), Column("recipe", rank=2)
    state, error = Column("state", wraps=True), Column("top-1, %", right=True)
    time_, began, run_id = Column("time", right=True, rank=3), Column("began", rank=1), Column("run id")
    names = [_name(run) for run in found]
    own = [{**name.changes, **name.settings} for name in names]
    shared = {key: value for key, value in (own[0] if own else {}).items() if all(one.get(key) == value for one in own)}
    for run, name, changes in zip(found, names, own, strict=True):
        top1 = run.result.get("test", {}).get("ten", {}).get("top1_error")
        start, seconds = run.status.get("started"), run.result.get("seconds")
        lines = [*name.ablations, *(f"{key}={value}" for key, value in changes.items() if key not in shared)]
        arm.cells.append((" ".join(lines) or BASE)[:_LONGEST_ARM])
        seed.cells.append(_seed(run))
        recipe.cells.append(run.labels.get("recipe", ""))
        state.cells.append(run.state)
        error.cells.append("" if top1 is None else f"{100 * top1:.1f}")
        time_.cells.append("" if seconds is None else duration(seconds))
        began.cells.append("" if start is None else time.strftime("%m-%d %H:%M", time.localtime(start)))
        run_id.cells.append(run.run_id)
    if shared:
        console.say(f"Settings: {' '.join(f'{key}={value}' for key, value in shared.items())}", "dim")
    print_columns(title, [arm, seed, recipe, state, error, time_, began, run_id], console)


def _show(request: Request, console: Console) -> None:
    one = _one(request, request.ids[0])
    name = _name(one)
    lines = {"run id": one.run_id, "state": one.state}
    lines.update({key: str(one.status[key]) for key in ("message", "hint") if key in one.status})
    lines.update(one.labels)
    lines.update({"ablation": name.arm, "settings": name.noted} if name.settings else {"ablation": name.arm})
    lines["seed"] = _seed(one)
    lines["attempt"] = str(one.status.get("attempt", ""))
    for key in ("started", "ended"):
        if key in one.status:
            lines[key] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.status[key]))
    for key, value in flatten(one.result).items():
        if not key.startswith(("labels.", "run_id", "status", "seed", "attempt", "version")):
            lines[key] = f"{value:.6g}" if isinstance(value, float) else str(value)
    if one.result.get("seconds", 0) >= 60:
        lines["seconds"] += f" ({duration(one.result['seconds'])})"
    width = max(map(len, lines))
    for key, value in lines.items():
        first, *rest = wrap(value, max(console.width - width - 2, 1))
        console.print("\n".join([f"{key:{width}}  {first}".rstrip(), *(" " * (width + 2) + line for line in rest)]))
    console.print(f"{one.record.path}/  {gigabytes(_size(one))}", style="dim", soft_wrap=True)


def _compare(request: Request, console: Console) -> None:
    if sweeps := _sweeps(request):
        _compare_sweeps(sweeps, console)
        return
    one, other = (_one(request, given) for given in request.ids)
    ids = (one.run_id, other.run_id)
    keys = [name for name in dict.fromkeys([*one.keys, *other.keys]) if not name.startswith("paths.")]
    differing = [name for name in keys if one.keys.get(name) != other.keys.get(name)]
    columns = [Column("key", wraps=True), *(Column(run_id, right=True, wraps=True) for run_id in ids)]
    for name in differing:
        for column, cell in zip(columns, (name, *(shown(run.keys.get(name)) for run in (one, other))), strict=True):
            column.cells.append(cell)
    if differing:
        print_columns("Configuration: what differs", columns, console)
    else:
        console.print("The configurations are the same.")
    console.print()
    columns = [Column("", wraps=True), *(Column(run_id, right=True, wraps=True) for run_id in ids)]
    columns.append(Column("difference", right=True))
    rows = [("state", one.state, other.state, "")]
    results = [flatten(run.result) for run in (one, other)]
    for name in dict.fromkeys([*results[0], *results[1]]):
        values = [result.get(name) for result in results]
        is_error = name.endswith("_error")
        is_shown = is_error or name in ("train.center.loss", "epochs", "steps", "parameters", "seconds")
        if not is_shown or not all(value is None or NUMBER.holds(value) for value in values):
            continue
        first, second = (
            "" if value is None else f"{100 * value:.2f} %" if is_error else f"{value:,.6g}" for value in values
        )
        rows.append((name, first, second, _difference(name, values, one, other)))
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            column.cells.append(cell)
    print_columns("Results", columns, console)
    console.say("±: 95 % interval over the test images alone; it does not cover seeds.", "dim")


def _sweeps(request: Request) -> list[Sweep]:
    """The sweeps that both ids name; empty if they name runs."""
    known = [path.stem for path in json_files(request.runs / "sweeps")]
    is_sweep = [
        given == LAST or given.endswith(".json") or any(name.startswith(given) for name in known)
        for given in request.ids
    ]
    runs = [record.run_id for record in find_records(request.runs)]
    if not all(is_sweep) or any(name.startswith(given) for given in request.ids for name in runs):
        return []
    return [read_sweep(given, request.runs) for given in request.ids]


def _compare_sweeps(sweeps: list[Sweep], console: Console) -> None:
    from alexlab.study.sweep_statistics import compare  # SciPy takes a second to import

    one, other = sweeps
    if set(one.factors) != set(other.factors):
        factors = ["; ".join([", ".join(sweep.factors) or "seeds alone"]) for sweep in sweeps]
        raise UserError(
            f"compare: {one.sweep_id} varies {factors[0]}, {other.sweep_id} {factors[1]}; compare sweeps of the same "
            "factors, or runs by their ids"
        )
    found = compare(one.arms(), other.arms())
    if not found.cells:
        raise UserError(f"compare: {one.sweep_id} and {other.sweep_id} have no arm in common")
    factors = factor_columns(one.factors or ["run"])
    columns = [Column(f"top-1\n{sweep.sweep_id}", right=True) for sweep in sweeps]
    seeds, difference = Column("seeds", right=True, rank=1), Column("difference", right=True)
    for cell in found.cells:
        for column in factors:
            column.cells.append(cell.values.get(column.heading, "all"))
        for column, values in zip(columns, cell.errors, strict=True):
            column.cells.append(spread(values))
        seeds.cells.append(" / ".join(str(len(values)) for values in cell.errors))
        if cell.shares_runs:
            difference.cells.append("same runs")
        elif cell.effect is not None:
            difference.cells.append(effect_shown(cell.effect))
        elif cell.images is not None:
            difference.cells.append("{:+.1f} ±{:.1f} *".format(*(100 * value for value in cell.images)))
        else:
            difference.cells.append("")
    columns = [*factors, *columns, seeds, difference]
    print_columns("Ten views, top-1 error, %: each arm of both sweeps", columns, console)
    number = sum(cell.effect is not None for cell in found.cells)
    if number:
        whose = "the difference" if number == 1 else f"all {number} differences at once"
        console.say(f"±: 95 % interval of {whose}, for new seeds and new test images.", "dim")
    if any(cell.images is not None for cell in found.cells):
        console.say("*: one seed; the interval is over the test images alone and does not cover seeds.", "dim")
    if found.differing:
        changes = (f"{name} {shown(before)} → {shown(after)}" for name, (before, after) in found.differing.items())
        console.say(f"All arms differ in: {', '.join(changes)}.", "dim")
    for sweep, alone in zip(sweeps, found.alone, strict=True):
        if alone:
            console.say(f"Only in {sweep.sweep_id}: {'; '.join(alone)}.", "dim")
    for problem in found.problems:
        console.say(problem, "dim")


def _export(request: Request, console: Console) -> None:
    out = Path(request.ids[0]).expanduser()
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"export: {out} is neither .csv nor .parquet; name one, such as {_WRITERS['export']}")
    if request.sweep is None:
        raise UserError(f"export: needs a sweep; such as {_WRITERS['export']}")
    table = load_sweep(request.sweep, request.runs)
    try:
        content = table.to_csv(index=False).encode() if out.suffix == ".csv" else table.to_parquet(index=False)
    except ImportError as error:
        raise UserError(f"export: {out} needs pyarrow: pip install 'alexlab[parquet]'; or write .csv") from error
    write_atomic(out, content)
    console.print(f"{plural(len(table), 'run')} in {out}", soft_wrap=True)


def _difference(name: str, values: list[Any], one: RunData, other: RunData) -> str:
    if None in values:
        return ""
    change = values[1] - values[0]
    if not name.endswith("_error"):
        return f"{change:+,.6g}"
    same_images = one.result.get("data", {}).get("store") == other.result.get("data", {}).get("store")
    if name not in _TESTED or not same_images:
        return f"{100 * change:+.2f}"
    _, view, metric = name.split(".")
    (first, classes), (second, others) = (run.wrong(metric, view) for run in (one, other))
    if classes != others:
        return f"{100 * change:+.2f}"
    difference, half = paired_difference(second, first)
    return f"{100 * difference:+.2f} ± {100 * half:.2f}"


def _prune(request: Request, console: Console) -> None:
    _finish_removals(request.runs)
    found = [run for run in _read_runs(request, console) if run.status["state"] != RUNNING]
    if "state" not in request.filters:
        found = [run for run in found if run.status["state"] == FAILED and run.status.get("failure") not in RESULTS]
    kept = {run.run_id: why for run in found if (why := _why_kept(run.record)) is not None}
    for run_id, why in kept.items():
        console.print(f"{run_id}: {why}", soft_wrap=True)
    found = [run for run in found if run.run_id not in kept]
    if not found:
        console.print("There is nothing to remove.")
        return
    _print_runs(found, "To be removed", console)
    size = gigabytes(sum(map(_size, found)))
    done = sum(run.is_done for run in found)
    warning = f", {done} of them DONE," if done else ""
    if not request.is_sure:
        if not sys.stdin.isatty():
            raise UserError("prune needs confirmation, but stdin is not a terminal; pass --yes")
        if input(f"Remove {len(found)} records{warning} of {size}? [y/N] ").strip().lower() not in ("y", "yes"):
            console.print("Nothing is removed.")
            return
    removed = 0
    for run in found:
        lease = take(run.record.path, run.status.get("attempt", 0))  # nobody begins it meanwhile
        if lease is None or run.record.status().get("attempt") != run.status.get("attempt"):
            console.print(f"{run.run_id}: another process works on it, so it stays")
            if lease is not None:
                lease.release()
            continue
        gone = run.record.path.with_name(f".removed-{run.run_id}")
        run.record.path.replace(gone)  # atomically, or somebody could begin the run amid what is being removed
        shutil.rmtree(gone)
        removed += 1
    console.print(f"Removed {removed} records, {size}.")


def _why_kept(record: Record) -> str | None:
    """Why a record is not to be removed; None if it is a folder with files of runs alone."""
    if record.path.is_symlink():
        return "is a link, so it stays; remove what it leads to yourself"
    if others := record.foreign():
        names = ", ".join(sorted(str(path.relative_to(record.path)) for path in others)[:3])
        return f"holds {names}, which no run writes, so it stays; move that away first"
    return None


def _finish_removals(runs: Path) -> None:
    """Remove what a prune that was killed had begun to: folders of our name with nothing but files of runs."""
    for path in runs.glob(".removed-*"):
        is_folder = path.is_dir() and not path.is_symlink()
        if _REMOVED.fullmatch(path.name) and is_folder and not Record(runs, path.name).foreign():
            shutil.rmtree(path)


def _wandb(request: Request, console: Console) -> None:
    from alexlab.runs import trackers

    found = [run for run in _read_runs(request, console) if run.record.file("metrics.csv").is_file()]
    free = [run for run in found if run.status["state"] != RUNNING]
    if len(free) < len(found):
        console.print(f"{len(found) - len(free)} runs are running and left out.")
    if outer := trackers.outer_run():
        console.print(f"{', '.join(outer)} of the environment are ignored: each run has its own id")
    mode = trackers.wandb_mode()
    todo = []
    for run in [*free]:
        try:
            if not trackers.is_copied(run.record, mode):
                todo.append((run.record, read_config(run.record.file("config.yaml"), stored=False)))
        except (UserError, OSError) as error:
            console.print(one_line(run.record, error), soft_wrap=True)
            free.remove(run)
    sent = 0
    with Progress("Sending to W&B", len(todo), unit="runs") as progress:
        for record, config in todo:
            config.logger = request.settings.logger
            sent += trackers.publish(config, record)
            progress.advance(1)
    kept = f", {len(free) - len(todo)} were there before" if len(todo) < len(free) else ""
    console.print(f"{sent} of {len(todo)} runs sent to W&B ({mode}){kept}.")


def _bundle(request: Request, console: Console) -> None:
    """Write what is finished, or failed as a result, with all plans."""
    out = Path(request.ids[0]).expanduser()
    ended = [run for run in _read_runs(request, console) if run.is_terminal]
    if not ended:
        raise UserError(f"bundle: no finished run in {request.runs}")
    bundle.pack(out, request.runs, [run.run_id for run in ended], request.submitter)
    console.print(f"{plural(len(ended), 'run')} in {out}, {gigabytes(out.stat().st_size)}", soft_wrap=True)


@dataclass(frozen=True)
class _Planned:
    """A registered study: all plans of it, and those of their runs that have a record."""

    path: Path
    looks: list[dict[str, Any]]
    run_ids: list[str]
    found: list[RunData]

    @property
    def finished(self) -> int:
        return sum(run.is_terminal for run in self.found)


def _plans(request: Request, console: Console) -> list[_Planned]:
    """The registered studies, by when they were planned first; those that cannot be read are named."""
    _check_folder(request)
    plans = []
    for path in json_files(request.runs / "studies"):
        try:
            looks = read_looks(path)
            arms = [arm for look in looks for arm in look["arms"]]
            trials = [trial for look in looks for rate in look.get("rates", ()) for trial in rate["trials"]]
            ids = dict.fromkeys([id for arm in arms for id in arm["runs"].values()] + [one["run"] for one in trials])
            records = [Record(request.runs, id) for id in ids]
            found = [RunData(record, status) for record in records if (status := record.seen())]
            plans.append(_Planned(path, looks, list(ids), found))
        except (UserError, OSError) as error:
            console.print(str(error), soft_wrap=True)
    return sorted(plans, key=lambda plan: plan.looks[0].get("planned", 0))


def _studies(request: Request, console: Console) -> None:
    plans = _plans(request, console)
    columns = [Column("study", wraps=True), Column("recipe", wraps=True), Column("rate", rank=1)]
    columns += [Column("looks", right=True), Column("finished", right=True), Column("planned", rank=2)]
    for plan in plans:
        first, last = plan.looks[0], plan.looks[-1]
        planned = time.strftime("%m-%d %H:%M", time.localtime(first["planned"])) if "planned" in first else ""
        finished = f"{plan.finished} of {len(plan.run_ids)}"
        row = plan.path.stem, last["recipe"], last["rate"], str(len(plan.looks)), finished, planned
        for column, cell in zip(columns, row, strict=True):
            column.cells.append(cell)
    print_columns("Studies", columns, console)
    console.print(f"{len(plans)} studies in {request.runs / 'studies'}", style="dim", soft_wrap=True)


def _forget(request: Request, console: Console) -> None:
    """Remove the plan of a study of which nothing is known yet: later it would hide that its result was seen."""
    [given] = request.ids
    plans = {plan.path.stem: plan for plan in _plans(request, console)}
    fitting = [given] if given in plans else [name for name in plans if name.startswith(given)]
    if len(fitting) != 1:
        near = (
            f"may be {', '.join(fitting)}; write more of it"
            if fitting
            else f"no such study{did_you_mean(given, plans)}"
        )
        raise UserError(f"{given}: {near}; `studies` lists them")
    plan = plans[fitting[0]]
    if plan.finished:
        raise UserError(
            f"{plan.path.stem}: {plan.finished} of its {len(plan.run_ids)} runs are finished, so its plan stays: the "
            "report of a study with the same claims has to say that this one was started"
        )
    if active := [run.run_id for run in plan.found if run.status["state"] == RUNNING]:
        raise UserError(f"{plan.path.stem}: its run {active[0]} is running, so its plan stays; stop it first")
    plan.path.unlink()
    console.print(f"Removed {plan.path}; records of its runs stay.", soft_wrap=True)
