"""Hydra's launchers `joblib`, `submitit_local`, `slurm` and `ray`, for runs that can be stopped, resumed and shared.

Unlike the launchers that they extend, these wait for all of their jobs even if one fails or its process is killed, and
end when the command is stopped. Hydra loads this module at each start of any application, so it imports what it needs
late.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import chdir, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from alexlab.hydra_compat import JobReturn, PlannedJobs
    from alexlab.runs.process import Launch

SQUEUE_SECONDS = 10.0  # between two calls of squeue; a job that ends normally is noticed by its result file


def cpus(config: DictConfig) -> int:
    """Cores that a run can use: one for each device's process, and one for each of its data loader's workers."""
    return config.trainer.devices * (config.data.num_workers + 1)


def _jobs(context: HydraContext | None) -> tuple[PlannedJobs, Launch]:
    from alexlab.runs.process import Launch

    assert context is not None
    jobs = cast("PlannedJobs", context.config_loader)
    return jobs, Launch(jobs.folder)


with suppress(ImportError):  # the extra `joblib`
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher as _JoblibLauncher

    class JoblibLauncher(_JoblibLauncher):
        """Runs side by side on this machine; of joblib's keys only n_jobs is used.

        Each has a pool of one process, since loky ends all processes of a pool once one of them is killed, as
        joblib.Parallel does with the runs in them.
        """

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            from concurrent.futures import ThreadPoolExecutor

            from hydra_plugins.hydra_joblib_launcher._core import execute_job
            from joblib import effective_n_jobs
            from loky import ProcessPoolExecutor
            from loky.process_executor import BrokenProcessPool

            from alexlab.errors import one_line
            from alexlab.hydra_compat import Singleton, setup_globals

            setup_globals()
            jobs, _ = _jobs(self.hydra_context)
            count = min(effective_n_jobs(self.joblib["n_jobs"]), len(job_overrides))
            free = [ProcessPoolExecutor(1) for _ in range(count)]
            state = Singleton.get_state()

            def execute(number: int, overrides: Sequence[str]) -> None:
                title = jobs.read(number)["title"]
                pool = free.pop()
                try:
                    task = self.hydra_context, self.config, self.task_function, state
                    _ = pool.submit(execute_job, number, overrides, *task).result().return_value  # raises its error
                except BrokenProcessPool:
                    print(f"{title}: its process was killed; the other runs go on", flush=True)
                    pool = ProcessPoolExecutor(1)
                except Exception as error:
                    print(f"{title}: its job failed: {one_line(error)}", flush=True)
                finally:
                    free.append(pool)

            try:
                with ThreadPoolExecutor(count) as threads:
                    numbered = enumerate(job_overrides, initial_job_idx)
                    for done in [threads.submit(execute, *job) for job in numbered]:
                        done.result()
            finally:
                for pool in free:
                    pool.shutdown(kill_workers=True)
            return []


with suppress(ImportError):  # the extra `slurm`
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher as _LocalLauncher
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as _SlurmLauncher

    class LocalLauncher(_LocalLauncher):
        """All runs at once, each in a process of this machine."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            import submitit

            planned, _ = _jobs(self.hydra_context)
            keys = dict(self.params)
            executor = submitit.AutoExecutor(keys.pop("submitit_folder"), "local")
            executor.update_parameters(**keys)
            for number, job in _submit(self, executor, job_overrides, initial_job_idx).items():
                title = planned.read(number)["title"]
                try:
                    returned = job.result()
                except Exception:
                    print(f"{title}: its process ended early; its output: {job.paths.stderr}", flush=True)
                else:
                    _print_message(title, returned)
            return []

    class SlurmLauncher(_SlurmLauncher):
        """An array of SLURM jobs."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            import submitit

            from alexlab.errors import one_line

            _, launch = _jobs(self.hydra_context)
            keys = self._keys()
            folder = Path(keys.pop("submitit_folder")).absolute()
            try:
                executor = submitit.AutoExecutor(folder, "slurm", slurm_max_num_timeout=keys.pop("max_num_timeout"))
                shared = OmegaConf.structured(BaseQueueConf)
                executor.update_parameters(**{k if k in shared else f"slurm_{k}": v for k, v in keys.items()})
                jobs = [*_submit(self, executor, job_overrides, initial_job_idx).values()]
            except Exception as error:  # SLURM is not installed, or sbatch rejects an option
                raise SystemExit(f"error: hydra/launcher=slurm: {one_line(error)}") from error
            job_id = jobs[0].job_id.split("_")[0]
            print(f"SLURM job {job_id}, runs: {len(jobs)}. Their output: {folder}/{job_id}*.out", flush=True)
            _wait(job_id, {job.job_id: job for job in jobs}, launch)
            return []

        def _keys(self) -> dict[str, Any]:
            assert self.config is not None
            keys, trainer = dict(self.params), self.config.trainer
            if keys["cpus_per_task"] is None and keys["cpus_per_gpu"] is None:
                keys["cpus_per_task"] = cpus(self.config)
            if keys["gpus_per_node"] is None and keys["gres"] is None and keys["gpus_per_task"] is None:
                keys["gpus_per_node"] = 0 if trainer.accelerator.name == "cpu" else trainer.devices
            keys["gpus_per_node"] = keys["gpus_per_node"] or None
            # Since SLURM 22.05, srun does not inherit --cpus-per-task from sbatch.
            export = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
            keys["setup"] = [*(keys["setup"] or []), export]
            return keys


def _submit(launcher: Any, executor: Any, job_overrides: Sequence[Sequence[str]], first: int) -> dict[int, Any]:
    """Submit the jobs of a submitit launcher; return submitit's, by number."""
    from alexlab.hydra_compat import Singleton

    calls = {
        number: (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
        for number, overrides in enumerate(job_overrides, first)
    }
    return dict(zip(calls, executor.map_array(launcher, *zip(*calls.values(), strict=True)), strict=True))


def _print_message(title: str, returned: JobReturn) -> None:
    """Print the message that a job's task returned, or the error that it raised: its own output goes into a file."""
    from alexlab.errors import one_line

    try:
        message = returned.return_value
    except Exception as error:
        message = f"{title}: its job failed: {one_line(error)}"
    if message is not None:
        print(message, flush=True)


def _wait(job_id: str, jobs: dict[str, Any], launch: Launch) -> None:
    """Wait until no job of an array is queued or running; when the command is stopped, cancel those that are pending.

    Running jobs notice the stop themselves and save their state.
    """
    asked, was_stopped, missing = time.monotonic(), False, set()
    while jobs:
        time.sleep(0.5)
        ended = {name for name, job in jobs.items() if job.paths.result_pickle.exists()}
        if launch.is_stopped != was_stopped or time.monotonic() - asked > (1 if was_stopped else SQUEUE_SECONDS):
            asked, was_stopped = time.monotonic(), launch.is_stopped
            if launch.requests > 1:
                subprocess.run(["scancel", job_id], check=False)
                return
            if was_stopped:
                subprocess.run(["scancel", "--state=PENDING", job_id], check=False)
            with suppress(subprocess.SubprocessError):  # SLURM does not answer now
                gone = jobs.keys() - _queued()
                ended |= gone & missing  # missing twice: a job that is being requeued may be missing for a moment
                missing = gone
        for name in sorted(ended):
            job = jobs.pop(name)
            if job.paths.result_pickle.exists() and job.exception() is None:
                _print_message(f"SLURM job {name}", job.result())
            elif not was_stopped:
                print(f"SLURM job {name} ended early; its output: {job.paths.stdout}", flush=True)


def _queued() -> set[str]:
    """The ids of this user's jobs that are queued or running."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split())


with suppress(ImportError):  # the extra `ray`
    from hydra_plugins.hydra_ray_launcher import _config  # noqa: F401 (it stores the option `ray`, which ours replaces)
    from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher as _RayLauncher

    ConfigStore.instance().repo["hydra"]["launcher"].pop("ray.yaml", None)

    class RayLauncher(_RayLauncher):
        """A Ray task for each run, on this machine or a cluster."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            # Send no usage statistics; print every line of a run, unchanged. Do not restart a run that Ray's memory
            # monitor has killed: `max_retries` does not count those, Ray retries them without limit, and the record
            # knows nothing of it. Read when ray is imported, and of the command's process, also on a cluster.
            switched_off = ("RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", "RAY_COLOR_PREFIX", "RAY_task_oom_retries")
            for name in switched_off:
                os.environ.setdefault(name, "0")
            import ray
            from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray

            from alexlab.errors import one_line
            from alexlab.hydra_compat import Singleton, setup_globals

            assert self.config is not None
            assert self.hydra_context is not None
            assert self.task_function is not None
            setup_globals()
            jobs, launch = _jobs(self.hydra_context)
            init = OmegaConf.to_container(self.ray_cfg.init, resolve=True)
            assert isinstance(init, dict)
            before = signal.getsignal(signal.SIGTERM)
            try:
                with chdir(launch.folder):  # Ray's processes look for modules in the current folder first
                    ray.init(**{str(name): value for name, value in init.items()})
            except (ConnectionError, ValueError) as error:
                raise SystemExit(f"error: hydra/launcher=ray: {one_line(error)}") from error
            finally:
                signal.signal(signal.SIGTERM, before)  # Ray installs a handler of its own
            try:
                tasks = {}
                has_gpus = "GPU" in ray.cluster_resources()
                for number, overrides in enumerate(job_overrides, initial_job_idx):
                    config = jobs.load_sweep_config(self.config, overrides)
                    with open_dict(config):
                        config.hydra.job.id, config.hydra.job.num = f"job_id_for_{number}", number
                    resources = self._resources(config, has_gpus)
                    state = Singleton.get_state()
                    task = launch_job_on_ray(self.hydra_context, resources, config, self.task_function, state)
                    tasks[task] = jobs.read(number)["title"]
                while tasks and launch.requests < 2:
                    for task in ray.wait(list(tasks), timeout=0.5)[0]:
                        title = tasks.pop(task)
                        try:
                            _ = ray.get(task).return_value
                        except Exception as error:
                            print(f"{title}: its Ray task failed: {error}", flush=True)
                time.sleep(1)  # Ray prints what runs have written a moment later
            finally:
                ray.shutdown()
            return []

        def _resources(self, config: DictConfig, has_gpus: bool) -> DictConfig:
            """The resources that Ray reserves for a run."""
            resources, trainer = self.ray_cfg.remote.copy(), config.trainer
            if resources.num_cpus is None:
                resources.num_cpus = cpus(config)
            if resources.num_gpus is None:
                resources.num_gpus = trainer.devices if has_gpus and trainer.accelerator.name != "cpu" else 0
            return resources
