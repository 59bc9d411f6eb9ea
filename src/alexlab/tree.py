"""Nested mappings: untrusted YAML and JSON files, their types, and dotted keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from alexlab.errors import one_line
from alexlab.files import read_regular

YAML_SUFFIXES = (".yaml", ".yml")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # eight times as fast
_MAX_ALIASES = 100
_MAX_BRACKETS = 2000
_MAX_BYTES = 2**20  # a record's configuration has five thousand
_SECTION = re.compile(r"^(?=[^\s#-])", re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can contain a lone one, which cannot be printed
_MAX_SECTION = 2**15  # characters of a cached section


@dataclass(frozen=True)
class Kind:
    """A type of value in a schema, with its name in an error message."""

    name: str
    holds: Callable[[Any], bool]

    def __or__(self, other: Kind) -> Kind:
        return Kind(f"{self.name} or {other.name}", lambda value: self.holds(value) or other.holds(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


TEXT = Kind("text", lambda value: isinstance(value, str) and not _SURROGATE.search(value))
BOOL = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", _is_number)
INTEGER = Kind("a whole number", lambda value: _is_number(value) and isinstance(value, int) and abs(value) < 2**63)
FRACTION = Kind("between 0 and 1", lambda value: _is_number(value) and 0 <= value <= 1)
TIME = Kind("a time in seconds", lambda value: _is_number(value) and 0 <= value < 1e11)  # a date that can be printed
NULL = Kind("null", lambda value: value is None)

# A kind; {name: schema} for names that are present; {ANY: schema} for all names; or [schema] for each item.
Schema = Kind | dict[str, Any] | list[Any]
ANY = "*"


def flatten(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def check_types(value: Any, schema: Schema, name: str = "") -> None:
    """Raise ValueError, with the dotted name and the value, for the first value whose type is not the schema's."""
    if isinstance(schema, Kind):
        if not schema.holds(value):
            raise ValueError(f"{name} is {_short(value)}, must be {schema.name}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise ValueError(f"{name} is {_short(value)}, must be a list")
        for item in value:
            check_types(item, schema[0], name)
    else:
        if not isinstance(value, dict):
            raise ValueError(f"{name or 'it'} is {_short(value)}, must be a mapping")
        for key, item in value.items():
            if (wanted := schema.get(key, schema.get(ANY))) is not None:
                check_types(item, wanted, f"{name}.{key}" if name else key)


def _short(value: Any) -> str:
    text = "a number of many digits" if isinstance(value, int) and abs(value) >= 2**63 else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def read_json(path: Path, schema: dict[str, Any], limit: int = _MAX_BYTES) -> dict[str, Any]:
    """Read a mapping from an untrusted JSON file.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is not such a file or a value's type is not the schema's; the path can precede its message.
    """
    try:
        content = json.loads(read_regular(path, limit).decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    check_types(content, schema)
    return content


def read_yaml(path: Path) -> Any:
    """Read an untrusted YAML file: plain values, and no aliases of aliases, which can grow exponentially.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is not such a file; the path can precede its message.
    """
    return parse_yaml(read_regular(path, _MAX_BYTES).decode("utf-8-sig"))


def parse_yaml(text: str) -> Any:
    """`read_yaml` of a text."""
    if text.count("[") + text.count("{") > _MAX_BRACKETS:  # libyaml takes quadratic time for nested ones
        raise ValueError(f"has more than {_MAX_BRACKETS:,} lists")
    try:
        if "*" in text:
            _refuse_growth(text)
        found = _by_sections(text)
        return yaml.load(text, Loader=_LOADER) if found is None else found
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(one_line(error)) from error


def yaml_files(folder: Path) -> list[Path]:
    """The YAML files of a folder of options, by name; except those that a Mac leaves next to them (`._mine.yaml`)."""
    return sorted(path for path in folder.glob("*.y*ml") if path.suffix in YAML_SUFFIXES and path.name[0] != ".")


def _by_sections(text: str) -> dict[str, Any] | None:
    """Parse a mapping by cached sections, since a study's records share most of them; None if that is impossible."""
    found: dict[str, Any] = {}
    for section in filter(str.strip, _SECTION.split(text)):
        content = _section(section) if len(section) <= _MAX_SECTION else None
        if content is None or content.keys() & found.keys():
            return None
        found.update(_copy(content))
    return found or None


@lru_cache(maxsize=1024)
def _section(text: str) -> dict[str, Any] | None:
    try:
        content = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError:
        return None
    return content if isinstance(content, dict) and len(content) == 1 else None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _refuse_growth(text: str) -> None:
    """Raise ValueError for an alias within the value of another one, or for very many aliases."""
    is_anchored: list[bool] = []  # of the enclosing collections
    aliases = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            is_anchored.append(event.anchor is not None)
        elif isinstance(event, yaml.CollectionEndEvent):
            is_anchored.pop()
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if any(is_anchored) or aliases > _MAX_ALIASES:
                raise ValueError(f"contains an alias within an anchored value, or more than {_MAX_ALIASES} aliases")
