"""The JSON schema of the configuration, with which editors complete and check its files: conf/schema.json.

    python -m alexlab.cli.schema > conf/schema.json

It has the content of the typed schema: every key with its type, range and meaning. Rules between several keys are
checked only when a configuration is composed. A file that begins with `# @package _global_` uses the whole schema, any
other file that of its section,
`schema.json#/definitions/data`. Draft 7 is what the editors' YAML servers read.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from enum import Enum
from types import NoneType
from typing import Any

from alexlab.cli.help import GROUPS, range_of
from alexlab.config import CONV_LAYERS, HIDDEN_LAYERS, Config
from alexlab.study.claims import METRICS, RANGE_VERDICTS, SIDES, VIEWS, Claim

_BOUNDS = {"at least": "minimum", "above": "exclusiveMinimum", "at most": "maximum", "below": "exclusiveMaximum"}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_DEFERRED = {"$ref": "#/definitions/deferred"}
_NUMBER = r"[+]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
# Texts that the configuration refuses, since they are meant as null.
_NO_TEXT = r"^\s*$|^([Nn][Oo][Nn][Ee]|[Nn][Uu][Ll][Ll]|~)$"
_NAMES = {"metric": METRICS, "view": VIEWS, "against_view": VIEWS, "direction": SIDES, "verdict": RANGE_VERDICTS}
_NEEDED = ("id", "section", "statement")  # of a claim


def schema() -> dict[str, Any]:
    """The schema of a file of all keys, with a definition for each section and one for files of claims."""
    sections = {entry.name: entry for entry in dataclasses.fields(Config) if "meaning" not in entry.metadata}
    hints = typing.get_type_hints(Config)
    whole = _mapping(Config, "A configuration of alexlab: any of its keys.")
    for name in sections:
        whole["properties"][name] = {"$ref": f"#/definitions/{name}"}
    whole["properties"]["hydra"] = {"type": "object", "description": "Hydra's own configuration."}
    definitions = {name: _mapping(hints[name], f"{name}: {GROUPS.get(name, 'keys')}.") for name in sections}
    definitions["claims"] = _claims()
    definitions["defaults"] = {
        "type": "array",
        "description": "Files that this one is built on: GROUP: OPTION, or override /GROUP: OPTION (Hydra).",
        "items": {"type": ["string", "object"]},
    }
    definitions["deferred"] = {  # without a description, which editors would show for each key
        "$comment": "An interpolation such as ${seed}, or ??? for a value to be set later.",
        "type": "string",
        "pattern": r"^\?\?\?$|\$\{.*\}",
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "alexlab",
        **whole,
        "definitions": definitions,
    }


def _mapping(cls: type, description: str) -> dict[str, Any]:
    """The schema of a dataclass of keys; sections within it are left to the caller."""
    hints = typing.get_type_hints(cls)
    keys = {
        entry.name: _key(entry, hints[entry.name]) for entry in dataclasses.fields(cls) if "meaning" in entry.metadata
    }
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": {"defaults": {"$ref": "#/definitions/defaults"}, **keys},
    }


def _key(entry: dataclasses.Field[Any], kind: Any) -> dict[str, Any]:
    options = [option for option in _members(kind) if option is not NoneType]
    accepted = [_value(option, entry.metadata) for option in options]
    if len(options) < len(_members(kind)):
        accepted.append({"type": "null"})
    unstated = entry.metadata["unstated"]
    more = f" Unstated in the paper: {unstated}." if unstated else ""
    found = {"description": f"{entry.metadata['meaning']} [{range_of(entry)}]{more}", "anyOf": [*accepted, _DEFERRED]}
    default = entry.default if entry.default is not dataclasses.MISSING else None
    if isinstance(default, Enum):
        found["default"] = default.name
    elif default is not None:
        found["default"] = default
    return found


def _members(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Union else (kind,)


def _value(kind: Any, metadata: typing.Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a value, or of a list, whose items then have the key's bounds and choices."""
    if typing.get_origin(kind) is list:
        [item] = typing.get_args(kind)
        items = _value(item, metadata)
        return {"type": "array", "items": items, **({"uniqueItems": True} if metadata["unordered"] else {})}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.name for member in kind]}
    if metadata["by_layer"] is not None:
        layers = "|".join((*CONV_LAYERS, *HIDDEN_LAYERS, "fc8"))
        value = "|".join(metadata["choices"]) or _NUMBER  # none of these keys takes a negative number
        return {"type": "string", "pattern": f"^({layers}):({value})$"}
    if metadata["choices"]:
        return {"enum": [*metadata["choices"]]}
    bounds = {_BOUNDS[name]: bound for name, (bound, _) in metadata["bounds"].items() if bound is not None}
    text = {"not": {"pattern": _NO_TEXT}} if kind is str else {}
    return {"type": _TYPES[kind], **bounds, **text}


def _claims() -> dict[str, Any]:
    """The schema of a file of conf/claims/; docs/how-to/studies.md explains its keys."""
    claim = _record(Claim)
    claim["properties"].pop("source")  # the file's own name
    claim["properties"]["also"]["additionalProperties"] = {"enum": [*SIDES]}
    for name in ("published", "also"):
        claim["properties"][name]["propertyNames"] = {"enum": [*METRICS]}
    return {
        "type": "array",
        "description": "Claims of a paper and the arms that test them (docs/how-to/studies.md).",
        "items": {**claim, "required": [*_NEEDED]},
    }


def _record(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {entry.name: _plain(entry.name, hints[entry.name]) for entry in dataclasses.fields(cls)},
    }


def _plain(name: str, kind: Any) -> dict[str, Any]:
    """The schema of a claim's value."""
    if typing.get_origin(kind) is list:
        return {"type": "array", "items": _plain("", typing.get_args(kind)[0])}
    if typing.get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _plain("", typing.get_args(kind)[1])}
    if dataclasses.is_dataclass(kind):
        return _record(typing.cast(type, kind))
    types = ["null" if option is NoneType else _TYPES[option] for option in _members(kind)]
    if name in _NAMES:
        return {"enum": [*_NAMES[name], *([None] if "null" in types else [])]}
    return {"type": types[0] if len(types) == 1 else types, **({"pattern": r"\S"} if name in _NEEDED else {})}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, ensure_ascii=False))
