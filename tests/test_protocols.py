"""Protocols, recipes, ablations and nets against each other: each key acts, and maps keep their sizes."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from alexlab.architecture import kept_bytes, layers
from alexlab.cli.show_paper import markdown
from alexlab.compose import from_file, from_plain
from alexlab.config import CONF_DIR, PROJECT_DIR, Config, flat, shown
from alexlab.data import build_datamodule
from alexlab.data.datamodule import TrainingBatches
from alexlab.data.locate import store_path
from alexlab.models import build_model
from alexlab.runs.identity import differences, run_id
from alexlab.training.module import parameter_groups
from alexlab.training.optim import conv1_factor, learning_rate
from support.settings import FULL, composed, composer

PROTOCOLS = [path.stem for path in sorted((CONF_DIR / "protocol").glob("*.yaml"))]
# imagenet2012 and imagenet2010 change nothing but the data; caffenet128 is one study's conditions, its protocol among
# them.
RECIPES = ("demo", "cifar10", "imagenet128", "imagenette")
PAIRS = [
    pytest.param(*pair, marks=[pytest.mark.long] if pair[1] in ("imagenet128", "imagenette", "caffenet128") else [])
    for pair in [*itertools.product(PROTOCOLS, RECIPES), ("caffe", "caffenet128")]
]
MODELS = [path.stem for path in sorted((CONF_DIR / "model").glob("*.yaml"))]
ABLATIONS = [path.stem for path in sorted((CONF_DIR / "ablation").glob("*.yaml"))]

# Keys of a protocol that a recipe, or the net that it is for, sets otherwise, in sight in its file.
OVERRIDDEN = {
    ("source2012", "demo"): {"optim.drops", "trainer.max_epochs"},
    ("caffe", "demo"): {"data.batch_size", "model.init_bias", "optim.drops"},
    ("source2012", "imagenette"): {"optim.drops", "trainer.max_epochs"},
    ("caffe", "imagenette"): {"data.batch_size", "model.init_bias", "optim.drops"},
    ("caffe", "caffenet128"): {"data.resize", "model.init_bias", "optim.drops"},
    ("source2012", "cifar10"): {
        *("model.conv1_order", "model.conv1_padding", "model.init_stds", "model.same_map_norm"),
        *("augment.shared_by", "optim.conv1_cut_at", "optim.conv1_freeze_at", "optim.drops", "trainer.max_epochs"),
    },
    ("caffe", "cifar10"): {
        *("data.batch_size", "model.conv1_padding", "model.init_bias", "model.init_stds", "optim.drops"),
    },
}
# Keys that another key of the recipe or its net makes void: He initialisation, no LRN, no colours, no dropout.
VOID = {
    ("source2012", "imagenette"): {"model.init_stds"},
    ("caffe", "imagenette"): {"model.init_stds"},
    ("caffe", "caffenet128"): {"model.init_stds", "model.lrn_k", "model.lrn_alpha"},
    ("source2012", "demo"): {"model.init_stds"},
    ("caffe", "demo"): {"model.init_stds"},
    ("source2012", "cifar10"): {
        *("model.lrn_alpha", "model.lrn_per_tower", "augment.pca_unit", "augment.pca_divisor", "augment.pca_until"),
    },
    ("caffe", "cifar10"): {"model.lrn_k", "model.lrn_alpha", "model.dropout_scaling"},
}
SMALL = ["data.train_images=60", "data.val_images=10", "data.test_images=10", "model.hidden=256"]


def changed_by(protocol: str) -> dict[str, Any]:
    """What a protocol's file changes, and the text's value."""
    text, values = flat(from_plain({})), flat(from_file(CONF_DIR / "protocol" / f"{protocol}.yaml"))
    return {name: text[name] for name in text if values[name] != text[name]}


def behaviour(config: Config) -> list[Any]:
    """All that a run does, in small: its weights, inputs, outputs, rates and decays."""
    data = build_datamodule(config)
    data.setup()
    epochs = config.trainer.max_epochs
    batches = TrainingBatches(data.store.split("train"), data.store, config)
    inputs = [data.on_after_batch_transfer(batches[epoch, 0], 0)[0] for epoch in (0, epochs - 1)]
    images = next(iter(data.test_dataloader())).images
    network = build_model(config)
    network.reseed_dropout(0)
    outputs = [network(inputs[0]).detach(), network.eval()(next(data.views(images, data.windows("center")))).detach()]
    rates = [
        (learning_rate(config.optim, epoch, epochs, [0.5] * epoch), conv1_factor(config.optim, epoch, epochs))
        for epoch in range(epochs)
    ]
    groups = [
        ({key: value for key, value in group.items() if key != "params"}, len(group["params"]))
        for group in parameter_groups(network, config)
    ]
    tensors = [*network.state_dict().values(), *inputs, *outputs]
    return [[tensor.numpy().tobytes() for tensor in tensors], rates, groups, store_path(config.data)]


@pytest.mark.parametrize(("protocol", "recipe"), PAIRS)
def test_every_key_of_a_protocol_acts_in_every_recipe(protocol: str, recipe: str, cache, tmp_path):
    given = [f"protocol={protocol}", f"recipe={recipe}", "data=shapes", f"data.cache={cache}", *SMALL]
    if recipe in ("imagenet128", "caffenet128"):  # fewer kernels; more images than batches of 128 and 256 have
        given += ["model.width=0.1", "data.train_images=300"]
    config = composed(given)
    values, wanted = flat(config), flat(from_file(CONF_DIR / "protocol" / f"{protocol}.yaml"))
    overridden, void = set(), set()
    expected = behaviour(config)
    for name, texts_value in changed_by(protocol).items():
        if values[name] != wanted[name] and (recipe, name) != ("demo", "model.init_stds"):
            overridden.add(name)
        else:
            changed = composed([*given, f"{name}={shown(texts_value)}"])
            is_void = behaviour(changed) == expected
            assert (run_id(changed) == run_id(config)) == is_void, name
            void |= {name} if is_void else set()
    assert overridden == OVERRIDDEN.get((protocol, recipe), set())
    assert void == VOID.get((protocol, recipe), set())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("recipe", "model"), [("cifar10" if model.startswith("cifar") else "demo", model) for model in MODELS]
)
def test_maps_do_not_change_with_pooling(protocol: str, recipe: str, model: str):
    """Each net in the recipe that is for it; with another a sweep's table tells of maps that differ."""
    given = [f"protocol={protocol}", f"recipe={recipe}", f"model={model}"]
    with_overlap, without = (layers(composed([*given, f"pool.overlap={value}"])) for value in ("true", "false"))
    assert [(layer.side, layer.pooled_side) for layer in with_overlap] == [
        (layer.side, layer.pooled_side) for layer in without
    ]


@pytest.mark.parametrize(
    "protocol", [pytest.param(name, marks=[pytest.mark.long] if name != "paper" else []) for name in PROTOCOLS]
)
def test_maps_do_not_change_with_an_ablation(protocol: str):
    base = {layer.name: layer.side for layer in layers(composer().job([f"protocol={protocol}"]).config)}
    for name in ABLATIONS:
        net = layers(composer().job([f"protocol={protocol}", f"ablation={name}"]).config)
        sides = {layer.name: layer.side for layer in net if layer.name in base}
        same = all(base[layer] == side for layer, side in sides.items())
        assert same == (name != "run147"), name  # whose file says so


def test_the_map_decides_the_crop():
    """Sizes of the papers' and their replicas: 224, and 227 without padding."""
    for protocol, recipe, crop in [("paper", [], 96), ("caffe", [], 99), ("paper", FULL, 224), ("caffe", FULL, 227)]:
        assert composed([f"protocol={protocol}", *recipe]).data.crop_size == crop
    assert composed(["data.crop_size=100"]).data.map_size == 24


PARAMETERS = {
    "model=alexnet": 60_965_224,
    "ablation=ungrouped": 62_378_344,
    "ablation=half_net": 59_798_312,
    "ablation=six_convs": 61_555_304,
    "ablation=no_conv3_conv4": 59_563_624,
    "model=torchvision": 61_100_840,
}


@pytest.mark.parametrize("option", PARAMETERS)
def test_parameters_of_the_nets(option: str):
    config = composed([*FULL, option])
    config.data.num_classes = 1000
    assert sum(layer.parameters for layer in layers(config)) == PARAMETERS[option]


@pytest.mark.parametrize(
    ("model", "parameters", "sides"),
    [
        ("cifar_13pct", 1_116_490, [24, 12, 6]),
        ("cifar_11pct", 2_112_970, [24, 12, 6]),
        ("cifar_fig1", 89_578, [32, 16, 8]),
    ],
)
def test_the_cifar_nets(model: str, parameters: int, sides: list[int]):
    config = composed(["recipe=cifar10", f"model={model}"])
    assert sum(weight.numel() for weight in build_model(config).parameters()) == parameters
    assert [layer.side for layer in layers(config)][:3] == sides


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.activation=tanh", "model.conv1_order=[lrn,pool,activation]"],
        ["model.conv1_order=[activation,pool,lrn]"],
        ["protocol=source2012", "ablation=no_dropout"],
        ["model.activation=prelu", "model.batch_norm=before"],
        *(["recipe=cifar10", f"model={name}"] for name in MODELS if name.startswith("cifar")),
        ["model=torchvision"],
        *([f"ablation={name}"] for name in ABLATIONS),
    ],
    ids=str,
)
def test_memory_of_the_backward_pass(overrides: list[str]):
    """`--net` tells what autograd keeps, to a tenth."""
    config = composed(overrides)
    network, kept = build_model(config), {}
    weights = {parameter.data_ptr() for parameter in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor  # held, so that no other takes its place
        return tensor

    size, batch = config.data.crop_size, 4
    assert size is not None
    inputs = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)  # as batches come
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(inputs).sum()
    kept.pop(inputs.data_ptr(), None)
    measured = sum(tensor.numel() * tensor.element_size() for tensor in kept.values()) / batch
    told = sum(kept_bytes(layer, config) for layer in layers(config))
    assert told == pytest.approx(measured, rel=0.1)


# The rows of section 3 to 6 that a reader of the paper would look up, with the text's values.
TEXT = {
    "data.size": "256",
    "data.mean": "image",
    "model.activation": "relu",
    "model.groups": "2",
    "model.cross_talk": "[conv3]",
    "model.lrn_k": "2",
    "model.lrn_size": "5",
    "model.lrn_alpha": "0.0001",
    "model.lrn_beta": "0.75",
    "model.lrn_after": "[conv1, conv2]",
    "pool.overlap": "true",
    "pool.after": "[conv1, conv2, conv5]",
    "model.kernels": "[96, 256, 384, 384, 256]",
    "model.kernel_sizes": "[11, 5, 3, 3, 3]",
    "model.conv1_stride": "4",
    "model.paddings": "([2, 1, 1, 1])",
    "model.hidden": "4096",
    "model.dropout": "0.5",
    "model.dropout_after": "[fc6, fc7]",
    "model.dropout_scaling": "test",
    "augment.crop": "true",
    "augment.flip": "true",
    "augment.inclusive_offsets": "false",
    "augment.pca": "true",
    "augment.pca_std": "0.1",
    "augment.pca_unit": "(variance)",
    "evaluate.average": "softmax",
    "data.batch_size": "128",
    "optim.momentum": "0.9",
    "optim.weight_decay": "0.0005",
    "model.init_std": "0.01",
    "model.init_bias": "1",
    "model.init_bias_layers": "[conv2, conv4, conv5, fc6, fc7]",
    "optim.lr": "0.01",
    "optim.drop_factor": "0.1",
    "optim.num_drops": "3",
    "trainer.max_epochs": "90",
}


def test_the_papers_choices_are_all_in_the_table():
    rows = re.findall(r"^\| .* \| ([\d., ]*) \| `(.+?)` \| (.*?) \|", markdown(), re.MULTILINE)
    told = {name: (section, value) for section, name, value in rows}
    assert {name: told[name][1] for name in TEXT} == TEXT
    assert all(told[name][0] for name in TEXT)


# What a reader of the paper does not find in it, and the code has to choose.
UNSTATED = ["model.conv1_padding", "model.paddings", "pool.ceil", "data.resize", "data.seed", "augment.pca_unit"]
UNSTATED += ["optim.decay_biases", "optim.patience", "optim.threshold"]


def test_what_the_paper_does_not_state_is_marked_as_such():
    rows = re.findall(r"^\| (.*) \| [\d., ]* \| `(.+?)` \| (.*?) \|", markdown(), re.MULTILINE)
    marked = {name for choice, name, value in rows if value.startswith("(") and "Unstated in the paper: " in choice}
    assert marked == {*UNSTATED}
    assert "trainer.strategy" not in {
        name for _, name, _ in rows
    }  # how devices share a run is no choice of the paper's


def test_docs_are_as_the_schema_has_it():
    assert (PROJECT_DIR / "docs" / "paper.md").read_text() == markdown(), "python src/train.py --paper > docs/paper.md"


@pytest.mark.slow
def test_net_is_printed(tmp_path):
    command = [sys.executable, str(PROJECT_DIR / "src" / "train.py"), "--net", "-m", "model.groups=2,1", "seed=0,1"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.count("The net for images of 96 x 96 pixels") == 2  # not once a seed
    assert re.search(r"conv1 +11x11 +4 +1 +24x23² +11² +8,736", shown)
    assert re.search(r"total +552,042", shown)
    assert re.search(r"the paper +60,965,224 +724.41", shown)
    assert not list(tmp_path.iterdir())


VOIDS = [
    (
        ["model.lrn=false"],
        ["model.lrn_k=1", "model.lrn_scale=7", "model.lrn_per_tower=true", "model.lrn_after=[conv1]"],
    ),
    (["model.lrn_after=[]"], ["model.lrn_size=3", "model.lrn_alpha=2", "model.lrn_beta=1"]),
    (["model.groups=1"], ["model.cross_talk=[conv4]", "model.lrn_per_tower=true"]),
    (["model.dropout=0"], ["model.dropout_after=[fc6]", "model.dropout_scaling=train"]),
    (["model.init=he"], ["model.init_std=3", "model.init_stds=[conv3:2]"]),
    (["model.init=torch"], ["model.init_bias=2", "model.init_last_std=9", "model.init_std=3"]),
    (["model.init_bias=0"], ["model.init_bias_layers=[conv1]"]),
    (["augment.pca=false"], ["augment.pca_std=1", "augment.pca_unit=deviation", "augment.pca_divisor=2"]),
    (["augment.pca_until=0"], ["augment.pca_std=1", "augment.pca_divisor=2"]),
    (["augment.crop=false"], ["augment.inclusive_offsets=true"]),
    (["augment.crop=false", "augment.flip=false"], ["augment.shared_by=32"]),
    (["optim.schedule=fixed"], ["optim.patience=9", "optim.num_drops=1", "optim.threshold=0.5"]),
    (["optim.schedule=linear"], ["optim.drops=[0.5]", "optim.drop_factor=0.5", "optim.patience=9"]),
]


@pytest.mark.parametrize(("cause", "void"), VOIDS, ids=str)
def test_keys_without_effect_make_no_other_run(cause: list[str], void: list[str], cache):
    given = [*cause, f"data.cache={cache}", *SMALL]
    config = composed(given)
    expected, base = behaviour(config), composed([f"data.cache={cache}", *SMALL])
    for change in void:
        changed = composed([*given, change])
        assert behaviour(changed) == expected, change
        assert run_id(changed) == run_id(config), change
    assert differences(composed([*given, *void]), base) == differences(config, base)
