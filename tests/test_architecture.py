"""Parameter counts and map sizes against the paper and hand arithmetic."""

from __future__ import annotations

import pytest

from alexlab.architecture import Layer, layers
from alexlab.config import Config, ConfigError, DataConfig, ModelConfig, Padding, PoolConfig
from support.settings import composed


def net(crop: int = 224, overlap: bool = True, **model):
    return layers(Config(data=DataConfig(crop_size=crop), model=ModelConfig(**model), pool=PoolConfig(overlap)))


def pools(layer: Layer) -> list[str]:
    return [step for step in layer.follows if step.startswith("pool")]


HALF = {"kernels": [48, 128, 192, 192, 256], "groups": 1}


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ({}, 60_965_224),
        ({"groups": 1}, 62_378_344),
        (HALF, 59_798_312),
        ({"remove": ["conv3"], "cross_talk": []}, 59_858_920),
        ({"remove": ["conv3"]}, 60_301_288),
        ({"remove": ["conv4"]}, 60_301_288),
        ({"remove": ["conv3", "conv4"], "cross_talk": []}, 59_268_712),
        ({"remove": ["conv3", "conv4"]}, 59_563_624),
        ({"remove": ["fc6"]}, 44_183_912),
        ({"remove": ["fc7"]}, 44_183_912),
        ({"remove": ["fc6", "fc7"]}, 11_551_080),
        ({"remove": ["conv5"]}, 79_396_968),
    ],
)
def test_parameters(model, parameters):
    assert sum(layer.parameters for layer in net(**model)) == parameters


def test_parameters_of_each_layer():
    assert [layer.parameters for layer in net()] == [
        34_944,
        307_456,
        885_120,
        663_936,
        442_624,
        37_752_832,
        16_781_312,
        4_097_000,
    ]


def test_figure_2s_map_sizes():
    """290,400 (its 253,440 is a slip), 186,624, 64,896, 64,896, 43,264 neurons; 4096, 4096, 1000."""
    neurons = [layer.side**2 * layer.outputs for layer in net()]
    assert neurons == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert sum(neurons) == 659_272


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(
    ("crop", "conv1", "pooled"), [(224, 55, (27, 13, 6)), (128, 31, (15, 7, 3)), (96, 23, (11, 5, 2))]
)
def test_maps_keep_their_size_when_pooling_changes(crop, conv1, pooled, overlap):
    convs = [layer for layer in net(crop, overlap) if layer.is_conv]
    assert convs[0].side == conv1
    assert tuple(layer.pooled_side for layer in convs if pools(layer)) == pooled


@pytest.mark.parametrize(
    ("padding", "crop"), [(Padding.both, 224), (Padding.end, 224), (Padding.none, 227), (Padding.none, 230)]
)
def test_every_padding_gives_55(padding, crop):
    assert net(crop, conv1_padding=padding)[0].side == 55


@pytest.mark.parametrize("removed", [["conv2"], ["conv5"], ["conv2", "conv5"], ["conv4", "conv5"]])
def test_pooling_stays_where_its_convolution_goes(removed):
    kept = net(remove=removed)
    assert [pool for layer in kept for pool in pools(layer)] == ["pool1", "pool2", "pool5"]
    assert next(layer for layer in kept if layer.name == "fc6").inputs % 36 == 0


def test_removed_cross_talk_passes_on():
    groups = {layer.name: layer.groups for layer in net(remove=["conv3"])}
    assert groups["conv4"] == 1
    assert groups["conv5"] == 2


def test_least_size():
    assert [layer.pooled_side for layer in net(63) if pools(layer)] == [7, 3, 1]
    with pytest.raises(ConfigError, match=r"data.crop_size=62: .* pool5; the smallest crop for this net is 63"):
        net(62)
    with pytest.raises(ConfigError, match=r"the feature map vanishes at conv1; the smallest crop for this net is \d+$"):
        net(6)


def test_kernels_must_divide_into_towers():
    with pytest.raises(ConfigError, match=r"model.groups=2: conv1's 29 kernels"):
        net(width=0.3)
    with pytest.raises(ConfigError, match=r"model.groups=2: conv3's 9 kernels do not divide into 2 towers"):
        net(kernels=[96, 256, 9, 384, 256])  # also conv4's input channels


def test_the_demo_keeps_its_maps_odd():
    config = composed()
    convs = [layer for layer in layers(config) if layer.is_conv]
    assert [layer.side for layer in convs] == [23, 11, 5, 5, 5]
