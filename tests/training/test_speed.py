"""What makes a step fast leaves the losses: curves over 200 steps against float64, switch by switch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexlab.models import build_model, compiled
from alexlab.training.fit import fit
from support.settings import TINY, composed


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_all_but_dropouts_masks_is_compiled(monkeypatch: pytest.MonkeyPatch):
    """In one graph from the pixels to fc6, and one each for fc7 and fc8; the same outputs, and gradients."""
    graphs: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, mode: compile_(module, backend=counting, fullgraph=True))
    config = composed(["model.width=0.0625", "model.hidden=64"])
    network = build_model(config)
    call = compiled(network, None)
    size = config.data.crop_size
    assert size is not None
    x = torch.randn(2, 3, size, size)
    for step in range(3):
        found = []
        for each in (call, network):
            network.reseed_dropout(0, "dropout", step)
            y = each(x)
            network.zero_grad()
            y.square().sum().backward()
            found.append([y, *(p.grad for p in network.parameters())])
        torch.testing.assert_close(*found)
    assert len(graphs) == 3


STEPS = 120
RUN = ["data.train_images=20", "trainer.limit_val_batches=0", "optim.schedule=constant", "evaluate.train_images=1"]


def curve(folder: Path, cache: Path, *more: str) -> np.ndarray:
    """The loss of each step."""
    fit(composed([*TINY, f"data.cache={cache}", *RUN, f"trainer.max_epochs={STEPS}", *more]), folder, "run")
    with (folder / "metrics.csv").open() as file:
        return np.array([float(row["train_loss"]) for row in csv.DictReader(file)])


@pytest.fixture(scope="module")
def exact(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return curve(tmp_path_factory.mktemp("exact"), cache, "trainer.precision=64-true")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize(
    ("more", "at_first", "in_the_end"),
    [
        pytest.param([], 1e-4, 0.01, id="as it is"),
        pytest.param(["trainer.channels_last=false"], 1e-4, 0.01, id="other layout"),
        pytest.param(["trainer.fused_optimizer=false"], 1e-4, 0.01, id="four passes"),
        pytest.param(["trainer.precision=bf16-mixed"], 2e-3, 0.03, id="bf16"),
        pytest.param(["trainer.compile=default"], 1e-4, 0.01, id="compiled"),
        pytest.param(["trainer.compile=graphs"], 1e-4, 0.01, id="graphs"),
    ],
)
def test_the_curve_is_float64s(
    cache: Path, tmp_path: Path, exact: np.ndarray, more: list[str], at_first: float, in_the_end: float
):
    """Within `at_first` for 50 steps; later rounding has grown, and curves of 50 steps have the same mean."""
    found = curve(tmp_path, cache, *more)
    assert np.abs(found[:50] - exact[:50]).max() < at_first
    assert abs(found[-50:].mean() - exact[-50:].mean()) < in_the_end
