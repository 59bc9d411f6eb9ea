"""Whole nets, first losses, updates and schedules against NumPy float64 and the protocols' own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from alexlab.config import CONF_DIR, Activation, Config, OptimConfig, Schedule
from alexlab.models import AlexNet, LocalResponseNorm, SameMapNorm, build_model
from alexlab.training.module import ClassificationTask, parameter_groups
from alexlab.training.optim import PaperSGD, conv1_factor, learning_rate
from support import reference_net as reference
from support.settings import FULL, TINY, composed

PROTOCOLS = ("paper", "source2012", "caffe")

WITHOUT_LENGTH = [override for override in TINY if not override.startswith("trainer.max_epochs")]

# Few kernels, but enough that no layer is all zeros behind its nonlinearity.
SMALL = [*TINY, "model.width=0.125", "model.hidden=256"]


def natural_images(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Grey levels less their mean, [B, 3, side, side]: random phases, amplitude 1 / frequency, colours alike."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf

    def fields(*shape: int) -> np.ndarray:
        phases = rng.uniform(0, 2 * np.pi, (*shape, *frequency.shape))
        x = np.fft.irfft2(np.exp(1j * phases) / frequency, s=(side, side))
        return x / x.std((-2, -1), keepdims=True)

    x = np.sqrt(0.9) * fields(count, 1) + np.sqrt(0.1) * fields(count, 3)
    return np.clip(118 + 60 * x / x.std((1, 2, 3), keepdims=True), 0, 255) - 118


def random_weights(network: AlexNet, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Fill a net with weights that keep activities as large as they come, and with biases that matter."""
    weights = {}
    for name, parameter in network.state_dict().items():
        fan_in = math.prod(parameter.shape[-3:]) if parameter.ndim > 2 else parameter.shape[-1]
        std = math.sqrt(2 / fan_in) if name.endswith("weight") else 0.3
        weights[name] = rng.normal(0, std, parameter.shape)
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return weights


def whole_net(overrides: list[str], rng: np.random.Generator) -> tuple[Config, dict[str, np.ndarray], np.ndarray]:
    """A net's configuration, weights and input, once its output was found to be the reference's."""
    config = composed([*SMALL, *overrides])
    network = build_model(config).double().eval()
    weights = random_weights(network, rng)
    side = config.data.crop_size
    assert side is not None
    images = rng.normal(0, 60, (3, 3, side, side)) * config.data.pixel_scale
    with torch.inference_mode():
        actual = network(torch.tensor(images)).numpy()
    expected = reference.forward(config, weights, images)
    assert expected.std(0).mean() > 1e-3 * np.abs(expected).mean()  # the images are told apart
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())
    return config, weights, images


NETS = [
    *([f"protocol={protocol}"] for protocol in PROTOCOLS),
    *(["recipe=cifar10", "data=shapes", f"model={model}"] for model in ("cifar_13pct", "cifar_11pct", "cifar_fig1")),
    ["model=torchvision"],
    *([f"ablation={name}"] for name in ("pool_before_lrn", "six_convs", "average_pooling", "max_average_pooling")),
    *([f"ablation={name}"] for name in ("tanh", "elu", "cross_talk_conv4", "lrn_per_tower", "lrn_scale_only")),
    ["protocol=source2012", "ablation=run147"],
    ["protocol=source2012", "ablation=run148"],
    ["protocol=source2012", "ablation=run150"],
    ["pool.overlap=false"],
    ["model.last_activation=true"],
]


@pytest.mark.parametrize("overrides", NETS, ids=" ".join)
def test_whole_net_in_evaluation(overrides):
    whole_net(overrides, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("protocol", "changes"),
    [
        ("paper", {"lrn": False, "lrn_per_tower": True, "dropout": 0.5, "dropout_after": ["fc6"]}),
        ("source2012", {"lrn_per_tower": False, "same_map_norm": False, "lrn_scale": 1.0, "lrn_alpha": 1e-4}),
        ("source2012", {"conv1_order": ["activation", "lrn", "pool"]}),
        ("caffe", {"lrn_k": 2.0, "lrn_size": 3, "activation": Activation.tanh}),
    ],
)
def test_the_reference_tells_the_choices_apart(protocol, changes):
    """Else the agreement above would say little: one key changed in the reference alone moves its output."""
    config, weights, images = whole_net([f"protocol={protocol}"], np.random.default_rng(0))
    before = reference.forward(config, weights, images)
    for key, value in changes.items():
        other = replace(config, model=replace(config.model, **{key: value}))
        change = np.abs(reference.forward(other, weights, images) - before).max() / np.abs(before).max()
        assert change > 1e-5, key


@pytest.mark.parametrize(
    ("padding", "crop", "zeros"), [("both", 224, (2, 2)), ("end", 224, (0, 3)), ("none", 227, (0, 0))]
)
def test_conv1_gives_55_places_a_side(padding, crop, zeros):
    config = composed(["data.map_size=55", "data.size=256", f"model.conv1_padding={padding}", "model.width=0.125"])
    assert config.data.crop_size == crop
    network = build_model(config).double().eval()
    weights = random_weights(network, np.random.default_rng(0))
    images = natural_images(np.random.default_rng(1), 2, crop)
    names = [name for name, _ in network.named_children()]
    with torch.inference_mode():
        actual = network[: names.index("conv1") + 1](torch.tensor(images)).numpy()
    assert actual.shape == (2, 12, 55, 55)
    expected = reference.conv2d(images, weights["conv1.weight"], weights["conv1.bias"], 4, zeros)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@dataclass
class FullNet:
    """A protocol's net at its own scale, with 16 images of its crop's size."""

    protocol: str
    config: Config
    network: AlexNet
    images: np.ndarray

    @property
    def inputs(self) -> torch.Tensor:
        return torch.tensor(self.images, dtype=torch.float32)


@pytest.fixture(scope="module", params=PROTOCOLS)
def full(request: pytest.FixtureRequest) -> FullNet:
    bias = 0.1 if request.param == "caffe" else 1
    config = composed([f"protocol={request.param}", *FULL, f"model.init_bias={bias}"])
    config.data.num_classes = 1000
    assert config.data.crop_size is not None
    images = natural_images(np.random.default_rng(0), 16, config.data.crop_size)
    return FullNet(request.param, config, build_model(config), images)


@pytest.mark.slow
def test_first_loss_at_full_width(full: FullNet):
    """In training, with dropout as the first step draws it; a mean over all 1000 labels, so that no draw decides.

    log 1000 is 6.908. The logits' variance adds half of itself: the paper's biases of 1 and, in the released code,
    the larger weights of conv3 to conv5 make them vary, while Caffe's biases of 0.1 hardly do.
    """
    full.network.train().reseed_dropout(full.config.seed, "dropout", 0)
    with torch.inference_mode():
        logits = full.network(full.inputs)
    loss = (logits.logsumexp(1) - logits.mean(1)).mean().item()
    low, high = {"paper": (7.0, 7.1), "source2012": (7.1, 7.25), "caffe": (6.91, 6.92)}[full.protocol]
    assert low < loss < high
    assert loss == pytest.approx(math.log(1000) + logits.var(1).mean().item() / 2, abs=0.02)


@pytest.mark.slow
def test_first_loss_in_evaluation_is_the_references(full: FullNet):
    labels = np.array([3, 998])
    full.network.eval()
    with torch.inference_mode():
        logits = full.network(full.inputs[:2])
    loss = F.cross_entropy(logits, torch.tensor(labels)).item()
    weights = {name: tensor.numpy() for name, tensor in full.network.state_dict().items()}
    expected = reference.forward(full.config, weights, full.images[:2].astype(np.float32))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert loss == pytest.approx(reference.cross_entropy(expected, labels), rel=1e-4)


@pytest.mark.slow
def test_grey_levels_of_0_to_255_are_told_apart_and_of_0_to_1_are_not():
    """Case of many failed replications: on pixels of 0 to 1 the paper's first weights give every image one output.

    All units are kept, so that neither dropout's noise nor its halving, a quarter over two layers, is in the spread.
    """
    config = composed(["protocol=paper", *FULL, "model.dropout=0"])
    config.data.num_classes = 5
    network = build_model(config).eval()
    images = natural_images(np.random.default_rng(0), 20, 224)
    with torch.inference_mode():
        spreads = [
            network(torch.tensor(images * scale, dtype=torch.float32)).std(0).mean().item() for scale in (1, 1 / 255)
        ]
    assert spreads[0] >= 0.005
    assert spreads[1] < 0.001


def numeric_gradient(function: Callable[[np.ndarray], np.ndarray], a: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """d(sum of grad * function) / da by central differences."""
    out, step = np.empty_like(a), 1e-3
    for place in np.ndindex(a.shape):
        nudge = np.zeros_like(a)
        nudge[place] = step
        out[place] = (grad * (function(a + nudge) - function(a - nudge))).sum() / (2 * step)
    return out


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (LocalResponseNorm(5, 2.0, 1e-4, 0.75, groups=2), lambda a: reference.lrn(a, 5, 2.0, 1e-4, 0.75, towers=2)),
        (LocalResponseNorm(3, 1.0, 2e-5, 0.5, groups=4), lambda a: reference.lrn(a, 3, 1.0, 2e-5, 0.5, towers=4)),
        (LocalResponseNorm(9, 1.0, 1e-3, 0.75, groups=1), lambda a: reference.lrn(a, 9, 1.0, 1e-3, 0.75)),
        (SameMapNorm(), reference.same_map_norm),
        (SameMapNorm(scale=3.0), lambda a: reference.same_map_norm(a, 9 * 0.001 / 25)),
    ],
    ids=["two towers", "four towers", "window wider than the layer", "same map", "same map, scaled"],
)
def test_norms_and_their_gradients(module, function):
    rng = np.random.default_rng(0)
    a, grad = rng.normal(0, 60, (2, 8, 4, 6)), rng.normal(size=(2, 8, 4, 6))
    x = torch.tensor(a, requires_grad=True)
    y = module(x)
    y.backward(torch.tensor(grad))
    assert x.grad is not None
    np.testing.assert_allclose(y.detach().numpy(), function(a), rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), numeric_gradient(function, a, grad), rtol=1e-6, atol=1e-8)


def test_a_towers_window_ends_at_its_last_map():
    """Six maps of 100, two towers, a window of 3: the middle map of a tower sees three, the others two."""
    y = reference.lrn(np.full((1, 6, 1, 1), 100.0), 3, 2.0, 1e-4, 0.75, towers=2).ravel()
    np.testing.assert_allclose(y, np.array([4, 5, 4, 4, 5, 4], float) ** -0.75 * 100)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_twenty_images_are_learnt_by_heart(protocol):
    """The demo's net with half its kernels, the protocol's own rates and decays, two images to a class, no dropout."""
    config = composed([f"protocol={protocol}", "model.width=0.125", "model.dropout=0"])
    side = config.data.crop_size
    assert side is not None
    images = natural_images(np.random.default_rng(0), 20, side) * config.data.pixel_scale
    inputs, labels = torch.tensor(images, dtype=torch.float32), torch.arange(20) % 10
    network, optim = build_model(config), config.optim
    optimizer = PaperSGD(parameter_groups(network, config), optim.lr, optim.momentum, optim.weight_decay)
    for group in optimizer.param_groups:
        group["lr"] = optim.lr * group["lr_factor"]
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    assert (network(inputs).argmax(1) == labels).all()


def source2012_rule(layer: str, kind: str, epoch: int) -> tuple[float, float]:
    """Rate and decay: a tenth from epoch 23, 51 and 78; conv1 a tenth of that from 68 and none from 72."""
    rate = 0.01 * 0.1 ** ((epoch >= 23) + (epoch >= 51) + (epoch >= 78))
    if layer == "conv1" and epoch >= 68:
        rate *= 0.1 if epoch < 72 else 0
    if kind == "bias":  # twice the first rate, and no drop; conv1's stops with it
        return (0.0 if layer == "conv1" and epoch >= 72 else 0.02), 0.0
    return rate, 0.0005


def cifar_rule(
    last_decay: float, drops: tuple[int, int], biases_drop: bool
) -> Callable[[str, str, int], tuple[float, float]]:
    """The CIFAR-10 nets: epsW=0.001, epsB=0.002, and wc=0 for the shared convolutions, 0.004 for the local ones."""

    def rule(layer: str, kind: str, epoch: int) -> tuple[float, float]:
        rate = 0.001 * 0.1 ** sum(epoch >= drop for drop in drops)
        decay = {"conv1": 0.0, "conv2": 0.0, "conv3": 0.004, "conv4": 0.004, "fc8": last_decay}[layer]
        if kind == "bias":
            return (2 * rate if biases_drop else 0.002), 0.0
        return rate, decay

    return rule


def run_of(protocol: str) -> list[str]:
    """Overrides that give a protocol its own drops back, which the demo's recipe changes."""
    drops = OmegaConf.load(CONF_DIR / "protocol" / f"{protocol}.yaml").optim.drops
    return [
        f"protocol={protocol}",
        f"optim.drops={drops}",
        f"trainer.max_epochs={93 if protocol == 'source2012' else 90}",
    ]


@pytest.mark.parametrize(
    ("overrides", "rule", "epochs"),
    [
        (run_of("source2012"), source2012_rule, (0, 30, 60)),
        (run_of("source2012"), source2012_rule, (60, 69, 75)),
        (run_of("source2012"), source2012_rule, (71, 72, 90)),
        (["recipe=cifar10", "data=shapes", "model=cifar_13pct"], cifar_rule(0.004, (140, 150), True), (139, 145, 155)),
        (["recipe=cifar10", "data=shapes", "model=cifar_11pct"], cifar_rule(0.01, (500, 510), False), (499, 505, 515)),
    ],
    ids=["source2012", "source2012 late", "source2012 stopped", "cifar_13pct", "cifar_11pct"],
)
def test_three_steps_of_every_parameter(overrides, rule, epochs):
    """v <- 0.9 v - decay * rate * w - rate * gradient, w <- w + v, with what the training sets for these epochs."""
    config = composed([*WITHOUT_LENGTH, *overrides])
    task = ClassificationTask(config).double()
    rng = np.random.default_rng(0)
    weights = random_weights(task.network, rng)
    velocities = {name: np.zeros_like(w) for name, w in weights.items()}
    optimizer = task.configure_optimizers()
    for epoch in epochs:
        trainer = SimpleNamespace(optimizers=[optimizer], current_epoch=epoch)
        task.trainer = trainer  # pyright: ignore[reportAttributeAccessIssue]
        task.on_train_epoch_start()
        for name, parameter in task.network.named_parameters():
            gradient = rng.normal(size=weights[name].shape)
            rate, decay = rule(*name.split("."), epoch)
            if rate > 0:  # the released code updates nothing at a rate of 0, whatever the velocity (Weights::update)
                velocities[name] = 0.9 * velocities[name] - decay * rate * weights[name] - rate * gradient
                weights[name] = weights[name] + velocities[name]
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        for name, parameter in task.network.named_parameters():
            np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-12, atol=1e-15, err_msg=name)


def test_conv1_is_cut_and_stopped_late_in_the_released_codes_run():
    config = composed(["protocol=source2012", "trainer.max_epochs=93"])
    factors = [conv1_factor(config.optim, epoch, 93) for epoch in range(93)]
    assert factors == [1.0] * 68 + [0.1] * 4 + [0.0] * 21
    optim = composed().optim
    assert {conv1_factor(optim, epoch, 90) for epoch in range(90)} == {1.0}


@pytest.mark.parametrize(
    ("overrides", "length", "drops"),
    [
        (run_of("source2012"), 93, [23, 51, 78]),
        (run_of("caffe"), 90, [20, 40, 60, 80]),
        (["recipe=cifar10", "data=shapes", "model=cifar_13pct"], 160, [140, 150]),
        (["recipe=cifar10", "data=shapes", "model=cifar_fig1"], 140, [120, 130]),
        (["recipe=cifar10", "data=shapes", "model=cifar_11pct"], 520, [500, 510]),
        ([], 20, [12, 16, 19]),
    ],
    ids=["source2012", "caffe", "cifar_13pct", "cifar_fig1", "cifar_11pct", "demo"],
)
def test_the_rate_drops_at_the_epochs_that_the_files_tell_of(overrides, length, drops):
    config = composed(overrides)
    assert config.trainer.max_epochs == length
    rates = [learning_rate(config.optim, epoch, length, []) for epoch in range(length)]
    actual = [epoch for epoch in range(1, length) if rates[epoch] != rates[epoch - 1]]
    assert actual == drops
    assert rates[-1] == pytest.approx(config.optim.lr * 0.1 ** len(drops))


def test_a_linear_rate_falls_to_nothing():
    optim = OptimConfig(lr=0.01, schedule=Schedule.linear)
    rates = [learning_rate(optim, epoch, 4, []) for epoch in range(4)]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
