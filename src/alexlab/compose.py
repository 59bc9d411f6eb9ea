"""From a command line to checked configurations, by way of Hydra.

Everything is composed and checked here before anything runs. What Hydra lets through (`+model.lnr=true`, a truthy
string in a YAML file) does not pass the typed schema, and each mistake is told in one line.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import version as hydra_version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from alexlab.config import CONF_DIR, Config, ConfigError, did_you_mean, shown
from alexlab.tree import read_yaml
from alexlab.validate import finish

CONFIG_NAME = "train"
VERSION_BASE = "1.3"
# The extra that brings a launcher, and its package.
_EXTRAS = {
    **{"joblib": "joblib", "ray": "ray"},
    **dict.fromkeys(("slurm", "submitit_local", "submitit_slurm"), "slurm"),
}
_EXTRA_MODULES = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}

ConfigStore.instance().store(name="schema", node=Config)


@dataclass(frozen=True)
class Job:
    """One run that a command line asks for."""

    overrides: tuple[str, ...]
    config: Config
    choices: dict[str, str]  # the option chosen in each config group: {"protocol": "paper", ...}


@dataclass(frozen=True)
class _Base:
    """A configuration of the schema's type, its interpolations not resolved."""

    values: DictConfig
    choices: dict[str, str]

    def with_values(self, overrides: list[Override]) -> DictConfig:
        """A copy with these keys set, in the way in which Hydra sets them after it has merged all files."""
        values = copy.deepcopy(self.values)
        ConfigLoaderImpl._apply_overrides_to_config(overrides, values)
        return values


class Composer:
    """Composes configurations from `conf/`, and from a folder of the user's own before it.

    Raises (every method): ConfigError, with a message of one line.
    """

    def __init__(self, config_dir: str | None = None) -> None:
        hydra_version.setbase(VERSION_BASE)
        search_path = create_config_search_path(f"file://{CONF_DIR}")
        if config_dir is not None:
            folder = Path(config_dir).expanduser().absolute()
            if not folder.is_dir():
                raise ConfigError(f"--config-dir {config_dir}: no such folder")
            search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
        self._loader = ConfigLoaderImpl(search_path)
        self._schema = OmegaConf.structured(Config)  # values are tried on it, one key at a time
        self._bases: dict[tuple[str, ...], _Base] = {}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The options of each config group of the project."""
        files = self._loader.repository  # which the loader would copy for each question, schema and all
        names = [name for name in files.get_group_options("", ObjectType.GROUP) if not name.startswith("hydra")]
        return {name: files.get_group_options(name, ObjectType.CONFIG) for name in sorted(names) if name != "claims"}

    def job(self, overrides: list[str], trains: bool = True, stored: bool = True) -> Job:
        """Compose and check one configuration; `trains` and `stored` as for `finish`."""
        parsed = self.parse(overrides)
        for override in parsed:
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: several values make a sweep; write -m before them")
            self._check(override)
        names = [override.partition("=")[0] for override in overrides]
        if {"data.map_size", "data.crop_size"} <= set(names):
            raise ConfigError("data.map_size, data.crop_size: the one follows from the other; set only one")
        keys = key_types()
        values = [override for override in parsed if override.key_or_group in keys]
        options = [str(override.input_line) for override in parsed if override.key_or_group not in keys]
        with _one_line(overrides):
            base = self._base(tuple(options))
            config = typed(base.with_values(values), trains, stored)
        return Job(tuple(overrides), config, dict(base.choices))

    def _base(self, lines: tuple[str, ...]) -> _Base:
        """What the files and the chosen options give, before any key is set.

        Kept, since the jobs of a sweep mostly differ in keys alone, and Hydra reads and merges twenty files for each.
        """
        if lines not in self._bases:
            # Anew, since the folders' defaults are what the environment says now, not when this module was loaded.
            ConfigStore.instance().store(name="schema", node=Config)
            composed = self._loader.load_configuration(CONFIG_NAME, list(lines), RunMode.RUN)
            choices = {str(name): str(option) for name, option in composed.hydra.runtime.choices.items()}
            self._bases[lines] = _Base(_without_hydra(composed), choices)
        return self._bases[lines]

    def expand(self, overrides: list[str], multirun: bool) -> tuple[list[list[str]], bool]:
        """The overrides of each job of a command line, and whether it is a sweep (by -m, or by a study's file)."""
        for override in self.parse(overrides):
            self._check(override)
        with _one_line(overrides):
            master = self._loader.load_configuration(
                CONFIG_NAME, list(overrides), RunMode.MULTIRUN, validate_sweep_overrides=False
            )
        sweep = multirun or master.hydra.mode == RunMode.MULTIRUN
        launcher = master.hydra.runtime.choices["hydra/launcher"]
        if not sweep and launcher != "basic":
            raise ConfigError(f"hydra/launcher={launcher}: launches sweeps, also of one run; write -m before the rest")
        if not sweep:
            return [overrides], False
        if not str(master.hydra.sweeper._target_).endswith("BasicSweeper"):
            raise ConfigError("hydra/sweeper: only 'basic' can be planned before it runs")
        params = OmegaConf.to_container(master.hydra.sweeper.params or OmegaConf.create({}))
        assert isinstance(params, dict)
        given = [f"{name}={value}" for name, value in params.items()]
        parsed = self.parse([*given, *overrides])
        for override in parsed:
            self._check(override)
        with _one_line(overrides):
            batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        return [list(job) for batch in batches for job in batch], True

    def parse(self, overrides: list[str]) -> list[Override]:
        """Hydra's view of a command line's overrides."""
        parser = OverridesParser.create(config_loader=self._loader)
        parsed = []
        for override in overrides:  # one at a time, so that a mistake is told with the one that it is in
            with _one_line([override]):
                parsed += parser.parse_overrides([override])
        return parsed

    def check(self, line: str) -> None:
        """Raise ConfigError unless an override names a group's option, or a key and a value of its type."""
        for override in self.parse([line]):
            self._check(override)

    def _check(self, override: Override) -> None:
        """Refuse an unknown group, option or key, and a value of the wrong type, naming the nearest right spelling."""
        name, line = override.key_or_group, override.input_line or ""
        if name == "hydra/launcher":
            self._check_launcher(str(override.value()), line)
        if name.startswith("hydra"):
            return
        groups = self.groups
        if override.is_delete():
            raise ConfigError(f"{line}: a key cannot be deleted; set it to null or to its default")
        with _one_line([line]):
            values = self._values(override)
        if not values:
            raise ConfigError(f"{line}: stands for no value at all; see --help for what there is")
        if name in groups:
            for value in values:
                if value not in groups[name]:
                    options = ", ".join(groups[name])
                    near = did_you_mean(str(value), groups[name])
                    raise ConfigError(f"{line}: there is no {name} '{value}'{near} (there are: {options})")
            return
        types = key_types()
        if name not in types:
            below = [known for known in types if known.startswith(f"{name}.")]
            if below:
                raise ConfigError(f"{line}: '{name}' is a set of keys; set one of them, such as {below[0]}")
            near = did_you_mean(name, [*types, *groups])
            raise ConfigError(f"{line}: there is no key '{name}'{near or '; --help lists all'}")
        if override.is_add() and not override.is_force_add():
            raise ConfigError(f"{line}: the key is there already; leave out the +")
        for value in values:
            if isinstance(value, str) and "${" in value:
                continue  # an interpolation has its type once it is resolved
            try:
                OmegaConf.update(self._schema, name, value)
            except (OmegaConfBaseException, ValueError) as error:
                raise ConfigError(f"{name}={shown(value)}: must be {_expected(types[name], name, value)}") from error

    def _check_launcher(self, name: str, line: str) -> None:
        """Refuse a launcher that is not there, naming what brings it."""
        extra = _EXTRAS.get(name)
        if extra is not None and find_spec(_EXTRA_MODULES[extra]) is None:
            raise ConfigError(f"{line}: is not installed; pip install -e '.[{extra}]' brings it")
        options = self._loader.get_group_options("hydra/launcher", ObjectType.CONFIG)
        if name not in options:
            raise ConfigError(
                f"{line}: there is no such launcher{did_you_mean(name, options)} (there are: {', '.join(options)})"
            )

    def _values(self, override: Override) -> list[Any]:
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(f"{override.input_line}: an interval has no list of values; name them")
            return [
                parsed.value()
                for text in override.sweep_string_iterator()
                for parsed in OverridesParser.create().parse_overrides([f"{override.key_or_group}={text}"])
            ]
        return [override.value()]


def load(overrides: list[str] | None = None) -> Config:
    """Compose and check the configuration that the command line would, from a list such as `["model.lrn=false"]`.

    Raises:
        ConfigError: naming the key, its value and the fix.
    """
    return Composer().job(overrides or []).config


@cache
def key_types() -> dict[str, Any]:
    """{dotted key: its type} of every key."""
    types: dict[str, Any] = {}

    def collect(cls: type, prefix: str) -> None:
        for name, kind in typing.get_type_hints(cls).items():
            if hasattr(kind, "__dataclass_fields__"):
                collect(kind, f"{prefix}{name}.")
            else:
                types[f"{prefix}{name}"] = kind

    collect(Config, "")
    return types


def typed(values: DictConfig, trains: bool = True, stored: bool = True) -> Config:
    """The plain object of a configuration of the schema's type, filled in and checked."""
    _refuse_missing(values)
    config = OmegaConf.to_object(values)
    assert isinstance(config, Config)
    finish(config, trains, stored)
    if config.weights is not None and not Path(config.weights).is_file():  # a run that is done needs it no more
        raise ConfigError(f"weights={config.weights}: no such file")
    return config


def of_hydra(composed: DictConfig) -> Config:
    """The typed object of a configuration that Hydra composed."""
    return typed(_without_hydra(composed))


def _without_hydra(composed: DictConfig) -> DictConfig:
    """A configuration that Hydra composed, less Hydra's own part: of the schema's type, which all files begin with."""
    with open_dict(composed):
        composed.pop("hydra", None)
    return composed


def _refuse_missing(values: DictConfig) -> None:
    for name in sorted(OmegaConf.missing_keys(values)):
        if not name.startswith("hydra"):
            raise ConfigError(f"{name}=???: has no value; give it one")


def from_file(path: Path) -> Config:
    """The schema's defaults changed by one file of `conf/`, not filled in nor checked."""
    with _one_line([str(path)]):
        loaded = OmegaConf.to_container(OmegaConf.load(path))
        changes = loaded if isinstance(loaded, dict) else {}  # a file may be its comment alone
        changes.pop("defaults", None)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), changes))
    assert isinstance(config, Config)
    return config


def read_config(path: Path, stored: bool = True) -> Config:
    """The configuration that a record keeps; with `stored=False` its data need not be here."""
    with _one_line([str(path)]):
        loaded = read_yaml(path)
        if "${" in str(loaded):  # it would be filled in, from the reader's environment too
            raise ConfigError(f"{path}: holds an interpolation, ${{...}}; a record has values")
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), loaded))
    assert isinstance(config, Config)
    return finish(config, trains=stored, stored=stored)


def to_yaml(config: Config) -> str:
    """The configuration as a record keeps it: without `study`, which plans, and `logger`, which may be private."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    plain.pop("logger")
    plain.pop("study")
    return OmegaConf.to_yaml(plain)


def _expected(kind: Any, name: str, value: Any) -> str:
    """What a key of a type takes, in words."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        items = "names" if options[0] is str else "numbers"
        example = f"[{value}]" if isinstance(value, str | int | float) else "[...]"
        return f"a list of {items}; in a shell write '{name}={example}' with the quotes"
    if options:
        return " or ".join("null" if option is type(None) else _expected(option, name, value) for option in options)
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [member.name for member in kind]
        return f"one of {', '.join(names)}{did_you_mean(str(value), names)}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]


def _known() -> list[str]:
    """Every name that may stand in a file: keys, and the sets that they belong to."""
    return [*key_types(), *{name.split(".")[0] for name in key_types()}]


class _one_line:
    """Context that turns what Hydra and OmegaConf raise into a ConfigError of one line."""

    def __init__(self, overrides: list[str]) -> None:
        self._overrides = overrides

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(
            error, HydraException | OmegaConfBaseException | ValueError | YAMLError | OSError
        ) and not isinstance(error, ConfigError):
            raise ConfigError(self._told(error)) from error

    def _told(self, error: BaseException) -> str:
        if isinstance(error, MissingConfigException):
            return " ".join(str(error).split("\nSearch path")[0].split())
        causes = list(_causes(error))
        place = next((match[1] for cause in causes if (match := re.search(r"In '([^']+)'", str(cause)))), None)
        for cause in causes:
            if not isinstance(cause, OmegaConfBaseException):
                continue
            if isinstance(cause, InterpolationResolutionError):
                culprits = [line for line in self._overrides if line.lstrip("+").partition("=")[0] == cause.full_key]
                return f"{' '.join(culprits or self._overrides)}: {str(cause.msg).splitlines()[0]}"
            name = re.sub(r"\[\d+\]$", "", cause.full_key or "")
            types = key_types()
            where = f"{place}.yaml: " if place else ""
            if name.startswith("hydra"):
                return f"{name}: {str(cause.msg).splitlines()[0]}"
            if any(known.startswith(f"{name}.") for known in types):
                return f"{where}{name}: is a set of keys; give it some"
            if place and name == place.split("/")[0]:
                return f"{where}a file of this group begins with '# @package _global_'"
            if name and name not in types:
                return f"{where}there is no key '{name}'{did_you_mean(name, _known()) or '; --help lists all'}"
            if name:
                value = re.search(r"Value '(.*?)'", str(cause))
                said = f"{name}={value[1]}" if value else name
                if "MissingMandatory" in type(cause).__name__:
                    return f"{where}{name}: has no value; give it one"
                return f"{where}{said}: must be {_expected(types[name], name, value[1] if value else None)}"
        said = " ".join(str(causes[0]).split("\nSee https")[0].split())
        if "OverrideParse" in type(causes[0]).__name__:
            said += """; a value with signs or spaces needs quotes inside quotes: 'key="value"'"""
        return f"{' '.join(self._overrides)}: {said}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
