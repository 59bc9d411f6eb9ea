"""AlexNet (section 3.5), built from the list of layers that `alexlab.architecture` resolves."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alexlab.architecture import POOL_STRIDE, Layer, layers, pool_window
from alexlab.config import Activation, Config, DropoutScaling, Init, ModelConfig
from alexlab.models.dropout import Dropout
from alexlab.models.lrn import LocalResponseNorm
from alexlab.streams import stream


class AlexNet(nn.Sequential):
    """Layers in the paper's order: convolution, nonlinearity, LRN, pooling (3.5).

    Takes [B, 3, crop, crop], pixels less the mean; gives [B, K] logits. Children are named conv1 .. fc8, relu1, lrn1,
    pool1, dropout6 and so on, so that a state dict's keys are the paper's layer names.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(next(self.parameters()).dtype))  # float64 weights take float64 input

    def reseed_dropout(self, *names: object) -> None:
        """Make the next masks a function of the names (seed, step) and of each layer's own name."""
        for name, module in self.named_children():
            if isinstance(module, Dropout):
                module.reseed(stream(*names, name))


def build_model(config: Config) -> AlexNet:
    """Build and initialise the network of a configuration; its first weights depend on `seed` and layer names only."""
    model = config.model
    network = AlexNet()
    window = pool_window(config.pool)
    specs = layers(model, config.pool, config.data.crop_size, config.data.num_classes)
    for spec in specs:
        number = spec.name[-1]
        if not spec.is_conv and "flatten" not in network._modules:
            network.add_module("flatten", nn.Flatten())
        if len(set(spec.padding)) > 1:
            network.add_module(f"pad{number}", nn.ZeroPad2d(spec.padding))
        weights = _weights(spec)
        _initialise(weights, spec, model, config.seed)
        network.add_module(spec.name, weights)
        if spec.activation:
            nonlinearity = nn.ReLU(inplace=True) if model.activation is Activation.relu else nn.Tanh()
            network.add_module(f"{model.activation.name}{number}", nonlinearity)
        if spec.lrn:
            norm = LocalResponseNorm(model.lrn_size, model.lrn_k, model.lrn_alpha, model.lrn_beta)
            network.add_module(f"lrn{number}", norm)
        for pool in spec.pools:
            network.add_module(pool, nn.MaxPool2d(window, POOL_STRIDE))
        if spec.dropout:
            dropout = Dropout(model.dropout, scale_at_test=model.dropout_scaling is DropoutScaling.test)
            network.add_module(f"dropout{number}", dropout)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _weights(spec: Layer) -> nn.Conv2d | nn.Linear:
    with torch.random.fork_rng(devices=[]):  # torch's own initial values must not move the caller's generator
        if not spec.is_conv:
            return nn.Linear(spec.inputs, spec.outputs)
        padding = spec.padding[0] if len(set(spec.padding)) == 1 else 0
        return nn.Conv2d(spec.inputs, spec.outputs, spec.kernel, spec.stride, padding, groups=spec.groups)


@torch.no_grad()
def _initialise(weights: nn.Conv2d | nn.Linear, spec: Layer, model: ModelConfig, seed: int) -> None:
    fan_in = weights.weight[0].numel()
    std = model.init_std if model.init is Init.normal else math.sqrt(2 / fan_in)
    if spec.name == "fc8" and model.init_last_std is not None:
        std = model.init_last_std
    generator = torch.Generator().manual_seed(stream(seed, "init", spec.name))
    weights.weight.copy_(torch.randn(weights.weight.shape, generator=generator) * std)
    assert isinstance(weights.bias, Tensor)
    weights.bias.fill_(model.init_bias if spec.bias_one else 0.0)
