"""One run on several devices: how Lightning sees the processes that `alexlab.runs.supervisor` has started."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from alexlab import distributed
from alexlab.config import Accelerator, ConfigError, TrainerConfig
from alexlab.config import Strategy as Split
from alexlab.distributed import Share
from alexlab.models import AlexNet, BatchNorm, Dropout, Tower
from alexlab.training.module import ClassificationTask


class Started(LightningEnvironment):
    """The processes of a run are there, and connected; one process alone is one run, under SLURM too."""

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


class DataParallel(DDPStrategy):
    """Each device has the whole net and its stretch of each batch; gradients are averaged."""

    def optimizer_step(self, optimizer: Any, closure: Any, model: Any = None, **kwargs: Any) -> Any:
        assert isinstance(self.lightning_module, ClassificationTask)
        if self.lightning_module.passes_over:
            closure()
            return None
        return super().optimizer_step(optimizer, closure, model, **kwargs)

    def _register_ddp_hooks(self) -> None:
        assert isinstance(self.model, DistributedDataParallel)
        self.model.register_comm_hook(None, counted)


def counted(state, bucket):  # torch wants no annotations that are text
    distributed.note_sent(
        2 * (distributed.count() - 1) * bucket.buffer().nbytes // distributed.count()
    )  # around a ring
    return allreduce_hook(None, bucket)  # pyright: ignore[reportArgumentType]


class Towers(SingleDeviceStrategy):
    """Each device has a part of the net (`alexlab.models.towers`), and all of each batch.

    To Lightning each is a training of its own; states are joined and taken apart on their way, so that they are those
    of the whole net.
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
        """The parameters' names, in the order in which an optimiser's state counts them."""
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
        joined = {i: _each(self._tower.full, names[i], values) for i, values in state["state"].items()}
        return {**state, "state": joined}

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = self._names(optimizer)
            parts = {i: _each(self._tower.part, names[i], values) for i, values in state["state"].items()}
            states.append({**state, "state": parts})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def _each(change: Any, name: str, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {kind: change(name, value) for kind, value in values.items()}


def shared(network: AlexNet, trainer: TrainerConfig, batch_size: int) -> AlexNet:
    """The network for this process, so that all of them together compute what one alone would."""
    share = Share(distributed.rank(), distributed.count())
    if share.of == 1:
        return network
    if trainer.strategy is Split.towers:
        return Tower(network, share)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.part = (0, *share.bounds(batch_size), batch_size)
        elif isinstance(module, BatchNorm):
            module.is_shared = True
    return network


def whole_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's state dict, joined where this process has a part of it; then all processes must ask for it."""
    return network.full_state() if isinstance(network, Tower) else network.state_dict()


def load_whole_state(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    if isinstance(network, Tower):
        network.load_full_state(state)
    else:
        network.load_state_dict(state)


def placed(trainer: TrainerConfig) -> dict[str, Any]:
    """What Lightning's Trainer is told of devices and of how a run is split over them.

    Raises:
        ConfigError: where this machine has too few of them, or nobody has started a process for each.
    """
    if trainer.devices != distributed.count():
        raise ConfigError(
            f"trainer.devices={trainer.devices}: this process trains with {distributed.count()}; src/train.py starts "
            "one process for each device"
        )
    told: dict[str, Any] = {"accelerator": trainer.accelerator.name, "devices": 1}
    if distributed.count() == 1:
        return told
    gpus = torch.cuda.device_count() if trainer.accelerator is not Accelerator.cpu else 0
    if 0 < gpus < distributed.count() or (gpus == 0 and trainer.accelerator is Accelerator.gpu):
        raise ConfigError(
            f"trainer.devices={distributed.count()}: this machine has {gpus} GPUs; lower it, or set "
            "trainer.accelerator=cpu"
        )
    strategy: Strategy
    if trainer.strategy is Split.towers:
        device = torch.device("cuda", distributed.rank()) if gpus else torch.device("cpu")
        told["devices"], strategy = ([distributed.rank()] if gpus else 1), Towers(device)
    else:
        # DDP sums in other groups of parameters after its first step, unless it looks for unused ones. Of two numbers
        # the sum is the same; of more it depends on the groups, and a run that goes on has another first step.
        told["devices"], strategy = distributed.count(), DataParallel(find_unused_parameters=distributed.count() > 2)
    return {**told, "accelerator": "gpu" if gpus else "cpu", "strategy": strategy}
