"""AlexNet (section 3.5) and its relatives, built from the list of layers that `alexlab.architecture` resolves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from alexlab.architecture import POOL_STRIDE, Layer, layers, pool_kind, pool_window
from alexlab.config import Activation, Config, DropoutScaling, Init, ModelConfig, PoolKind, by_layer
from alexlab.models.batch_norm import BatchNorm
from alexlab.models.dropout import Dropout
from alexlab.models.locally_connected import LocallyConnected2d
from alexlab.models.lrn import LocalResponseNorm, SameMapNorm
from alexlab.models.own import build_own
from alexlab.streams import stream_seed

_ACTIVATIONS = {
    Activation.relu: lambda units: nn.ReLU(inplace=True),
    Activation.tanh: lambda units: nn.Tanh(),
    Activation.sigmoid: lambda units: nn.Sigmoid(),
    Activation.elu: lambda units: nn.ELU(inplace=True),
    Activation.prelu: lambda units: nn.PReLU(units),
}


class AlexNet(nn.Sequential):
    """Layers in the order of the configuration; in the paper: convolution, nonlinearity, LRN, pooling (3.5).

    Takes [B, 3, crop, crop], pixels minus the mean; gives [B, K] logits. Children are named conv1 .. fc8, relu1, lrn1,
    pool1, dropout6 and so on, so that a state dict's keys are the paper's layer names.
    """

    layout = torch.channels_last

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.as_input(input))

    def as_input(self, x: Tensor) -> Tensor:
        """Convert to the network's memory layout and type: float64 weights take float64 input."""
        return x.to(next(self.parameters()).dtype, memory_format=self.layout)

    def reseed_dropout(self, *names: object) -> None:
        """Make the next masks a function of the names (seed, step) and of each layer's own name."""
        for name, module in self.named_children():
            if isinstance(module, Dropout):
                module.reseed(stream_seed(*names, name))


def compiled(network: AlexNet, mode: str | None) -> Callable[[Tensor], Tensor]:
    """Compile the parts of a network between its dropout layers, whose seed changes at every step."""
    calls: list[Any] = []
    for is_dropout, part in itertools.groupby(network, lambda module: isinstance(module, Dropout)):
        modules = list(part)
        calls.extend(modules if is_dropout else [torch.compile(nn.Sequential(*modules), mode=mode)])

    def forward(x: Tensor) -> Tensor:
        x = network.as_input(x)
        for call in calls:
            x = call(x)
        return x

    return forward


def build_model(config: Config) -> AlexNet:
    """Build and initialise the network of a configuration; initial weights depend on `seed` and layer names only.

    With `model.build` the network is the user's own module, not necessarily an AlexNet.
    """
    if config.model.build is not None:
        return cast(AlexNet, build_own(config))
    network = AlexNet()
    for spec in layers(config):
        if not spec.is_conv and "flatten" not in network._modules:
            network.add_module("flatten", nn.Flatten())
        if len(set(spec.padding)) > 1:
            network.add_module(f"pad{_number(spec)}", nn.ZeroPad2d((*spec.padding, *spec.padding)))
        weights = _weights(spec)
        _initialise(weights, spec, config.model, config.seed)
        network.add_module(spec.name, weights)
        for step in spec.follows:
            for name, module in _following(step, spec, config):
                assert name not in network._modules
                network.add_module(name, module)
    if not config.trainer.channels_last:
        network.layout = torch.contiguous_format
    return network.to(memory_format=network.layout)  # pyright: ignore[reportCallIssue]


def _number(spec: Layer) -> str:
    """Suffix for the names of the modules that follow a layer: relu6 follows fc6."""
    return "_conv6" if spec.name == "conv6" else spec.name[-1]


def _following(step: str, spec: Layer, config: Config) -> Iterator[tuple[str, nn.Module]]:
    """The modules of one step after a layer, with their names in the network."""
    model, number = config.model, _number(spec)
    if step == "activation":
        yield f"{model.activation.name}{number}", _ACTIVATIONS[model.activation](spec.outputs)
    elif step == "lrn":
        groups = model.groups if model.lrn_per_tower else 1
        alpha = model.lrn_alpha * model.lrn_scale**2
        constants = model.lrn_size, model.lrn_k, alpha, model.lrn_beta
        yield f"lrn{number}", LocalResponseNorm(*constants, groups, fused=config.trainer.fused_lrn)
    elif step == "same_map_norm":
        yield f"same_map_norm{number}", SameMapNorm(scale=model.lrn_scale)
    elif step == "batch_norm":
        yield f"batch_norm{number}", BatchNorm(spec.outputs)
    elif step == "dropout":
        yield f"dropout{number}", Dropout(model.dropout, scale_at_test=model.dropout_scaling is DropoutScaling.test)
    else:
        yield step, _pooling(step, config)


def _pooling(name: str, config: Config) -> nn.Module:
    pool, kind = config.pool, pool_kind(config, name)
    window = pool_window(config)
    if kind is PoolKind.max:
        return nn.MaxPool2d(window, POOL_STRIDE, ceil_mode=pool.ceil)
    if kind is PoolKind.average:
        return nn.AvgPool2d(window, POOL_STRIDE, ceil_mode=pool.ceil)
    return MaxPlusAverage(window, pool.ceil)


class MaxPlusAverage(nn.Module):
    """The sum of max pooling and average pooling, with stride 2."""

    def __init__(self, window: int, ceil_mode: bool) -> None:
        super().__init__()
        self.maximum = nn.MaxPool2d(window, POOL_STRIDE, ceil_mode=ceil_mode)
        self.average = nn.AvgPool2d(window, POOL_STRIDE, ceil_mode=ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.maximum(x) + self.average(x)


def _weights(spec: Layer) -> nn.Conv2d | nn.Linear | LocallyConnected2d:
    with torch.random.fork_rng(devices=[]):  # torch's default initialisation must not advance the caller's generator
        if not spec.is_conv:
            return nn.Linear(spec.inputs, spec.outputs)
        padding = spec.padding[0] if len(set(spec.padding)) == 1 else 0
        if not spec.shared:
            return LocallyConnected2d(spec.inputs, spec.outputs, spec.kernel, spec.stride, padding, spec.side)
        return nn.Conv2d(spec.inputs, spec.outputs, spec.kernel, spec.stride, padding, groups=spec.groups)


@torch.no_grad()
def _initialise(
    weights: nn.Conv2d | nn.Linear | LocallyConnected2d, spec: Layer, model: ModelConfig, seed: int
) -> None:
    generator = torch.Generator().manual_seed(stream_seed(seed, "init", spec.name))
    bias = weights.bias
    assert isinstance(bias, Tensor)
    if model.init is Init.torch:  # the default of nn.Conv2d and nn.Linear
        bound = 1 / math.sqrt(spec.fan_in)
        weights.weight.copy_((2 * torch.rand(weights.weight.shape, generator=generator) - 1) * bound)
        bias.copy_((2 * torch.rand(bias.shape, generator=generator) - 1) * bound)
        return
    if model.init in (Init.he, Init.lecun):
        std = math.sqrt((2 if model.init is Init.he else 1) / spec.fan_in)
    else:
        std = float(by_layer(model.init_stds).get(spec.name, model.init_std))
    if spec.name == "fc8" and model.init_last_std is not None:
        std = model.init_last_std
    weights.weight.copy_(torch.randn(weights.weight.shape, generator=generator) * std)
    bias.fill_(model.init_bias if spec.name in model.init_bias_layers else 0.0)
