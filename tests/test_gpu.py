"""What only a GPU can show: its fast ways against its plain ones, and that nothing waits for it within an epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from alexlab.config import load
from alexlab.data import build_datamodule
from alexlab.data.prefetch import DevicePrefetcher
from alexlab.models import LocalResponseNorm
from alexlab.training import module
from alexlab.training.device import tf32
from alexlab.training.fit import fit
from alexlab.training.module import Diverged
from support.lrn_formula import CONSTANTS, reference, reference_gradient

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


@pytest.fixture
def line(tiny: list[str]) -> list[str]:
    return [*tiny, "trainer.accelerator=gpu"]


def losses(folder: Path, line: list[str]) -> list[float]:
    folder.mkdir()
    fit(load(line), folder, "run")
    with (folder / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("constants", CONSTANTS)
@pytest.mark.parametrize(("maps", "groups"), [(1, 1), (7, 1), (24, 2), (96, 1), (256, 2)])
def test_lrn_follows_the_formula(maps: int, groups: int, constants: tuple[int, float, float, float]):
    rng = np.random.default_rng(0)
    a, grad = (
        rng.normal(0, 60, (3, maps, 5, 4)).astype(np.float32),
        rng.normal(0, 1, (3, maps, 5, 4)).astype(np.float32),
    )
    x = torch.tensor(a, device="cuda").contiguous(memory_format=torch.channels_last).requires_grad_()
    y = LocalResponseNorm(*constants, groups)(x)
    y.backward(torch.tensor(grad, device="cuda"))
    assert x.grad is not None
    split = (np.split(one.astype(float), groups, 1) for one in (a, grad))
    towers = list(zip(*split, strict=True))
    expected = np.concatenate([reference(own, *constants) for own, _ in towers], 1)
    gradient = np.concatenate([reference_gradient(own, g, *constants) for own, g in towers], 1)
    np.testing.assert_allclose(y.detach().cpu().numpy(), expected, rtol=1e-5, atol=1e-6)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(x.grad.cpu().numpy() / scale, gradient / scale, atol=2e-6)


def test_lrn_keeps_its_input_alone():
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    x = torch.randn(2, 24, 6, 6, device="cuda").contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        LocalResponseNorm()(x)
    assert kept == {x.data_ptr(): x.numel()}


@pytest.mark.skipif(torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0), reason="no TF32")
def test_float32_is_not_rounded_unless_asked_for():
    """A wide convolution against float64: 24 bits of a number, or 11."""
    layer = torch.nn.Conv2d(256, 256, 3, device="cuda")
    x = torch.randn(8, 256, 14, 14, device="cuda")
    exact = torch.nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double())  # pyright: ignore
    errors = []
    for is_tf32 in (False, True):
        with tf32(is_tf32):
            errors.append((layer(x) - exact).abs().max().item() / exact.abs().max().item())
    assert errors[0] < 1e-5 < 1e-4 < errors[1] < 1e-2


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize(
    ("more", "within"),
    [
        (["trainer.channels_last=false"], 1e-4),
        (["trainer.fused_lrn=false"], 1e-4),
        (["trainer.fused_optimizer=false"], 1e-4),
        (["trainer.ahead=false"], 1e-6),
        (["trainer.compile=default"], 1e-3),
        (["trainer.compile=graphs"], 1e-3),
        (["trainer.precision=bf16-mixed"], 2e-2),
    ],
)
def test_a_switch_leaves_the_losses(line: list[str], tmp_path: Path, more: list[str], within: float):
    assert losses(tmp_path / "on", [*line, *more]) == pytest.approx(losses(tmp_path / "plain", line), rel=within)


def test_nothing_waits_for_the_device_within_an_epoch(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """CUDA itself raises where something would, from the second epoch's second step on."""
    steps, advance = [0], _TrainingEpochLoop.advance

    def watched(loop: _TrainingEpochLoop, *given: Any) -> None:
        steps[0] += 1
        torch.cuda.set_sync_debug_mode("error" if steps[0] > 4 else "default")
        try:
            advance(loop, *given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_TrainingEpochLoop, "advance", watched)
    fit(load([*line, "trainer.max_epochs=3"]), tmp_path, "run")
    assert steps[0] == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_ahead_of_time_are_the_same(line: list[str], workers: int):
    config = load([*line, f"data.num_workers={workers}", "data.batch_size=8"])
    data = build_datamodule(config)
    data.setup()
    loader = data.train_dataloader()
    assert not isinstance(loader, DevicePrefetcher)
    expected = [batch.crops.clone() for batch in loader]
    found = []
    for batch in DevicePrefetcher(loader, torch.device("cuda")):
        assert batch.crops.is_cuda
        torch.cuda._sleep(10_000_000)  # the device is behind, and the next copy is not to overwrite this batch
        found.append(batch.crops.float().clone())
        del batch
    assert all(torch.equal(own.cpu(), crops.float()) for own, crops in zip(found, expected, strict=True))


def test_a_step_without_numbers_is_not_taken(line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cross_entropy, calls = torch.nn.functional.cross_entropy, [0]

    def spoiled(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls[0] += logits.requires_grad
        loss = cross_entropy(logits, labels)
        return loss * float("nan") if calls[0] == 5 and logits.requires_grad else loss

    monkeypatch.setattr(module.F, "cross_entropy", spoiled)
    with pytest.raises(Diverged, match=r"^the loss is nan at step 2 of epoch 2, before its update$"):
        fit(load([*line, "trainer.max_epochs=3"]), tmp_path, "run")
