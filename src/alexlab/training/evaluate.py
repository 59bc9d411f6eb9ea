"""Evaluation of final weights: each image's top-5 classes and the true class's probability, by view kind."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from alexlab import distributed
from alexlab.config import Average
from alexlab.data.datamodule import StoreDataModule, WholeImages
from alexlab.data.sampling import Window

VIEW_KINDS = ("center", "ten")


@dataclass(frozen=True)
class Predictions:
    """For N images in their stored order."""

    labels: np.ndarray  # int64 [N]
    top5: np.ndarray  # int64 [N, min(5, K)], likeliest first
    log_probability: np.ndarray  # float32 [N], of the true class
    by_view: np.ndarray | None = None  # int16 [N, V], the likeliest class by each view alone, of the ten in their order

    def errors(self) -> dict[str, float]:
        """Top-1 and top-5 error as fractions of the images."""
        hits = self.top5 == self.labels[:, None]
        return {"top1_error": float(1 - hits[:, 0].mean()), "top5_error": float(1 - hits.any(1).mean())}


def archive(test: dict[str, Predictions]) -> bytes:
    """The content of `predictions.npz`: labels, for each view kind top-5 classes and log-probabilities.

    For `ten` also the likeliest class by each view alone.
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
    """A network and the images that it is to see: for all members the same ones, each prepared as it wants them."""

    network: nn.Module
    batches: Iterable[WholeImages]
    data: StoreDataModule
    average: Average = Average.softmax  # over views


@torch.inference_mode()
def evaluate(
    members: Sequence[EnsembleMember],
    device: torch.device,
    kinds: tuple[str, ...] = VIEW_KINDS,
    advance: Callable[[int], None] = lambda images: None,
) -> dict[str, Predictions]:
    """Predictions for each view kind; the softmax of several members is averaged, as in section 6.

    `ten` averages the paper's ten views (4.1) of each member first. Computed in the precision of the weights, without
    autocast. `advance(n)` is called as n more images are done. Where several devices share the images out, all of them
    return the predictions for all images.
    """
    torch.backends.cudnn.allow_tf32 = False  # torch's default is to round what convolutions multiply
    was_training = [member.network.training for member in members]
    for member in members:
        member.network.eval()
    share = members[0].data.share
    kept: dict[str, list[tuple[Tensor, ...]]] = {kind: [] for kind in kinds}  # labels, top 5, probabilities of a batch
    for batches in zip(*(member.batches for member in members), strict=True):
        # Copied, since they are kept: a tensor from a loader's process keeps a file open.
        labels = batches[0].labels.to(device, copy=True)
        images = [batch.images.to(device, non_blocking=device.type == "cuda") for batch in batches]
        if len(labels) == 0:
            outputs = []
        else:
            outputs = [_view_logits(one, each, kinds) for one, each in zip(members, images, strict=True)]
        for kind in kinds:
            averaged = [_averaged(one, kind, each) for one, each in zip(members, outputs, strict=False)]
            row = (labels, *_predict(torch.stack(averaged).mean(0), labels)) if averaged else ()
            if row and kind == "ten":
                row = (*row, _by_view(members, outputs))
            kept[kind].append(row)
        advance(len(labels) * share.of)
    for member, mode in zip(members, was_training, strict=True):
        member.network.train(mode)
    own = {kind: [tuple(part.cpu().numpy() for part in row) for row in rows] for kind, rows in kept.items()}
    everyones = distributed.gathered(own) if share.of > 1 else [own]
    return {kind: _joined([rows[kind] for rows in everyones]) for kind in kinds}


def _joined(everyones: list[list[tuple[np.ndarray, ...]]]) -> Predictions:
    """Predictions in the images' order, from each process's stretches of the batches."""
    rows = [row for batch in zip(*everyones, strict=True) for row in batch if row]
    return Predictions(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))


def probabilities(member: EnsembleMember, images: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """By view kind; a crop that several of them have, as the centre is one of the ten, goes through the net once."""
    logits = _view_logits(member, images, kinds)
    return {kind: _averaged(member, kind, logits) for kind in kinds}


def _view_logits(member: EnsembleMember, images: Tensor, kinds: tuple[str, ...]) -> dict[Window, Tensor]:
    windows = list(dict.fromkeys(window for kind in kinds for window in member.data.windows(kind)))
    views = member.data.views(images, windows)
    return {window: member.network(view) for window, view in zip(windows, views, strict=True)}


def _averaged(member: EnsembleMember, kind: str, logits: dict[Window, Tensor]) -> Tensor:
    wanted = member.data.windows(kind)
    if member.average is Average.logits:
        return torch.stack([logits[one] for one in wanted]).mean(0).softmax(1)
    return torch.stack([logits[one].softmax(1) for one in wanted]).mean(0)


def _by_view(members: Sequence[EnsembleMember], outputs: list[dict[Window, Tensor]]) -> Tensor:
    """The likeliest class by each of the ten views alone, int16 [B, 10], of the members' mean softmax."""
    views = zip(*(member.data.windows("ten") for member in members), strict=True)
    means = [
        torch.stack([logits[one].softmax(1) for logits, one in zip(outputs, windows, strict=True)]).mean(0)
        for windows in views
    ]
    return torch.stack([mean.argmax(1) for mean in means], 1).to(torch.int16)


def _predict(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    top5 = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices
    tiny = torch.finfo(probabilities.dtype).tiny  # a probability that underflowed to 0 keeps a finite logarithm
    true = probabilities.gather(1, labels[:, None])[:, 0].clamp(min=tiny).log()
    return top5, true.float()
