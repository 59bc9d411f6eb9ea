"""Evaluation of final weights: each image's top-5 classes and the true class's probability, by kind of view."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from alexlab import distributed
from alexlab.config import Average, ConfigError
from alexlab.data.datamodule import StoreDataModule, WholeImages
from alexlab.data.sampling import Window

VIEW_KINDS = ("center", "ten")


class NonFiniteOutput(ConfigError):
    """A network's probabilities are not finite, so it has no error rates."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images, in the order of the store."""

    labels: np.ndarray  # int64 [N]
    top5: np.ndarray  # int64 [N, min(5, K)], most likely first
    log_probability: np.ndarray  # float32 [N], of the true class
    by_view: np.ndarray | None = None  # int16 [N, V], the most likely class of each of the ten views alone

    def errors(self) -> dict[str, float]:
        """Top-1 and top-5 error as fractions of the images."""
        hits = self.top5 == self.labels[:, None]
        return {"top1_error": float(1 - hits[:, 0].mean()), "top5_error": float(1 - hits.any(1).mean())}


def archive(test: dict[str, Predictions]) -> bytes:
    """The content of `predictions.npz`: labels, and by kind of view top-5 classes and log-probabilities.

    For `ten` also the most likely class of each view alone.
    """
    arrays: dict[str, np.ndarray] = {"labels": test["center"].labels}
    for kind, predictions in test.items():
        arrays[f"{kind}_top5"] = predictions.top5
        arrays[f"{kind}_log_probability"] = predictions.log_probability
        if predictions.by_view is not None:
            arrays[f"{kind}_by_view"] = predictions.by_view
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


@dataclass(frozen=True)
class EnsembleMember:
    """A network and its input: all members get the same images, each with its own preprocessing."""

    network: nn.Module
    batches: Iterable[WholeImages]
    data: StoreDataModule
    average: Average = Average.softmax  # over views
    name: str = "the network"  # for messages


@torch.inference_mode()
def evaluate(
    members: Sequence[EnsembleMember],
    device: torch.device,
    kinds: tuple[str, ...] = VIEW_KINDS,
    advance: Callable[[int], None] = lambda images: None,
) -> dict[str, Predictions]:
    """Predictions for each kind of view; the softmax of several members is averaged, as in section 6.

    `ten` first averages the paper's ten views (4.1) of each member. Computes in the precision of the weights, without
    autocast. Calls `advance(n)` when n more images are done. If several devices divide the images, each returns the
    predictions for all images.

    Raises:
        NonFiniteOutput: if any probability is not finite.
    """
    torch.backends.cudnn.allow_tf32 = False  # by default torch rounds the inputs of convolutions
    was_training = [member.network.training for member in members]
    for member in members:
        member.network.eval()
    share = members[0].data.share
    rows: dict[str, list[tuple[Tensor, ...]]] = {kind: [] for kind in kinds}  # a batch's fields of Predictions
    for batches in zip(*(member.batches for member in members), strict=True):
        # Copied, since they are kept: a tensor from a loader's worker keeps a file open.
        labels = batches[0].labels.to(device, copy=True)
        images = [batch.images.to(device, non_blocking=device.type == "cuda") for batch in batches]
        for kind, row in _predict(members, images, labels, kinds).items():
            rows[kind].append(row)
        advance(len(labels) * share.of)
    for member, mode in zip(members, was_training, strict=True):
        member.network.train(mode)
    own = {kind: [tuple(part.cpu().numpy() for part in row) for row in batch] for kind, batch in rows.items()}
    parts = distributed.gather_objects(own) if share.of > 1 else [own]
    found = {kind: _joined([part[kind] for part in parts]) for kind in kinds}
    for predictions in found.values():
        _check_finite(predictions, members)
    return found


def _joined(parts: list[list[tuple[np.ndarray, ...]]]) -> Predictions:
    """Predictions in the order of the images, from each process's slices of the batches."""
    rows = [row for batch in zip(*parts, strict=True) for row in batch if row]
    return Predictions(*(np.concatenate(fields) for fields in zip(*rows, strict=True)))


def _check_finite(predictions: Predictions, members: Sequence[EnsembleMember]) -> None:
    """Refuse non-finite probabilities; names the largest parameter, infinite or finite, as the likely cause."""
    num_bad = int((~np.isfinite(predictions.log_probability)).sum())
    if num_bad == 0:
        return
    sizes = {
        (member.name, name): value.abs().nan_to_num(math.inf, math.inf).max().item()
        for member in members
        for name, value in member.network.state_dict().items()
        if value.is_floating_point()
    }
    (member, name), size = max(
        sizes.items(), key=lambda item: item[1], default=((members[0].name, "a layer"), math.inf)
    )
    cause = f"{name} has values up to {size:.3g}" if math.isfinite(size) else f"{name} is not finite"
    total = len(predictions.labels)
    raise NonFiniteOutput(f"{member}: outputs for {num_bad} of {total} images are not finite; {cause}")


def probabilities(member: EnsembleMember, images: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """Probabilities by kind of view; a crop that several kinds share, such as the centre, is computed once."""
    logits = _view_logits(member, images, kinds)
    return {kind: _averaged(member, kind, logits) for kind in kinds}


def _predict(
    members: Sequence[EnsembleMember], images: list[Tensor], labels: Tensor, kinds: tuple[str, ...]
) -> dict[str, tuple[Tensor, ...]]:
    """The fields of `Predictions` for a batch, by kind of view; empty for a batch without images."""
    if len(labels) == 0:
        return dict.fromkeys(kinds, ())
    logits = [_view_logits(one, each, kinds) for one, each in zip(members, images, strict=True)]
    found: dict[str, tuple[Tensor, ...]] = {}
    for kind in kinds:
        averaged = [_averaged(one, kind, each) for one, each in zip(members, logits, strict=True)]
        found[kind] = (labels, *_top5(torch.stack(averaged).mean(0), labels))
        if kind == "ten":
            found[kind] = (*found[kind], _by_view(members, logits))
    return found


def _view_logits(member: EnsembleMember, images: Tensor, kinds: tuple[str, ...]) -> dict[Window, Tensor]:
    windows = list(dict.fromkeys(window for kind in kinds for window in member.data.windows(kind)))
    views = member.data.views(images, windows)
    return {window: member.network(view) for window, view in zip(windows, views, strict=True)}


def _averaged(member: EnsembleMember, kind: str, logits: dict[Window, Tensor]) -> Tensor:
    windows = member.data.windows(kind)
    if member.average is Average.logits:
        return torch.stack([logits[one] for one in windows]).mean(0).softmax(1)
    return torch.stack([logits[one].softmax(1) for one in windows]).mean(0)


def _by_view(members: Sequence[EnsembleMember], logits: list[dict[Window, Tensor]]) -> Tensor:
    """The most likely class of each of the ten views alone, int16 [B, 10], by the members' mean softmax."""
    views = zip(*(member.data.windows("ten") for member in members), strict=True)
    means = [
        torch.stack([own[one].softmax(1) for own, one in zip(logits, windows, strict=True)]).mean(0)
        for windows in views
    ]
    return torch.stack([mean.argmax(1) for mean in means], 1).to(torch.int16)


def _top5(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The top-5 classes and the log-probability of the true class."""
    top5 = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices
    tiny = torch.finfo(probabilities.dtype).tiny  # keeps the logarithm finite if the probability underflows to 0
    true = probabilities.gather(1, labels[:, None])[:, 0].clamp(min=tiny).log()
    return top5, true.float()
