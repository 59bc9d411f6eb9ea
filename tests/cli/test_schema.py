"""conf/schema.json: as an editor reads it, by a validator of its own, and against what composing accepts."""

from __future__ import annotations

import dataclasses
import json
import re
from copy import deepcopy
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexlab.cli.schema import schema
from alexlab.compose import to_plain
from alexlab.config import CONF_DIR, Config, ConfigError, walk
from alexlab.validate import finish
from support.settings import composer

FILE = CONF_DIR / "schema.json"
FILES = sorted(path for path in CONF_DIR.rglob("*.yaml") if "hydra" not in path.parts)
# As yaml-language-server finds the line, among a file's comments.
MODELINE = re.compile(r"^#\s+yaml-language-server\s*:.*\$schema(?:=|:\s*)(\S+)", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(CONF_DIR).as_posix()


@cache
def validator(fragment: str = "") -> Draft7Validator:
    """That of a section, or of a file of all keys."""
    whole = part = json.loads(FILE.read_text())
    for name in fragment.split("/")[1:]:
        part = part[name]
    return Draft7Validator({**part, "definitions": whole["definitions"]})


def validator_of(path: Path) -> Draft7Validator:
    [target] = MODELINE.findall(path.read_text())
    file, _, fragment = target.partition("#")
    assert (path.parent / file).resolve() == FILE.resolve()
    return validator(fragment)


def content_of(path: Path) -> Any:
    loaded = OmegaConf.load(path)
    return OmegaConf.to_container(loaded) if loaded else {}


def test_it_is_up_to_date_and_a_schema():
    made = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    assert FILE.read_text() == made, "run: python -m alexlab.cli.schema > conf/schema.json"
    Draft7Validator.check_schema(schema())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_names_its_schema_and_passes(path: Path):
    assert [error.message for error in validator_of(path).iter_errors(content_of(path))] == []
    [target] = MODELINE.findall(path.read_text())
    is_whole = path.parent == CONF_DIR or path.read_text().startswith("# @package _global_\n")
    assert target.partition("#")[2] == ("" if is_whole else f"/definitions/{path.parent.name}")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train.yaml", "optim.momentum"),
        ("protocol/caffe.yaml", "optim.momentum"),
        ("recipe/demo.yaml", "model.dropout"),
        ("ablation/tanh.yaml", "model.width"),
        ("model/cifar_13pct.yaml", "data.holdout"),
        ("study/lrn.yaml", "study.seeds"),
        ("debug/limit.yaml", "debug.images"),
        ("data/shapes.yaml", "holdout"),
        ("trainer/one.yaml", "devices"),
        ("debug/none.yaml", "images"),
    ],
)
def test_mistakes_in_each_kind_of_file(name: str, key: str):
    path = CONF_DIR / name

    def errors(key: str, value: Any) -> int:
        changed = OmegaConf.create(deepcopy(content_of(path)))
        OmegaConf.update(changed, key, value)
        content: Any = OmegaConf.to_container(changed)
        return len([*validator_of(path).iter_errors(content)])

    good = 0.5 if key.endswith(("momentum", "dropout", "width")) else 1
    assert errors(key, good) == 0
    assert errors(key, "${seed}") == errors(key, "???") == 0
    assert errors(f"{key}s" if not key.endswith("s") else f"{key}x", good) == 1  # misspelt
    assert errors(key, "much") == 1  # of a wrong type
    assert errors(key, -1) == 1  # out of range
    assert errors("no_such_section", {"x": 1}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sttement": "Misspelt."},
        {"metric": "top2_error"},
        {"direction": "up"},
        {"against": "ablation=no_lrn"},
        {"published": {"top1_error": "much"}},
        {"published": {"top1": 1}},
        {"ranges": [{"verdict": "perhaps", "above": 1}]},
        {"statement": " "},
        {"id": None},
    ],
)
def test_mistakes_in_claims(change: dict[str, Any]):
    path = CONF_DIR / "claims" / "paper.yaml"
    claims = content_of(path)
    assert validator_of(path).is_valid(claims)
    assert not validator_of(path).is_valid([*claims, {**claims[0], **change}])


@pytest.mark.parametrize("line", [["recipe=imagenet2012"], ["recipe=demo", "protocol=source2012"], ["recipe=cifar10"]])
def test_a_whole_configuration_passes(line: list[str]):
    plain = to_plain(composer().job(line, stored=False).config)
    assert [f"{error.json_path}: {error.message}" for error in validator().iter_errors(plain)] == []


VALUES = [
    None,
    True,
    -1,
    0,
    0.5,
    1,
    1.5,
    10**10,
    "",
    "none",
    "nonsense",
    "both",
    [],
    [1],
    [-1],
    ["nonsense"],
    ["conv1"],
]
VALUES += [["conv2", "conv2"], ["conv1:0.5"], ["conv1:max"], ["conv9:1"], ["conv1:-1"], ["conv1:x"], [None], {"a": 1}]
# What the typed configuration says of one value, in all its ways; other refusals are of several keys together.
OF_ONE_VALUE = re.compile(
    r"must be (at least|above|at most|below|finite|a number|a layer|one of)|is not one of|is read as a string|"
    r"must not be empty|names an item twice"
)
NAMES = [name for name, _, _ in walk(Config())]


@cache
def structured(cls: type) -> Any:
    return OmegaConf.structured(cls)


def refused(name: str, value: Any) -> str | None:
    """Why the typed configuration refuses a value, alone; None if it does not."""
    section, _, key = name.rpartition(".")
    config = Config()
    part = getattr(config, section) if section else config
    try:
        typed: Any = OmegaConf.to_object(OmegaConf.merge(structured(type(part)), {key: value}))
        finish(dataclasses.replace(config, **{section: typed}) if section else typed, trains=False, stored=False)
    except OmegaConfBaseException as error:
        return str(error)
    except ConfigError as error:
        return str(error) if OF_ONE_VALUE.search(str(error)) else None
    except Exception:  # of another check, on a value that it does not expect
        return None
    return None


@pytest.mark.parametrize("name", NAMES)
def test_what_composing_refuses_the_schema_refuses(name: str):
    section, _, key = name.rpartition(".")
    fields = {one: entry for one, _, entry in walk(Config())}
    for value in VALUES:
        if (why := refused(name, value)) is not None:
            tree = {section: {key: value}} if section else {key: value}
            # JSON schema has no word for a bound of the number in a text such as conv1:0.
            if not (fields[name].metadata["by_layer"] and "must be above" in why):
                assert not validator().is_valid(tree), f"{name}={value!r}: {why}"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_of_the_right_type_and_range_passes(name: str):
    section, _, key = name.rpartition(".")
    [(default, entry)] = [(value, entry) for one, value, entry in walk(Config()) if one == name]
    values = [default, *(list(type(default)) if isinstance(default, Enum) else [])]
    values += [value for value in (1, 2, 0.5, True, False) if type(value).__name__ == entry.type]
    for value in values:
        plain = value.name if isinstance(value, Enum) else value
        if refused(name, plain) is None:
            assert validator().is_valid({section: {key: plain}} if section else {key: plain}), f"{name}={plain!r}"
