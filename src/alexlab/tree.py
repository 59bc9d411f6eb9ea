"""Nested mappings: read from YAML files of others, and as flat ones with dotted keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # eight times as fast
_MAX_ALIASES = 100
_MAX_BRACKETS = 2000
_MAX_BYTES = 2**20  # a record's configuration has five thousand


def flatten(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def read_yaml(path: Path) -> Any:
    """Read a YAML file that may come from anyone: plain values, and no aliases of aliases, which grow without end.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for anything that is not such a file, in words that follow its path.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("is not a regular file")
    if size > _MAX_BYTES:
        raise ValueError(f"has {size:,} bytes, and a configuration at most {_MAX_BYTES:,}")
    text = path.read_text(encoding="utf-8-sig")
    if text.count("[") + text.count("{") > _MAX_BRACKETS:  # libyaml takes quadratic time for nested ones
        raise ValueError(f"has more than {_MAX_BRACKETS:,} lists")
    try:
        if "*" in text:
            _refuse_growth(text)
        return yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _refuse_growth(text: str) -> None:
    """Raise ValueError for an alias within what another one stands for, or very many of them."""
    is_anchored: list[bool] = []  # of the collections around
    aliases = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            is_anchored.append(event.anchor is not None)
        elif isinstance(event, yaml.CollectionEndEvent):
            is_anchored.pop()
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if any(is_anchored) or aliases > _MAX_ALIASES:
                raise ValueError(f"holds an alias within an anchored value, or more than {_MAX_ALIASES} aliases")
