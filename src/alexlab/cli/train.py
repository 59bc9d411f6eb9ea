"""`python src/train.py`: plan, then let Hydra launch what is not done, then one table.

Everything is planned and checked first, since Hydra finds a sweep's mistakes late.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

from hydra._internal.utils import get_args_parser

from alexlab.cli.dry_run import print_forecast
from alexlab.cli.help import commented_yaml, print_help
from alexlab.cli.show_net import print_nets
from alexlab.cli.show_paper import markdown
from alexlab.cli.tables import print_table, read_rows, write_sweep
from alexlab.command import exit_status
from alexlab.compose import Composer
from alexlab.config import Config, ConfigError, Dataset, Rate, Retry
from alexlab.console import Console
from alexlab.data.locate import described
from alexlab.runs.process import Launch
from alexlab.runs.record import DONE, FAILED, PREEMPTED
from alexlab.runs.supervisor import needs_work
from alexlab.sweep.arms import MIN_SEEDS, Study, document, register, unmet
from alexlab.sweep.launcher import do_all, hydra_main, launch_jobs, launching
from alexlab.sweep.plan import Plan, make_plan
from alexlab.sweep.stop import STOPPED_STATUS, Stop, Stopped


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = get_args_parser()
    parser.add_argument("--dry-run", action="store_true", help="Print the plan, and run nothing")
    parser.add_argument("--paper", action="store_true", help="Print the paper's choices as keys, and run nothing")
    parser.add_argument("--net", action="store_true", help="Print the net, layer by layer, and run nothing")
    args = parser.parse_intermixed_args(argv)  # flags may stand anywhere among the overrides
    console = Console()
    try:
        with Stop():
            return exit_status(lambda: _obey(args, argv, console))
    except Stopped:
        console.print("\nStopped. Run the same command again to resume.")
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
        return hydra_main(argv)
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
    with launching(plan, console) as launch:
        with suppress(Stopped):
            do_all(plan, args, console, launch)
        is_stopped = launch.is_stopped
    if is_stopped:
        console.print("Stopped. Finished work is kept; run the same command again for the rest.")
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
        console.print(f"{done} of {len(plan.runs)} already done")
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
    with launching(plan, console) as launch:
        if plan.is_trial:
            return _trial(plan, args, console, launch)
        with suppress(Stopped):
            do_all(plan, args, console, launch)
        return _report(plan, console, launch.is_stopped)


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
        console.print("Stopped. Finished work is kept; run the same command again for the rest.")
        return STOPPED_STATUS
    return 1


def _trial(plan: Plan, args: argparse.Namespace, console: Console, launch: Launch) -> int:
    passed = launch.folder / "passed"
    passed.mkdir()
    with suppress(Stopped):
        launch_jobs(plan, args, launch, launch.folder / "hydra", range(plan.num_jobs), passed=str(passed))
    num_passed = len(list(passed.iterdir()))
    console.print(f"fast_dev_run: {num_passed} of {plan.num_jobs} ran one batch of each split; nothing is kept")
    if num_passed == plan.num_jobs:
        return 0
    return STOPPED_STATUS if launch.is_stopped else 1
