"""Configurations that tests share, and how they compose, call and compare."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache as kept
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from alexlab.compose import Composer, Job
from alexlab.config import Config
from alexlab.data.store import Split

# The real demo with few images and few kernels: same code, some seconds.
TINY = [
    "data.train_images=60",
    "data.val_images=30",
    "data.test_images=37",
    "data.batch_size=20",
    "model.width=0.0625",
    "model.hidden=128",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]

# The paper's scale: what the demo's recipe changes, put back.
FULL = [
    *("data.size=256", "data.map_size=55", "data.pixel_scale=1", "model.width=1", "model.hidden_width=1"),
    *("model.lrn_scale=1", "model.dropout=0.5", "model.init=normal", "model.init_last_std=null", "model.init_bias=1"),
]


class SharedComposer(Composer):
    """One for all tests, which keeps what it composed; each test has its own folders, by its environment."""

    def job(self, overrides: list[str], trains: bool = True, stored: bool = True) -> Job:
        """As Composer's."""
        folders = [
            f"{key}={os.environ[name]}"
            for key, name in (("paths.runs", "ALEXLAB_RUNS"), ("data.cache", "ALEXLAB_CACHE"))
            if name in os.environ  # not yet for what a session's fixtures compose
        ]
        return replace(super().job([*folders, *overrides], trains, stored), overrides=tuple(overrides))


@kept
def composer() -> Composer:
    """The shared composer."""
    return SharedComposer()


def composed(overrides: list[str] | None = None) -> Config:
    """As `load`, by that composer."""
    return composer().job(overrides or []).config


def last_of_each(words: Iterable[str]) -> list[str]:
    """A command line without the keys that a later word sets again, which the command refuses.

    Tests build their lines from shared lists, and change a key of those by another word.
    """
    kept: dict[tuple[str, int], str] = {}
    for place, word in enumerate(words):
        name, sign, _ = word.partition("=")
        key = (name, 0) if sign else (word, place)
        kept.pop(key, None)
        kept[key] = word
    return list(kept.values())


def stacked(split: Split) -> np.ndarray:
    """All images of a split, uint8 [N, S, S, 3]."""
    return np.stack([split.image(index) for index in range(len(split))])


def raw_split(folder: Path, images: np.ndarray) -> Split:
    """A split of these images, uint8 [N, S, S, 3], as a raw store has it."""
    np.save(folder / "images.npy", images)
    return Split(folder / "images.npy", True, np.zeros(len(images), np.int64), np.arange(len(images)))


def _marked(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_ours = parent == os.getpid() and ("multiprocessing.forkserver" in command or "_tracker" in command)
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0") and not is_ours:
                found.append(f"{folder.name}: {command}")
    return [told for told in found if not told.startswith(f"{os.getpid()}:")]


class Done(NamedTuple):
    status: int
    output: str
    errors: str


class Typed(Protocol):
    def __call__(self, *line: str) -> Done: ...
