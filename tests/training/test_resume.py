"""A run that is broken off anywhere and taken up again comes to the bits of one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from alexlab import distributed
from alexlab.config import Config
from alexlab.training import preemption
from alexlab.training.checkpoint import Recorder, States
from alexlab.training.fit import fit
from alexlab.training.module import ClassificationTask
from alexlab.training.optim import PaperSGD
from alexlab.training.preemption import Preempted
from support.interrupted import Break, break_at, left
from support.settings import TINY, composed

# 3 steps an epoch, 3 epochs; plateau, so that the rate follows from what validation gave before the break too.
OVERRIDES = [*TINY, "trainer.max_epochs=3", "optim.schedule=plateau", "optim.patience=1", "optim.threshold=0.2"]


@pytest.fixture(scope="module")
def undisturbed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    overrides = [*OVERRIDES, f"data.cache={cache}"]
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)  # as for the tests: sums in another order have other last bits
    return overrides, left(folder, fit(composed(overrides), folder, "run"))


def same_in_the_end(config: Config, folder: Path, expected: dict[str, Any]) -> None:
    found = left(folder, fit(config, folder, "run"))
    for part, value in expected.items():
        assert found[part] == value, part


@pytest.mark.parametrize("every_steps", [1, 2])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7, 9])
def test_broken_off_in_a_step(undisturbed, tmp_path, monkeypatch, step, every_steps):
    overrides, expected = undisturbed
    config = composed([*overrides, f"checkpoint.every_steps={every_steps}"])
    with monkeypatch.context() as context:
        break_at(context, PaperSGD, "step", step)
        with pytest.raises(Break):
            fit(config, tmp_path, "run")
    same_in_the_end(config, tmp_path, expected)


@pytest.mark.parametrize(
    ("cls", "name", "number"),
    [
        (ClassificationTask, "validation_step", 1),
        (ClassificationTask, "validation_step", 2),
        (ClassificationTask, "on_validation_epoch_end", 2),
        (ClassificationTask, "on_train_epoch_end", 1),
        (ClassificationTask, "on_train_epoch_end", 3),
        (Recorder, "on_train_epoch_end", 2),
        (Recorder, "on_train_end", 1),
        (States, "save_checkpoint", 4),
    ],
)
def test_broken_off_elsewhere(undisturbed, tmp_path, monkeypatch, cls, name, number):
    overrides, expected = undisturbed
    config = composed([*overrides, "checkpoint.every_steps=1"])
    with monkeypatch.context() as context:
        break_at(context, cls, name, number)
        with pytest.raises(Break):
            fit(config, tmp_path, "run")
    same_in_the_end(config, tmp_path, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_off_again_and_again(undisturbed, tmp_path, monkeypatch, workers):
    """Every process comes two steps further."""
    overrides, expected = undisturbed
    config = composed([*overrides, "checkpoint.every_steps=1", f"data.num_workers={workers}"])
    for _ in range(4):
        with monkeypatch.context() as context:
            break_at(context, PaperSGD, "step", 3)
            with pytest.raises(Break):
                fit(config, tmp_path, "run")
    same_in_the_end(config, tmp_path, expected)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.precision=64-true"],
        ["trainer.precision=bf16-mixed"],
        ["ablation=batch_norm_before"],
        ["trainer.limit_train_batches=1"],
        ["trainer.limit_val_batches=0"],
        ["optim.schedule=linear", "evaluate.checkpoint=best"],
        ["trainer.train_error_every=0.3"],
    ],
    ids=" ".join,
)
def test_of_every_kind(tiny, tmp_path, monkeypatch, overrides):
    config = composed([*tiny, "trainer.max_epochs=3", *overrides, "checkpoint.every_steps=1"])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    expected = left(whole, fit(config, whole, "run"))
    with monkeypatch.context() as context:
        break_at(context, PaperSGD, "step", 3)
        with pytest.raises(Break):
            fit(config, broken, "run")
    same_in_the_end(config, broken, expected)


STOPS = {
    "train_error": ["trainer.train_error_every=0.34", "trainer.stop_at_train_error=0.999"],  # at the first right image
    "race": ["trainer.train_error_every=0.5", "trainer.race_epochs=[2, 2, 2, 2, 2]"],  # no net is at 50 % so soon
}


@pytest.mark.parametrize("validates", ["1.0", "0"])
@pytest.mark.parametrize("ended_by", STOPS)
def test_a_run_that_its_training_error_ends(tiny, tmp_path, monkeypatch, ended_by, validates):
    """Broken off after every step, at the end of the last epoch and in evaluation, it ends where it did."""
    given = [*tiny, "trainer.max_epochs=5", "optim.lr=1e-4", f"trainer.limit_val_batches={validates}"]
    config = composed([*given, *STOPS[ended_by], "checkpoint.every_steps=1"])
    (tmp_path / "whole").mkdir()
    outcome = fit(config, tmp_path / "whole", "run")
    expected = left(tmp_path / "whole", outcome)
    assert outcome.ended_by == ended_by
    assert outcome.epochs < 5
    assert outcome.steps == 3 * outcome.epochs  # whole epochs
    breaks = [(PaperSGD, "step", step) for step in range(1, outcome.steps + 1)]
    breaks += [(Recorder, "on_train_epoch_end", outcome.epochs), (Recorder, "on_train_end", 1)]
    breaks += [(ClassificationTask, "on_train_epoch_end", outcome.epochs), (States, "save_checkpoint", outcome.steps)]
    for number, (cls, name, call) in enumerate(breaks):
        folder = tmp_path / str(number)
        folder.mkdir()
        with monkeypatch.context() as context:
            break_at(context, cls, name, call)
            with pytest.raises(Break):
                fit(config, folder, "run")
        same_in_the_end(config, folder, expected)


@pytest.mark.parametrize(
    ("cls", "name", "number", "steps"),
    [
        (ClassificationTask, "training_step", 1, 1),
        (ClassificationTask, "training_step", 6, 6),
        (ClassificationTask, "validation_step", 1, 3),
        (ClassificationTask, "validation_step", 2, 6),
        (Recorder, "on_train_epoch_end", 2, 6),
        (Recorder, "on_train_end", 1, 9),
    ],
)
def test_asked_to_stop(undisturbed, tmp_path, monkeypatch, cls, name, number, steps):
    """The step is finished and saved; nothing of it is done again."""
    overrides, expected = undisturbed
    config = composed(overrides)
    method, calls = getattr(cls, name), [0]

    def asks(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            preemption.request()
        return method(*arguments, **named)

    with monkeypatch.context() as context:
        context.setattr(preemption, "_requested", False)
        context.setattr(cls, name, asks)
        with pytest.raises(Preempted):
            fit(config, tmp_path, "run")
    [state] = (tmp_path / "checkpoints").iterdir()
    assert torch.load(state)["global_step"] == steps
    same_in_the_end(config, tmp_path, expected)


@pytest.mark.parametrize("threads", [0, 10**6])
def test_a_state_of_an_impossible_number_of_threads_is_refused(tiny: list[str], tmp_path: Path, threads: int):
    """A million of them ended the process by a signal."""
    recorder = Recorder(tmp_path, States(tmp_path), composed(tiny))
    with pytest.raises(ValueError, match=f"checkpoint of {threads} threads: must be 1 to 1024; remove the checkpoints"):
        recorder._restore_threads({"threads": threads, "devices": [1, ""]})


@pytest.mark.parametrize(("saved", "is_warned"), [("cuda", True), ("cpu", False), (None, False)])
def test_a_run_that_changes_from_gpu_to_cpu_says_so(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, saved, is_warned
):
    """Torch draws other dropout masks there. A state of an older version has no type of device."""
    saving, kept = States.save_checkpoint, []

    def save(states: States, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        kept.append(checkpoint.pop("device_type"))
        saving(states, checkpoint if saved is None else {**checkpoint, "device_type": saved}, path)

    monkeypatch.setattr(States, "save_checkpoint", save)
    config = composed([*tiny, "trainer.max_epochs=1", "checkpoint.every_steps=1"])
    with monkeypatch.context() as context:
        break_at(context, PaperSGD, "step", 2)
        with pytest.raises(Break):
            fit(config, tmp_path, "run")
    fit(config, tmp_path, "run")
    assert set(kept) == {"cpu"}
    assert ("resumes on cpu instead of cuda, which draws other dropout masks" in caplog.text) == is_warned


def test_bytes_sent_are_known_after_the_last_step(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Broken off before the evaluation, so that no step follows the resume."""
    config = composed([*tiny, "trainer.max_epochs=1"])
    with monkeypatch.context() as context:
        context.setattr(PaperSGD, "step", sends(7, PaperSGD.step))
        break_at(context, ClassificationTask, "on_train_end", 1)
        with pytest.raises(Break):
            fit(config, tmp_path, "run")
    assert fit(config, tmp_path, "run").sent_per_step == 7


def sends(num_bytes: int, step: Any) -> Any:
    """A step that also sends something, as one of several devices does."""

    def sending(*arguments: Any, **keywords: Any) -> Any:
        distributed.note_sent(num_bytes)
        return step(*arguments, **keywords)

    return sending


def test_files_that_are_no_states_are_left_alone(tmp_path: Path):
    """A name that begins with a digit ended each attempt, as did a link to nothing."""
    (tmp_path / "1x-a.ckpt").touch()
    (tmp_path / "2-b.ckpt").symlink_to("nowhere")
    states = States(tmp_path)
    for step in (3, 10, 20):
        states.save_checkpoint({"step": step}, tmp_path / f"{step:08d}")
    newest = states.newest()
    assert newest is not None
    assert newest.name.startswith("00000020-")
    states.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1x-a.ckpt", "2-b.ckpt"]


def test_a_trial_ends_when_it_is_asked_to(tiny, monkeypatch):
    def asks(*_: Any, **__: Any) -> None:
        preemption.request()

    monkeypatch.setattr(preemption, "_requested", False)
    monkeypatch.setattr(ClassificationTask, "on_before_optimizer_step", asks)
    with pytest.raises(Preempted):
        fit(composed([*tiny, "trainer.fast_dev_run=true"]), None, "run")


def test_no_state_is_saved_between_the_last_step_and_the_end_of_validation(undisturbed, tmp_path, monkeypatch):
    overrides, _ = undisturbed
    saved, save = [], States.save_checkpoint

    def note(states: States, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        saved.append((checkpoint["place"], len(checkpoint["val_errors"])))
        save(states, checkpoint, path, storage_options)

    monkeypatch.setattr(States, "save_checkpoint", note)
    fit(composed([*overrides, "checkpoint.every_steps=1"]), tmp_path, "run")
    places = [(epoch, step) for epoch in range(4) for step in range(3)][1:10]
    assert [(place["epoch"], place["step"]) for place, _ in saved] == places  # none at step 3 of 3
    assert [validations for _, validations in saved] == [epoch for epoch, _ in places]


def test_a_state_that_an_older_version_saved_there_is_passed_over(undisturbed, tmp_path, monkeypatch):
    """The run resumes from the state before it."""
    overrides, expected = undisturbed
    config = composed([*overrides, "checkpoint.every_steps=1"])
    with monkeypatch.context() as context:
        break_at(context, PaperSGD, "step", 6)
        with pytest.raises(Break):
            fit(config, tmp_path, "run")
    states = States(tmp_path / "checkpoints")
    newest = states.newest()
    assert newest is not None
    assert newest.name.startswith("00000005-")
    content = torch.load(newest)
    content["place"]["step"] = content["place"]["steps"]
    states.save_checkpoint(content, "00000006")
    assert states.newest() == newest
    same_in_the_end(config, tmp_path, expected)
