"""Hydra's private names stand in one module, and the installed Hydra has each in the form that is used there."""

from __future__ import annotations

import ast
import inspect
import pkgutil
from pathlib import Path
from typing import Any
from unittest.mock import call

import pytest
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode

import alexlab.hydra_compat
from alexlab.compose import Composer
from alexlab.config import PROJECT_DIR

SRC = PROJECT_DIR / "src"
PLUGIN = SRC / "hydra_plugins" / "alexlab.py"
# Documented, or what documented functions take and return.
PUBLIC = {"hydra", "hydra.conf", "hydra.core.config_store", "hydra.core.hydra_config", "hydra.errors", "hydra.types"}

# The other names, with the call that `alexlab.hydra_compat` or a user of it makes; None stands for `self`.
CALLS = {
    "hydra.version.setbase": call("1.3"),
    "hydra._internal.callbacks.Callbacks": call("config"),
    "hydra._internal.callbacks.Callbacks.on_run_start": call(None, config="", config_name=""),
    "hydra._internal.callbacks.Callbacks.on_run_end": call(None, config="", config_name="", job_return=""),
    "hydra._internal.callbacks.Callbacks.on_multirun_start": call(None, config="", config_name=""),
    "hydra._internal.callbacks.Callbacks.on_multirun_end": call(None, config="", config_name=""),
    "hydra._internal.config_loader_impl.ConfigLoaderImpl": call("search path"),
    "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_configuration": call(None, "train", [], RunMode.RUN),
    "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_sweep_config": call(None, "master config", ["0"]),
    "hydra._internal.config_loader_impl.ConfigLoaderImpl.get_group_options": call(None, "hydra/launcher", "type"),
    "hydra._internal.config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config": call(["override"], "config"),
    "hydra._internal.config_loader_impl.get_overrides_dirname": call([], kv_sep="=", item_sep=",", exclude_keys=[]),
    "hydra._internal.config_repository.ConfigRepository.get_group_options": call(None, "", "type"),
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper.split_arguments": call([], max_batch_size=None),
    "hydra._internal.core_plugins.file_config_source.FileConfigSource": call("provider", "options:///conf"),
    "hydra._internal.core_plugins.file_config_source.FileConfigSource.list": call(None, "ablation", "type"),
    "hydra._internal.sources_registry.SourcesRegistry.instance": call(),
    "hydra._internal.sources_registry.SourcesRegistry.register": call(None, "source"),
    "hydra._internal.utils.create_config_search_path": call("options:///conf"),
    "hydra._internal.utils.get_args_parser": call(),
    "hydra.core.config_search_path.ConfigSearchPath.prepend": call(None, "command-line", "options:///mine", "anchor"),
    "hydra.core.config_search_path.SearchPathQuery": call(provider="schema"),
    "hydra.core.override_parser.overrides_parser.OverridesParser.create": call(config_loader="loader"),
    "hydra.core.override_parser.overrides_parser.OverridesParser.parse_overrides": call(None, ["seed=1"]),
    "hydra.core.override_parser.types.Override.is_add": call(None),
    "hydra.core.override_parser.types.Override.is_delete": call(None),
    "hydra.core.override_parser.types.Override.is_discrete_sweep": call(None),
    "hydra.core.override_parser.types.Override.is_force_add": call(None),
    "hydra.core.override_parser.types.Override.is_sweep_override": call(None),
    "hydra.core.override_parser.types.Override.sweep_string_iterator": call(None),
    "hydra.core.override_parser.types.Override.value": call(None),
    "hydra.core.plugins.Plugins.instance": call(),
    "hydra.core.plugins.Plugins.instantiate_launcher": call(None, "context", "task", "config"),
    "hydra.core.singleton.Singleton.get_state": call(),
    "hydra.core.utils.JobRuntime.instance": call(),
    "hydra.core.utils.JobRuntime.set": call(None, "name", "train"),
    "hydra.core.utils.run_job": call("task", "config", "hydra.run.dir", None, "context"),
    "hydra.core.utils.setup_globals": call(),
    "hydra.plugins.config_source.ConfigResult": call("provider", "path", "config", "header"),
    "hydra.types.HydraContext": call("config loader", "callbacks"),
}
FIELDS = {
    "hydra.core.object_type.ObjectType": ("CONFIG", "GROUP"),
    "hydra.core.override_parser.types.Override": ("input_line", "key_or_group"),
    "hydra.core.utils.JobReturn": ("return_value",),
}
LAUNCHERS = {
    "hydra_plugins.hydra_joblib_launcher._core.execute_job": call(0, ["0"], "context", "config", "task", "state"),
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": call(n_jobs=2),
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": call(timeout_min=1),
    "hydra_plugins.hydra_submitit_launcher.config.BaseQueueConf": call(),
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": call(timeout_min=1),
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher.__call__": call(
        None, ["0"], "hydra.sweep.dir", 0, "job_id_for_0", "state"
    ),
    "hydra_plugins.hydra_ray_launcher._config.RayLauncherConf": call(),
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": call(ray="config"),
    "hydra_plugins.hydra_ray_launcher._launcher_util.launch_job_on_ray": call(
        "context", "resources", "config", "task", "state"
    ),
}


def imports(path: Path) -> set[str]:
    """The dotted names of Hydra and of its plugins that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("hydra", "hydra_plugins")}


def is_public(name: str) -> bool:
    return name in PUBLIC or name.rpartition(".")[0] in PUBLIC - {"hydra"}


def test_private_names_are_imported_by_one_module():
    for path in SRC.rglob("*.py"):
        private = {name for name in imports(path) if not is_public(name)}
        if path == PLUGIN:
            private = {name for name in private if not name.startswith("hydra_plugins.")}
        assert not private or path == Path(alexlab.hydra_compat.__file__), path


def test_every_private_name_is_checked():
    checked = {*CALLS, *FIELDS, *LAUNCHERS}
    for path in (Path(alexlab.hydra_compat.__file__), PLUGIN):
        for name in imports(path):
            assert is_public(name) or any(f"{one}.".startswith(f"{name}.") for one in checked), name


@pytest.mark.parametrize(("name", "made"), CALLS.items())
def test_a_name_takes_the_arguments_that_are_passed(name: str, made: Any):
    inspect.signature(pkgutil.resolve_name(name)).bind(*made.args, **made.kwargs)


@pytest.mark.parametrize(("name", "fields"), FIELDS.items())
def test_a_class_has_the_fields_that_are_read(name: str, fields: tuple[str, ...]):
    cls = pkgutil.resolve_name(name)
    assert set(fields) <= {*dir(cls), *getattr(cls, "__dataclass_fields__", ())}


@pytest.mark.parametrize(("name", "made"), LAUNCHERS.items())
def test_a_launcher_takes_the_arguments_that_are_passed(name: str, made: Any):
    pytest.importorskip(".".join(name.split(".")[:2]))  # an extra
    inspect.signature(pkgutil.resolve_name(name)).bind(*made.args, **made.kwargs)


@pytest.mark.parametrize("replaced", alexlab.hydra_compat._REPLACED)
def test_those_that_ours_replace_are_the_options_own(replaced: str):
    pytest.importorskip(".".join(replaced.split(".")[:2]))
    Composer()  # Hydra finds its plugins
    targets = [node.node.get("_target_") for node in ConfigStore.instance().repo["hydra"]["launcher"].values()]
    assert replaced in targets
    cls = pkgutil.resolve_name(alexlab.hydra_compat._REPLACED[replaced])
    assert replaced in [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]  # Hydra loads each twice


def test_ours_takes_the_place_of_hydras_ray():
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    import hydra_plugins.alexlab  # noqa: F401

    assert "ray.yaml" not in ConfigStore.instance().repo["hydra"]["launcher"]  # conf/hydra/launcher/ray.yaml is found
