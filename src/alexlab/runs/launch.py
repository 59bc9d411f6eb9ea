"""`python src/train.py`: plan, then let Hydra launch what is not done, then one table.

Everything is planned and checked first, since Hydra has no resume and finds a sweep's mistakes late. Hydra's launchers
then run the jobs; whether a job has anything to do is its own decision, so every launcher can go on where another
stopped. A job records its failure and never raises, so every launcher reaches its end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from alexlab.command import exit_status
from alexlab.compose import CONFIG_NAME, VERSION_BASE, Composer, Job, typed
from alexlab.config import CONF_DIR, Config, ConfigError, Dataset
from alexlab.data.prepare import described
from alexlab.runs.choices import markdown
from alexlab.runs.execute import execute
from alexlab.runs.forecast import print_forecast
from alexlab.runs.help import commented_yaml, print_help
from alexlab.runs.net import print_nets
from alexlab.runs.plan import Plan, labels, make_plan, varied
from alexlab.runs.record import DONE
from alexlab.runs.table import print_table, read_rows, write_sweep

# What the plan tells its jobs, as JSON in the environment, since with some launchers they run in other processes.
_TOLD = "ALEXLAB_PLAN"


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = get_args_parser()
    parser.add_argument("--dry-run", action="store_true", help="Print the plan, and run nothing")
    parser.add_argument("--paper", action="store_true", help="Print the paper's choices as keys, and run nothing")
    parser.add_argument("--net", action="store_true", help="Print the net, layer by layer, and run nothing")
    args = parser.parse_intermixed_args(argv)  # flags may stand anywhere among the overrides
    console = Console(highlight=False, markup=False)
    return exit_status(lambda: _obey(args, argv, console))


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
        return 0
    return _launch_and_report(plan, args, console)


def _refuse_flags(args: argparse.Namespace) -> None:
    """Flags of Hydra's that the plan does not follow."""
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, flag) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name}: not supported; --config-dir DIR adds options of your own")


def _announce(plan: Plan, console: Console) -> None:
    fixed = [name for name in ("recipe", "protocol", "model", "ablation") if name not in plan.varying]
    chosen = " ".join(f"{name}={plan.choices[name]}" for name in fixed)
    console.print(f"alexlab: {chosen}")
    if plan.choices["recipe"] == "demo" and "data" not in plan.varying and plan.choices["data"] == "shapes":
        console.print("The demo rehearses on drawn images; recipe= sets another scale (--help).", style="dim")
    for told in dict.fromkeys(_data(run.config) for run in plan.runs if run.config.data.name is not Dataset.shapes):
        console.print(told, style="dim")
    for dropped, kept in plan.merged:
        console.print(f"{dropped} is the same run as {kept} here", style="dim")
    done = sum(run.record.is_done for run in plan.runs)
    if done and not plan.is_trial:
        console.print(f"{done} of {len(plan.runs)} done before")


def _data(config: Config) -> str:
    """The data of a run, and on what its choices are made."""
    found = described(config.data)
    parts = [f"{role} {count:,} ({found['from'][role]})" for role, count in found["images"].items()]
    warning = "; choices are made on the reported images" if found["chosen_on_reported"] else ""
    return f"data {found['store']}, {config.data.size} px, {found['format']}: {', '.join(parts)}{warning}"


def _launch_and_report(plan: Plan, args: argparse.Namespace, console: Console) -> int:
    if plan.is_trial:
        return _trial(plan, args, console)
    runs = Path(plan.runs[0].config.paths.runs)
    try:
        if not all(run.record.is_done for run in plan.runs):
            _launch(plan, args, runs / "sweeps" / plan.sweep_id)
    except KeyboardInterrupt:
        console.print("\nStopped. What is done is kept; the same command goes on with the rest.")
        return 130
    rows = read_rows(plan)
    print_table(plan, rows, console)
    where = f"Records: {runs}/<run id>/"
    if plan.is_sweep:
        where += f"   This sweep: {write_sweep(plan, rows, runs / 'sweeps')}"
    console.print(where, soft_wrap=True)
    return 0 if all(row.done for row in rows) else 1


def _trial(plan: Plan, args: argparse.Namespace, console: Console) -> int:
    with tempfile.TemporaryDirectory(prefix="alexlab-") as folder:
        passed = Path(folder) / "passed"
        passed.mkdir()
        try:
            _launch(plan, args, Path(folder), passed=str(passed))
        except KeyboardInterrupt:
            return 130
        num_passed = len(list(passed.iterdir()))
    console.print(f"fast_dev_run: {num_passed} of {plan.num_jobs} ran one batch of each split; nothing is kept")
    return 0 if num_passed == plan.num_jobs else 1


def _launch(plan: Plan, args: argparse.Namespace, sweep_dir: Path, **told: str) -> None:
    """Let Hydra launch the plan's jobs; `sweep_dir` takes what Hydra and its launchers write."""
    os.environ[_TOLD] = json.dumps({"total": plan.num_jobs, "varying": plan.varying, **told})
    quoted = str(sweep_dir).replace("\\", "\\\\").replace("'", "\\'")
    flags = ["--multirun"] if plan.is_sweep else []
    if args.config_dir is not None:
        flags += ["--config-dir", str(Path(args.config_dir).expanduser().absolute())]
    # Jobs stay in this folder, so that a relative path means in them what it means here.
    _hydra_main([*flags, *args.overrides, f"hydra.sweep.dir='{quoted}'", "hydra.job.chdir=false"])


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


def _job(composed: DictConfig) -> None:
    """One job of Hydra's: in this process or, with another launcher, in one on another machine."""
    hydra_config = HydraConfig.get()
    sources = hydra_config.runtime.config_sources
    config_dir = next((source.path for source in sources if source.provider == "command-line"), None)
    choices = {str(name): str(option) for name, option in hydra_config.runtime.choices.items()}
    job = Job(tuple(hydra_config.overrides.task), typed(composed), choices)
    plan = json.loads(os.environ[_TOLD])
    number = hydra_config.job.num if plan["total"] > 1 else 0  # a single run has none
    title = f"run {number + 1} of {plan['total']}" if plan["total"] > 1 else "run"
    named = labels(job, config_dir)
    what = varied(job, plan["varying"]) or named["ablation"]
    print(f"{title}: {what} seed={job.config.seed}", flush=True)
    try:
        status = execute(job.config, named, title)
    except (OSError, ConfigError) as error:
        print(f"{title}: {error}", flush=True)
        return
    if status["state"] != DONE:
        print(f"{title}: {status['state']} ({status.get('failure')}): {status.get('message')}", flush=True)
    elif "passed" in plan:
        (Path(plan["passed"]) / str(number)).touch()
