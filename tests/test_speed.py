"""What makes a step fast leaves the losses: curves over 200 steps against float64, switch by switch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from alexlab.config import load
from alexlab.training.fit import fit
from conftest import TINY

STEPS = 200
RUN = ["data.train_images=20", "trainer.limit_val_batches=0", "optim.schedule=constant", "evaluate.train_images=1"]


def curve(folder: Path, cache: Path, *more: str) -> np.ndarray:
    """The loss of each step."""
    fit(load([*TINY, f"data.cache={cache}", *RUN, f"trainer.max_epochs={STEPS}", *more]), folder, "run")
    with (folder / "metrics.csv").open() as file:
        return np.array([float(row["train_loss"]) for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def exact(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return curve(tmp_path_factory.mktemp("exact"), cache, "trainer.precision=64-true")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize(
    ("more", "at_first", "in_the_end"),
    [
        pytest.param([], 1e-4, 0.01, id="as it is"),
        pytest.param(["trainer.channels_last=false"], 1e-4, 0.01, id="other layout"),
        pytest.param(["trainer.fused_optimizer=false"], 1e-4, 0.01, id="four passes"),
        pytest.param(["trainer.precision=bf16-mixed"], 2e-3, 0.03, id="bf16"),
        pytest.param(["trainer.compile=default"], 1e-4, 0.01, id="compiled", marks=pytest.mark.long),
        pytest.param(["trainer.compile=graphs"], 1e-4, 0.01, id="graphs", marks=pytest.mark.long),
    ],
)
def test_the_curve_is_float64s(
    cache: Path, tmp_path: Path, exact: np.ndarray, more: list[str], at_first: float, in_the_end: float
):
    """Within `at_first` for 50 steps; later rounding has grown, and curves of 50 steps have the same mean."""
    found = curve(tmp_path, cache, *more)
    assert np.abs(found[:50] - exact[:50]).max() < at_first
    assert abs(found[-50:].mean() - exact[-50:].mean()) < in_the_end
