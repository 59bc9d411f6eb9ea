"""The network as a list of layers with their sizes: plain arithmetic, no tensors.

`layers(config)` resolves towers, removed layers and feature-map sizes once; the model is built from the list, and
making the list checks a configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

from alexlab.config import (
    CONV1_PADDING,
    CONV_LAYERS,
    HIDDEN_LAYERS,
    ORDER,
    Activation,
    BatchNorm,
    Config,
    ConfigError,
    PoolKind,
    by_layer,
    shown,
)

POOL_STRIDE = 2


@dataclass(frozen=True)
class Layer:
    """One layer with weights; sides are those of square feature maps, and 1 for a fully connected layer."""

    name: str
    inputs: int  # input channels or units
    outputs: int  # kernels or units
    kernel: int = 1
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # zeros before and after, in each direction
    groups: int = 1
    shared: bool = True  # the same weights at each position
    side: int = 1  # of the layer's own output
    pooled_side: int = 1  # after the pooling that follows
    follows: tuple[str, ...] = ()  # what follows it, in order: activation, lrn, pool1, dropout, ...

    @property
    def is_conv(self) -> bool:
        return self.name.startswith("conv")

    @property
    def fan_in(self) -> int:
        return self.inputs // self.groups * self.kernel**2

    @property
    def parameters(self) -> int:
        """Weights and biases; what batch normalisation or PReLU add is not counted."""
        return (1 if self.shared else self.side**2) * self.outputs * (self.fan_in + 1)

    @property
    def multiply_adds(self) -> int:
        """For one image, forward."""
        return self.side**2 * self.outputs * self.fan_in

    @property
    def neurons(self) -> int:
        """Outputs for one image, before pooling."""
        return self.side**2 * self.outputs


class _Vanished(Exception):
    """The named layer leaves no pixel of a feature map."""


def layers(config: Config) -> list[Layer]:
    """The layers kept, in order (3.5, figure 2).

    If a convolution is removed, so is all that follows it except its pooling, so that later feature maps keep their
    sizes; its cross-talk passes to the next remaining convolution.

    Raises:
        ConfigError: if kernels do not divide into towers, or a feature map would vanish.
    """
    crop_size = config.data.crop_size
    assert crop_size is not None
    try:
        return _layers(config, crop_size)
    except _Vanished as place:
        least = next(size for size in count(crop_size + 1) if _fits(config, size))
        raise ConfigError(
            f"data.crop_size={crop_size}: the feature map vanishes at {place}; the smallest crop for this net is "
            f"{least}"
        ) from None


def map_sides(config: Config) -> list[int]:
    """The side of the feature map after each convolution and its pooling; empty for a user's own net."""
    if config.model.build is not None:
        return []
    return [spec.pooled_side for spec in layers(config) if spec.is_conv]


def _fits(config: Config, crop_size: int) -> bool:
    try:
        _layers(config, crop_size)
    except _Vanished:
        return False
    return True


def _layers(config: Config, crop_size: int) -> list[Layer]:
    model = config.model
    convs: list[Layer] = []
    inputs, side, sees_all = 3, crop_size, True  # conv1 sees the whole image
    for index, kernels in enumerate(model.kernels):
        name = CONV_LAYERS[index]
        sees_all = sees_all or name in model.cross_talk
        pool = f"pool{name[-1]}" if name in config.pool.after else None
        if name in model.remove:
            if pool:
                side = _pooled(config, side, pool)
                convs[-1] = replace(convs[-1], follows=(*convs[-1].follows, pool), pooled_side=side)
            continue
        zeros = model.paddings[index - 1]
        padding = CONV1_PADDING[model.conv1_padding.name] if index == 0 else (zeros, zeros)
        outputs = max(1, round(kernels * model.width))
        groups = 1 if sees_all else model.groups
        if outputs % model.groups:  # input channels need no check: they are kernels, or see all towers
            raise ConfigError(
                f"model.groups={model.groups}: {name}'s {outputs} kernels do not divide into {model.groups} towers; "
                f"change model.width={model.width:g} or model.kernels={shown(model.kernels)}"
            )
        if name in model.unshared and groups > 1:
            raise ConfigError(f"model.unshared={shown(model.unshared)}: {name} must see all towers; set model.groups=1")
        kernel, stride = model.kernel_sizes[index], model.conv1_stride if index == 0 else 1
        padded = side + sum(padding)
        if padded < kernel:
            raise _Vanished(name)
        side = (padded - kernel) // stride + 1
        pooled = _pooled(config, side, pool) if pool else side
        convs.append(
            Layer(
                name,
                inputs,
                outputs,
                kernel,
                stride,
                padding,
                groups,
                name not in model.unshared,
                side,
                pooled,
                _follows(config, name, pool),
            )
        )
        inputs, side, sees_all = outputs, pooled, False
    units = inputs * side**2
    hidden: list[Layer] = []
    width = max(1, round(model.hidden * model.hidden_width))
    for name in HIDDEN_LAYERS[: model.hidden_layers]:
        if name not in model.remove:
            hidden.append(Layer(name, units, width, follows=_follows(config, name, None)))
            units = width
    last = ("activation",) if model.last_activation else ()
    assert config.data.num_classes is not None
    return [*convs, *hidden, Layer("fc8", units, config.data.num_classes, follows=last)]


def kept_bytes(layer: Layer, config: Config) -> int:
    """The bytes that float32 training keeps of a layer for its backward pass, per image: outputs, masks, indices."""
    values, side = layer.neurons, layer.side
    kept = 4 * values
    if len(set(layer.padding)) > 1:  # the padded input is a copy
        kept += 4 * layer.inputs * ((side - 1) * layer.stride + layer.kernel) ** 2
    if not layer.shared:  # the unfolded patches
        kept += 4 * layer.fan_in * side**2
    for step in layer.follows:
        if step.startswith("pool"):
            side = _pooled(config, side, step)
            values = side**2 * layer.outputs
            kept += 4 * values if pool_kind(config, step) is PoolKind.average else 12 * values  # indices have 8 bytes
        elif step == "activation":
            kept += 4 * values if config.model.activation is Activation.prelu else 0  # others need only their output
        else:
            kept += {"batch_norm": 4, "lrn": 8, "same_map_norm": 16, "dropout": 5}[step] * values
    return kept


def check_towers(net: list[Layer], config: Config) -> None:
    """Refuse a net that does not divide over `trainer.devices` with `trainer.strategy=towers`.

    Raises:
        ConfigError: for the first layer that does not.
    """
    devices, model = config.trainer.devices, config.model
    if devices == 1:
        return
    for layer in net:
        per_tower = "lrn" in layer.follows and model.lrn_per_tower and model.groups > 1
        if (layer.groups > 1 or per_tower) and model.groups % devices:
            raise ConfigError(
                f"trainer.devices={devices}: {layer.name}'s {model.groups} towers do not divide over them; set "
                "model.groups or trainer.devices"
            )
        if layer.outputs < devices:
            raise ConfigError(f"trainer.devices={devices}: {layer.name} has {layer.outputs} outputs, not one for each")
        if "lrn" in layer.follows and not per_tower and model.lrn_size // 2 > layer.outputs // devices:
            hint = "set model.lrn_per_tower=true or raise" if model.groups > 1 else "raise"
            raise ConfigError(
                f"trainer.devices={devices}: LRN's window of {model.lrn_size} channels after {layer.name} reaches "
                f"beyond the next device's; {hint} model.width"
            )


def bytes_sent(config: Config, devices: int) -> dict[str, int]:
    """The bytes that the first of several devices sends in a float32 training step, by `trainer.strategy`.

    ddp: gradients, once around a ring and back. towers: feature maps and units that other devices read, and their
    gradients.
    """
    net, others = layers(config), devices - 1
    values = 0
    for number, layer in enumerate(net):
        own, widest = layer.outputs // devices, -(-layer.outputs // devices)
        side = layer.side
        for step in layer.follows:
            if step.startswith("pool"):
                side = _pooled(config, side, step)
            elif step == "lrn" and (config.model.groups == 1 or not config.model.lrn_per_tower):
                values += 2 * (config.model.lrn_size // 2) * side**2  # next to the seam, there and back
        if number + 1 == len(net):
            values += others * widest  # logits; their gradient is known to all
        elif net[number + 1].groups == 1:
            values += (others * widest + layer.outputs - own) * side**2
    parameters = sum(layer.parameters for layer in net)
    return {"ddp": 2 * others * 4 * parameters // devices, "towers": 4 * config.data.batch_size * values}


def pool_kind(config: Config, name: str) -> PoolKind:
    """The kind of a pooling layer, such as pool1."""
    return PoolKind[by_layer(config.pool.kinds).get(f"conv{name[-1]}", config.pool.kind.name)]


def _follows(config: Config, name: str, pool: str | None) -> tuple[str, ...]:
    """The operations that follow a layer, in order."""
    model = config.model
    steps: list[str] = []
    for step in {"conv1": model.conv1_order, "conv2": model.conv2_order}.get(name, ORDER):
        if step == "activation":
            before = ["batch_norm"] if model.batch_norm is BatchNorm.before else []
            after = ["batch_norm"] if model.batch_norm is BatchNorm.after else []
            steps += [*before, "activation", *after]
        elif step == "lrn":
            steps += ["lrn"] if model.lrn and name in model.lrn_after else []
            steps += ["same_map_norm"] if model.same_map_norm and name == "conv2" else []
        elif pool:
            steps.append(pool)
    if model.dropout > 0 and name in model.dropout_after:
        steps.append("dropout")
    return tuple(steps)


def pool_window(config: Config) -> int:
    """The window size z of section 3.4; the stride s is always 2."""
    return 3 if config.pool.overlap else 2


def _pooled(config: Config, side: int, name: str) -> int:
    window = pool_window(config)
    if side < window:
        raise _Vanished(name)
    steps = -(-(side - window) // POOL_STRIDE) if config.pool.ceil else (side - window) // POOL_STRIDE
    return steps + 1
