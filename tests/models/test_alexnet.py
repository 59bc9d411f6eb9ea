"""The network against an independent one in plain functions, and its first weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from alexlab.models import Dropout, build_model
from support.settings import FULL, composed


def two_towers(state: dict[str, torch.Tensor], x: torch.Tensor, window: int, dropout: float) -> torch.Tensor:
    """Section 3.5 with the towers as two nets of their own that meet before conv3 and the hidden layers."""

    def conv(name: str, inputs: torch.Tensor, tower: slice, **sizes: int) -> torch.Tensor:
        return F.relu(F.conv2d(inputs, state[f"{name}.weight"][tower], state[f"{name}.bias"][tower], **sizes))

    def norm(towers: list[torch.Tensor]) -> list[torch.Tensor]:
        a = torch.cat(towers, 1)  # "N is the total number of kernels in the layer"
        padded = F.pad(a**2, (0, 0, 0, 0, 2, 2))
        total = torch.stack([padded[:, i : i + a.shape[1]] for i in range(5)]).sum(0)
        return list((a / (2 + 1e-4 * total) ** 0.75).chunk(2, 1))

    def pool(towers: list[torch.Tensor]) -> list[torch.Tensor]:
        return [F.max_pool2d(tower, window, 2) for tower in towers]

    def halves(name: str) -> list[slice]:
        size = len(state[f"{name}.bias"])
        return [slice(0, size // 2), slice(size // 2, size)]

    towers = [conv("conv1", x, half, stride=4, padding=2) for half in halves("conv1")]
    towers = pool(norm(towers))
    towers = [conv("conv2", t, half, padding=2) for t, half in zip(towers, halves("conv2"), strict=True)]
    towers = pool(norm(towers))
    both = torch.cat(towers, 1)
    towers = [conv("conv3", both, half, padding=1) for half in halves("conv3")]
    towers = [conv("conv4", t, half, padding=1) for t, half in zip(towers, halves("conv4"), strict=True)]
    towers = [conv("conv5", t, half, padding=1) for t, half in zip(towers, halves("conv5"), strict=True)]
    h = torch.cat(pool(towers), 1).flatten(1)
    for name in ("fc6", "fc7"):
        h = F.relu(h @ state[f"{name}.weight"].T + state[f"{name}.bias"]) * (1 - dropout)
    return h @ state["fc8.weight"].T + state["fc8.bias"]


@pytest.mark.parametrize("overlap", [True, False])
def test_equals_two_towers_written_out(overlap):
    config = composed([*FULL, "model.width=0.25", "model.hidden=64", f"pool.overlap={str(overlap).lower()}"])
    network = build_model(config).double().eval()
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64) * 60
    expected = two_towers(network.state_dict(), x, window=3 if overlap else 2, dropout=0.5)
    torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-12)


def test_first_weights_at_full_width():
    network = build_model(composed([*FULL, "data.num_classes=10"]))
    for name, weight in network.named_parameters():
        layer, kind = name.split(".")
        if kind == "weight":
            assert weight.std().item() == pytest.approx(0.01, rel=0.02), name
            assert abs(weight.mean().item()) < 5 * 0.01 / math.sqrt(weight.numel()), name
        else:
            expected = 1.0 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0
            assert (weight == expected).all(), name
    assert sum(p.numel() for p in network.parameters()) == 60_965_224 - 990 * 4097


def test_arms_share_what_they_share():
    base = build_model(composed(["seed=3"])).state_dict()
    for override in ("model.lrn=false", "model.dropout=0", "pool.overlap=false", "model.remove=[conv4]"):
        other = build_model(composed(["seed=3", override])).state_dict()
        shared = [name for name in other if other[name].shape == base[name].shape]
        assert len(shared) >= 12, override
        assert all(torch.equal(base[name], other[name]) for name in shared), override
    assert not torch.equal(base["conv1.weight"], build_model(composed(["seed=4"])).state_dict()["conv1.weight"])


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_model(composed())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("init", "variance"), [("he", 2), ("lecun", 1)])
def test_deviation_by_fan_in(init: str, variance: int):
    network = build_model(composed(["model.hidden=16384", f"model.init={init}"]))
    weight = network.get_submodule("fc7").weight
    assert isinstance(weight, torch.Tensor)
    assert weight.std().item() == pytest.approx(math.sqrt(variance / 2048), rel=0.02)
    conv2 = network.get_submodule("conv2").weight
    assert isinstance(conv2, torch.Tensor)
    assert conv2.std().item() == pytest.approx(math.sqrt(variance / (5 * 5 * conv2.shape[1])), rel=0.05)
    last = network.get_submodule("fc8").weight
    assert isinstance(last, torch.Tensor)
    assert last.std().item() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("crop", [96, 97, 98, 99])
def test_end_padding_is_at_bottom_and_right(crop):
    network = build_model(composed([f"data.crop_size={crop}", "model.conv1_padding=end"]))
    x = torch.randn(1, 3, crop, crop)
    first = network.get_submodule("conv1")
    expected = F.conv2d(F.pad(x, (0, 3, 0, 3)), first.weight, first.bias, stride=4)  # pyright: ignore
    actual = network.get_submodule("conv1")(network.get_submodule("pad1")(x))
    torch.testing.assert_close(actual, expected)
    assert network(x).shape == (1, 10)


def test_lrn_acts_in_the_demo():
    """On activations near 1 the paper's constants would make it the constant 2^-.75; the recipe must not."""
    config = composed()
    network = build_model(config)
    pixels = np.random.default_rng(0).normal(0, 60, (8, 3, 96, 96))  # grey levels less the mean
    x = torch.tensor(pixels * config.data.pixel_scale, dtype=torch.float32)
    for end in ("lrn1", "lrn2"):
        names = [name for name, _ in network.named_children()]
        before = network[: names.index(end)](x)
        factor = (network.get_submodule(end)(before) / before)[before > 0]
        low, high = factor.quantile(0.05).item(), factor.quantile(0.95).item()
        assert (high - low) / factor.mean().item() > 0.1, (end, low, high)


def test_dropout_sits_behind_the_hidden_layers():
    def dropouts(*overrides: str) -> list[str]:
        named = build_model(composed(list(overrides))).named_children()
        return [name for name, module in named if isinstance(module, Dropout)]

    assert dropouts() == ["dropout6", "dropout7"]
    assert dropouts("model.remove=[fc6]") == ["dropout7"]
    assert dropouts("model.dropout=0") == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("model.batch_norm=after", "batch_norm"),
        ("model.activation=prelu", "prelu"),
        ("model.dropout_after=[conv6,fc6]", "dropout"),
    ],
)
def test_a_sixth_convolution_and_fc6_have_each_their_own(change: str, kind: str):
    network = build_model(composed(["ablation=six_convs", change]))
    names = [name for name, _ in network.named_children()]
    assert names.index(f"{kind}_conv6") < names.index("fc6") < names.index(f"{kind}6")
    assert network(torch.randn(2, 3, 96, 96)).shape == (2, 10)
