"""`python src/train.py`: plan, then let Hydra launch what is not done, then one table.

Everything is planned and checked first, since Hydra has no resume and finds a sweep's mistakes late. Hydra's launchers
then run the jobs; whether a job has anything to do is its own decision, so every launcher can go on where another
stopped. A job records its failure and never raises, so every launcher reaches its end. A run that another command works
on is left to it, and looked at again at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from alexlab import threads
from alexlab.children import inherit_code
from alexlab.cli.dry_run import print_forecast
from alexlab.cli.help import commented_yaml, print_help
from alexlab.cli.show_net import print_nets
from alexlab.cli.show_paper import markdown
from alexlab.cli.tables import print_table, read_rows, write_sweep
from alexlab.command import exit_status
from alexlab.compose import CONFIG_NAME, VERSION_BASE, Composer, Job, of_hydra
from alexlab.config import CONF_DIR, Config, ConfigError, Dataset, Rate, Retry
from alexlab.data.locate import described
from alexlab.runs.failure import MENDS, failure_of
from alexlab.runs.lease import EXPIRY, holder, machine
from alexlab.runs.record import DONE, FAILED, PREEMPTED
from alexlab.runs.supervisor import HELD, Launch, execute, needs_work
from alexlab.sweep.arms import MIN_SEEDS, Study, document, does_not_learn, register, unmet
from alexlab.sweep.plan import Plan, PlannedRun, labels, make_plan, varied
from alexlab.sweep.stop import STOPPED_STATUS, Stop, Stopped, following, hand_on

# What the plan tells its jobs, as JSON in the environment, since with some launchers they run in other processes.
_TOLD = "ALEXLAB_PLAN"
_NEAR = ("basic", "joblib", "submitit_local")  # the launchers whose jobs run on this machine


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = get_args_parser()
    parser.add_argument("--dry-run", action="store_true", help="Print the plan, and run nothing")
    parser.add_argument("--paper", action="store_true", help="Print the paper's choices as keys, and run nothing")
    parser.add_argument("--net", action="store_true", help="Print the net, layer by layer, and run nothing")
    args = parser.parse_intermixed_args(argv)  # flags may stand anywhere among the overrides
    console = Console(highlight=False, markup=False)
    try:
        with Stop():
            return exit_status(lambda: _obey(args, argv, console))
    except Stopped:
        console.print("\nStopped; the same command goes on.")
        return STOPPED_STATUS


def _obey(args: argparse.Namespace, argv: list[str], console: Console) -> int:
    _refuse_flags(args)
    if args.help:
        print_help(console, args.config_dir)
        return 0
    if args.cfg == "job" and args.package is None:
        composer = Composer(args.config_dir)
        jobs, _ = composer.expand(args.overrides, args.multirun)
        print("---\n".join(commented_yaml(composer.job(job).config) for job in jobs), end="")
        return 0
    if args.paper:
        if args.overrides:
            raise ConfigError(f"--paper: shows the protocols' values whatever is set; leave out {args.overrides[0]}")
        print(markdown(), end="")
        return 0
    if args.net:
        composer = Composer(args.config_dir)
        jobs, _ = composer.expand(args.overrides, args.multirun)
        print_nets([composer.job(job) for job in jobs], console)
        return 0
    if args.cfg or args.info is not None or args.hydra_help or args.shell_completion:
        return _hydra_main(argv)
    plan = make_plan(args.overrides, args.multirun, args.config_dir)
    _announce(plan, console)
    if args.dry_run:
        print_forecast(plan, console)
        if plan.study is not None and plan.study.round:
            console.print("These are trials of learning rates, at their longest; more may follow from their results.")
        return 0
    while plan.study is not None and plan.study.round and not plan.is_trial:
        status, after = _round(plan, args, console)
        if status:
            return status
        plan = after
    if plan.study is not None and not plan.is_trial:
        _register(plan.study, console)
    return _launch_and_report(plan, args, console)


def _register(study: Study, console: Console) -> None:
    for told in register(document(study), Path(study.base.paths.runs) / "studies"):
        console.print(told, style="dim")


def _round(plan: Plan, args: argparse.Namespace, console: Console) -> tuple[int, Plan]:
    """Run the trials of learning rates that come next; return the exit status, and the plan that follows from them."""
    assert plan.study is not None
    _register(plan.study, console)
    with _launching(plan, console) as launch:
        with suppress(Stopped):
            _do_all(plan, args, console, launch)
        is_stopped = launch.is_stopped
    if is_stopped:
        console.print("Stopped. What is done is kept; the same command goes on with the rest.")
        return STOPPED_STATUS, plan
    states = [run.record.status() for run in plan.runs]
    if any(status.get("state") == PREEMPTED for status in states):
        return STOPPED_STATUS, plan
    if any(needs_work(status, Retry.faults) for status in states):
        console.print(
            "A trial of a learning rate failed, and the next ones depend on it; fix it, then the same command."
        )
        return 1, plan
    after = make_plan(args.overrides, args.multirun, args.config_dir)
    assert after.study is not None
    for before, now in zip(plan.study.rates, after.study.rates, strict=True):
        for trial in now.results:
            if trial not in before.results:
                console.print(now.shown(trial))
    if not after.study.round:
        _announce(after, console)
    return 0, after


def _refuse_flags(args: argparse.Namespace) -> None:
    """Flags of Hydra's that the plan does not follow."""
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name}: not supported; --config-dir DIR adds options of your own")


def _announce(plan: Plan, console: Console) -> None:
    fixed = [name for name in ("study", "recipe", "protocol", "model", "ablation") if name not in plan.varying]
    if plan.study is None:
        fixed.remove("study")
    chosen = " ".join(f"{name}={plan.choices[name]}" for name in fixed)
    console.print(f"alexlab: {chosen}")
    if plan.study is not None:
        _announce_study(plan, plan.study, console)
    if plan.choices["recipe"] == "demo" and "data" not in plan.varying and plan.choices["data"] == "shapes":
        console.print("The demo rehearses on drawn images; recipe= sets another scale (--help).", style="dim")
    for told in dict.fromkeys(_data(run.config) for run in plan.runs if run.config.data.name is not Dataset.shapes):
        console.print(told, style="dim")
    for dropped, kept in plan.merged:
        console.print(f"{dropped} is the same run as {kept} here", style="dim")
    if plan.is_trial:
        return
    states = [(run, run.record.status()) for run in plan.runs]
    done = sum(status.get("state") == DONE for _, status in states)
    if done:
        console.print(f"{done} of {len(plan.runs)} done before")
    kept = Counter(
        status["failure"]
        for run, status in states
        if status.get("state") == FAILED and not needs_work(status, run.config.retry)
    )
    for failure, number in kept.items():
        console.print(f"{number} of {len(plan.runs)} failed before ({failure}); retry=all tries again")


def _announce_study(plan: Plan, study: Study, console: Console) -> None:
    settings, testable = study.base.study, [claim for claim in study.claims if claim.not_testable is None]
    left_out = {claim.name: missing for claim in testable if (missing := unmet(claim, study.base))}
    number = len(testable) - len(left_out)
    if study.round:
        console.print(f"{number} claims; {len(study.rates)} arms, whose learning rates are chosen first")
    else:
        console.print(f"{number} claims, {len(study.arms)} arms, {len(plan.runs)} runs")
    for rate in study.rates:
        if rate.choice is not None:
            trials = sum(map(len, rate.rounds))
            chosen = (
                "left out" if rate.choice.lr is None else f"optim.lr={rate.choice.lr:g}, the best of {trials} trials"
            )
            console.print(f"{rate.name}: {chosen}{f'; {rate.choice.warning}' if rate.choice.warning else ''}")
    for name, missing in left_out.items():
        console.print(f"{name} is left out: it requires {' '.join(missing)}", style="dim")
    if len(testable) < len(study.claims):
        number = len(study.claims) - len(testable)
        console.print(f"{number} claims no runs can test; the report says what would", style="dim")
    if settings.seeds < MIN_SEEDS and study.rate is not Rate.choose and study.claims:
        console.print(f"study.seeds={settings.seeds}: a verdict takes {MIN_SEEDS}", style="dim")


def _data(config: Config) -> str:
    """The data of a run, and on what its choices are made."""
    found = described(config.data)
    parts = [f"{role} {count:,} ({found['from'][role]})" for role, count in found["images"].items()]
    is_chosen = found["chosen_on_reported"] and config.trainer.limit_val_batches
    warning = "; choices are made on the reported images" if is_chosen else ""
    return f"data {found['store']}, {config.data.size} px, {found['format']}: {', '.join(parts)}{warning}"


def _launch_and_report(plan: Plan, args: argparse.Namespace, console: Console) -> int:
    with _launching(plan, console) as launch:
        if plan.is_trial:
            return _trial(plan, args, console, launch)
        with suppress(Stopped):
            _do_all(plan, args, console, launch)
        return _report(plan, console, launch.is_stopped)


@contextmanager
def _launching(plan: Plan, console: Console) -> Iterator[Launch]:
    """A launch of the plan's runs, whose folder is there as long as it lasts."""
    statuses = {} if plan.is_trial else {run.run_id: run.record.status() for run in plan.runs}
    attempts = {name: status["attempt"] for name, status in statuses.items() if "attempt" in status}
    is_near = plan.choices["hydra/launcher"] in _NEAR
    shared = Path(plan.runs[0].config.paths.runs).absolute() / "sweeps"
    if not is_near:
        shared.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="alexlab-", dir=None if is_near else shared) as folder:
        launch = Launch(Path(folder), attempts)
        with Stop(launch, console):
            yield launch


def _report(plan: Plan, console: Console, is_stopped: bool) -> int:
    runs = Path(plan.runs[0].config.paths.runs)
    rows = read_rows(plan)
    print_table(plan, rows, console)
    where = f"Records: {runs}/<run id>/"
    if plan.is_sweep:
        where += f"   This sweep: {write_sweep(plan, rows, runs / 'sweeps')}"
    console.print(where, soft_wrap=True)
    if all(row.done for row in rows):
        return 0
    if is_stopped or any(row.status.get("state") == PREEMPTED for row in rows):
        console.print("Stopped. What is done is kept; the same command goes on with the rest.")
        return STOPPED_STATUS
    return 1


def _do_all(plan: Plan, args: argparse.Namespace, console: Console, launch: Launch) -> None:
    """Launch what is to do, until nobody else works on any of it."""
    runs = Path(plan.runs[0].config.paths.runs)
    while any(_is_left(run, launch) for run in plan.runs):
        left = [run.run_id for run in plan.runs if _is_left(run, launch) and not holder(run.record.path)]
        _launch(plan, args, launch, runs / "sweeps" / plan.sweep_id, map(plan.jobs.index, left))
        held = [run for run in plan.runs if _is_left(run, launch) and holder(run.record.path)]
        if not held:
            return  # what is left could not be begun, and has said why
        console.print(f"Waiting for {len(held)} of {len(plan.runs)} runs that other processes work on ...")
        while all(holder(run.record.path) for run in held):
            if launch.is_stopped:
                raise Stopped
            time.sleep(0.5)


def _is_left(run: PlannedRun, launch: Launch) -> bool:
    return needs_work(run.record.status(), run.config.retry, launch.attempts.get(run.run_id, 0))


def _trial(plan: Plan, args: argparse.Namespace, console: Console, launch: Launch) -> int:
    passed = launch.folder / "passed"
    passed.mkdir()
    with suppress(Stopped):
        _launch(plan, args, launch, launch.folder / "hydra", range(plan.num_jobs), passed=str(passed))
    num_passed = len(list(passed.iterdir()))
    console.print(f"fast_dev_run: {num_passed} of {plan.num_jobs} ran one batch of each split; nothing is kept")
    if num_passed == plan.num_jobs:
        return 0
    return STOPPED_STATUS if launch.is_stopped else 1


def _launch(
    plan: Plan, args: argparse.Namespace, launch: Launch, sweep_dir: Path, left: Iterable[int], **told: str
) -> None:
    """Let Hydra launch the plan's jobs; `sweep_dir` takes what Hydra and its launchers write.

    `left`: the numbers of those jobs that are to do, for launchers that can leave out the others.
    """
    os.environ[_TOLD] = json.dumps(
        {
            **{"total": plan.num_jobs, "varying": plan.varying, "attempts": launch.attempts, "left": list(left)},
            **{"machine": machine(), "process": os.getpid(), "cwd": str(Path.cwd()), "folder": str(launch.folder)},
            "threads_set": threads.is_set_by_user(),
            "arms": [] if plan.study is None else [name for name, _ in plan.study.jobs()],
            "base": str(plan.runs[0].record.path) if plan.study is not None and plan.study.has_base else None,
            **told,
        }
    )
    planned = []
    if plan.is_sweep:
        given = [[line for line in job if not line.startswith("hydra")] for job in plan.given]
        launch.jobs.write_text(json.dumps(given))
        planned = ["hydra/sweeper=planned"]
    quoted = str(sweep_dir).replace("\\", "\\\\").replace("'", "\\'")
    flags = ["--multirun"] if plan.is_sweep else []
    if args.config_dir is not None:
        flags += ["--config-dir", str(Path(args.config_dir).expanduser().absolute())]
    inherit_code()
    # Jobs stay in this folder, so that a relative path means in them what it means here.
    _hydra_main([*flags, *args.overrides, *planned, f"hydra.sweep.dir='{quoted}'", "hydra.job.chdir=false"])


def _hydra_main(argv: list[str]) -> int:
    before = sys.argv
    sys.argv = [before[0], *argv]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF_DIR), config_name=CONFIG_NAME)(_job)()
    except SystemExit as stop:  # hydra.main exits where a launcher raised; the records tell what became of the runs
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
    return 0


def _job(composed: DictConfig) -> str | None:
    """One job of Hydra's: in this process or, with other launchers, in one of theirs. Returns what it told at last."""
    plan = json.loads(os.environ[_TOLD])
    hydra_config = HydraConfig.get()
    launch = Launch(Path(plan["folder"]), plan["attempts"], _threads(plan, hydra_config))
    is_near = plan["machine"] == machine()
    is_ours = is_near and os.getpid() == plan["process"]
    if launch.is_stopped:
        if is_ours:
            raise Stopped  # at once, since Hydra composes every job that is left
        return None
    os.chdir(plan["cwd"])
    sources = hydra_config.runtime.config_sources
    config_dir = next((source.path for source in sources if source.provider == "command-line"), None)
    choices = {str(name): str(option) for name, option in hydra_config.runtime.choices.items()}
    job = Job(tuple(hydra_config.overrides.task), of_hydra(composed), choices)
    number = hydra_config.job.num if plan["total"] > 1 else 0  # a single run has none
    title = f"run {number + 1} of {plan['total']}" if plan["total"] > 1 else "run"
    named = labels(job, config_dir)
    what = plan["arms"][number] if plan["arms"] else varied(job, plan["varying"]) or named["ablation"]
    print(f"{title}: {what} seed={job.config.seed}", flush=True)
    if (base := plan["base"]) is not None and (why := does_not_learn(Path(base), job.config)) is not None:
        told = f"{title}: not begun, since the study's base {why} ({Path(base).name}); mend that first"
        print(told, flush=True)
        return told
    try:
        if is_ours:
            status = execute(job.config, named, title, launch)
        else:
            status = _execute_elsewhere(job.config, named, title, launch, plan["process"] if is_near else None)
    except OSError as error:  # before there was a process to say so in the record
        failure = failure_of(error)
        told = f"{title}: FAILED ({failure}): {error}\n  {MENDS[failure]}"
    except ConfigError as error:
        told = f"{title}: {error}"
    else:
        told = _told(title, status)
        if status["state"] == DONE and "passed" in plan:
            (Path(plan["passed"]) / str(number)).touch()
    if told is not None:
        print(told, flush=True)
    return told


def _threads(plan: dict[str, Any], hydra_config: HydraConf) -> int | None:
    """Threads of a run: its share of the cores beside the others that its launcher runs on this machine."""
    if plan["threads_set"]:
        return None
    launcher, num_left = hydra_config.runtime.choices["hydra/launcher"], max(1, len(plan["left"]))
    if launcher == "joblib":
        from joblib import effective_n_jobs

        return max(1, threads.cores() // min(effective_n_jobs(hydra_config.launcher["n_jobs"]), num_left))
    if launcher == "submitit_local":  # starts all at once
        return max(1, threads.cores() // num_left)
    return threads.cores(of_launcher=True)


def _told(title: str, status: dict[str, Any]) -> str | None:
    """How a run ended, unless it is done."""
    state = status["state"]
    if state in (HELD, PREEMPTED):
        return f"{title}: {state}: {status['message']}"
    if state != DONE:
        return f"{title}: {state} ({status.get('failure')}): {status.get('message')}\n  {status.get('mend')}"
    return None


def _execute_elsewhere(
    config: Config, named: dict[str, str], title: str, launch: Launch, command: int | None
) -> dict[str, Any]:
    """Do a run in a process of a launcher's, which is told to stop as the command is, or by its own signals.

    `command`: the command's process where it is on this machine, with which this one ends, unless it is SLURM's.
    """
    executor = os.environ.get("SUBMITIT_EXECUTOR")
    with (
        tempfile.TemporaryDirectory(prefix="alexlab-") as folder,
        Stop(own := Launch(Path(folder), launch.attempts, launch.threads)) as stop,
        following(launch, None if executor == "slurm" else command),
    ):
        status = execute(config, named, title, own)
        patience = time.monotonic() + 1.5 * EXPIRY if os.environ.get("SLURM_RESTART_COUNT") else 0
        while status["state"] == HELD and time.monotonic() < patience and not own.is_stopped:
            time.sleep(5)  # by this very job, whose machine died before SLURM queued it again
            status = execute(config, named, title, own)
    if (
        stop.number is not None
        and executor is not None
        and status["state"] in (HELD, PREEMPTED)
        and not launch.is_stopped
    ):
        print(_told(title, status), flush=True)
        hand_on(stop.number)
    return status
