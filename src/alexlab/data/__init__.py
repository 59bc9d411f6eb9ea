"""From image files to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexlab.config import Config
    from alexlab.data.datamodule import StoreDataModule


def build_datamodule(config: Config) -> StoreDataModule:
    """The data module of a configuration."""
    # Imported here, so that processes that only draw or prepare images do not load torch (five seconds each).
    from alexlab.data.datamodule import StoreDataModule

    return StoreDataModule(config)


__all__ = ["build_datamodule"]
