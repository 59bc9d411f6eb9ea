"""The names of a data set's classes, in the order of their numbers, where the configuration alone tells them."""

from __future__ import annotations

from alexlab.config import DataConfig, Dataset
from alexlab.data import shapes


def class_names(data: DataConfig) -> list[str]:
    """The names, or `class 0`, `class 1`, ... where only the store has them."""
    count = data.num_classes or 0
    if data.name is Dataset.shapes:
        return sorted(shapes.CLASSES)[:count]
    if data.name is Dataset.cifar10:
        from alexlab.data.sources.cifar import CLASSES  # imports much

        return list(CLASSES)
    return [f"class {number}" for number in range(count)]
