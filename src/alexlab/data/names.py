"""Readable names for given classes, such as ImageNet's, which are WordNet ids; `class_names.py` finds the classes."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path


@cache
def imagenet_names() -> dict[str, str]:
    """{WordNet id: name} of ILSVRC-2012's thousand classes, by id; the names are torchvision's."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def readable(classes: list[str], words: dict[str, str]) -> list[str]:
    """The name of each class: ImageNet's for its ids, else the first of its `words`, else its own.

    Names that several classes share are followed by the class.
    """
    known = imagenet_names()
    names = [known.get(name) or words.get(name, "").split(",")[0].strip() or name for name in classes]
    counts = Counter(names)
    return [
        f"{shown} ({name})" if counts[shown] > 1 and shown != name else shown
        for shown, name in zip(names, classes, strict=True)
    ]
