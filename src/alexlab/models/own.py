"""The user's own net, built with torch by running the user's Python file; `own_net.py` parses the key that names it."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor, nn

from alexlab import distributed, own_net
from alexlab.config import Config, ConfigError
from alexlab.models.dropout import Dropout
from alexlab.streams import stream_seed


def build_own(config: Config) -> nn.Module:
    """Run the file of `model.build`, call its function, and check the network's output.

    The function's draws from torch's generator depend on `seed` only.

    Raises:
        UserError: if the file is missing, or has changed since the run was planned.
        ConfigError: if the function returns no network that gives [B, K] logits for [B, 3, crop, crop] images.
    """
    assert config.model.build is not None
    build = own_net.parse(config.model.build)
    crop, num_classes = config.data.crop_size, config.data.num_classes
    assert crop is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "init"))
        function = getattr(_module(config, build), build.function)
        if build.takes_config:  # without the key, so that `build_model(config)` builds AlexNet
            network = function(replace(config, model=replace(config.model, build=None)))
        else:
            network = function(num_classes=num_classes, crop_size=crop)
        if not isinstance(network, nn.Module):
            raise ConfigError(f"model.build={config.model.build}: returned {type(network).__name__}, not an nn.Module")
        was_training = network.training
        with torch.no_grad():
            found = network.eval()(torch.zeros(2, 3, crop, crop))
        network.train(was_training)
    shape = list(getattr(found, "shape", []))
    if shape != [2, num_classes]:
        raise ConfigError(
            f"model.build={config.model.build}: for 2 images of {crop} x {crop} pixels its output is "
            f"{shape or type(found).__name__}; must be [2, {num_classes}]"
        )
    network.register_forward_pre_hook(_as_float64)
    return network


def _as_float64(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Convert float32 input for float64 weights (`trainer.precision=64-true`), as AlexNet does."""
    weight = next(network.parameters(), None)
    return tuple(x.double() for x in inputs) if weight is not None and weight.dtype is torch.float64 else None


def _module(config: Config, build: own_net.Build) -> ModuleType:
    module = ModuleType(f"own_net_{build.digest}")
    module.__file__ = f"{config.paths.code}/{build.file}"
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for it
    exec(compile(own_net.source(config), module.__file__, "exec"), module.__dict__)
    return module


def reseed(network: nn.Module, *names: object) -> None:
    """Make the network's next draws a function of the names (seed, step), and of the rank if processes share a run.

    `alexlab.models.Dropout` also draws by its own name, as in AlexNet; everything else uses torch's global generator.
    """
    torch.manual_seed(stream_seed(*names, *([distributed.rank()] if distributed.rank() else [])))
    for name, module in network.named_modules():
        if isinstance(module, Dropout):
            module.reseed(stream_seed(*names, name))
