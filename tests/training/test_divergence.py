"""Non-finite losses and gradients are detected without synchronising with the GPU."""

from __future__ import annotations

import math
import traceback
from typing import Any

import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils._python_dispatch import TorchDispatchMode

from alexlab.training import module as training_module
from alexlab.training.divergence import AsyncScalar, DivergenceDetector, sizes
from alexlab.training.fit import fit
from alexlab.training.module import ClassificationTask, Diverged
from support.settings import composed


def test_gradients_whose_squares_overflow_are_finite():
    gradients = [torch.full((3,), 1e30), torch.ones(2)]
    assert sizes(torch.tensor(1.0), gradients).isfinite().all()
    gradients[1][0] = float("inf")
    assert sizes(torch.tensor(1.0), gradients).isfinite().tolist() == [True, True, False]


class TestDivergenceDetector:
    """The process learns later of the first non-finite step that the device has seen."""

    def test_the_first_nonfinite_step_is_found_and_no_later_one_is_taken(self, monkeypatch):
        monkeypatch.setattr(AsyncScalar, "is_here", False)
        detector, nan = DivergenceDetector(), float("nan")
        seen = [[1.0, 2.0], [1.0, nan], [nan, 3.0], [1.0, 2.0]]
        assert [detector.check(torch.tensor(one), 10 + step).item() for step, one in enumerate(seen)] == [0, 1, 1, 1]
        assert detector.found(wait=False) is None
        place, sizes = detector.found(wait=True) or (None, [])
        assert place == 11
        assert sizes[0] == 1
        assert math.isnan(sizes[1])

    def test_nothing_is_found_if_all_is_finite(self):
        detector = DivergenceDetector()
        assert detector.found(wait=True) is None
        for step in range(3):
            assert detector.check(torch.ones(2), step).item() == 0
            assert detector.found(wait=step == 1) is None

    def test_an_asynchronous_run_ends_at_the_same_step(self, tiny, monkeypatch, tmp_path):
        """On a GPU the process learns of it late, here at the end of the epoch; the weights have not changed."""
        monkeypatch.setattr(ClassificationTask, "_is_async", True)
        monkeypatch.setattr(AsyncScalar, "is_here", False)
        cross_entropy, weights = torch.nn.functional.cross_entropy, []

        def spoiled(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            loss = cross_entropy(logits, labels)
            return loss * float("nan") if len(weights) == 5 and logits.requires_grad else loss

        def note(module: ClassificationTask, *_: object) -> None:
            weights.append(torch.cat([value.detach().flatten() for value in module.network.parameters()]))

        monkeypatch.setattr(ClassificationTask, "on_train_batch_start", note)
        monkeypatch.setattr(training_module.F, "cross_entropy", spoiled)
        with pytest.raises(Diverged, match=r"^the loss is nan at step 2 of epoch 2, before its update$"):
            fit(composed([*tiny, "trainer.max_epochs=3"]), tmp_path, "run")
        assert len(weights) == 6
        assert torch.equal(weights[4], weights[5])
        assert not torch.equal(weights[3], weights[4])


class Reads(TorchDispatchMode):
    """Counts what makes a process wait for a GPU: numbers that are read, sizes that depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique", "item")
        if func.overloadpacket.__name__.split(".")[-1] in waits:
            self.found.append("".join(traceback.format_stack(limit=6)))
        return func(*args, **(kwargs or {}))


def test_no_step_reads_a_number_from_the_device(tiny, monkeypatch, tmp_path):
    """Within an epoch; tests/test_gpu.py has CUDA itself look."""
    monkeypatch.setattr(ClassificationTask, "_is_async", True)
    monkeypatch.setattr(AsyncScalar, "is_here", False)
    norms = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]
    monkeypatch.setattr(
        training_module, "sizes", lambda loss, gradients: torch.stack([loss, *norms(gradients)])
    )  # as on a GPU
    reads, steps, advance = Reads(), [0], _TrainingEpochLoop.advance

    def counted(loop: _TrainingEpochLoop, *args: Any) -> None:
        with reads:
            advance(loop, *args)
        steps[0] += 1

    monkeypatch.setattr(_TrainingEpochLoop, "advance", counted)
    fit(composed([*tiny, "trainer.max_epochs=2"]), tmp_path, "run")
    assert steps[0] == 6
    assert not reads.found, reads.found[0]
