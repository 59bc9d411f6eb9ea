"""Prefetch batches to a GPU: the next batch is copied while the GPU computes on the current one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch.utils.data import DataLoader


class DevicePrefetcher:
    """A loader whose batches are already on the device; the same batches in the same order.

    Copies run on a stream of their own and from pinned memory, so neither this process nor the GPU waits for them.
    """

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self.sampler = loader.sampler  # Lightning calls its `set_epoch`
        self._streams: Any = torch.get_device_module(device)
        self._copy_stream: Any = None  # one for all epochs, as each stream has its own memory pool

    def __len__(self) -> int:
        return len(self._loader)

    # Lightning ends a loader's workers via its `_iterator`: by assignment up to 2.6.6, by `del` since Lightning #21708.

    @property
    def _iterator(self) -> Any:
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator

    @_iterator.deleter
    def _iterator(self) -> None:
        self._loader._iterator = None

    def __iter__(self) -> Iterator[Any]:
        streams = self._streams
        copy_stream = self._copy_stream = self._copy_stream or streams.Stream()
        ready: list[Any] = []
        for batch in self._loader:
            # The memory of a freed batch is reused for a later one. Kernels that still read it were launched before
            # this point, so the copy waits for them.
            copy_stream.wait_stream(streams.current_stream())
            with streams.stream(copy_stream):
                ready.append(move_data_to_device(batch, self._device))
            if len(ready) == 2:
                yield ready.pop(0)
            streams.current_stream().wait_stream(copy_stream)
        yield from ready
