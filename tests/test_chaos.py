"""Commands killed at random moments and typed again leave the bits of undisturbed ones; at length: `make chaos`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chaos import SCALE, chaos


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
