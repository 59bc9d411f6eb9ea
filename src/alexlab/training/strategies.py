"""Lightning strategies for a run on several devices, whose processes `alexlab.runs.supervisor` has started."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import SingleDeviceStrategy, Strategy
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.modules.batchnorm import _BatchNorm

from alexlab import distributed
from alexlab.config import Accelerator, ConfigError, TrainerConfig
from alexlab.config import Strategy as StrategyName
from alexlab.distributed import Share
from alexlab.models import AlexNet, BatchNorm, Dropout, Tower
from alexlab.training.device import device_type
from alexlab.training.lightning_compat import DDPWithCommHook
from alexlab.training.module import ClassificationTask


class ConnectedProcesses(LightningEnvironment):
    """The processes of a run, already started and connected; a single process is a run of its own, also under SLURM."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def world_size(self) -> int:
        return distributed.count()

    def global_rank(self) -> int:
        return distributed.rank()

    def local_rank(self) -> int:
        return distributed.rank()

    def set_global_rank(self, rank: int) -> None:
        pass

    def set_world_size(self, size: int) -> None:
        pass


def counted(state, bucket):  # no annotations: torch does not accept them as strings
    """Average gradients as DDP does, and count the bytes sent."""
    distributed.note_sent(
        2 * (distributed.count() - 1) * bucket.buffer().nbytes // distributed.count()
    )  # of a ring all-reduce
    return allreduce_hook(None, bucket)  # pyright: ignore[reportArgumentType]


class Towers(SingleDeviceStrategy):
    """Each device has a part of the network (`alexlab.models.towers`) and the full batch.

    Lightning sees each process as a separate training. States are joined when saved and split when loaded, so that
    checkpoints hold the full network.
    """

    @property
    def is_global_zero(self) -> bool:
        return distributed.is_first()

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        distributed.any_of(False)

    @property
    def _tower(self) -> Tower:
        assert isinstance(self.lightning_module, ClassificationTask)
        network = self.lightning_module.network
        assert isinstance(network, Tower)
        return network

    def _names(self, optimizer: torch.optim.Optimizer) -> list[str]:
        """The parameters' names, in the order of an optimiser's state."""
        names = {id(value): name for name, value in self._tower.named_parameters()}
        return [names[id(value)] for group in optimizer.param_groups for value in group["params"]]

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {f"network.{name}": value for name, value in self._tower.full_state().items()}

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        self._tower.load_full_state(
            {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()}
        )

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = super().optimizer_state(optimizer)
        names = self._names(optimizer)
        joined = {i: _map_values(self._tower.full, names[i], values) for i, values in state["state"].items()}
        return {**state, "state": joined}

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = self._names(optimizer)
            parts = {i: _map_values(self._tower.part, names[i], values) for i, values in state["state"].items()}
            states.append({**state, "state": parts})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def _map_values(change: Any, name: str, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {kind: change(name, value) for kind, value in values.items()}


def shared(network: AlexNet, trainer: TrainerConfig, batch_size: int) -> AlexNet:
    """This process's network: together, all processes compute what one network alone would.

    Raises:
        ConfigError: if a user's own net normalises over the images of one device, which is another method.
    """
    share = Share(distributed.rank(), distributed.count())
    if share.of == 1:
        return network
    if trainer.strategy is StrategyName.towers:
        return Tower(network, share)
    for name, module in network.named_modules():
        if isinstance(module, Dropout):
            module.part = (0, *share.bounds(batch_size), batch_size)
        elif isinstance(module, BatchNorm):
            module.is_shared = True
        elif isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise ConfigError(
                f"trainer.devices={share.of}: {name} is a {type(module).__name__}, whose statistics are those of one "
                "device's images; use alexlab.models.BatchNorm, or set trainer.devices=1"
            )
    return network


def full_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of the full network; a collective operation if each process has a part of it."""
    return network.full_state() if isinstance(network, Tower) else network.state_dict()


def load_full_state(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    if isinstance(network, Tower):
        network.load_full_state(state)
    else:
        network.load_state_dict(state)


def trainer_devices(trainer: TrainerConfig) -> dict[str, Any]:
    """Keyword arguments of Lightning's Trainer: accelerator, devices and strategy.

    Raises:
        ConfigError: if this machine has too few devices, or no process was started for each.
    """
    if trainer.devices != distributed.count():
        raise ConfigError(
            f"trainer.devices={trainer.devices}: this process trains with {distributed.count()}; src/train.py starts "
            "one process for each device"
        )
    if distributed.count() == 1:
        return {"accelerator": device_type(trainer.accelerator), "devices": 1}
    gpus = torch.cuda.device_count() if trainer.accelerator is not Accelerator.cpu else 0
    if 0 < gpus < distributed.count() or (gpus == 0 and trainer.accelerator is Accelerator.gpu):
        raise ConfigError(
            f"trainer.devices={distributed.count()}: this machine has {gpus} GPUs; lower it, or set "
            "trainer.accelerator=cpu"
        )
    devices: int | list[int]
    strategy: Strategy
    if trainer.strategy is StrategyName.towers:
        device = torch.device("cuda", distributed.rank()) if gpus else torch.device("cpu")
        devices, strategy = ([distributed.rank()] if gpus else 1), Towers(device)
    else:
        # Unless it looks for unused parameters, DDP rebuilds its buckets after the first step of a process, which
        # is a later step in a resumed run. The order of a sum of more than two gradients depends on the buckets.
        devices = distributed.count()
        strategy = DDPWithCommHook(counted, find_unused_parameters=distributed.count() > 2)
    return {"accelerator": "gpu" if gpus else "cpu", "devices": devices, "strategy": strategy}
