"""Error rates: exact over unequal batches, views averaged as probabilities."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alexlab.data import build_datamodule
from alexlab.data.datamodule import WholeImages
from alexlab.distributed import ALONE
from alexlab.models import build_model
from alexlab.training.evaluate import VIEW_KINDS, EnsembleMember, NonFiniteOutput, archive, evaluate
from alexlab.training.module import accuracies
from support.settings import composed


class Constant(nn.Module):
    """Answers with the same logits whatever it sees."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


class TaggedViews:
    """Stands in for the data module: each view is a scalar that says which view it is."""

    share = ALONE

    def __init__(self, num_views: int) -> None:
        self.num_views = num_views

    def windows(self, kind: str) -> list[int]:
        return list(range(self.num_views if kind == "ten" else 1))

    def views(self, images: torch.Tensor, windows: list[int]):
        for number in windows:
            yield torch.full((len(images), 1), float(number))


def batches(labels: list[int], size: int) -> list[WholeImages]:
    parts = torch.tensor(labels).split(size)
    return [WholeImages(torch.zeros(len(part), 4, 4, 3, dtype=torch.uint8), part) for part in parts]


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_a_short_last_batch_weighs_by_its_images(size):
    """Always class 0; eight images of class 0 and two of class 1: 0.8 right, for any batch size."""
    labels = [0] * 8 + [1] * 2
    member = EnsembleMember(Constant([1.0, 0.0, 0.0]), batches(labels, size), TaggedViews(10))  # pyright: ignore
    found = evaluate([member], torch.device("cpu"))
    for kind in VIEW_KINDS:
        assert found[kind].errors()["top1_error"] == pytest.approx(0.2)
        assert found[kind].labels.tolist() == labels


def test_accuracy_is_over_images_not_over_classes():
    """Four of class 0 and one of class 1: 0.8, where an average over classes would say 0.5."""
    metrics = accuracies(3)
    metrics.update(torch.tensor([[1.0, 0, 0]] * 4), torch.tensor([0, 0, 0, 0]))
    metrics.update(torch.tensor([[1.0, 0, 0]]), torch.tensor([1]))
    assert metrics.compute()["top1"].item() == pytest.approx(0.8)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6])
def test_top5_with_few_classes(classes):
    logits = torch.arange(classes, 0, -1.0).expand(classes, -1)
    labels = torch.arange(classes)
    metrics = accuracies(classes)
    metrics.update(logits, labels)
    assert metrics.compute()["top5"].item() == pytest.approx(min(5, classes) / classes)
    network = Constant(logits[0].tolist())
    found = evaluate([EnsembleMember(network, batches(labels.tolist(), 2), TaggedViews(1))], torch.device("cpu"))  # pyright: ignore
    assert found["center"].errors()["top5_error"] == pytest.approx(1 - min(5, classes) / classes)
    assert found["center"].top5.shape == (classes, min(5, classes))


def test_ten_views_average_probabilities():
    """One view has logits 8, 0, 0, nine have 0, .5, 0: class 1 by mean softmax (.347, .407, .247), 0 by mean logits."""

    class ByView(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = torch.tensor([8.0, 0, 0])
            return torch.stack([first if view == 0 else torch.tensor([0, 0.5, 0]) for view in x[:, 0]])

    found = evaluate([EnsembleMember(ByView(), batches([1], 1), TaggedViews(10))], torch.device("cpu"))  # pyright: ignore
    assert len(found["ten"].labels) == 1
    assert found["ten"].top5[0].tolist() == [1, 0, 2]
    assert np.exp(found["ten"].log_probability[0]) == pytest.approx(0.407, abs=1e-3)
    assert found["center"].top5[0, 0] == 0


def test_each_view_alone_is_kept():
    """View v answers class v % 3, by one net, and by the mean of two of which the other is less sure of class 0."""

    class ByView(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 5.0 * nn.functional.one_hot(x[:, 0].long() % 3, 3)

    alone = EnsembleMember(ByView(), batches([1, 2], 1), TaggedViews(10))  # pyright: ignore
    other = EnsembleMember(Constant([1.0, 0.0, 0.0]), batches([1, 2], 1), TaggedViews(10))  # pyright: ignore
    for members in ([alone], [alone, other]):
        found = evaluate(members, torch.device("cpu"))
        assert found["center"].by_view is None
        assert found["ten"].by_view is not None
        assert found["ten"].by_view.dtype == np.int16
        assert found["ten"].by_view.tolist() == [[view % 3 for view in range(10)]] * 2
        assert set(np.load(io.BytesIO(archive(found)))) >= {"ten_by_view", "ten_top5", "labels"}


def test_a_probability_of_zero_keeps_a_finite_logarithm():
    member = EnsembleMember(Constant([500.0, 0.0]), batches([1], 1), TaggedViews(1))  # pyright: ignore
    found = evaluate([member], torch.device("cpu"))
    assert np.isfinite(found["center"].log_probability).all()


def test_evaluation_leaves_the_mode_as_it_was():
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 3)).train()
    evaluate([EnsembleMember(network, batches([0], 1), TaggedViews(1))], torch.device("cpu"))  # pyright: ignore
    assert network.training


def test_views_of_the_data_module(tiny: list[str]):
    """The ten views are the crops at the five offsets, less the mean at the same place, and their mirror images."""
    from alexlab.data import build_datamodule

    config = composed(tiny)
    data = build_datamodule(config)
    data.setup()
    images = next(iter(data.test_dataloader())).images
    views = list(data.views(images, data.windows("ten")))
    centred = (images.numpy().astype(np.float64) - data.store.mean.astype(np.float64)) * config.data.pixel_scale
    for number, (y, x) in enumerate([(0, 0), (0, 14), (14, 0), (14, 14), (7, 7)]):
        crop = centred[:, y : y + 96, x : x + 96].transpose(0, 3, 1, 2)
        np.testing.assert_allclose(views[number].numpy(), crop, atol=1e-5)
        np.testing.assert_allclose(views[number + 5].numpy(), crop[..., ::-1], atol=1e-5)


def test_what_is_kept_of_a_loaders_batches_keeps_no_file_open(tiny):
    """Else a thousand batches met the usual limit of open files, at the end of a training."""
    config = composed([*tiny, "data.num_workers=1", "data.eval_batch_size=1"])
    data = build_datamodule(config)
    data.prepare_data()
    data.setup()
    open_files: list[int] = []
    member = EnsembleMember(build_model(config), data.evaluation_dataloader("train"), data)
    device = torch.device("cpu")
    evaluate([member], device, ("center",), lambda _: open_files.append(len(list(Path("/proc/self/fd").iterdir()))))
    assert len(open_files) == 60
    assert max(open_files[10:]) - min(open_files[10:]) < 20


@pytest.mark.parametrize("logits", [[float("nan"), 0.0], [float("inf"), 0.0], [float("-inf"), float("-inf")]])
def test_outputs_that_are_not_finite_have_no_error(logits: list[float]):
    member = EnsembleMember(Constant(logits), batches([0, 1, 0], 2), TaggedViews(10))  # pyright: ignore
    with pytest.raises(NonFiniteOutput, match="outputs for 3 of 3 images are not finite"):
        evaluate([member], torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("bias", float("nan"), "1.bias is not finite"),
        ("weight", float("-inf"), "1.weight is not finite"),
        ("weight", 3e38, r"1.weight has values up to 3e\+38"),  # finite, and overflows
    ],
)
def test_the_network_and_the_parameter_are_named(name: str, value: float, cause: str):
    """Of an ensemble, whose average one such network spoils."""
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(1, 3)) for _ in range(2)]
    nn.init.constant_(getattr(networks[1][1], name), value)
    members = [
        EnsembleMember(network, batches([0, 1], 2), TaggedViews(10), name=file)  # pyright: ignore
        for network, file in zip(networks, ("good.pth", "bad.pth"), strict=True)
    ]
    evaluate(members[:1], torch.device("cpu"))
    with pytest.raises(NonFiniteOutput, match=rf"^bad.pth: outputs for 2 of 2 images are not finite; {cause}$"):
        evaluate(members, torch.device("cpu"))
