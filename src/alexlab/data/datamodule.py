"""The LightningDataModule over a store."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from functools import cached_property
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from alexlab.config import Accelerator, Config, Debug
from alexlab.data.augment import (
    Normalisation,
    colour_shifts,
    normalisation,
    read_crops,
    training_input,
    view_input,
)
from alexlab.data.limits import allow_open_files, check_shared_memory
from alexlab.data.locate import prepare
from alexlab.data.prefetch import DevicePrefetcher
from alexlab.data.sampling import Window, draw, image_order, training_windows, view_windows
from alexlab.data.store import Split, Store, open_store, staged
from alexlab.distributed import ALONE, Share


class TrainingBatch(NamedTuple):
    """A batch as a loader sends it to the device: crops uint8 [B, H, W, 3], and the arguments of `training_input`."""

    crops: Tensor
    labels: Tensor  # int64 [B]
    windows: Tensor  # int64 [B, 3], each a `Window`
    shifts: Tensor  # float32 [B, 3]
    divisor: float


class WholeImages(NamedTuple):
    """Stored images uint8 [B, S, S, 3], not cropped, for evaluation."""

    images: Tensor
    labels: Tensor  # int64 [B]


class TrainingBatches(Dataset[TrainingBatch]):
    """Batches by (epoch, step), the same whichever process makes them.

    Each of several devices gets its own slice of every global batch, so the number of devices changes nothing.
    """

    def __init__(self, split: Split, store: Store, config: Config, share: Share = ALONE) -> None:
        self._split, self._store, self._share = split, store, share
        self._data, self._augment = data, augment = config.data, config.augment
        self._shifts_until = augment.pca_until * config.trainer.max_epochs if augment.pca else 0.0
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))
        self.batch_size = min(data.batch_size, len(split.labels))
        self.num_steps = len(split.labels) // self.batch_size  # full batches only: every step weights images equally

    def __getitem__(self, epoch_and_step: tuple[int, int]) -> TrainingBatch:
        epoch, step = epoch_and_step
        indices = self.images(epoch, step)
        seed = self._data.seed
        assert seed is not None
        draws = draw(seed, epoch, step, self.batch_size)
        augment, crop_size = self._augment, self._data.crop_size
        assert crop_size is not None
        windows = training_windows(draws, self._data.size, crop_size, augment)
        shifts, divisor = np.zeros_like(draws.colour), 1.0
        if epoch < self._shifts_until:
            shifts, divisor = colour_shifts(draws.colour, augment, self._store), augment.pca_divisor
        own = slice(*self._share.bounds(self.batch_size))
        return TrainingBatch(
            read_crops(self._split, indices[own], windows[own], crop_size),
            torch.from_numpy(self._split.labels[indices[own]]),
            torch.tensor(windows[own], dtype=torch.long).view(-1, 3),
            torch.from_numpy(shifts[own].astype(np.float32)),
            divisor,
        )

    def images(self, epoch: int, step: int) -> np.ndarray:
        """The images of a global batch, as indices into the split, int64 [B]."""
        seed = self._data.seed
        assert seed is not None
        if self._order[0] != epoch:
            self._order = epoch, image_order(seed, epoch, len(self._split.labels))
        return self._order[1][step * self.batch_size : (step + 1) * self.batch_size]


class EpochSteps(Sampler[tuple[int, int]]):
    """(epoch, step) of one epoch; `start` is where to resume. Lightning calls `set_epoch` before each epoch.

    Its length is that of a complete epoch, as Lightning counts the completed steps too.
    """

    def __init__(self, num_steps: int, start: tuple[int, int] = (0, 0)) -> None:
        self._num_steps, self._start = num_steps, start
        self._epoch = start[0]

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self._start[1] if self._epoch == self._start[0] else 0
        return ((self._epoch, step) for step in range(first, self._num_steps))

    def __len__(self) -> int:
        return self._num_steps


class EvaluationBatches(Dataset[WholeImages]):
    """A split in its stored order, every image once; the last batch may be smaller.

    Each of several devices gets its own slice of every batch, possibly empty, so all have the same number of batches.
    """

    def __init__(self, split: Split, batch_size: int, limit: int | None = None, share: Share = ALONE) -> None:
        self._split, self._batch_size, self._share = split, batch_size, share
        total = len(split.labels)
        # A fixed, evenly spread subset if fewer images are requested than there are.
        self._indices = np.arange(total) if limit is None or limit >= total else np.arange(limit) * total // limit

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def __getitem__(self, step: int) -> WholeImages:
        if not 0 <= step < len(self):
            raise IndexError(step)
        indices = self._indices[step * self._batch_size : (step + 1) * self._batch_size]
        indices = indices[slice(*self._share.bounds(len(indices)))]
        if len(indices) == 0:
            images = np.empty((0, *self._split.image(0).shape), np.uint8)
        else:
            images = np.stack([self._split.image(index) for index in indices])
        return WholeImages(torch.from_numpy(images), torch.from_numpy(self._split.labels[indices]))


def _share_batch(batch: Any) -> Any:
    """Move a batch's tensors to shared memory, in a loader's process.

    Done before the batch is sent: an error while sending is lost, and the batch is waited for forever.
    """
    if get_worker_info() is not None:
        for part in batch:
            if isinstance(part, Tensor):
                part.share_memory_()
    return batch


def _ignore_signals(worker: int) -> None:
    """Leave signals that a scheduler sends to a whole job to the training process, whose own SIGTERM ends a loader.

    The loader also ends when that process does. torch notices this only for the system's parent process, which may
    be multiprocessing's fork server instead.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    has_sender = hasattr(signal, "sigwaitinfo")  # not on macOS
    signal.pthread_sigmask(signal.SIG_BLOCK if has_sender else signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if has_sender:
        threading.Thread(target=_end_on_sigterm, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _end_on_sigterm() -> None:
    parent = parent_process()  # to the system, the parent may be multiprocessing's fork server
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


class StoreDataModule(L.LightningDataModule):
    """Batches for training, validation and test: input float32 [B, 3, H, W], labels int64 [B].

    The embedded set's store is made on first use. Loaders send uint8; the rest happens on the device
    (`alexlab.data.augment`).
    """

    store: Store
    normalisation: Normalisation

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config, self._data = config, config.data
        self._start = (0, 0)

    def prepare_data(self) -> None:
        prepare(self._data)

    def setup(self, stage: str | None = None) -> None:
        self.store = prepare(self._data)
        if self._data.stage is not None:
            self.store = open_store(staged(self.store.path, Path(self._data.stage)))
        self.normalisation = normalisation(self._data, self.store)
        if self._data.num_workers > 0:
            allow_open_files(self._data.num_workers)
            check_shared_memory(self._data.num_workers, self._largest_batch())

    def _largest_batch(self) -> int:
        """Bytes of the largest batch that a loader makes, in training or evaluation."""
        data, crop_size = self._data, self._data.crop_size
        assert crop_size is not None
        images = max(self.store.manifest["images"].values())
        return 3 * max(min(data.batch_size, images) * crop_size**2, min(data.eval_batch_size, images) * data.size**2)

    @property
    def share(self) -> Share:
        """This process's part of each batch: all of it, unless batches are divided among devices."""
        return Share(self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else ALONE

    def train_dataloader(self) -> DataLoader | DevicePrefetcher:
        batches = TrainingBatches(self.split("train"), self.store, self._config, self.share)
        steps = EpochSteps(batches.num_steps, self._start)
        if self._config.debug.name is Debug.overfit:  # the same batch in every step
            steps = [(0, 0)] * max(1, int(self._config.trainer.limit_train_batches))
        loader = self._loader(batches, steps)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return DevicePrefetcher(loader, device) if device.type == "cuda" and self._config.trainer.ahead else loader

    def start_at(self, epoch: int, step: int) -> None:
        """Start the next training loader at this step, since it prefetches before Lightning sets its epoch."""
        self._start = (epoch, step)

    def batch_images(self, epoch: int, step: int) -> list[int]:
        """The images of a global training batch, as indices into the store's file of the training split."""
        split = self.split("train")
        return [split.row(index) for index in TrainingBatches(split, self.store, self._config).images(epoch, step)]

    @cached_property  # asked for in each step, and held-out images take half a second to choose from a million
    def train_batch_size(self) -> int:
        """Images of a training batch, over all devices."""
        return min(self._data.batch_size, len(self.split("train")))

    def val_dataloader(self) -> DataLoader:
        return self.evaluation_dataloader("val", self._num_val_images())

    def _num_val_images(self) -> int:
        """The number of images that `trainer.limit_val_batches` leaves; spread evenly: stores are sorted by class."""
        limit, size, total = self._config.trainer.limit_val_batches, self._data.eval_batch_size, len(self.split("val"))
        batches = limit if isinstance(limit, int) else max(1, int(limit * -(-total // size)))
        return min(batches * size, total, self._config.debug.images or total)

    def test_dataloader(self) -> DataLoader:
        return self.evaluation_dataloader("test")

    def predict_dataloader(self) -> DataLoader:
        """The test images, in their stored order; predictions are of their centre view."""
        return self.test_dataloader()

    def split(self, role: str) -> Split:
        """The images of `train`, `val` or `test`."""
        return self.store.role(role, self._data.holdout)

    def evaluation_dataloader(self, role: str, limit: int | None = None) -> DataLoader:
        """Stored images of `train`, `val` or `test`, each once; at most `limit` of them, evenly spread."""
        return self._loader(EvaluationBatches(self.split(role), self._data.eval_batch_size, limit, self.share))

    def _loader(self, dataset: Dataset, sampler: Sampler | list[tuple[int, int]] | None = None) -> DataLoader:
        workers = self._data.num_workers
        return DataLoader(
            dataset,
            batch_size=None,  # a dataset's item is a batch
            collate_fn=_share_batch,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_signals if workers > 0 else None,
            pin_memory=torch.cuda.is_available() and self._config.trainer.accelerator is not Accelerator.cpu,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        if isinstance(batch, TrainingBatch):
            norm = self._normalisation_on(batch.crops.device)
            return training_input(batch.crops, batch.windows, batch.shifts, batch.divisor, norm), batch.labels
        return next(self.views(batch.images, self.windows("center"))), batch.labels

    def windows(self, kind: str) -> list[Window]:
        """The crops of a view kind, `center` or `ten`."""
        assert self._data.crop_size is not None
        return view_windows(kind, self._data.size, self._data.crop_size)

    def views(self, images: Tensor, windows: list[Window]) -> Iterator[Tensor]:
        """The inputs of several crops, one at a time, from stored images [B, S, S, 3]."""
        norm, crop_size = self._normalisation_on(images.device), self._data.crop_size
        assert crop_size is not None
        for window in windows:
            yield view_input(images, window, crop_size, norm)

    def _normalisation_on(self, device: torch.device) -> Normalisation:
        if self.normalisation.mean.device != device:
            self.normalisation = self.normalisation.to(device)
        return self.normalisation
