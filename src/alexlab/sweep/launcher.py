"""Run the jobs of a plan through one of Hydra's launchers, in this process or in others.

Each job has a file in the launch's folder, with its checked configuration and the names of its run. The process that
does the job reads it and composes nothing, so files in `conf/` may change meanwhile.

Hydra has no resume, so each job checks whether its run needs work, and any launcher resumes what another one left. A
job records its failure and never raises, so every launcher reaches the end of its list. A run that another command
works on is left to that command and checked again at the end.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from alexlab import hydra_compat, own_net, threads
from alexlab.children import inherit_code
from alexlab.compose import to_plain, to_typed
from alexlab.config import Accelerator, Config, flat
from alexlab.console import Console, plural, printable
from alexlab.errors import UserError
from alexlab.files import is_first_time, temporary_folder
from alexlab.hydra_compat import PlannedJobs
from alexlab.runs.device import Device, cpu
from alexlab.runs.failure import HINTS, failure_of, is_shared, message_of
from alexlab.runs.identity import SEEDS
from alexlab.runs.lease import EXPIRY, holder, machine
from alexlab.runs.process import Launch
from alexlab.runs.record import DONE, PREEMPTED
from alexlab.runs.supervisor import HELD, check, execute, needs_work
from alexlab.sweep.plan import Plan, PlannedRun, write_sweep
from alexlab.sweep.stop import Budget, Stop, Stopped, following, hand_on
from alexlab.sweep.study_plan import does_not_learn

_MOST_OWNERS = 3  # of runs that a command waits for, named in its message
_LOCAL = ("basic", "joblib", "submitit_local")  # the launchers whose jobs run on this machine


def check_runs(plan: Plan) -> Device | None:
    """Check the runs that are not done yet with torch; return the device if they train on this machine.

    Raises:
        ConfigError: for the first run that cannot start.
    """
    pending = [run for run in plan.runs if run.is_pending]
    arms = {run.arm: run.config for run in pending}
    is_here = plan.choices["hydra/launcher"] in _LOCAL
    has_weights = any(config.weights is not None for config in arms.values())
    if not arms or not (is_here or has_weights):
        return None
    if not has_weights and all(config.trainer.accelerator is Accelerator.cpu for config in arms.values()):
        return cpu()  # no need to load torch
    return check(list(arms.values()), is_here)


@contextmanager
def launching(plan: Plan, console: Console, budget: Budget | None = None) -> Iterator[tuple[Launch, Stop]]:
    """Context with a launch of the plan's runs, whose folder exists as long as the context, and its `Stop`."""
    statuses = {} if plan.is_tryout else {run.run_id: run.record.status() for run in plan.runs}
    attempts = {name: status["attempt"] for name, status in statuses.items() if "attempt" in status}
    is_local = plan.choices["hydra/launcher"] in _LOCAL
    with temporary_folder(None if is_local else _sweeps(plan)) as folder:
        launch = Launch(folder, attempts)
        with Stop(launch, console, budget=budget) as stop:
            yield launch, stop


def do_all(plan: Plan, console: Console, launch: Launch) -> None:
    """Launch the runs that need work, until none is left or those that are left could not start.

    Raises:
        Stopped: if no further run may start; none is training then.
    """
    if plan.is_sweep and _left(plan, launch):  # else write nothing: the folder may be another user's
        write_sweep(plan, _sweeps(plan))  # for `alexlab runs watch`
    while left := _left(plan, launch):
        if launch.is_ending:
            raise Stopped
        free = [run for run in left if not holder(run.record.path)]
        _held_mark(launch).unlink(missing_ok=True)
        if free:
            launch_jobs(plan, launch, map(plan.jobs.index, free))
        if launch.failure.exists():
            spared = [run for run in free if not _refused_mark(launch, run.run_id).exists()]
            number = sum(run.record.status().get("attempt", 0) <= launch.attempts.get(run.run_id, 0) for run in spared)
            if number:
                console.print(
                    f"{number} of {len(plan.runs)} runs were not started, since they would fail in the same way: "
                    f"{launch.failure.read_text()}"
                )
            return
        held = [(run, owner) for run in _left(plan, launch) if (owner := holder(run.record.path))]
        if not held:
            if free and not _held_mark(launch).exists():
                return  # a run that is left has printed why it could not start
            continue
        console.print(_waiting([owner for _, owner in held], len(plan.runs)))
        while all(holder(run.record.path) for run, _ in held):
            if launch.is_ending:
                raise Stopped
            time.sleep(0.5)


def _waiting(owners: Sequence[str], runs: int) -> str:
    """The message that a command waits for runs, with the processes that work on them; `owners`: one per run."""
    found = sorted(set(owners))
    more = f" and {len(found) - _MOST_OWNERS} more" if len(found) > _MOST_OWNERS else ""
    whose = "; ".join(found[:_MOST_OWNERS])
    return f"Waiting for {len(owners)} of {plural(runs, 'run')} that other processes work on ({whose}{more}) ..."


def _left(plan: Plan, launch: Launch) -> list[PlannedRun]:
    return [
        run
        for run in plan.runs
        if needs_work(run.record.status(), run.config.retry, launch.attempts.get(run.run_id, 0))
    ]


@contextmanager
def _sweep_dir(plan: Plan, launch: Launch) -> Iterator[Path]:
    """A new folder for files of Hydra and its launchers; it is removed if they leave it empty.

    Only this user can enter it, and its name is unpredictable: launchers pickle jobs in it, and pickles run code.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{plan.sweep_id}.", dir=launch.folder if plan.is_tryout else _sweeps(plan)))
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def _sweeps(plan: Plan) -> Path:
    folder = Path(plan.runs[0].config.paths.runs).absolute() / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def launch_jobs(plan: Plan, launch: Launch, numbers: Iterable[int]) -> None:
    """Have Hydra launch the plan's jobs with these numbers.

    Raises:
        UserError: if the launcher pickles its jobs where another user could replace them.
    """
    jobs = PlannedJobs(launch.folder)
    numbers = list(numbers)
    has_base = plan.study is not None and plan.study.has_base
    of_all = {
        **{"machine": machine(), "process": os.getpid(), "cwd": str(Path.cwd()), "launched": len(numbers)},
        **{"threads_set": threads.is_set_by_user(), "base": str(plan.runs[0].record.path) if has_base else None},
        "varying": sorted(_varying_keys([run.config for run in plan.runs])),
    }
    for position, number in enumerate(numbers):
        run = plan.jobs[number]
        job = {
            **{"run_id": run.run_id, "attempts": launch.attempts.get(run.run_id, 0)},
            **{"title": f"run {number + 1} of {plan.num_jobs}" if plan.num_jobs > 1 else "run", "what": run.varied},
            **{
                "config": to_plain(own_net.copied(run.config, launch.folder)),
                "labels": run.labels,
                "choices": run.choices,
            },
            "overrides": [override for override in run.overrides if not override.startswith("hydra")],
        }
        jobs.write(position, {**of_all, **job})
    inherit_code()
    task = partial(do_job, str(launch.folder))
    try:
        if plan.is_sweep:
            with _sweep_dir(plan, launch) as folder:
                hydra_compat.launch(plan.for_launcher, folder, task, jobs, len(numbers))
        else:
            hydra_compat.run_single(plan.for_launcher, task, jobs)
    except SystemExit as stop:  # of a launcher of ours, with its message
        print(stop.code, file=sys.stderr)
    except UserError:
        raise
    except Exception:  # of another launcher, such as a killed worker; the records have the runs' outcomes
        traceback.print_exc()


def _varying_keys(configs: list[Config]) -> set[str]:
    """The keys, seeds aside, in which configurations differ."""
    first, *others = map(flat, configs)
    return {name for other in others for name, value in other.items() if value != first[name] and name not in SEEDS}


def do_job(folder: str, planned: DictConfig) -> str | None:
    """Do one job of a launch, in this process or in a launcher's; return the message if its run is not done."""
    hydra_config = HydraConfig.get()
    number = hydra_config.job.num
    job = PlannedJobs(Path(folder)).read(number)
    launch = Launch(Path(folder), {job["run_id"]: job["attempts"]}, _threads(job, hydra_config))
    is_local = job["machine"] == machine()
    is_ours = is_local and os.getpid() == job["process"]
    if launch.is_ending:
        if is_ours:
            raise Stopped  # out of the launcher's loop over all jobs
        return None
    if launch.failure.exists():
        return None  # the command reports it once for all runs
    title: str = job["title"]
    status: dict[str, Any] = {}
    try:
        os.chdir(job["cwd"])  # so that a relative path means the same as in the command
        config = to_typed(planned)
        print(f"{title}: {job['what']} seed={config.seed}", flush=True)
        if (base := job["base"]) is not None and (why := does_not_learn(Path(base), config)) is not None:
            message = f"not started, because the study's base {why} ({Path(base).name}); fix that first"
            if not is_first_time(launch.messages, message):
                return None
            print(f"{title}: {message}", flush=True)
            return f"{title}: {message}"
        if hydra_config.runtime.choices["hydra/launcher"] not in _LOCAL and (device := check([config], is_here=True)):
            print(f"{title}: device: {device}", flush=True)
        if is_ours:
            status = execute(config, job["labels"], title, launch)
        else:
            command = job["process"] if is_local else None
            status = _execute_elsewhere(config, job["labels"], title, launch, command)
    except OSError as error:  # before a worker process could write it to the record
        failure = failure_of(error)
        message = printable(f"{title}: FAILED ({failure}): {error}\n  {HINTS[failure]}")
    except UserError as error:
        message = printable(f"{title}: {error}")
        status = {"failure": failure_of(error), "message": str(error)}
    except Exception as error:  # Hydra's launchers drop it, or end with it
        traceback.print_exc()
        message = printable(f"{title}: FAILED ({failure_of(error)}): {message_of(error)}")
    else:
        message = _ending(title, status)
        if status["state"] == HELD:
            _held_mark(launch).touch()
        if status["state"] == DONE and config.is_tryout:
            _passed_mark(launch, number).touch()
    if message is not None:
        print(message, flush=True)
    if "state" not in status:
        _refused_mark(launch, job["run_id"]).touch()
    if is_local and is_shared(status.get("failure"), text := str(status.get("message")), job["varying"]):
        launch.failure.write_text(text)
    return message


def _held_mark(launch: Launch) -> Path:
    """The file that exists if another command worked on a run when its job started, even if it no longer does."""
    return launch.folder / "held"


def _refused_mark(launch: Launch, run_id: str) -> Path:
    """The file that exists if a run could not start, which its job has printed."""
    return launch.folder / f"{run_id}.refused"


def _passed_mark(launch: Launch, number: int) -> Path:
    return launch.folder / f"job_{number}.passed"


def count_passed(launch: Launch) -> int:
    """The number of trial runs of a launch that passed."""
    return len(list(launch.folder.glob("job_*.passed")))


def _threads(job: dict[str, Any], hydra_config: HydraConf) -> int | None:
    """Threads of a run: its share of the cores, if its launcher runs others at the same time on this machine."""
    if job["threads_set"]:
        return None
    launcher = hydra_config.runtime.choices["hydra/launcher"]
    if launcher == "joblib":
        from joblib import effective_n_jobs

        return max(1, threads.cores() // min(effective_n_jobs(hydra_config.launcher["n_jobs"]), job["launched"]))
    if launcher == "submitit_local":  # starts all at once
        return max(1, threads.cores() // job["launched"])
    return threads.cores(of_launcher=True)


def _ending(title: str, status: dict[str, Any]) -> str | None:
    """The message about a run that is not done; file names in it may be untrusted."""
    state = status["state"]
    if state in (HELD, PREEMPTED):
        return printable(f"{title}: {state}: {status['message']}")
    if state != DONE:
        return printable(f"{title}: {state} ({status.get('failure')}): {status.get('message')}\n  {status.get('hint')}")
    return None


def _execute_elsewhere(
    config: Config, labels: dict[str, str], title: str, launch: Launch, command: int | None
) -> dict[str, Any]:
    """Do a run in a launcher's process, which stops when the command is stopped, or on its own signals.

    `command`: the command's process id if it is on this machine; this process ends with it, unless it is SLURM's.
    """
    executor = os.environ.get("SUBMITIT_EXECUTOR")
    with (
        temporary_folder() as folder,
        Stop(own := Launch(folder, launch.attempts, launch.threads, launch.folder), command=launch) as stop,
        following(stop, launch, None if executor == "slurm" else command),
    ):
        status = execute(config, labels, title, own)
        deadline = time.monotonic() + 1.5 * EXPIRY if os.environ.get("SLURM_RESTART_COUNT") else 0
        while status["state"] == HELD and time.monotonic() < deadline and not own.is_stopped:
            time.sleep(5)  # held by this very job, whose machine died before SLURM requeued it
            status = execute(config, labels, title, own)
    if (
        stop.number is not None
        and executor is not None
        and status["state"] in (HELD, PREEMPTED)
        and not launch.is_stopped
    ):
        print(_ending(title, status), flush=True)
        hand_on(stop.number)
    return status
