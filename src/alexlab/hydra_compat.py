"""The parts of Hydra 1.3 that are not a documented interface, and what this project builds on them.

No other module imports such names, except those of the launchers' own packages in `hydra_plugins/alexlab.py`.
tests/test_hydra_compat.py lists all of them with their signatures, so an incompatible release of Hydra fails there.

The plan composes and checks each job itself, but Hydra's launchers would compose it again from its overrides. They use
the config loader of their context, so they get one that reads what the plan wrote.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, run_job, setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from alexlab.files import make_private
from alexlab.tree import YAML_SUFFIXES

__all__ = [
    "VERSION_BASE",
    "ConfigLoaderImpl",
    "JobReturn",
    "Override",
    "OverridesParser",
    "PlannedJobs",
    "Singleton",
    "find_launchers",
    "find_options",
    "get_args_parser",
    "is_basic_sweeper",
    "launch",
    "make_loader",
    "run_single",
    "setup_globals",
    "split_sweep",
    "with_values",
]

VERSION_BASE = "1.3"
# Launchers of other packages that ours replace; those in conf/hydra/launcher already name ours.
_REPLACED = {
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "hydra_plugins.alexlab.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": "hydra_plugins.alexlab.LocalLauncher",
}


class OptionFiles(FileConfigSource):
    """A folder of option files, in any form in which an editor or a desktop leaves them.

    Hydra's own class does not read `.yml`, misses a `# @package` after a byte order mark, and takes a Mac's
    `._mine.yaml` for an option.
    """

    @staticmethod
    def scheme() -> str:
        return "options"

    def _path(self, config_path: str) -> Path:
        plain = Path(self.path, config_path)
        paths = [plain] if plain.suffix in YAML_SUFFIXES else [Path(f"{plain}{suffix}") for suffix in YAML_SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def is_config(self, config_path: str) -> bool:
        return self._path(config_path).is_file()

    def load_config(self, config_path: str) -> ConfigResult:
        with self._path(config_path).open(encoding="utf-8-sig") as file:
            header = self._get_header_dict(file.read(512))
            file.seek(0)
            return ConfigResult(self.provider, self.full_path(), OmegaConf.load(file), header)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [name for name in super().list(config_path, results_filter) if name[0] != "."]


def make_loader(conf: Path, config_dir: Path | None, job_name: str) -> ConfigLoaderImpl:
    """The loader of `hydra.main` for these folders; `config_dir` is that of `--config-dir`."""
    version.setbase(VERSION_BASE)
    JobRuntime.instance().set("name", job_name)
    SourcesRegistry.instance().register(OptionFiles)
    search_path = create_config_search_path(f"options://{conf}")
    if config_dir is not None:
        search_path.prepend("command-line", f"options://{config_dir}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(search_path)


def find_options(loader: ConfigLoaderImpl) -> dict[str, list[str]]:
    """The options of each config group, Hydra's own groups left out."""
    files = loader.repository  # the loader's own methods copy it for each call, schema included
    groups = [name for name in files.get_group_options("", ObjectType.GROUP) if not name.startswith("hydra")]
    return {name: files.get_group_options(name, ObjectType.CONFIG) for name in sorted(groups)}


def find_launchers(loader: ConfigLoaderImpl) -> list[str]:
    """The options of `hydra/launcher`."""
    return loader.get_group_options("hydra/launcher", ObjectType.CONFIG)


def with_values(config: DictConfig, overrides: list[Override]) -> DictConfig:
    """A copy with keys set, as Hydra sets them once all files are merged."""
    changed = copy.deepcopy(config)
    ConfigLoaderImpl._apply_overrides_to_config(overrides, changed)
    return changed


def is_basic_sweeper(sweeper: DictConfig) -> bool:
    """Whether `split_sweep` expands sweeps as this sweeper does."""
    return sweeper._target_ == f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


def split_sweep(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each job of a sweep."""
    [jobs] = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return jobs


class PlannedJobs:
    """The planned jobs in a folder, one JSON file each; Hydra's launchers use it as their config loader.

    Hydra uses a job's `config` (every key of the schema with its value), `overrides` and `choices`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, number: int | str) -> Path:
        return self.folder / f"job_{number}.json"

    def write(self, number: int, job: dict[str, Any]) -> None:
        self._path(number).write_text(json.dumps(job))

    def read(self, number: int | str) -> dict[str, Any]:
        return json.loads(self._path(number).read_text())

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """Return the planned configuration of the job with this number, with Hydra's own part of the whole sweep."""
        [number] = sweep_overrides
        job = self.read(number)
        config = OmegaConf.merge(master_config, job["config"])
        assert isinstance(config, DictConfig)
        parsed = OverridesParser.create().parse_overrides(job["overrides"])
        with open_dict(config.hydra):
            config.hydra.overrides.task = job["overrides"]
            config.hydra.runtime.choices = job["choices"]
            style = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = get_overrides_dirname(parsed, **style)
        return config


def launch(config: DictConfig, sweep_dir: Path, task: TaskFunction, jobs: PlannedJobs, count: int) -> None:
    """Have `task` called for the jobs 0 to `count - 1` by the launcher of a sweep's composed configuration.

    A task finds its job by `HydraConfig.get().job.num`. Paths relative to the current folder stay valid in it.

    Raises:
        UserError: if the launcher pickles its jobs where another user could replace them.
    """
    config = _prepared(config, RunMode.MULTIRUN)
    with open_dict(config.hydra):
        config.hydra.sweep.dir = str(sweep_dir)
        config.hydra.launcher._target_ = _REPLACED.get(config.hydra.launcher._target_, config.hydra.launcher._target_)
    if (submitted := config.hydra.launcher.get("submitit_folder")) is not None:  # where jobs are pickled
        parts = takewhile(lambda part: "%" not in part, Path(submitted).absolute().parts)  # %j is a job's id
        make_private(Path(*parts), sweep_dir.parent.parent)
    context = _context(config, jobs)
    name = config.hydra.job.config_name
    context.callbacks.on_multirun_start(config=config, config_name=name)
    launcher = Plugins.instance().instantiate_launcher(context, task, config)
    returned = launcher.launch([[str(number)] for number in range(count)], initial_job_idx=0)
    context.callbacks.on_multirun_end(config=config, config_name=name)
    for job in returned:
        _ = job.return_value  # re-raises what the task raised


def run_single(config: DictConfig, task: TaskFunction, jobs: PlannedJobs) -> None:
    """Call `task` for job 0 in this process, as `hydra.main` does without `--multirun`."""
    config = jobs.load_sweep_config(_prepared(config, RunMode.RUN), ["0"])
    with open_dict(config.hydra):
        config.hydra.job.num = 0
    context = _context(config, jobs)
    name = config.hydra.job.config_name
    context.callbacks.on_run_start(config=config, config_name=name)
    job = run_job(task, config, "hydra.run.dir", None, context)
    context.callbacks.on_run_end(config=config, config_name=name, job_return=job)
    _ = job.return_value


def _prepared(config: DictConfig, mode: RunMode) -> DictConfig:
    setup_globals()
    config = copy.deepcopy(config)
    with open_dict(config.hydra):
        config.hydra.mode = mode
        config.hydra.job.chdir = False
    return config


def _context(config: DictConfig, jobs: PlannedJobs) -> HydraContext:
    return HydraContext(cast(Any, jobs), Callbacks(config))
