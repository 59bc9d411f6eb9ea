"""Batches on a GPU ahead of time: the next one is copied while the device works on the last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch.utils.data import DataLoader


class DevicePrefetcher:
    """A loader whose batches are on a device already; the same batches in the same order.

    The copy has a stream of its own and comes from pinned memory, so that neither this process nor the device's work
    waits for it.
    """

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self.sampler = loader.sampler  # Lightning tells it the epoch
        self._streams: Any = torch.get_device_module(device)
        self._copying: Any = None  # one stream, as each keeps memory of its own

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def _iterator(self) -> Any:
        """The loader's own, by which Lightning ends its processes."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        streams = self._streams
        copying = self._copying = self._copying or streams.Stream()
        ready: list[Any] = []
        for batch in self._loader:
            # A batch's memory is taken for a later one once nobody holds it; what reads it yet was begun before.
            copying.wait_stream(streams.current_stream())
            with streams.stream(copying):
                ready.append(move_data_to_device(batch, self._device))
            if len(ready) == 2:
                yield ready.pop(0)
            streams.current_stream().wait_stream(copying)
        yield from ready
