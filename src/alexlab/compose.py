"""Compose typed configurations from a command line and the files in `conf/`, with Hydra, and check them.

This happens once, before anything runs. The typed schema rejects what Hydra accepts (`+model.lnr=true`, a truthy string
in a YAML file), and each error is one line.
"""

from __future__ import annotations

import re
import shlex
import typing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from alexlab import own_net, spelling
from alexlab.config import CONF_DIR, Config, ConfigError, did_you_mean, shown
from alexlab.hydra_compat import (
    Override,
    OverridesParser,
    find_launchers,
    find_options,
    is_basic_sweeper,
    make_loader,
    split_sweep,
    with_values,
)
from alexlab.tree import flatten, read_yaml
from alexlab.validate import finish

CONFIG_NAME = "train"
# The extra that installs a launcher, and its module.
_EXTRAS = {
    **{"joblib": "joblib", "ray": "ray"},
    **dict.fromkeys(("slurm", "submitit_local", "submitit_slurm"), "slurm"),
}
_EXTRA_MODULES = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}

_ONLY_BASIC = "only 'basic' is supported, since all runs are planned before the first; -m KEY=VALUE,VALUE is a sweep"
_SHOWN = 12  # options of a group that an error lists

ConfigStore.instance().store(name="schema", node=Config)


@dataclass(frozen=True)
class Job:
    """One run that a command line asks for."""

    overrides: tuple[str, ...]
    config: Config
    choices: dict[str, str]  # the option chosen in each config group: {"protocol": "paper", ...}


@dataclass(frozen=True)
class _Base:
    """A configuration of the schema's type, with unresolved interpolations."""

    values: DictConfig
    choices: dict[str, str]


class Composer:
    """Composes configurations from `conf/` and from a folder of the user's, which takes precedence.

    Files are read once: later changes do not affect what a composer has already composed.

    Raises (every method): ConfigError, with a message of one line.
    """

    def __init__(self, config_dir: str | None = None) -> None:
        folder = None if config_dir is None else Path(config_dir).expanduser().absolute()
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"--config-dir {config_dir}: no such folder")
        self._folder = folder
        if folder is not None:
            _refuse_taken_names(folder)
        self._loader = make_loader(CONF_DIR, folder, job_name=CONFIG_NAME)
        self._schema = OmegaConf.structured(Config)  # values are tried on it, one key at a time
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._sweeps: dict[tuple[str, ...], DictConfig] = {}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The options of each config group of the project."""
        return {name: options for name, options in find_options(self._loader).items() if name != "claims"}

    def job(self, overrides: list[str], trains: bool = True, stored: bool = True) -> Job:
        """Compose and check one configuration; `trains` and `stored` as for `finish`."""
        parsed = self.parse(overrides)
        for override in parsed:
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: several values make a sweep; add -m")
            self._check(override)
        names = [override.partition("=")[0] for override in overrides]
        if {"data.map_size", "data.crop_size"} <= set(names):
            raise ConfigError("data.map_size, data.crop_size: each determines the other; set only one")
        keys = key_types()
        values = [override for override in parsed if override.key_or_group in keys]
        options = [str(override.input_line) for override in parsed if override.key_or_group not in keys]
        with _AsConfigError(overrides):
            base = self._base(tuple(options))
            config = typed(with_values(base.values, values), trains, stored, self._folder)
        _check_own_net(config, parsed)
        return Job(tuple(overrides), config, dict(base.choices))

    def _base(self, lines: tuple[str, ...]) -> _Base:
        """Compose the files and the chosen options, before any key is set.

        Cached: the jobs of a sweep mostly differ in keys alone, and Hydra reads and merges twenty files for each.
        """
        if lines not in self._bases:
            composed = self._load(lines, RunMode.RUN)
            choices = {str(name): str(option) for name, option in composed.hydra.runtime.choices.items()}
            with open_dict(composed):
                composed.pop("hydra")
            self._bases[lines] = _Base(composed, choices)
        return self._bases[lines]

    def _load(self, lines: tuple[str, ...], mode: RunMode) -> DictConfig:
        # Stored again, since the default folders depend on the environment now, not when this module was imported.
        ConfigStore.instance().store(name="schema", node=Config)
        return self._loader.load_configuration(CONFIG_NAME, list(lines), mode)

    def for_launcher(self, overrides: list[str]) -> DictConfig:
        """Compose a whole command line, Hydra's own part included; keys with several values keep their defaults."""
        lines = tuple(overrides)
        if lines not in self._sweeps:
            with _AsConfigError(overrides):
                self._sweeps[lines] = self._load(lines, RunMode.MULTIRUN)
        return self._sweeps[lines]

    def expand(self, overrides: list[str], multirun: bool) -> tuple[list[list[str]], bool]:
        """The overrides of each job of a command line, and whether it is a sweep (by -m, or by a study's file)."""
        for override in self.parse(overrides):
            self._check(override)
        self.check_once(overrides)
        hydra = self.for_launcher(overrides).hydra
        sweep = multirun or hydra.mode == RunMode.MULTIRUN
        launcher = hydra.runtime.choices["hydra/launcher"]
        if not sweep and launcher != "basic":
            raise ConfigError(f"hydra/launcher={launcher}: needs -m, even for a single run")
        if not sweep:
            return [overrides], False
        if not is_basic_sweeper(hydra.sweeper):
            raise ConfigError(f"hydra/sweeper: {_ONLY_BASIC}")
        params = OmegaConf.to_container(hydra.sweeper.params or OmegaConf.create({}))
        assert isinstance(params, dict)
        swept = [f"{name}={value}" for name, value in params.items()]
        parsed = self.parse([*swept, *overrides])
        for override in parsed:
            self._check(override)
        with _AsConfigError(overrides):
            return split_sweep(parsed), True

    def parse(self, overrides: list[str]) -> list[Override]:
        """Parse a command line's overrides, as Hydra does."""
        parser = OverridesParser.create(config_loader=self._loader)
        parsed = []
        for place, override in enumerate(overrides):
            if ("=" not in override and not override.startswith("~")) or override.endswith(","):
                raise ConfigError(spelling.for_word(overrides, place))
            # One at a time, so that the message quotes the one with the error.
            with _AsConfigError([override]):
                parsed += parser.parse_overrides([override])
        return parsed

    def check_once(self, overrides: list[str], can_sweep: bool = True) -> None:
        """Refuse a key or a group that is set twice in a command line: Hydra silently takes the last.

        `can_sweep`: whether the command runs several values of a key in turn.
        """
        given: dict[str, Override] = {}
        for override in self.parse(overrides):
            name = override.key_or_group
            first = given.setdefault(name, override)
            if first is override:
                continue
            one, other = str(first.input_line), str(override.input_line)
            values = [line.partition("=")[2] for line in (one, other)]
            hint = ""
            if name == "logger" and len({*values}) > 1:
                hint = f"; both: 'logger=[{','.join(value.strip('[]') for value in values)}]'"
            elif can_sweep and len({*values}) > 1:
                hint = f"; `train -m {name}={','.join(values)}` runs each in turn"
                if name == "ablation" and (keys := _keys_of(values[1])):
                    hint += f"; both in one run: {one} {keys}"
            raise ConfigError(f"{one} {other}: {name} is set twice and only the last would count; remove one{hint}")

    def check(self, line: str) -> None:
        """Raise ConfigError unless an override names a group's option, or a key and a value of its type."""
        for override in self.parse([line]):
            self._check(override)

    def _check(self, override: Override) -> None:
        """Reject an unknown group, option or key, and a value of the wrong type, with the nearest valid spelling."""
        name, line = override.key_or_group, override.input_line or ""
        if name == "hydra/launcher":
            self._check_launcher(str(override.value()), line)
        if name == "hydra/sweeper" and override.value() != "basic":
            raise ConfigError(f"{line}: {_ONLY_BASIC}")
        if name.startswith("hydra"):
            return
        groups = self.groups
        if override.is_delete():
            raise ConfigError(f"{line}: a key cannot be deleted; set it to null or to its default")
        with _AsConfigError([line]):
            values = self._values(override)
        if not values:
            raise ConfigError(f"{line}: matches no value; --help lists the options")
        if name in groups:
            if name == "logger":  # several at once, by a list
                values = [one for value in values for one in (value if isinstance(value, list) else [value])]
            for value in values:
                if value not in groups[name]:
                    near = did_you_mean(str(value), groups[name])
                    if not near and (advice := spelling.for_value(name, str(value))):
                        near = f"; {advice}"
                    options = f"there are: {', '.join(groups[name])}"
                    if len(groups[name]) > _SHOWN:
                        options = f"--help {name} lists all {len(groups[name])}"
                    raise ConfigError(f"{line}: there is no {name} '{value}'{near} ({options})")
            return
        types = key_types()
        if name not in types:
            below = [known for known in types if known.startswith(f"{name}.")]
            if below:
                raise ConfigError(f"{line}: '{name}' is a section of keys; set one of them, such as {below[0]}")
            advice = spelling.for_name(name, line.partition("=")[2], [*groups, *{key.split(".")[0] for key in types}])
            raise ConfigError(f"{line}: there is no key '{name}'; {advice or '--help lists all'}")
        if override.is_add() and not override.is_force_add():
            raise ConfigError(f"{line}: the key exists already; remove the +")
        for value in values:
            if isinstance(value, str) and "${" in value:
                continue  # an interpolation has its type once it is resolved
            try:
                OmegaConf.update(self._schema, name, value)
            except (OmegaConfBaseException, ValueError) as error:
                advice = spelling.for_value(name, str(value))
                message = f"{name}={shown(value)}: must be {_expected(types[name], name, value)}"
                raise ConfigError(f"{message}; {advice}" if advice else message) from error

    def _check_launcher(self, name: str, line: str) -> None:
        """Reject an unknown launcher, and one whose extra is not installed."""
        extra = _EXTRAS.get(name)
        if extra is not None and find_spec(_EXTRA_MODULES[extra]) is None:
            raise ConfigError(f"{line}: not installed; run pip install '.[{extra}]'")
        options = find_launchers(self._loader)
        if name not in options:
            known = ", ".join(options)
            raise ConfigError(f"{line}: no such launcher{did_you_mean(name, options)} (there are: {known})")

    def _values(self, override: Override) -> list[Any]:
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(f"{override.input_line}: an interval cannot be swept; list the values")
            return [
                parsed.value()
                for text in override.sweep_string_iterator()
                for parsed in OverridesParser.create().parse_overrides([f"{override.key_or_group}={text}"])
            ]
        return [override.value()]


def load(overrides: list[str] | None = None) -> Config:
    """Compose and check a configuration as the command line does, from a list such as `["model.lrn=false"]`.

    Raises:
        ConfigError: naming the key, its value and the fix.
    """
    if isinstance(overrides, str):
        raise ConfigError(f'load("{overrides}"): takes a list; write load(["{overrides}"])')
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


def typed(values: DictConfig, trains: bool = True, stored: bool = True, code: Path | None = None) -> Config:
    """Convert a composed configuration of the schema's type to the typed one, completed and checked.

    `code`: the default of `paths.code`.
    """
    for name in sorted(OmegaConf.missing_keys(values)):
        raise ConfigError(f"{name}=???: has no value; set one")
    config = to_typed(values)
    folder = code if config.paths.code is None else Path(config.paths.code).expanduser().absolute()
    config.paths.code = None if folder is None else str(folder)
    if config.model.build is not None:
        own_net.pin(config)
    finish(config, trains, stored)
    if config.weights is not None and not Path(config.weights).is_file():  # a finished run does not need it any more
        why = "is a folder; name a file in it" if Path(config.weights).is_dir() else "no such file"
        raise ConfigError(f"weights={config.weights}: {why}")
    return config


def _check_own_net(config: Config, given: list[Override]) -> None:
    """Reject AlexNet's keys in a command line with a user's own net that takes no configuration."""
    if not own_net.has_own_keys(config):
        return
    for override in given:
        if override.key_or_group in own_net.UNUSED_KEYS:
            name = own_net.unpinned(str(config.model.build))
            raise ConfigError(f"{override.input_line}: has no effect on the net of {name}, only on AlexNet; remove it")


def to_typed(values: Any) -> Config:
    """Convert a configuration of the schema's type to the typed one; checks types only."""
    config = OmegaConf.to_object(values)
    assert isinstance(config, Config)
    return config


def from_plain(values: Any) -> Config:
    """The typed configuration of plain values over the schema's defaults; checks types only."""
    return to_typed(OmegaConf.merge(_schema(), values))


@cache
def _schema() -> Any:
    return OmegaConf.structured(Config)


def to_plain(config: Config) -> dict[str, Any]:
    """A configuration as nested dicts of values that YAML and JSON have."""

    def plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value.name if isinstance(value, Enum) else value for name, value in items}

    return asdict(config, dict_factory=plain)


def from_file(path: Path) -> Config:
    """The schema's defaults changed by one file of `conf/`, neither completed nor checked across keys."""
    with _AsConfigError([str(path)]):
        loaded = OmegaConf.to_container(OmegaConf.load(path))
        changes = loaded if isinstance(loaded, dict) else {}  # a file may be its comment alone
        changes.pop("defaults", None)
        return from_plain(changes)


def read_config(path: Path, stored: bool = True) -> Config:
    """Read the configuration of a record; with `stored=False` its data need not be on this machine."""
    with _AsConfigError([str(path)]):
        loaded = read_yaml(path)
        if isinstance(loaded, dict):
            loaded.pop("logger", None)  # meaningless in a record; only the oldest ones have it
        if "${" in str(loaded):  # it would be resolved, from the reader's environment too
            raise ConfigError(f"{path}: contains an interpolation, ${{...}}; a record has only plain values")
        config = from_plain(loaded)
    config.paths.code = None  # a record must not name code to run
    return finish(config, trains=stored, stored=stored)


def to_yaml(config: Config) -> str:
    """The configuration as a record stores it.

    It omits `study`, which is only for planning, `logger`, which may be private, and `debug`, which keeps no record.
    """
    plain = to_plain(config)
    for name in ("logger", "study", "debug"):
        plain.pop(name)
    plain["paths"]["code"] = None
    return OmegaConf.to_yaml(plain)


def _refuse_taken_names(folder: Path) -> None:
    """Refuse a user's option files that have the name of a built-in one, since Hydra would read them instead.

    Copies of built-in files, whatever their comments, and files of claims are allowed.
    """
    for path in CONF_DIR.glob("*/**/*.yaml"):
        name = path.relative_to(CONF_DIR)
        for own in (folder / name, folder / name.with_suffix(".yml")):
            if name.parts[0] != "claims" and own.is_file() and _without_comments(own) != _without_comments(path):
                option = name.with_suffix("").as_posix()
                raise ConfigError(
                    f"--config-dir {folder}: {option} is the name of a built-in option; rename {own.name}"
                )


def _without_comments(path: Path) -> list[bytes]:
    """A file's lines without comments, except Hydra's `# @package`, which sets where its keys go."""
    lines = (line.rstrip() for line in path.read_bytes().splitlines())
    return [line for line in lines if line and (not line.startswith(b"#") or line.startswith(b"# @package"))]


def _keys_of(ablation: str) -> str:
    """The overrides that are equivalent to a built-in ablation's file; empty if there is no such file."""
    path = CONF_DIR / "ablation" / f"{ablation}.yaml"
    content = read_yaml(path) if path.is_file() else None
    values = flatten(content) if isinstance(content, dict) else {}
    return shlex.join(f"{name}={shown(value)}" for name, value in values.items() if name in key_types())


def _expected(kind: Any, name: str, value: Any) -> str:
    """The values that a key of this type accepts, in words."""
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
    """Every name that a file may contain: keys and sections of keys."""
    return [*key_types(), *{name.split(".")[0] for name in key_types()}]


class _AsConfigError:
    """Context that turns exceptions of Hydra and OmegaConf into a ConfigError of one line."""

    def __init__(self, overrides: list[str]) -> None:
        self._overrides = overrides

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(
            error, HydraException | OmegaConfBaseException | ValueError | YAMLError | OSError
        ) and not isinstance(error, ConfigError):
            raise ConfigError(self._message(error)) from error

    def _message(self, error: BaseException) -> str:
        if isinstance(error, MissingConfigException):
            return " ".join(str(error).split("\nSearch path")[0].split())
        causes = list(_causes(error))
        file = next((match[1] for cause in causes if (match := re.search(r"In '([^']+)'", str(cause)))), None)
        for cause in causes:
            if not isinstance(cause, OmegaConfBaseException):
                continue
            if isinstance(cause, InterpolationResolutionError):
                culprits = [line for line in self._overrides if line.lstrip("+").partition("=")[0] == cause.full_key]
                return f"{' '.join(culprits or self._overrides)}: {str(cause.msg).splitlines()[0]}"
            name = re.sub(r"\[\d+\]$", "", cause.full_key or "")
            types = key_types()
            where = f"{file}.yaml: " if file else ""
            if name.startswith("hydra"):
                return f"{name}: {str(cause.msg).splitlines()[0]}"
            if any(known.startswith(f"{name}.") for known in types):
                return f"{where}{name}: is a section of keys; set some of them"
            if file and name == file.split("/")[0]:
                return f"{where}a file of this group must begin with '# @package _global_'"
            if name and name not in types:
                return f"{where}there is no key '{name}'{did_you_mean(name, _known()) or '; --help lists all'}"
            if name:
                value = re.search(r"Value '(.*?)'", str(cause))
                given = f"{name}={value[1]}" if value else name
                if "MissingMandatory" in type(cause).__name__:
                    return f"{where}{name}: has no value; set one"
                return f"{where}{given}: must be {_expected(types[name], name, value[1] if value else None)}"
        message = " ".join(str(causes[0]).split("\nSee https")[0].split())
        if "OverrideParse" in type(causes[0]).__name__:
            message = re.sub(r"^\w+Exception: .*", "cannot be read", message)  # ANTLR's name, and the line again
            message += """; a value with special characters or spaces needs nested quotes: 'key="value"'"""
        return f"{' '.join(self._overrides)}: {message}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
