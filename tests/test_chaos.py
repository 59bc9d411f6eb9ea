"""Commands killed or paused at many moments leave the bits of undisturbed ones; at length: `make chaos`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chaos import PAUSED, chaos, pauses
from support.records import SCALE


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.long
@pytest.mark.parametrize(("line", "kills"), [([], 6), (["-m", "seed=0,1,2"], 3)], ids=["one run", "a sweep"])
def test_killed_anywhere(tmp_path: Path, cache: Path, line: list[str], kills: int):
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    report = chaos(tmp_path, [*line, *SCALE, f"data.cache={cache}"], kills, seed, per_command=kills)
    assert report.differences == []
    assert report.kills.total() == kills


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.long
def test_paused_anywhere(tmp_path: Path, cache: Path):
    """Before some of its file operations; before all of them: `make chaos ARGS=--pauses`."""
    first = 1 + time.time_ns() % 12
    print(f"first {first}")
    assert pauses(tmp_path, [*PAUSED, f"data.cache={cache}"], every=12, first=first) == []
