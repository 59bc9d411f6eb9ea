"""Weights files: the names under which they were saved, and which fit a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from alexlab.config import ConfigError
from alexlab.data.shapes import CLASSES
from alexlab.models import build_model
from alexlab.training.weights import check_classes, load_weights
from support.settings import TINY, composed

NAMES = sorted(CLASSES)


def made(*more: str) -> nn.Module:
    return build_model(composed([*TINY, *more]))


def is_same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def saved(network: nn.Module, folder: Path, prefix: str = "") -> str:
    torch.save({f"{prefix}{name}": value for name, value in network.state_dict().items()}, folder / "net.pth")
    return str(folder / "net.pth")


WRAPPERS = ["", "module.", "_orig_mod.", "module._orig_mod.", "network.", "network._orig_mod."]


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_wrappers_leave_no_trace(tmp_path: Path, prefix: str):
    trained, network = made("seed=1"), made()
    assert not is_same(network, trained)
    load_weights(network, saved(trained, tmp_path, prefix), fresh_last=False)
    assert is_same(network, trained)


class Vgg(nn.Module):
    """A net of one's own whose layers have torchvision's names, also of layers that AlexNet has."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3))
        self.classifier = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
        self.conv1 = nn.Conv2d(3, 4, 3)


class Wrapping(Vgg):
    """A net of one's own with a layer that is named as wrappers are."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("net", "prefix"), [*((Vgg, prefix) for prefix in WRAPPERS), *((Wrapping, prefix) for prefix in ("", "network."))]
)
def test_a_net_of_ones_own_may_have_any_names(tmp_path: Path, net: type[Vgg], prefix: str):
    """Torchvision's and wrappers' names were taken for others of ours: a trained net could not be read back."""
    trained, network = net(), net()
    load_weights(network, saved(trained, tmp_path, prefix), fresh_last=False)
    assert is_same(network, trained)


def test_what_a_net_of_ones_own_lacks_has_the_files_name(tmp_path: Path):
    path = saved(Vgg(), tmp_path)
    with pytest.raises(ConfigError, match=r"has features.0.weight, which this network lacks"):
        load_weights(nn.Linear(2, 2), path)


@pytest.mark.parametrize("other", ["module.conv1.weight", "network.conv1.weight", "features.0.weight"])
def test_two_entries_for_one_parameter_are_refused(tmp_path: Path, other: str):
    network = made()
    state = network.state_dict()
    torch.save({**state, other: torch.zeros_like(state["conv1.weight"])}, tmp_path / "net.pth")
    with pytest.raises(ConfigError, match=f"has 2 entries for conv1.weight: conv1.weight and {re.escape(other)};"):
        load_weights(network, str(tmp_path / "net.pth"))


def test_torchvisions_net(tmp_path: Path):
    """Its own code with random weights, against ours with the same ones."""
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.alexnet().eval()
    torch.save(theirs.state_dict(), tmp_path / "alexnet.pth")
    config = composed(["recipe=imagenet2012", "model=torchvision"])
    assert config.data.crop_size == 224
    ours = build_model(config).eval()
    load_weights(ours, str(tmp_path / "alexnet.pth"), fresh_last=False)
    (tmp_path / "alexnet.pth").unlink()  # 230 MB
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)
        double = images.double()
        torch.testing.assert_close(ours.double()(double), theirs.double()(double), rtol=0, atol=1e-12)


def test_a_last_layer_of_another_size_starts_anew(tmp_path: Path):
    trained, other = made("seed=1"), made("data.num_classes=7")
    before = other.state_dict()["fc8.weight"].clone()
    load_weights(other, saved(trained, tmp_path))
    assert torch.equal(other.state_dict()["fc8.weight"], before)
    assert torch.equal(other.state_dict()["conv1.weight"], trained.state_dict()["conv1.weight"])


def test_a_last_layer_of_other_classes_starts_anew_and_is_not_evaluated(tmp_path: Path):
    """As many classes in another order: each answer would be another class's."""
    trained, network, path = made("seed=1").state_dict(), made(), str(tmp_path / "last.ckpt")
    torch.save({"state_dict": trained, "classes": NAMES}, path)
    swapped = [NAMES[0], NAMES[2], NAMES[1], *NAMES[3:]]
    before = network.state_dict()["fc8.weight"].clone()
    load_weights(network, path, classes=swapped)
    assert torch.equal(network.state_dict()["fc8.weight"], before)
    assert torch.equal(network.state_dict()["conv1.weight"], trained["conv1.weight"])
    with pytest.raises(ConfigError, match=f"class 1 is '{NAMES[2]}', not '{NAMES[1]}'"):
        check_classes(path, load_weights(network, path, fresh_last=False), swapped)
    check_classes(path, load_weights(network, path, fresh_last=False), NAMES)
    assert torch.equal(network.state_dict()["fc8.weight"], trained["fc8.weight"])


def test_another_network_is_refused(tmp_path: Path):
    path = saved(made(), tmp_path)
    with pytest.raises(ConfigError, match=r"fc6.weight is \(16, 64\), this network's is \(32, 64\)"):
        load_weights(made("model.hidden=256"), path)


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "no.ckpt").write_text("nothing")
    with pytest.raises(ConfigError, match="is not a checkpoint of plain tensors"):
        load_weights(made(), str(tmp_path / "no.ckpt"))
    torch.save(torch.ones(3), tmp_path / "tensor.ckpt")
    with pytest.raises(ConfigError, match="holds no state dict"):
        load_weights(made(), str(tmp_path / "tensor.ckpt"))
