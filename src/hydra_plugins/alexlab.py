"""Hydra's launchers `slurm` and `ray`, for runs that are stopped, go on and are shared, and its sweeper `planned`.

Against those that they are made of, these launch only what is left of a sweep, wait for all that they have launched
whatever becomes of one of it, and end when the command is told to stop. The sweeper sweeps what was planned. Hydra
takes both from this package alone, and loads this module at each start; so what it needs is loaded late.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import chdir, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from alexlab.runs.process import Launch

TOLD = "ALEXLAB_PLAN"  # what the plan tells its jobs, as JSON in the environment
SQUEUE_SECONDS = 10.0  # between two questions to SLURM; a job that ends well is known by the file that it leaves


def cpus(config: DictConfig) -> int:
    """Cores that a run has use for: its processes, one for each device, and their loaders."""
    return config.trainer.devices * (config.data.num_workers + 1)


def _with_plan(job: Callable[[DictConfig], Any], plan: str, config: DictConfig) -> Any:
    """Hydra's job, told the plan wherever it runs."""
    os.environ[TOLD] = plan
    return job(config)


def _plan() -> tuple[Launch, list[int]]:
    """The launch, and the numbers of the jobs that are left."""
    from alexlab.runs.process import Launch

    plan = json.loads(os.environ[TOLD])
    return Launch(Path(plan["folder"])), plan["left"]


class PlannedSweeper(BasicSweeper):
    """The jobs of a plan, left in the launch's folder; Hydra's own sweeper composes each once more to check it."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.config is not None
        assert self.launcher is not None
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")  # as Hydra's own does
        launch, _ = _plan()
        returned = self.launcher.launch(json.loads(launch.jobs.read_text()), initial_job_idx=0)
        for job in returned:
            _ = job.return_value  # which raises what it raised
        return [returned]


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="planned",
    node={"_target_": f"{PlannedSweeper.__module__}.PlannedSweeper", "max_batch_size": None, "params": None},
    provider="alexlab",
)


with suppress(ImportError):  # the extra `slurm`
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as _SlurmLauncher

    class SlurmLauncher(_SlurmLauncher):
        """An array of SLURM jobs."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            import submitit
            from hydra.core.singleton import Singleton

            assert self.task_function is not None
            launch, left = _plan()
            if not left:
                return []
            self.task_function = partial(_with_plan, self.task_function, os.environ[TOLD])
            given = [
                (list(job_overrides[number]), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
                for number in left
            ]
            keys = self._keys()
            folder = Path(keys.pop("submitit_folder")).absolute()
            try:
                executor = submitit.AutoExecutor(folder, "slurm", slurm_max_num_timeout=keys.pop("max_num_timeout"))
                shared = OmegaConf.structured(BaseQueueConf)
                executor.update_parameters(**{k if k in shared else f"slurm_{k}": v for k, v in keys.items()})
                jobs = executor.map_array(self, *zip(*given, strict=True))
            except Exception as error:  # no SLURM here, or what sbatch does not take
                raise SystemExit(f"error: hydra/launcher=slurm: {' '.join(str(error).split())}") from error
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
            # Which srun has not taken over from sbatch since SLURM 22.05.
            share = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
            keys["setup"] = [*(keys["setup"] or []), share]
            return keys


def _wait(job_id: str, jobs: dict[str, Any], launch: Launch) -> None:
    """Wait until none of an array's jobs is queued or runs; those that wait are cancelled where the command is stopped.

    Those that run see by themselves that it is, and save their state.
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
                ended |= gone & missing  # twice, since a job that is queued again may be missing for a moment
                missing = gone
        for name in sorted(ended):
            job = jobs.pop(name)
            if job.paths.result_pickle.exists() and job.exception() is None:
                if (told := job.result().return_value) is not None:
                    print(told, flush=True)
            elif not was_stopped:
                print(f"SLURM job {name} ended early; its output: {job.paths.stdout}", flush=True)


def _queued() -> set[str]:
    """The jobs of this user that are queued or run."""
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split())


with suppress(ImportError):  # the extra `ray`
    from hydra_plugins.hydra_ray_launcher import _config  # noqa: F401 (it stores `ray`, which ours takes the place of)
    from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher as _RayLauncher

    ConfigStore.instance().repo["hydra"]["launcher"].pop("ray.yaml", None)

    class RayLauncher(_RayLauncher):
        """A Ray task for each run, on this machine or a cluster."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            # Nothing is sent to Ray's makers; each line of a run is shown, and as it was written.
            for name in ("RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", "RAY_COLOR_PREFIX"):
                os.environ.setdefault(name, "0")
            import ray
            from hydra.core.singleton import Singleton
            from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray

            assert self.config is not None
            assert self.hydra_context is not None
            assert self.task_function is not None
            setup_globals()
            launch, left = _plan()
            init = OmegaConf.to_container(self.ray_cfg.init, resolve=True)
            assert isinstance(init, dict)
            before = signal.getsignal(signal.SIGTERM)
            try:
                with chdir(launch.folder):  # Ray's processes look for modules in the current folder first
                    ray.init(**{str(name): value for name, value in init.items()})
            except (ConnectionError, ValueError) as error:
                raise SystemExit(f"error: hydra/launcher=ray: {' '.join(str(error).split())}") from error
            finally:
                signal.signal(signal.SIGTERM, before)  # which Ray has taken for itself
            try:
                tasks = {}
                for number in left:
                    overrides = list(job_overrides[number])
                    config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
                    with open_dict(config):
                        config.hydra.job.id, config.hydra.job.num = f"job_id_for_{number}", number
                    told = partial(_with_plan, self.task_function, os.environ[TOLD])
                    share = self._share("GPU" in ray.cluster_resources())
                    task = launch_job_on_ray(self.hydra_context, share, config, told, Singleton.get_state())
                    tasks[task] = number
                while tasks and launch.requests < 2:
                    for task in ray.wait(list(tasks), timeout=0.5)[0]:
                        number = tasks.pop(task)
                        try:
                            _ = ray.get(task).return_value
                        except Exception as error:
                            print(f"run {number + 1}: its Ray task failed: {error}", flush=True)
                time.sleep(1)  # Ray shows what runs have written a moment later
            finally:
                ray.shutdown()
            return []

        def _share(self, has_gpus: bool) -> DictConfig:
            """What a run has of the machine."""
            assert self.config is not None
            share, trainer = self.ray_cfg.remote.copy(), self.config.trainer
            if share.num_cpus is None:
                share.num_cpus = cpus(self.config)
            if share.num_gpus is None:
                share.num_gpus = trainer.devices if has_gpus and trainer.accelerator.name != "cpu" else 0
            return share
