"""The net in parts on two devices is the net: losses, weights and velocities of a training, and what it sends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from alexlab import distributed
from alexlab.architecture import bytes_sent
from alexlab.config import ConfigError
from alexlab.distributed import Share
from alexlab.models import build_model
from alexlab.models.towers import Tower
from alexlab.training.optim import PaperSGD
from alexlab.training.strategies import full_state
from support.ranks import together
from support.settings import FULL, composed

BATCH, CLASSES = 6, 7  # an odd number, so that one device has more outputs than the other
SMALL = ["model.width=0.125", "model.hidden=96", "data.num_classes=7", "data.map_size=23", "optim.weight_decay=0.0005"]

NETS = {
    "paper": ["model.dropout=0.5"],
    "source2012": ["protocol=source2012"],
    "caffe": ["protocol=caffe"],
    "ungrouped": ["ablation=ungrouped"],
    "no cross-talk": ["ablation=no_cross_talk"],
    "cross-talk at conv4": ["ablation=cross_talk_conv4"],
    "six convolutions": ["ablation=six_convs"],
    "no conv3": ["ablation=no_conv3"],
    "no hidden layer": ["ablation=no_fc6_fc7"],
    "batch norm": ["ablation=batch_norm_before"],
    "pool before lrn": ["ablation=pool_before_lrn"],
    "prelu, odd widths": ["ablation=prelu", "model.groups=1", "model.hidden=15", "model.width=0.19"],
    "unshared": ["recipe=cifar10", "model=cifar_11pct", "data=shapes", "data.holdout=0", "model.width=0.5"],
}
BY_THREE = ["model.width=1", "model.kernels=[12,24,24,24,24]"]
FOUR = ["model.groups=4", "model.width=0.25", "model.cross_talk=[conv3,conv5]"]


def trained(overrides: list[str], dtype: torch.dtype, steps: int, share: Share = distributed.ALONE) -> dict[str, Any]:
    """Losses, and the whole net's weights and velocities, after some steps on images of noise."""
    config = composed([*SMALL, *overrides])
    network = build_model(config).to(dtype)
    if share.of > 1:
        network = Tower(network, share)
    optimizer = PaperSGD(network.parameters(), 0.01, 0.9, 0.0005)
    generator = torch.Generator().manual_seed(5)
    losses, sent = [], 0
    crop_size, num_classes = config.data.crop_size, config.data.num_classes
    assert crop_size is not None
    assert num_classes is not None
    for step in range(steps):
        x = torch.randn(BATCH, 3, crop_size, crop_size, generator=generator, dtype=dtype) * 50 * config.data.pixel_scale
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.randint(num_classes, (BATCH,), generator=generator)
        network.reseed_dropout(0, "dropout", step)
        optimizer.zero_grad()
        before = distributed.sent()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        sent = distributed.sent() - before
        optimizer.step()
        losses.append(loss.item())
    velocities = {name: optimizer.state[value]["velocity"] for name, value in network.named_parameters()}
    if isinstance(network, Tower):
        velocities = {name: network.full(name, value) for name, value in velocities.items()}
    network.eval()
    x = torch.randn(4, 3, crop_size, crop_size, generator=generator, dtype=dtype) * 50 * config.data.pixel_scale
    with torch.no_grad():
        logits = network(x)
    state = {name: value.clone() for name, value in full_state(network).items()}
    return {"losses": losses, "weights": state, "velocities": velocities, "logits": logits, "sent": sent}


def all_trained(nets: dict[str, list[str]], dtype: torch.dtype, steps: int) -> dict[str, dict[str, Any]]:
    share = Share(distributed.rank(), distributed.count())
    return {name: trained(overrides, dtype, steps, share) for name, overrides in nets.items()}


def check(parts: list[dict[str, Any]], whole: dict[str, Any], within: float) -> None:
    for part in parts:
        assert part["losses"] == pytest.approx(whole["losses"], rel=within, abs=within)
        for kind in ("weights", "velocities"):
            assert part[kind].keys() == whole[kind].keys()
            for name, value in whole[kind].items():
                largest = float(value.abs().max()) if value.is_floating_point() else 0.0
                assert (part[kind][name] - value).abs().max() <= within * max(largest, 1e-3), (kind, name)
        assert (part["logits"] - whole["logits"]).abs().max() <= within * float(whole["logits"].abs().max())


@pytest.fixture(scope="module")
def in_towers() -> list[dict[str, dict[str, Any]]]:
    return together(all_trained, NETS, torch.float64, 3)


@pytest.mark.parametrize("name", NETS)
def test_two_towers_are_the_net(in_towers: list[dict[str, dict[str, Any]]], name: str):
    check([part[name] for part in in_towers], trained(NETS[name], torch.float64, 3), 1e-12)


def test_twenty_steps_in_float32():
    """The paper's net, with dropout, at an eighth of its width: losses within 1e-6."""
    nets = {"paper": NETS["paper"]}
    parts = together(all_trained, nets, torch.float32, 20)
    whole = trained(nets["paper"], torch.float32, 20)
    for part in parts:
        assert part["paper"]["losses"] == pytest.approx(whole["losses"], abs=1e-6)
        for name, value in whole["weights"].items():
            assert (part["paper"]["weights"][name] - value).abs().max() < 1e-6, name


def test_four_towers():
    parts = together(all_trained, {"four": FOUR}, torch.float64, 3, count=4)
    check([part["four"] for part in parts], trained(FOUR, torch.float64, 3), 1e-12)


@pytest.mark.parametrize("name", NETS)
def test_what_is_sent_is_what_was_reckoned(in_towers: list[dict[str, dict[str, Any]]], name: str):
    config = composed([*SMALL, *NETS[name], f"data.batch_size={BATCH}"])
    assert in_towers[0][name]["sent"] == 2 * bytes_sent(config, 2)["towers"]  # of float64


def test_bytes_of_the_papers_net():
    """By hand, from figure 2: what conv3, fc6, fc7 and fc8 read of the other device, and its gradient."""
    config = composed([*FULL, "data.batch_size=128", "model.lrn_per_tower=true"])
    floats = 2 * (128 * 13 * 13 + 128 * 6 * 6 + 2048 + 2048) + 5  # of ten classes
    assert bytes_sent(config, 2)["towers"] == 4 * 128 * floats
    config = composed([*FULL, "data.batch_size=128"])
    seams = 2 * 2 * (55 * 55 + 27 * 27)  # two maps on either side of each seam, there and back
    assert bytes_sent(config, 2) == {"towers": 4 * 128 * (floats + seams), "ddp": 4 * (60_965_224 - 990 * 4097)}


@pytest.mark.parametrize(
    ("overrides", "devices", "message"),
    [
        ([], 3, "trainer.devices=3: conv2's 2 towers do not divide over them; set model.groups or trainer.devices"),
        (["model.groups=1", "data.num_classes=2"], 3, "trainer.devices=3: fc8 has 2 outputs, not one for each"),
        (
            ["model.groups=1", "model.lrn_size=9"],
            4,
            "trainer.devices=4: LRN's window of 9 channels after conv1 reaches beyond the next device's; raise "
            "model.width",
        ),
        (
            ["model.lrn_size=15"],
            2,
            "trainer.devices=2: LRN's window of 15 channels after conv1 reaches beyond the next device's; set "
            "model.lrn_per_tower=true or raise model.width",
        ),
        (
            ["model.groups=3", "model.cross_talk=[conv2,conv3,conv4,conv5]", "model.lrn_per_tower=true", *BY_THREE],
            2,
            "trainer.devices=2: conv1's 3 towers do not divide over them; set model.groups or trainer.devices",
        ),
    ],
)
def test_what_does_not_divide_is_refused(overrides: list[str], devices: int, message: str):
    with pytest.raises(ConfigError) as error:
        composed([*SMALL, *overrides, "trainer.strategy=towers", f"trainer.devices={devices}"])
    assert str(error.value) == message
