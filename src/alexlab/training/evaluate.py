"""Evaluation of final weights: each image's top-5 classes and the true class's probability, by view kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from alexlab.data.datamodule import StoreDataModule, WholeImages

VIEW_KINDS = ("center", "ten")


@dataclass(frozen=True)
class Predictions:
    """For N images in their stored order."""

    labels: np.ndarray  # int64 [N]
    top5: np.ndarray  # int64 [N, min(5, K)], likeliest first
    log_probability: np.ndarray  # float32 [N], of the true class

    def errors(self) -> dict[str, float]:
        """Top-1 and top-5 error as fractions of the images."""
        hits = self.top5 == self.labels[:, None]
        return {"top1_error": float(1 - hits[:, 0].mean()), "top5_error": float(1 - hits.any(1).mean())}


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: Iterable[WholeImages],
    data: StoreDataModule,
    device: torch.device,
    kinds: tuple[str, ...] = VIEW_KINDS,
    advance: Callable[[int], None] = lambda images: None,
) -> dict[str, Predictions]:
    """Predictions for each view kind; `ten` averages the softmax of the paper's ten views (4.1).

    Computed in the precision of the weights, without autocast. `advance(n)` is called as n more images are done.
    """
    was_training = network.training
    network.eval()
    kept: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {kind: [] for kind in kinds}
    for batch in batches:
        images, labels = batch.images.to(device), batch.labels.to(device)
        for kind in kinds:
            kept[kind].append((labels, *_predict(network, data.views(images, kind), labels)))
        advance(len(labels))
    network.train(was_training)
    return {
        kind: Predictions(*(torch.cat(parts).cpu().numpy() for parts in zip(*rows, strict=True)))
        for kind, rows in kept.items()
    }


def _predict(network: nn.Module, views: Iterable[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    outputs = [network(view).softmax(1) for view in views]
    probabilities = torch.stack(outputs).mean(0)
    top5 = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices
    tiny = torch.finfo(probabilities.dtype).tiny  # a probability that underflowed to 0 keeps a finite logarithm
    true = probabilities.gather(1, labels[:, None])[:, 0].clamp(min=tiny).log()
    return top5, true.float()
