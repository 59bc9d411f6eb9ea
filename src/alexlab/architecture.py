"""The network as a list of layers with their sizes: plain arithmetic, no tensors.

`layers(...)` resolves towers, removed layers and map sizes once; the model is built from the list, and a configuration
is checked by making it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

from alexlab.config import CONV_LAYERS, HIDDEN_LAYERS, ConfigError, ModelConfig, Padding, PoolConfig, shown

# name: kernel, stride, zeros on each side (3.5; those of conv2-5 follow from the map sizes in figure 2)
_CONV = {"conv1": (11, 4, 2), "conv2": (5, 1, 2), "conv3": (3, 1, 1), "conv4": (3, 1, 1), "conv5": (3, 1, 1)}
_LRN_AFTER = ("conv1", "conv2")
_POOL_AFTER = ("conv1", "conv2", "conv5")
_BIAS_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7")
POOL_STRIDE = 2


@dataclass(frozen=True)
class Layer:
    """One layer with weights; sides are of square maps, and 1 for a fully connected layer."""

    name: str
    inputs: int  # maps or units that come in
    outputs: int  # kernels or units
    kernel: int = 1
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, right, top, bottom
    groups: int = 1
    side: int = 1  # of the layer's own output
    activation: bool = True
    lrn: bool = False
    dropout: bool = False
    bias_one: bool = False
    pools: tuple[str, ...] = ()  # pooling layers that follow, by name
    pooled_side: int = 1  # after them

    @property
    def is_conv(self) -> bool:
        return self.name.startswith("conv")

    @property
    def parameters(self) -> int:
        return self.outputs * (self.inputs // self.groups * self.kernel**2 + 1)

    @property
    def multiply_adds(self) -> int:
        return self.side**2 * self.outputs * (self.inputs // self.groups) * self.kernel**2


class _Vanished(Exception):
    """A map has no pixel left at the layer named."""


def layers(model: ModelConfig, pool: PoolConfig, crop_size: int, num_classes: int) -> list[Layer]:
    """The layers kept, in order (3.5, figure 2).

    A removed convolution takes its nonlinearity and its normalisation with it; its pooling stays, so that later maps
    keep their sizes, and its cross-talk passes to the next convolution kept.

    Raises:
        ConfigError: where kernels do not divide into towers, or a map would vanish.
    """
    try:
        return _layers(model, pool, crop_size, num_classes)
    except _Vanished as place:
        least = next(size for size in count(crop_size + 1) if _fits(model, pool, size, num_classes))
        raise ConfigError(
            f"data.crop_size={crop_size}: nothing is left of the map at {place}; the least size for this net is {least}"
        ) from None


def _fits(model: ModelConfig, pool: PoolConfig, crop_size: int, num_classes: int) -> bool:
    try:
        _layers(model, pool, crop_size, num_classes)
    except _Vanished:
        return False
    return True


def _layers(model: ModelConfig, pool: PoolConfig, crop_size: int, num_classes: int) -> list[Layer]:
    window = pool_window(pool)
    convs: list[Layer] = []
    inputs, side, sees_all = 3, crop_size, True  # conv1 sees the whole image
    for name, kernels in zip(CONV_LAYERS, model.kernels, strict=True):
        sees_all = sees_all or name in model.cross_talk
        pools = (f"pool{name[-1]}",) if name in _POOL_AFTER else ()
        if name in model.remove:
            if pools:
                side = _pooled(side, window, pools[0])
                convs[-1] = replace(convs[-1], pools=(*convs[-1].pools, *pools), pooled_side=side)
            continue
        kernel, stride, zeros = _CONV[name]
        padding = (zeros, zeros, zeros, zeros)
        if name == "conv1":
            padding = {Padding.both: (2, 2, 2, 2), Padding.end: (0, 3, 0, 3), Padding.none: (0, 0, 0, 0)}[
                model.conv1_padding
            ]
        outputs = max(1, round(kernels * model.width))
        groups = 1 if sees_all else model.groups
        for what, number in (("kernels", outputs), ("input maps", inputs)):
            if number % groups or (what == "kernels" and number % model.groups):
                raise ConfigError(
                    f"model.groups={model.groups}: {name}'s {number} {what} do not divide into {model.groups} towers; "
                    f"change model.width={model.width:g} or model.kernels={shown(model.kernels)}"
                )
        padded = side + padding[0] + padding[1]
        if padded < kernel:
            raise _Vanished(name)
        side = (padded - kernel) // stride + 1
        pooled = _pooled(side, window, pools[0]) if pools else side
        convs.append(
            Layer(
                name,
                inputs,
                outputs,
                kernel,
                stride,
                padding,
                groups,
                side,
                lrn=model.lrn and name in _LRN_AFTER,
                bias_one=name in _BIAS_ONE,
                pools=pools,
                pooled_side=pooled,
            )
        )
        inputs, side, sees_all = outputs, pooled, False
    units = inputs * side**2
    hidden: list[Layer] = []
    for name in HIDDEN_LAYERS:
        if name not in model.remove:
            hidden.append(Layer(name, units, model.hidden, dropout=model.dropout > 0, bias_one=True))
            units = model.hidden
    return [*convs, *hidden, Layer("fc8", units, num_classes, activation=False)]


def pool_window(pool: PoolConfig) -> int:
    """z of section 3.4; the stride s is 2 in either case."""
    return 3 if pool.overlap else 2


def _pooled(side: int, window: int, name: str) -> int:
    if side < window:
        raise _Vanished(name)
    return (side - window) // POOL_STRIDE + 1
