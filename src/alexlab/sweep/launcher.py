"""Let Hydra's launchers do the jobs of a plan, in this process or in others.

Hydra has no resume, so whether a job has anything to do is its own decision, and every launcher can go on where another
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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from alexlab import threads
from alexlab.children import inherit_code
from alexlab.compose import CONFIG_NAME, VERSION_BASE, Job, of_hydra
from alexlab.config import CONF_DIR, Config
from alexlab.errors import UserError
from alexlab.runs.failure import HINTS, failure_of
from alexlab.runs.lease import EXPIRY, holder, machine
from alexlab.runs.process import Launch
from alexlab.runs.record import DONE, PREEMPTED
from alexlab.runs.supervisor import HELD, execute, needs_work
from alexlab.sweep.arms import does_not_learn
from alexlab.sweep.plan import Plan, PlannedRun, labels, varied
from alexlab.sweep.stop import Stop, Stopped, following, hand_on

# What the plan tells its jobs, as JSON in the environment, since with some launchers they run in other processes.
_PLAN = "ALEXLAB_PLAN"
_NEAR = ("basic", "joblib", "submitit_local")  # the launchers whose jobs run on this machine


@contextmanager
def launching(plan: Plan, console: Console) -> Iterator[Launch]:
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


def do_all(plan: Plan, args: argparse.Namespace, console: Console, launch: Launch) -> None:
    """Launch what is to do, until nobody else works on any of it."""
    runs = Path(plan.runs[0].config.paths.runs)
    while any(_is_left(run, launch) for run in plan.runs):
        left = [run.run_id for run in plan.runs if _is_left(run, launch) and not holder(run.record.path)]
        launch_jobs(plan, args, launch, runs / "sweeps" / plan.sweep_id, map(plan.jobs.index, left))
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


def launch_jobs(
    plan: Plan, args: argparse.Namespace, launch: Launch, sweep_dir: Path, left: Iterable[int], **told: str
) -> None:
    """Let Hydra launch the plan's jobs; `sweep_dir` takes what Hydra and its launchers write.

    `left`: the numbers of those jobs that are to do, for launchers that can leave out the others.
    """
    os.environ[_PLAN] = json.dumps(
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
    hydra_main([*flags, *args.overrides, *planned, f"hydra.sweep.dir='{quoted}'", "hydra.job.chdir=false"])


def hydra_main(argv: list[str]) -> int:
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
    plan = json.loads(os.environ[_PLAN])
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
        told = f"{title}: not started: the study's base {why} ({Path(base).name}); fix that first"
        print(told, flush=True)
        return told
    try:
        if is_ours:
            status = execute(job.config, named, title, launch)
        else:
            status = _execute_elsewhere(job.config, named, title, launch, plan["process"] if is_near else None)
    except OSError as error:  # before there was a process to say so in the record
        failure = failure_of(error)
        told = f"{title}: FAILED ({failure}): {error}\n  {HINTS[failure]}"
    except UserError as error:
        told = f"{title}: {error}"
    else:
        told = _ending(title, status)
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


def _ending(title: str, status: dict[str, Any]) -> str | None:
    """How a run ended, unless it is done."""
    state = status["state"]
    if state in (HELD, PREEMPTED):
        return f"{title}: {state}: {status['message']}"
    if state != DONE:
        return f"{title}: {state} ({status.get('failure')}): {status.get('message')}\n  {status.get('hint')}"
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
        print(_ending(title, status), flush=True)
        hand_on(stop.number)
    return status
