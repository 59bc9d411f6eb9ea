"""Fixtures: the real configuration, shrunk, over one small store that all tests share."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from alexlab.children import inherit_code
from alexlab.cli import train
from alexlab.compose import Composer
from alexlab.config import Config
from alexlab.training import preemption
from support.commands import PATIENCE, end_all
from support.settings import TINY, Done, Typed, _marked, composed

# A shell starts what runs in its background with SIGINT ignored, and every process below inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["OMP_NUM_THREADS"] = "1"  # in processes that tests start, too: two tests at a time
inherit_code()  # to whatever Python a test starts: this checkout's, whatever is installed
# Hundreds of processes load this project's code, and each would compile it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.pop("COLUMNS", None)  # the width of whatever terminal, or of CI's log, changes no test


@pytest.fixture(scope="session", autouse=True)
def _the_last_of_a_key_counts():
    """In this process too, tests change the keys of shared lists by setting them again: see `last_of_each`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Composer, "check_once", lambda composer, overrides, can_sweep=True: None)
        yield


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


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


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


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """The command `train.py` in this process, on 80 columns: of all its runs, one server loads torch."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*line: str) -> Done:
        status = train.main(list(line))
        told = capsys.readouterr()
        return Done(status, told.out, told.err)

    return run
