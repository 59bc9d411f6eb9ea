"""`python src/train.py`: plan all runs, let Hydra launch those that are not done, print one table.

Everything is planned and checked first, since Hydra finds a sweep's mistakes late.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import hydra
from omegaconf import DictConfig

import alexlab
from alexlab.cli.confirm import may_start
from alexlab.cli.help import comment_of, commented_yaml, print_help
from alexlab.cli.json_output import FLAG, Answer, json_answer
from alexlab.cli.show_net import print_nets
from alexlab.cli.show_paper import markdown
from alexlab.cli.tables import from_here, print_table, read_rows
from alexlab.command import exit_status, program
from alexlab.compose import CONFIG_NAME, Composer
from alexlab.config import CONF_DIR, Config, ConfigError, Dataset, Debug, Rate, Retry
from alexlab.console import Console, plural
from alexlab.data.locate import described
from alexlab.errors import UserError
from alexlab.hydra_compat import VERSION_BASE, get_args_parser
from alexlab.runs.code_fingerprint import modified
from alexlab.runs.device import Device
from alexlab.runs.environment import ownership_fix
from alexlab.runs.identity import RESULTS_VERSION
from alexlab.runs.process import WORKER, Launch, start_server
from alexlab.runs.record import DONE, FAILED, PREEMPTED
from alexlab.runs.supervisor import needs_work
from alexlab.runs.wandb_copy import outer_run
from alexlab.spelling import for_flag
from alexlab.sweep.launcher import check_runs, count_passed, do_all, launch_jobs, launching
from alexlab.sweep.plan import Plan, make_plan, write_sweep
from alexlab.sweep.stop import STOPPED_STATUS, Budget, Stop, Stopped
from alexlab.sweep.study_plan import MIN_SEEDS, Study, document, register, unmet
from alexlab.validate import hours

_STOPPED = "Stopped. Finished work is kept; run the same command again for the rest."


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = get_args_parser()
    parser.prog = program("train")
    parser.add_argument("--dry-run", action="store_true", help="Print the plan, and run nothing")
    parser.add_argument(FLAG, action="store_true", help="With --dry-run: print the plan as a JSON document")
    parser.add_argument("--yes", action="store_true", help="Start a large sweep without asking")
    parser.add_argument("--paper", action="store_true", help="Print the paper's choices as keys, and run nothing")
    parser.add_argument("--net", action="store_true", help="Print the net, layer by layer, and run nothing")
    for action in parser._actions:
        if "--version" in action.option_strings:  # Hydra's own
            vars(action)["version"] = f"alexlab {alexlab.__version__}"
    with json_answer(argv) as answer:
        console = Console()
        try:
            with Stop() as stop:
                return exit_status(lambda: _run(_parse(parser, argv), argv, console, answer, stop.started))
        except Stopped:
            console.print("\nStopped. Run the same command again to resume.")
            return STOPPED_STATUS


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse a command line, in which flags may stand anywhere among the overrides."""

    def reject(message: str) -> NoReturn:  # instead of printing all flags and exiting
        raise UserError(f"{message}; --help lists all flags")

    parser.error = reject
    args, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        flags = [option for action in parser._actions for option in action.option_strings]
        groups = [path.name for path in CONF_DIR.iterdir() if path.is_dir()]
        raise UserError(for_flag(argv, unknown[0], flags, groups))
    return args


def _run(args: argparse.Namespace, argv: list[str], console: Console, answer: Answer, started: float) -> int:
    _reject_flags(args)
    if args.help:
        print_help(console, args.config_dir, args.overrides)
        return 0
    prints_otherwise = args.paper or args.net or args.cfg or args.info is not None
    if args.json and (prints_otherwise or not args.dry_run):
        raise ConfigError(
            f"{FLAG}: needs --dry-run and no other flag that prints; for records use {program('runs')} list {FLAG}"
        )
    if args.paper:
        if args.overrides:
            raise ConfigError(f"--paper: prints the protocols' own values; remove {args.overrides[0]}")
        print(markdown(), end="")
        return 0
    prints_job = args.cfg == "job" and args.package is None
    if not prints_job and (args.cfg or args.info is not None or args.hydra_help or args.shell_completion):
        return _run_hydra(argv)
    composer = Composer(args.config_dir)
    if prints_job or args.net:
        expanded, _ = composer.expand(args.overrides, args.multirun)
        jobs = [composer.job(job) for job in expanded]
        if prints_job:
            print("---\n".join(commented_yaml(job.config) for job in jobs), end="")
        else:
            print_nets(jobs, console)
        return 0
    plan = make_plan(args.overrides, args.multirun, args.config_dir, composer)
    if (budget := plan.runs[0].config.study.budget) is not None and not (args.dry_run and plan.study is not None):
        raise ConfigError(
            f"study.budget={budget}: plans a study; add {'study=NAME' if plan.study is None else '--dry-run'}"
        )
    if plan.choices["hydra/launcher"] == "basic" and any(not run.record.is_done for run in plan.runs):
        start_server(WORKER)  # which loads torch meanwhile
    device = check_runs(plan)
    _announce(plan, console, device)
    if not plan.is_tryout and any(not run.record.is_done for run in plan.runs) and (fix := ownership_fix()) is not None:
        console.print(
            f"Records will lack the commit: git refuses this repository, which is another user's; to trust it: {fix}",
            style="yellow",
            soft_wrap=True,  # to be copied
        )
    if args.dry_run:
        from alexlab.cli import dry_run  # loads SciPy, which would double the time of --help

        forecast = dry_run.make_forecast(plan, device)
        if answer.is_wanted:
            answer.give("train-dry-run/1", dry_run.forecast_document(forecast))
            return 0
        dry_run.print_forecast(forecast, console)
        if plan.study is not None and plan.study.round:
            console.print(
                "These are trials of learning rates, at their full length; more may follow from their results."
            )
        return 0
    if not may_start(plan, device, args.yes, console):
        console.print("Nothing was started.")
        return 0
    max_hours = plan.runs[0].config.max_hours
    budget = None if max_hours is None else Budget(hours("max_hours", max_hours), started)
    while plan.study is not None and plan.study.round and not plan.is_tryout:
        status, after = _round(plan, args, composer, console, budget)
        if status:
            return status
        plan = after
    if plan.study is not None and not plan.is_tryout:
        _register(plan.study, console)
    return _launch_and_report(plan, console, budget)


def _run_hydra(argv: list[str]) -> int:
    """Let Hydra act on those of its flags that only print; return its exit status."""
    before = sys.argv
    sys.argv = [before[0], *argv]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF_DIR), config_name=CONFIG_NAME)(_train_nothing)()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
    return 0


def _train_nothing(config: DictConfig) -> None:
    """Hydra's task function where it prints instead."""


def _register(study: Study, console: Console) -> None:
    for warning in register(document(study), Path(study.base.paths.runs) / "studies"):
        console.print(warning, style="dim")


def _round(
    plan: Plan, args: argparse.Namespace, composer: Composer, console: Console, budget: Budget | None
) -> tuple[int, Plan]:
    """Run the next trials of learning rates; return the exit status, and the plan that follows from them."""
    assert plan.study is not None
    _register(plan.study, console)
    with launching(plan, console, budget) as (launch, stop):
        with suppress(Stopped), stop.limited():
            do_all(plan, console, launch)
        if _was_stopped(plan, launch):
            console.say(_why_stopped(plan, launch))
            return STOPPED_STATUS, plan
    states = [(run, run.record.status()) for run in plan.runs]
    if undone := [(run, status) for run, status in states if needs_work(status, Retry.faults)]:
        for run, status in undone:
            why = status.get("message") if status.get("state") == FAILED else "not started, or its process was killed"
            console.say(f"{run.run_id} {run.varied} seed={run.config.seed}: {why}")
        is_retried = all(needs_work(status, run.config.retry) for run, status in undone)
        with_what = "" if is_retried else f" with retry={Retry.faults.name}"
        console.say(f"The next trials depend on these; fix the fault and run the same command again{with_what}.")
        return 1, plan
    after = make_plan(args.overrides, args.multirun, args.config_dir, composer)
    assert after.study is not None
    for before, now in zip(plan.study.rates, after.study.rates, strict=True):
        for trial in now.results:
            if trial not in before.results:
                console.print(now.shown(trial))
    if not after.study.round:
        _announce(after, console)
    return 0, after


def _reject_flags(args: argparse.Namespace) -> None:
    """Reject flags of Hydra that the plan does not support."""
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name}: not supported; --config-dir DIR adds options of your own")


def _announce(plan: Plan, console: Console, device: Device | None = None) -> None:
    fixed = [name for name in ("study", "recipe", "protocol", "model", "ablation") if name not in plan.varying]
    if plan.study is None:
        fixed.remove("study")
    chosen = " ".join(f"{name}={plan.choices[name]}" for name in fixed)
    console.print(f"alexlab: {chosen}")
    if device is not None:
        console.print(f"device: {device}")
        if device.unused_gpu is not None:
            console.print(f"The GPU of this machine is not used: {device.unused_gpu}", style="yellow")
    if (code := modified(RESULTS_VERSION)) is not None:
        console.print(f"Modified code {code}: its runs are kept apart from those of the released code.", style="yellow")
    is_copied = any(run.config.logger.wandb for run in plan.runs) and not plan.is_tryout
    if is_copied and (outer := outer_run()):
        console.print(f"logger=wandb: {', '.join(outer)} in the environment are ignored: each run has its own id")
    if plan.study is not None:
        _announce_study(plan, plan.study, console)
    if plan.choices["recipe"] == "demo" and "data" not in plan.varying and plan.choices["data"] == "shapes":
        console.print("The demo rehearses on drawn images; recipe= sets another scale (--help).", style="dim")
    elif plan.choices["recipe"] == "demo" and not {"recipe", "data"} & set(plan.varying):
        data = plan.choices["data"]
        console.print(
            f"recipe=demo is a small net for drawn shapes; recipe={data} is for these images.", style="yellow"
        )
    for line in dict.fromkeys(_data(run.config) for run in plan.runs if run.config.data.name is not Dataset.shapes):
        console.print(line, style="dim")
    for merged, run in plan.merged:
        console.print(f"{merged} is the same run as {run} here", style="dim")
    if plan.is_tryout:
        return
    states = [(run, run.record.status()) for run in plan.runs]
    done = sum(status.get("state") == DONE for _, status in states)
    if done:
        console.print(f"{done} of {len(plan.runs)} already done")
    final = Counter(
        status["failure"]
        for run, status in states
        if status.get("state") == FAILED and not needs_work(status, run.config.retry)
    )
    for failure, number in final.items():
        console.print(f"{number} of {len(plan.runs)} failed before ({failure}); retry=all tries again")


def _announce_study(plan: Plan, study: Study, console: Console) -> None:
    settings, testable = study.base.study, [claim for claim in study.claims if claim.not_testable is None]
    left_out = {claim.name: missing for claim in testable if (missing := unmet(claim, study.base))}
    claims = plural(len(testable) - len(left_out), "claim")
    if study.round:
        arms = plural(len(study.rates), "arm")
        console.print(f"{claims}; {arms}, whose learning rates are chosen first")
    else:
        arms = plural(len(study.arms), "arm")
        console.print(f"{claims}, {arms}, {plural(len(plan.runs), 'run')}")
    for rate in study.rates:
        if rate.choice is not None:
            trials = sum(map(len, rate.rounds))
            chosen = (
                "left out"
                if rate.choice.lr is None
                else f"optim.lr={rate.choice.lr:g}, the best of {plural(trials, 'trial')}"
            )
            console.print(f"{rate.name}: {chosen}{f'; {rate.choice.warning}' if rate.choice.warning else ''}")
    for name, missing in left_out.items():
        console.print(f"{name} is left out: it requires {' '.join(missing)}", style="dim")
    if len(testable) < len(study.claims):
        number = plural(len(study.claims) - len(testable), "claim")
        console.print(f"{number} cannot be tested by runs; the report says what would be needed", style="dim")
    if settings.seeds < MIN_SEEDS and study.rate is not Rate.choose and study.claims:
        console.print(f"study.seeds={settings.seeds}: a verdict needs at least {MIN_SEEDS}", style="dim")


def _data(config: Config) -> str:
    """The data of a run, with a warning if choices are made on the reported images."""
    found = described(config.data)
    parts = [f"{role} {count:,} ({found['from'][role]})" for role, count in found["images"].items()]
    is_chosen = found["chosen_on_reported"] and config.trainer.limit_val_batches
    warning = "; choices are made on the reported images" if is_chosen else ""
    return f"data {found['store']}, {config.data.size} px, {found['format']}: {', '.join(parts)}{warning}"


def _launch_and_report(plan: Plan, console: Console, budget: Budget | None) -> int:
    with launching(plan, console, budget) as (launch, stop):
        if plan.is_tryout:
            with suppress(Stopped), stop.limited():
                launch_jobs(plan, launch, range(plan.num_jobs))
            return _report_trial(plan, console, launch)
        with suppress(Stopped), stop.limited():
            do_all(plan, console, launch)
        return _report(plan, console, launch)


def _why_stopped(plan: Plan, launch: Launch) -> str:
    """The last line of a command that was stopped, or whose hours are used up."""
    if not launch.spent.exists():
        return _STOPPED
    budget, number = plan.runs[0].config.max_hours or "", len(plan.runs)
    used_up = f"max_hours={budget}, counted from the command's start, is used up"
    if plan.is_tryout:
        return f"{used_up}."
    states = Counter(run.record.status().get("state") for run in plan.runs)
    counts = [f"{states[DONE]} of {plural(number, 'run')} done"]
    counts += [f"{states[FAILED]} failed"] * (states[FAILED] > 0)
    counts += [f"{states[PREEMPTED]} saved"] * (states[PREEMPTED] > 0)
    late = "" if launch.is_stopped else "; a run started now would be stopped at once"
    return f"{', '.join(counts)}: {used_up}{late}. Run the same command again to resume."


def _was_stopped(plan: Plan, launch: Launch) -> bool:
    """Whether runs are left because the command, its hours or a run's job came to an end."""
    states = {run.record.status().get("state") for run in plan.runs}
    return launch.is_stopped or PREEMPTED in states or (launch.spent.exists() and not states <= {DONE, FAILED})


def _report(plan: Plan, console: Console, launch: Launch) -> int:
    runs = Path(plan.runs[0].config.paths.runs)
    rows = read_rows(plan)
    print_table(plan, rows, console)
    console.print(f"Records: {from_here(runs)}/<run id>/", soft_wrap=True)
    if plan.is_sweep:
        try:
            sweep = f"This sweep: {from_here(write_sweep(plan, runs / 'sweeps'))}"
        except OSError as error:  # another user's records, or a full disk: the runs are not affected
            sweep = f"This sweep's file could not be written: {error}"
        console.print(sweep, soft_wrap=True)
    is_search = plan.study is not None and plan.study.rate is Rate.choose  # whose trials may diverge
    if all(row.data.is_done or (is_search and not needs_work(row.data.status, Retry.faults)) for row in rows):
        return 0
    if _was_stopped(plan, launch):
        console.say(_why_stopped(plan, launch))
        return STOPPED_STATUS
    return 1


def _report_trial(plan: Plan, console: Console, launch: Launch) -> int:
    """Print how the jobs of a try-out ended; return the exit status."""
    debug = plan.runs[0].config.debug.name
    title, ended = "fast_dev_run", "ran one batch of each split; nothing is kept"
    if debug is not Debug.none:
        title, ended = f"debug={debug.name}", "passed; no record is kept"
        console.print(comment_of(CONF_DIR / "debug" / f"{debug.name}.yaml"), style="dim")
    passed = count_passed(launch)
    console.print(f"{title}: {passed} of {plan.num_jobs} {ended}")
    if passed == plan.num_jobs:
        return 0
    if launch.spent.exists():
        console.say(_why_stopped(plan, launch))
    return STOPPED_STATUS if launch.is_ending else 1
