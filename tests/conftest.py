"""Fixtures: the real configuration, shrunk, over one small store that all tests share."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import cache as kept
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pytest
import torch

from alexlab.children import inherit_code
from alexlab.cli import train
from alexlab.compose import Composer, Job
from alexlab.config import Config
from alexlab.data.store import Split
from alexlab.training import preemption
from launched import PATIENCE, end_all

# A shell starts what runs in its background with SIGINT ignored, and every process below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["OMP_NUM_THREADS"] = "1"  # in processes that tests start, too: two tests at a time
inherit_code()  # to whatever Python a test starts: this checkout's, whatever is installed
# Hundreds of processes load this project's code, and each would compile it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.pop("COLUMNS", None)  # the width of whatever terminal, or of CI's log, changes no test

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


def stacked(split: Split) -> np.ndarray:
    """All images of a split, uint8 [N, S, S, 3]."""
    return np.stack([split.image(index) for index in range(len(split))])


def raw_split(folder: Path, images: np.ndarray) -> Split:
    """A split of these images, uint8 [N, S, S, 3], as a raw store has it."""
    np.save(folder / "images.npy", images)
    return Split(folder / "images.npy", True, np.zeros(len(images), np.int64), np.arange(len(images)))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind():
    """Every process that a test starts has ended when the tests have, but for multiprocessing's own."""
    mark = f"ALEXLAB_TESTS={uuid.uuid4()}"
    os.environ["ALEXLAB_TESTS"] = mark.partition("=")[2]  # all of them inherit it, whoever their parent is in the end
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, left


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


@pytest.fixture(autouse=True)
def _commands_end():
    yield
    end_all()


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(1)  # two tests at a time


@pytest.fixture(autouse=True)
def _signals():
    """A run that a test trains in this process takes the signals over; here they are given back."""
    before = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _no_users_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No test sees what a user has done, nor adds to it."""
    monkeypatch.setenv("ALEXLAB_RUNS", str(tmp_path / "default_runs"))
    monkeypatch.setenv("ALEXLAB_CACHE", str(tmp_path / "default_cache"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all tests share, so that its store is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(cache: Path, tmp_path: Path) -> list[str]:
    """Overrides of a run of some seconds, with records in a folder of the test's own."""
    return [*TINY, f"data.cache={cache}", f"paths.runs={tmp_path / 'runs'}"]


@pytest.fixture
def tiny_config(tiny: list[str]) -> Config:
    return composed(tiny)


class Done(NamedTuple):
    status: int
    output: str
    errors: str


class Typed(Protocol):
    def __call__(self, *line: str) -> Done: ...


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """The command `train.py` in this process, on 80 columns: of all its runs, one server loads torch."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*line: str) -> Done:
        status = train.main(list(line))
        told = capsys.readouterr()
        return Done(status, told.out, told.err)

    return run
