"""Predictions of a finished run's network for single images, and nearest training images (6.1, figure 4).

Legend: Q queries, n neighbours, S side of a stored image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from alexlab.data.store import Split
from alexlab.errors import UserError
from alexlab.models.alexnet import AlexNet
from alexlab.models.dropout import Dropout
from alexlab.runs.record import Record
from alexlab.runs.trained import load_run
from alexlab.training.evaluate import EnsembleMember, probabilities

BATCH = 128  # images in memory at a time
AT_ONCE = 64  # queries converted to float64 at a time


@dataclass(frozen=True)
class Answers:
    """A network's five most likely classes for each of some test images."""

    images: np.ndarray  # uint8 [N, S, S, 3], as stored
    true: list[str]
    names: list[list[str]]  # most likely first; all classes, if there are fewer than five
    probabilities: np.ndarray  # float64 [N, 5]
    view: str  # ten or center
    places: np.ndarray  # int64 [N], in the test split


@dataclass(frozen=True)
class Near:
    """The training images nearest to test images by one distance, nearest first."""

    shown: np.ndarray  # uint8 [Q, n, S, S, 3]
    names: list[list[str]]  # their classes
    distances: np.ndarray  # float64 [Q, n]
    places: np.ndarray  # int64 [Q, n], in the training split
    precision: float  # share of the n nearest that are of the query's class, over all queries
    standard_error: float  # over queries; NaN for one query

    def percentage(self, digits: int) -> str:
        """The precision in % with its standard error, if there is one; spaces do not break."""
        error = "" if math.isnan(self.standard_error) else f"\xa0±\xa0{100 * self.standard_error:.{digits}f}"
        return f"{100 * self.precision:.{digits}f}{error}\xa0%"


@dataclass(frozen=True)
class Neighbours:
    """Test images and their nearest training images."""

    images: np.ndarray  # uint8 [Q, S, S, 3]
    true: list[str]
    places: np.ndarray  # int64 [Q], in the test split
    layer: str  # whose activations `by_layer` compares
    by_layer: Near
    by_pixels: Near  # of the centre view, in grey levels
    queries: int  # test images over which the precisions are taken
    pool: int  # training images that were searched ...
    train_images: int  # ... out of this many


def answers(record: Record, count: int = 8, seed: int = 0, view: str = "ten", cache: str | None = None) -> Answers:
    """Predict `count` test images drawn by `seed`, from as many classes as possible, with a finished run's network.

    `cache`: the folder with the store, if not the default of `data.cache`.

    Raises:
        UserError: if the run is not done, or its weights or data are missing.
    """
    member, device = _member(record, cache)
    test, classes = member.data.split("test"), member.data.store.class_names
    places = _of_all_classes(test.labels, _drawn(len(test), seed), count)
    images = _images(test, places)
    with torch.inference_mode():
        [chances] = probabilities(member, torch.from_numpy(images).to(device), (view,)).values()
        found = chances.double().topk(min(5, chances.shape[1]), dim=1)
    names = [[classes[label] for label in row] for row in found.indices.tolist()]
    true = [classes[label] for label in test.labels[places]]
    return Answers(images, true, names, found.values.cpu().numpy(), view, places)


def neighbours(
    record: Record,
    queries: int = 5,
    nearest: int = 6,
    seed: int = 0,
    pool: int = 20_000,
    tested: int = 500,
    cache: str | None = None,
) -> Neighbours:
    """Find the training images nearest to test images, by the network's last hidden activations and by pixels.

    Both distances are Euclidean and of the centre view: of the input of the last layer in evaluation mode, before
    dropout (the paper's fc7 after ReLU; the pooled last convolution, if there is no hidden layer), and of pixels from 0
    to 255. Precisions are over `tested` test images drawn by `seed`; `queries` of them are returned, from as many
    classes as possible. If there are more than `pool` training images, `pool` evenly spaced ones are searched. Memory:
    the queries as bytes, and a batch of each.

    Raises:
        UserError: as `answers`.
        ValueError: for fewer training images than neighbours.
    """
    member, device = _member(record, cache)
    train, test = member.data.split("train"), member.data.split("test")
    layer, hidden = _last_hidden(member.network)
    asked = _drawn(len(test), seed)[:tested]
    shown = _of_all_classes(test.labels[asked], np.arange(len(asked)), queries)
    total = len(train)
    searched = np.arange(total) if total <= pool else np.arange(pool) * total // pool
    if len(searched) < nearest:
        raise ValueError(f"nearest={nearest}: there are {len(searched)} training images to search")
    wanted = [(units, pixels) for _, units, pixels in _seen(test, asked, member, hidden, device)]
    from_units, from_pixels = (_Queries(torch.cat(parts)) for parts in zip(*wanted, strict=True))
    by_units, by_pixels = _Nearest(len(asked), nearest), _Nearest(len(asked), nearest)
    for places, units, pixels in _seen(train, searched, member, hidden, device):
        by_units.add(from_units.squared_to(units), places)
        by_pixels.add(from_pixels.squared_to(pixels), places)
    classes = member.data.store.class_names

    def near(found: _Nearest) -> Near:
        is_same = train.labels[found.places] == test.labels[asked][:, None]
        shares = is_same.mean(1)
        error = shares.std(ddof=1) / math.sqrt(len(shares)) if len(shares) > 1 else math.nan
        places = found.places[shown]
        images = _images(train, places.ravel())
        names = [[classes[label] for label in row] for row in train.labels[places]]
        squared = found.squared[shown]
        return Near(
            images.reshape(*places.shape, *images.shape[1:]),
            names,
            np.sqrt(squared),
            places,
            float(shares.mean()),
            float(error),
        )

    places = asked[shown]
    return Neighbours(
        _images(test, places),
        [classes[label] for label in test.labels[places]],
        places,
        layer,
        near(by_units),
        near(by_pixels),
        len(asked),
        len(searched),
        total,
    )


def _member(record: Record, cache: str | None) -> tuple[EnsembleMember, torch.device]:
    """Load a finished run's network, in evaluation mode, and its data."""
    run = load_run(record.run_id, record.path.parent, cache)
    return run.member, run.device


def _drawn(total: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(total)


def _of_all_classes(labels: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """The first `count` indices in an order, with no class twice before each has occurred."""
    _, first = np.unique(labels[order], return_index=True)
    is_first = np.zeros(len(order), bool)
    is_first[first] = True
    return np.concatenate([order[is_first], order[~is_first]])[:count]


def _images(split: Split, places: np.ndarray) -> np.ndarray:
    return np.stack([split.image(int(place)) for place in places])


def _last_hidden(network: nn.Module) -> tuple[str, nn.Sequential]:
    """The network up to its last layer, without that layer's dropout, and the name of its last layer with weights."""
    if not isinstance(network, AlexNet):
        raise UserError(
            "the nearest images are found by AlexNet's last hidden layer, which a net of your own does not have"
        )
    modules = dict(network.named_children())
    names = list(modules)
    names = names[: names.index("fc8")]
    while isinstance(modules[names[-1]], Dropout):
        names.pop()
    layer = next(name for name in reversed(names) if name.startswith(("conv", "fc")))
    return layer, nn.Sequential(*(modules[name] for name in names))


@torch.inference_mode()
def _seen(
    split: Split, places: np.ndarray, member: EnsembleMember, hidden: nn.Sequential, device: torch.device
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Yield batches: indices, activations [B, D], and the centre view's pixels, uint8 [B, H * W * 3]."""
    [window] = member.data.windows("center")
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        images = torch.from_numpy(_images(split, batch)).to(device)
        [view] = member.data.views(images, [window])
        assert isinstance(member.network, AlexNet)
        units = hidden(member.network.as_input(view)).flatten(1)
        side = view.shape[-1]
        crops = images[:, window.y : window.y + side, window.x : window.x + side]
        yield batch, units, crops.flatten(1)


class _Queries:
    """Vectors [Q, D] to measure distances from. Those of bytes are exact: all sums are integers below 2^53."""

    def __init__(self, vectors: Tensor) -> None:
        self._parts = vectors.split(AT_ONCE)
        self._squares = [_squares(part.double()) for part in self._parts]

    def squared_to(self, others: Tensor) -> np.ndarray:
        """Squared Euclidean distances to others [B, D], float64 [Q, B]."""
        others = others.double()
        squares = _squares(others)
        found = [
            own[:, None] + squares - 2 * part.double() @ others.T
            for part, own in zip(self._parts, self._squares, strict=True)
        ]
        return torch.cat(found).clamp_(min=0).cpu().numpy()


def _squares(vectors: Tensor) -> Tensor:
    return (vectors * vectors).sum(1)


class _Nearest:
    """Keeps the nearest of vectors that are added in batches; of equal distances the first one added."""

    def __init__(self, queries: int, count: int) -> None:
        self.squared, self.places = np.full((queries, count), np.inf), np.zeros((queries, count), np.int64)

    def add(self, squared: np.ndarray, places: np.ndarray) -> None:
        count = self.squared.shape[1]
        all_squared = np.concatenate([self.squared, squared], 1)
        all_places = np.concatenate([self.places, np.broadcast_to(places, squared.shape)], 1)
        order = np.argsort(all_squared, axis=1, kind="stable")[:, :count]
        self.squared, self.places = (np.take_along_axis(each, order, 1) for each in (all_squared, all_places))
