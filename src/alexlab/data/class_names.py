"""The classes of a configured data set, in order, without opening its store; `names.py` makes them readable."""

from __future__ import annotations

import json
from contextlib import suppress

from alexlab.config import DataConfig, Dataset
from alexlab.data import shapes
from alexlab.data.locate import store_path
from alexlab.data.names import readable


def class_names(data: DataConfig) -> list[str]:
    """The names that the configuration determines; otherwise `class 0`, `class 1`, ..."""
    count = data.num_classes or 0
    if data.name is Dataset.shapes:
        return sorted(shapes.CLASSES)[:count]
    if data.name is Dataset.cifar10:
        from alexlab.data.sources.cifar import CLASSES  # a slow import

        return list(CLASSES)
    return [f"class {number}" for number in range(count)]


def known_names(data: DataConfig) -> list[str]:
    """The readable names of the store on this machine, else those of `class_names`."""
    with suppress(OSError, ValueError, KeyError):
        names = json.loads((store_path(data) / "manifest.json").read_text("utf-8"))["classes"]
        if len(names) == data.num_classes:
            return readable([str(name) for name in names], {})
    return class_names(data)
