"""Training in this process: the Trainer with the real task and data, shrunk."""

from __future__ import annotations

import csv
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from alexlab.config import CONF_DIR, ConfigError
from alexlab.data import build_datamodule
from alexlab.data.shapes import CLASSES
from alexlab.models import build_model
from alexlab.training import ClassificationTask
from alexlab.training.fit import build_trainer, fit
from alexlab.training.module import Diverged
from support.records import weights_in
from support.settings import composed, stacked

# The other data sets need source files: tests/data/test_sources.py. What claims and studies ask for is in
# tests/sweep/test_study_plan.py. Two devices need two processes: tests/training/test_ranks.py.
FILES = [
    path
    for path in sorted(CONF_DIR.glob("*/*.yaml"))
    if (path.parent.name != "data" or path.stem == "shapes")
    and path.parent.name not in ("claims", "study", "debug")  # try-outs of their own: tests/training/test_debug.py
    and path.stem not in ("ddp2", "towers2")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_fast_dev_run_of_every_file(path: Path, tiny: list[str]):
    recipe = ["recipe=cifar10"] if path.stem.startswith("cifar_") else []
    chosen = [*recipe, f"{path.parent.name}={path.stem}", "data=shapes"]
    config = composed([*tiny, *chosen, "trainer.fast_dev_run=true", "data.holdout=0"])
    outcome = fit(config, None, "run")
    assert outcome.epochs == 1
    assert outcome.test["ten"].labels.shape == (37,)


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory):
    from support.settings import TINY, composed

    config = composed([*TINY, f"data.cache={cache}", "trainer.max_epochs=3"])
    torch.set_num_threads(1)  # as for the tests: sums in another order have other last bits
    folder = tmp_path_factory.mktemp("run")
    return config, folder, fit(config, folder, "run")


def test_what_a_training_leaves(trained):
    _, folder, outcome = trained
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["3", "6", "9"]
    for row in rows:
        assert 0 <= float(row["val_top5_error"]) <= float(row["val_top1_error"]) <= 1
    assert float(rows[0]["train_loss"]) == pytest.approx(2.3, abs=0.4)  # near ln 10 at the start
    assert (outcome.epochs, outcome.steps) == (3, 9)
    assert outcome.train["images"] == 60


def test_the_same_seed_gives_the_same_bits(trained, tmp_path: Path):
    config, folder, outcome = trained
    again = fit(config, tmp_path, "run")
    assert (tmp_path / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
    for kind in ("center", "ten"):
        assert (again.test[kind].log_probability == outcome.test[kind].log_probability).all()


def test_checkpoints_load_with_torchs_safe_default(trained):
    config, folder, _ = trained
    for name in ("last.ckpt", "best.ckpt"):
        assert torch.load(folder / "checkpoints" / name)["classes"] == sorted(CLASSES)
        assert set(weights_in(folder / "checkpoints" / name)) == set(build_model(config).state_dict())
    [state] = (folder / "checkpoints").glob("*-*.ckpt")
    assert torch.load(state)["val_errors"][-1] <= 1
    assert weights_in(state).keys() == weights_in(folder / "checkpoints" / "last.ckpt").keys()


@pytest.mark.parametrize("batch_size", [7, 30])
def test_a_short_last_batch_weighs_by_its_images(trained, tmp_path: Path, batch_size: int):
    """30 images in batches of 7: the validation loss is the mean over images, not over batches."""
    config, folder, _ = trained
    again = deepcopy(config)
    again.data.eval_batch_size = batch_size
    fit(again, tmp_path, "run")
    rows = [list(csv.DictReader((place / "metrics.csv").read_text().splitlines())) for place in (folder, tmp_path)]
    for row, other in zip(*rows, strict=True):
        assert float(row["val_loss"]) == pytest.approx(float(other["val_loss"]), rel=1e-6)


def test_best_is_the_lowest_validation_error(trained):
    _, folder, _ = trained
    with (folder / "metrics.csv").open() as file:
        errors = [float(row["val_top1_error"]) for row in csv.DictReader(file)]
    best = torch.load(folder / "checkpoints" / "best.ckpt")
    assert best["epoch"] == errors.index(min(errors)) + 1
    assert best["val_top1_error"] == min(errors)


def test_the_logged_errors_are_exact(trained, tmp_path: Path):
    """The last weights, applied by hand to the centre of every validation image, give the logged loss and errors."""
    config, folder, _ = trained
    network = build_model(config)
    network.load_state_dict(weights_in(folder / "checkpoints" / "last.ckpt"))
    data = build_datamodule(config)
    data.setup()
    split = data.store.split("val")
    centre = stacked(split)[:, 7:103, 7:103].astype("float32") - data.store.mean[7:103, 7:103]
    inputs = torch.from_numpy(centre * config.data.pixel_scale).permute(0, 3, 1, 2)
    labels = torch.from_numpy(split.labels)
    with torch.inference_mode():
        logits = network.eval()(inputs)
    with (folder / "metrics.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row["val_loss"]) == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert float(row["val_top1_error"]) == pytest.approx((logits.argmax(1) != labels).float().mean().item(), abs=1e-6)
    hits = (logits.topk(5).indices == labels[:, None]).any(1)
    assert float(row["val_top5_error"]) == pytest.approx(1 - hits.float().mean().item(), abs=1e-6)


def test_a_limited_validation_is_of_all_its_images(tiny: list[str], tmp_path: Path):
    """Lightning takes every batch that the data module leaves, none of them twice."""
    config = composed([*tiny, "data.eval_batch_size=10", "trainer.limit_val_batches=2", "trainer.max_epochs=1"])
    fit(config, tmp_path, "run")
    network = build_model(config)
    network.load_state_dict(weights_in(tmp_path / "checkpoints" / "last.ckpt"))
    data = build_datamodule(config)
    data.setup()
    split, chosen = data.store.split("val"), [i for i in range(30) if i % 3 < 2]
    centre = stacked(split)[chosen, 7:103, 7:103].astype("float32") - data.store.mean[7:103, 7:103]
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(centre * config.data.pixel_scale).permute(0, 3, 1, 2))
    loss = F.cross_entropy(logits, torch.from_numpy(split.labels[chosen])).item()
    [row] = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert float(row["val_loss"]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(("limit", "is_clipped"), [("null", False), ("1e9", False), ("0.001", True)])
def test_gradient_clipping(tiny: list[str], tmp_path: Path, limit: str, is_clipped: bool):
    """The first step, at a rate of 1, is the gradient, whose norm is the limit."""
    one_step = ["data.batch_size=60", "trainer.max_epochs=1", "optim.weight_decay=0", "optim.lr=1"]
    config = composed([*tiny, *one_step, f"trainer.gradient_clip_val={limit}"])
    before = ClassificationTask(config).network.state_dict()
    fit(config, tmp_path, "run")
    after = weights_in(tmp_path / "checkpoints" / "last.ckpt")
    norm = sum(float((after[name] - before[name]).square().sum()) for name in before) ** 0.5
    assert norm == pytest.approx(0.001, rel=1e-3) if is_clipped else norm > 0.01


@pytest.mark.parametrize("every", [0.25, 0.5, 0.7])
def test_training_errors_are_those_of_the_images_as_trained_on(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float
):
    """Counted by hand over the outputs of every step since the last entry."""
    seen: list[list[bool]] = []
    cross_entropy = F.cross_entropy

    def watched(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if logits.requires_grad:
            seen.append((logits.argmax(1) != labels).tolist())
        return cross_entropy(logits, labels)

    monkeypatch.setattr(F, "cross_entropy", watched)
    config = composed([*tiny, "trainer.max_epochs=3", f"trainer.train_error_every={every}", "data.batch_size=6"])
    fit(config, tmp_path, "run")
    rows = list(csv.DictReader((tmp_path / "train_error.csv").read_text().splitlines()))
    ends = [round(number * every * 10) for number in range(1, 20) if number * every <= 3]
    assert [int(row["step"]) for row in rows] == ends
    assert [float(row["epoch"]) for row in rows] == [end / 10 for end in ends]
    for start, end, row in zip([0, *ends], ends, rows, strict=False):
        wrong = [one for step in seen[start:end] for one in step]
        assert float(row["train_top1_error"]) == pytest.approx(sum(wrong) / len(wrong), abs=1e-6)


def test_a_run_ends_with_the_epoch_that_reaches_its_threshold(tiny: list[str], tmp_path: Path):
    line = [*tiny, "trainer.max_epochs=8", "trainer.train_error_every=0.34", "optim.schedule=constant"]
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    fit(composed(line), tmp_path / "whole", "run")
    rows = [
        (float(row["epoch"]), float(row["train_top1_error"]))
        for row in csv.DictReader((tmp_path / "whole" / "train_error.csv").read_text().splitlines())
    ]
    threshold = min(error for epoch, error in rows if epoch <= 5)
    reached = next(epoch for epoch, error in rows if error <= threshold)
    stopped = fit(composed([*line, f"trainer.stop_at_train_error={threshold}"]), tmp_path / "stopped", "run")
    assert stopped.epochs == -(-reached // 1)
    assert stopped.ended_by == "train_error"
    kept = (tmp_path / "stopped" / "train_error.csv").read_text()
    assert (tmp_path / "whole" / "train_error.csv").read_text().startswith(kept)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["trainer.stop_at_train_error=0.25"],
            "trainer.stop_at_train_error=0.25: needs the log; set trainer.train_err",
        ),
        (["trainer.race_epochs=[1]"], "trainer.race_epochs=[1]: needs the log; set trainer.train_error_every=0.25"),
        (
            ["trainer.race_epochs=[1]", "trainer.train_error_every=0.25"],
            "trainer.race_epochs=[1]: must have one value for each of 0.5, 0.45, 0.4, 0.35, 0.3",
        ),
        (["trainer.train_error_every=0"], "trainer.train_error_every=0: must be above 0"),
        (["trainer.train_error_every=2"], "trainer.train_error_every=2: must be at most 1"),
    ],
)
def test_a_mistake_about_training_errors_is_one_line(given: list[str], said: str):
    with pytest.raises(ConfigError) as error:
        composed(given)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_the_first_steps_follow_the_rule_by_hand(tiny: list[str]):
    """Three steps of the Trainer against three steps written out in float64, dropout and augmentation included."""
    config = composed([*tiny, "trainer.max_epochs=1", "trainer.precision=64-true", "optim.schedule=constant"])
    data = build_datamodule(config)
    data.setup()
    network = build_model(config).double()
    weights = dict(network.named_parameters())
    velocities = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    loader = data.train_dataloader()
    for step, batch in enumerate(loader):
        inputs, labels = data.on_after_batch_transfer(batch, 0)
        network.reseed_dropout(config.seed, "dropout", step)
        loss = F.cross_entropy(network(inputs.double()), labels)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                lr, decay = config.optim.lr, config.optim.weight_decay
                velocities[name] = 0.9 * velocities[name] - decay * lr * weight - lr * gradient
                weight += velocities[name]
    task = ClassificationTask(config)
    build_trainer(config, "run").fit(task, datamodule=build_datamodule(config))
    for name, weight in task.network.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=1e-6, atol=1e-9, msg=name)


def test_each_batch_has_masks_of_its_own(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    """Also where the user's own Trainer updates the weights after several batches."""
    config = composed([*tiny, "trainer.max_epochs=2"])
    task, drawn = ClassificationTask(config), []
    monkeypatch.setattr(task.network, "reseed_dropout", lambda *names: drawn.append(names))
    trainer = build_trainer(config, "run")
    trainer.accumulate_grad_batches = 3
    trainer.fit(task, datamodule=build_datamodule(config))
    assert drawn == [(config.seed, "dropout", step) for step in range(6)]


def test_twenty_images_can_be_learnt_by_heart(cache: Path):
    config = composed(
        [
            f"data.cache={cache}",
            *("data.train_images=20", "data.val_images=20", "data.test_images=20", "data.batch_size=20"),
            *("model.dropout=0", "augment.crop=false", "augment.flip=false", "augment.pca=false"),
            *("trainer.max_epochs=150", "optim.schedule=constant", "model.width=0.125", "model.hidden=512"),
            "trainer.limit_val_batches=0",
        ]
    )
    outcome = fit(config, None, "run")
    assert outcome.train["top1_error"] == 0
    assert outcome.train["loss"] < 0.1


def test_divergence_is_told(tiny: list[str]):
    with pytest.raises(Diverged, match="before its update"):
        fit(composed([*tiny, "optim.lr=1e9"]), None, "run")


def test_plateau_ends_the_run(tiny: list[str], tmp_path: Path):
    schedule = ["optim.schedule=plateau", "optim.patience=1", "optim.threshold=0.9", "trainer.max_epochs=50"]
    outcome = fit(composed([*tiny, *schedule, "trainer.limit_train_batches=1"]), tmp_path, "run")
    # The first epoch is better than nothing; then each epoch is a drop, and the fourth stall ends it.
    assert outcome.epochs == 5
    with (tmp_path / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4, 1e-5])


def test_validation_can_be_off(tiny: list[str], tmp_path: Path):
    fit(composed([*tiny, "trainer.limit_val_batches=0"]), tmp_path, "run")
    with (tmp_path / "metrics.csv").open() as file:
        assert {row["val_loss"] for row in csv.DictReader(file)} == {""}
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


def test_best_weights_can_be_evaluated(tiny: list[str], tmp_path: Path):
    config = composed([*tiny, "evaluate.checkpoint=best", "trainer.max_epochs=3", "optim.lr=0.3", "seed=1"])
    outcome = fit(config, tmp_path, "run")
    network = build_model(config)
    network.load_state_dict(weights_in(tmp_path / "checkpoints" / "best.ckpt"))
    data = build_datamodule(config)
    data.setup()
    from alexlab.training.evaluate import EnsembleMember, evaluate

    expected = evaluate([EnsembleMember(network, data.test_dataloader(), data)], torch.device("cpu"))
    assert (outcome.test["ten"].log_probability == expected["ten"].log_probability).all()


def test_a_run_starts_from_anothers_features(trained, tiny: list[str]):
    _, folder, outcome = trained
    path = folder / "checkpoints" / "last.ckpt"
    started = composed([*tiny, f"weights={path}", "optim.lr=1e-9", "trainer.max_epochs=1"])
    assert fit(started, None, "run").train["loss"] == pytest.approx(outcome.train["loss"], rel=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has this precision")
@pytest.mark.filterwarnings("ignore:.*AMP with fp16")
def test_a_precision_that_the_device_lacks_is_refused(tiny: list[str], tmp_path: Path):
    """Lightning would train in bfloat16 and the record would say float16."""
    config = composed([*tiny, "trainer.precision=16-mixed", "trainer.accelerator=auto"])
    with pytest.raises(ConfigError, match="16-mixed: not on this device; Lightning would use bf16-mixed"):
        fit(config, None, "run")


def test_final_weights_that_are_not_finite_are_no_result(tiny: list[str], monkeypatch: pytest.MonkeyPatch):
    def spoil(task: ClassificationTask) -> None:
        with torch.no_grad():
            task.network.get_submodule("fc8").weight.fill_(float("nan"))  # pyright: ignore[reportCallIssue]

    monkeypatch.setattr(ClassificationTask, "on_train_end", spoil)
    cause = "outputs for 37 of 37 images are not finite; fc8.weight is not finite"
    with pytest.raises(Diverged, match=f"^the final weights: {cause}$"):
        fit(composed([*tiny, "trainer.max_epochs=1"]), None, "run")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_cpus_losses(tiny: list[str], tmp_path: Path):
    losses = []
    for accelerator in ("cpu", "gpu"):
        (tmp_path / accelerator).mkdir()
        fit(composed([*tiny, f"trainer.accelerator={accelerator}"]), tmp_path / accelerator, "run")
        with (tmp_path / accelerator / "metrics.csv").open() as file:
            losses.append([float(row["train_loss"]) for row in csv.DictReader(file)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
