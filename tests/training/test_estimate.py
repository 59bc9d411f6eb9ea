"""The forecast of a run: which runs share timed steps, how steps are timed, and the size of a record."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from alexlab.config import Config
from alexlab.models import build_model
from alexlab.training import estimate
from alexlab.training.optim import PaperSGD
from support.settings import TINY, composed


def made(*more: str) -> Config:
    return composed([*TINY, *more])


@pytest.mark.parametrize(
    "more", [["seed=1"], ["optim.lr=0.1"], ["ablation=no_crops"], ["model.dropout=0.2"], ["model.init=he"]]
)
def test_what_changes_no_step_is_of_the_same_shape(more: list[str]):
    assert estimate.shape(made(*more)) == estimate.shape(made())


@pytest.mark.parametrize(
    "more",
    [
        ["model.lrn=false"],
        ["model.activation=tanh"],
        ["model.dropout=0"],
        ["data.batch_size=10"],
        ["data.num_classes=5"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.channels_last=false"],
        ["trainer.fused_lrn=false"],
        ["trainer.fused_optimizer=false"],
        ["trainer.deterministic=false"],
    ],
)
def test_what_changes_a_step_is_of_another_shape(more: list[str]):
    assert estimate.shape(made(*more)) != estimate.shape(made())


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("64-true", torch.float64)],
)
def test_a_step_is_timed_in_the_precision_of_the_run(
    precision: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    logits: set[torch.dtype] = set()

    class Seen(torch.nn.Module):
        def __init__(self, network: torch.nn.Module):
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.network(images)
            if torch.is_grad_enabled():
                logits.add(found.dtype)
            return found

    monkeypatch.setattr(estimate, "build_model", lambda config: Seen(build_model(config)))
    estimate.seconds_per_image(made(f"trainer.precision={precision}"))
    assert logits == {expected}


def test_a_shape_is_timed_in_turns_and_shared(monkeypatch: pytest.MonkeyPatch):
    """Of one arm each image takes 1 to 5 s forward and backward, of the other ten times as long; a pass takes none."""
    visits = []

    def seconds_per_image(config: Config) -> tuple[list[float], list[float]]:
        visits.append(config.model.lrn)
        factor = 10 if config.model.lrn else 1
        return [factor * seconds for seconds in (1.0, 2.0, 3.0, 4.0, 5.0)], [0.0, 0.0]

    monkeypatch.setattr(estimate, "seconds_per_image", seconds_per_image)
    configs = [made(), made("optim.lr=0.1", "trainer.max_epochs=4"), made("model.lrn=false")]
    found = estimate.seconds_of_runs(configs)
    # 60 images for two epochs. A quartile of 1 to 5 is 2 and 4, however often they are repeated.
    assert found == [(2400, 3600, 4800), (4800, 7200, 9600), (240, 360, 480)]
    assert visits == [True, False] * (len(visits) // 2)
    assert len(visits) > 2


def test_steps_that_warm_up_do_not_count(monkeypatch: pytest.MonkeyPatch):
    now, calls = [0.0], []

    def call() -> None:
        calls.append(1)
        now[0] += 100.0 if len(calls) == 1 else 0.5

    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    times = estimate._times(call, torch.device("cpu"), 10)
    assert len(times) >= 2
    assert times == [0.05] * len(times)


def test_a_record_holds_two_nets():
    """By the files that torch writes of them."""
    config = made("model.width=0.5")
    torch.save(build_model(config).state_dict(), file := io.BytesIO())
    weights = 2 * len(file.getvalue())
    assert estimate.record_bytes(config) == pytest.approx(weights, rel=0.05)
    config.checkpoint.keep = type(config.checkpoint.keep).all  # and a state, of weights and velocities
    assert estimate.record_bytes(config) == pytest.approx(2 * weights, rel=0.05)


def test_a_step_is_timed_with_the_runs_own_kernels(monkeypatch: pytest.MonkeyPatch):
    """cuDNN was off, so that a GPU's convolutions were timed as others than those of the run."""
    seen: list[tuple[bool, bool]] = []

    def times(*_: object) -> list[float]:
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
        return [1.0]

    monkeypatch.setattr(estimate, "_times", times)
    estimate.seconds_per_image(made())
    assert seen == [(True, False)] * 2


@pytest.mark.parametrize("is_on", [True, False])
def test_a_step_is_timed_with_the_runs_own_algorithms(is_on: bool, monkeypatch: pytest.MonkeyPatch):
    """Deterministic algorithms, without filling memory, and the fused update, if the run has them."""
    seen: list[tuple[bool, bool, bool]] = []

    class Seen(PaperSGD):
        def step(self, closure: Any = None) -> Any:
            algorithms = (
                torch.are_deterministic_algorithms_enabled(),
                torch.utils.deterministic.fill_uninitialized_memory,  # pyright: ignore[reportAttributeAccessIssue]
            )
            seen.append((*algorithms, self._fused))
            return super().step(closure)

    monkeypatch.setattr(estimate, "PaperSGD", Seen)
    before = torch.are_deterministic_algorithms_enabled()
    estimate.seconds_per_image(made(f"trainer.deterministic={is_on}", f"trainer.fused_optimizer={is_on}"))
    assert set(seen) == {(is_on, False, is_on)}
    assert torch.are_deterministic_algorithms_enabled() is before


@pytest.mark.parametrize(("limit", "images"), [("0", 0), ("1.0", 30), ("0.5", 15), ("2", 20), ("9", 30)])
def test_only_the_validation_that_runs_is_counted(limit: str, images: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "seconds_per_image", lambda _: ([0.0, 0.0], [1.0, 1.0]))
    line = ["trainer.max_epochs=7", "data.eval_batch_size=10", "data.val_images=30", "data.test_images=37"]
    config = made(*line, "data.train_images=60", "evaluate.train_images=5", f"trainer.limit_val_batches={limit}")
    [(_, middle, _)] = estimate.seconds_of_runs([config])
    assert middle == 7 * images + 10 * 37 + 5
