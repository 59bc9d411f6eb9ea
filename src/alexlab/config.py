"""Every key of the project: its type, its default, its range and its meaning, in one place.

The defaults are the paper's text (sections in brackets) at its own scale; where the text does not state a value, the
key says so and why this one was chosen (`unstated`). The files in `conf/` change them:
`protocol/` by convention, `recipe/` by scale, `ablation/` by one named choice. `load(overrides)` composes and checks a
configuration as the command line does; past it everything is a plain dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Union

from alexlab.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot run; the message is one line that names the key, its value and the fix."""


def _conf_dir() -> Path:
    packaged = Path(__file__).parent / "conf"  # where the wheel keeps it
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


CONF_DIR = _conf_dir()
# The default folder of `runs/` and `cache/`: the checkout, or for an installed package the current directory.
PROJECT_DIR = CONF_DIR.parent if (CONF_DIR.parent / "pyproject.toml").is_file() else Path.cwd()


def key(
    default: Any,
    meaning: str,
    *,
    identity: bool = True,
    unordered: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    by_layer: Callable[[str], Any] | None = None,
    unstated: str = "",
) -> Any:
    """Declare a key.

    `identity=False`: the key cannot change a run's result, so it is not part of the run id. `unordered`: the order of
    the list's items is irrelevant. The bounds apply to a number or each number of a list, `choices` to a text or each
    text of a list. `by_layer`: a function for items such as conv3:0.03 that converts the right side; bounds and choices
    apply to its result. `unstated`: why this default was chosen, if the paper does not, or not fully, state one.
    """
    metadata = {
        "meaning": meaning,
        "identity": identity,
        "unordered": unordered,
        "bounds": {
            "at least": (at_least, lambda value, bound: value >= bound),
            "above": (above, lambda value, bound: value > bound),
            "at most": (at_most, lambda value, bound: value <= bound),
            "below": (below, lambda value, bound: value < bound),
        },
        "choices": choices,
        "by_layer": by_layer,
        "unstated": unstated,
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


class Activation(Enum):
    relu = "relu"
    tanh = "tanh"
    sigmoid = "sigmoid"
    elu = "elu"
    prelu = "prelu"


class Padding(Enum):
    both = "both"
    end = "end"
    none = "none"


class BatchNorm(Enum):
    none = "none"
    before = "before"
    after = "after"


class PoolKind(Enum):
    max = "max"
    average = "average"
    max_average = "max_average"


class DropoutScaling(Enum):
    test = "test"
    train = "train"


class Init(Enum):
    normal = "normal"
    he = "he"
    lecun = "lecun"
    torch = "torch"


class Schedule(Enum):
    plateau = "plateau"
    fixed = "fixed"
    linear = "linear"
    constant = "constant"


class Checkpoint(Enum):
    last = "last"
    best = "best"


class Keep(Enum):
    weights = "weights"
    all = "all"


class Retry(Enum):
    faults = "faults"
    all = "all"
    none = "none"


class Rate(Enum):
    protocol = "protocol"
    choose = "choose"
    own = "own"


class RateSearch(Enum):
    grid = "grid"
    extend = "extend"


class Average(Enum):
    softmax = "softmax"
    logits = "logits"


class Dataset(Enum):
    shapes = "shapes"
    cifar10 = "cifar10"
    imagenette = "imagenette"
    imagenet2010 = "imagenet2010"
    imagenet2012 = "imagenet2012"
    folder = "folder"


class StoreFormat(Enum):
    raw = "raw"
    jpeg = "jpeg"


class OnBad(Enum):
    report = "report"
    ignore = "ignore"
    stop = "stop"


class Resize(Enum):
    crop = "crop"
    stretch = "stretch"


class Mean(Enum):
    image = "image"
    center = "center"
    channel = "channel"
    none = "none"
    torchvision = "torchvision"


class PcaUnit(Enum):
    variance = "variance"
    deviation = "deviation"


class Debug(Enum):
    none = "none"
    limit = "limit"
    overfit = "overfit"
    profile = "profile"


class Strategy(Enum):
    ddp = "ddp"
    towers = "towers"


class Compile(Enum):
    none = "none"
    default = "default"
    graphs = "graphs"


class Accelerator(Enum):
    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


CONV_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")  # a net has the first len(model.kernels)
HIDDEN_LAYERS = ("fc6", "fc7")
ORDER = ("activation", "lrn", "pool")
TRACKERS = ("wandb", "tensorboard", "mlflow")  # keys of `logger`
CONV1_PADDING = {"both": (2, 2), "end": (0, 3), "none": (0, 0)}  # zeros before and after, in each direction
SHAPES_CLASSES = 10  # what `alexlab.data.shapes` can draw
RACE_ERRORS = (0.5, 0.45, 0.4, 0.35, 0.3)  # training errors that a trial of a learning rate must reach in time
CHANCE_SHARE = 0.99  # of ln K: a training loss above it is that of guessing
REMOVABLE_LAYERS = CONV_LAYERS[1:] + HIDDEN_LAYERS


@dataclass
class ModelConfig:
    build: Union[str, None] = key(
        None, "FILE.FUNCTION: a net of your own from FILE.py in --config-dir (docs/how-to/own-net.md); null = AlexNet."
    )
    kernels: list[int] = key(
        [96, 256, 384, 384, 256], "Kernels of conv1, conv2, ...: two to six convolutions (3.5).", at_least=1
    )
    kernel_sizes: list[int] = key([11, 5, 3, 3, 3], "Side of the kernels of each convolution (3.5).", at_least=1)
    conv1_stride: int = key(4, "Stride of conv1; the other convolutions have 1 (3.5).", at_least=1)
    conv1_padding: Padding = key(
        Padding.both,
        "Zero padding of the image: both = 2 on every side, end = 3 at bottom and right, none (3.5).",
        unstated="chosen because without padding 224, 11 and 4 do not give the 55 of figure 2, and padding on every "
        "side keeps the image in the middle; the released code has 3 at the end",
    )
    paddings: list[int] = key(
        [2, 1, 1, 1],
        "Zero padding on each side of the input of conv2 and of each later convolution (3.5).",
        at_least=0,
        unstated="chosen because they give the sizes of figure 2; the released code has the same",
    )
    unshared: list[str] = key(
        [],
        "Locally connected convolutions: weights are not shared across positions.",
        unordered=True,
        choices=CONV_LAYERS,
    )
    width: float = key(1.0, "Multiplies the number of kernels of every convolution.", above=0, at_most=100)
    hidden: int = key(4096, "Units of each hidden fully connected layer, fc6 and fc7 (3.5).", at_least=1)
    hidden_layers: int = key(2, "Hidden fully connected layers, from fc6 on (3.5).", at_least=0, at_most=2)
    hidden_width: float = key(1.0, "Multiplies model.hidden.", above=0, at_most=100)
    groups: int = key(2, "Towers: kernels see only the channels of their own tower (3.2, 3.5).", at_least=1)
    cross_talk: list[str] = key(
        ["conv3"],
        "Convolutions that see all towers; if one is removed, the next remaining one does (3.2).",
        unordered=True,
        choices=CONV_LAYERS[1:],
    )
    activation: Activation = key(Activation.relu, "Nonlinearity after every layer but the last (3.1).")
    last_activation: bool = key(
        False, "Nonlinearity after the last layer too, as the text says if taken literally (3.5)."
    )
    conv1_order: list[str] = key(
        list(ORDER), "What follows conv1, in order: activation, lrn, pool (3.3, 3.4, 3.5).", choices=ORDER
    )
    conv2_order: list[str] = key(
        list(ORDER), "What follows conv2, in order: activation, lrn, pool (3.3, 3.4, 3.5).", choices=ORDER
    )
    lrn: bool = key(True, "Local response normalisation after the layers of model.lrn_after (3.3).")
    lrn_after: list[str] = key(
        ["conv1", "conv2"], "Layers that LRN follows (3.5).", unordered=True, choices=("conv1", "conv2")
    )
    lrn_size: int = key(5, "n: how many adjacent channels LRN sums over, an odd number (3.3).", at_least=1)
    lrn_k: float = key(2.0, "k of LRN (3.3).", at_least=0)
    lrn_alpha: float = key(
        1e-4,
        "alpha of LRN in the paper's formula: on the sum, not the mean; 0 = only the scale k^-beta (3.3).",
        at_least=0,
    )
    lrn_beta: float = key(0.75, "beta of LRN (3.3).", at_least=0)
    lrn_per_tower: bool = key(False, "true = LRN's window ends at its tower's last channel (3.3: all of the layer).")
    lrn_scale: float = key(
        1.0, "Multiplies activations inside LRN's sum: 1 / data.pixel_scale keeps the meaning of alpha.", above=0
    )
    same_map_norm: bool = key(
        False, "After conv2's LRN, divide by (1 + 4e-5 * sum of squares in 5 x 5 pixels of the channel)^.75."
    )
    batch_norm: BatchNorm = key(
        BatchNorm.none, "Batch normalisation before or after the nonlinearity of every layer but the last."
    )
    dropout: float = key(
        0.5,
        "Probability that a unit of model.dropout_after is dropped in training; 0 = no dropout (4.2).",
        at_least=0,
        below=1,
    )
    dropout_after: list[str] = key(
        ["fc6", "fc7"],
        "Layers whose outputs, after pooling, get dropout (4.2).",
        unordered=True,
        choices=(*CONV_LAYERS, *HIDDEN_LAYERS),
    )
    dropout_scaling: DropoutScaling = key(
        DropoutScaling.test,
        "test = outputs times (1 - dropout) at test time (4.2); train = outputs divided by it in training.",
    )
    remove: list[str] = key(
        [], "Layers to leave out; the layers after them are rewired (1, 7).", unordered=True, choices=REMOVABLE_LAYERS
    )
    init: Init = key(
        Init.normal,
        "Initial weights: normal = with model.init_std (5), he = sqrt(2 / fan in), lecun = sqrt(1 / fan in), "
        "torch = PyTorch's default.",
    )
    init_std: float = key(0.01, "Standard deviation of the initial weights if model.init=normal (5).", above=0)
    init_stds: list[str] = key(
        [],
        "Initial standard deviations of single layers, such as [conv3:0.03]; others use model.init_std.",
        above=0,
        by_layer=float,
    )
    init_last_std: Union[float, None] = key(
        None, "Standard deviation of the last layer's initial weights; null = as the other layers.", above=0
    )
    init_bias: float = key(1.0, "Initial biases of model.init_bias_layers; the others start at 0 (5).")
    init_bias_layers: list[str] = key(
        ["conv2", "conv4", "conv5", "fc6", "fc7"],
        "Layers whose biases start at model.init_bias (5).",
        unordered=True,
        choices=(*CONV_LAYERS, *HIDDEN_LAYERS),
    )


@dataclass
class PoolConfig:
    overlap: bool = key(True, "true = windows of 3 at a stride of 2, false = windows of 2 at a stride of 2 (3.4).")
    after: list[str] = key(
        ["conv1", "conv2", "conv5"], "Layers that pooling follows (3.5).", unordered=True, choices=CONV_LAYERS
    )
    kind: PoolKind = key(PoolKind.max, "What pooling computes in a window: max, average, or the sum of both (3.5).")
    kinds: list[str] = key(
        [],
        "Kinds of pooling after single layers, such as [conv1:max]; others use pool.kind.",
        choices=tuple(kind.name for kind in PoolKind),
        by_layer=str,
    )
    ceil: bool = key(
        False,
        "true = the last window may reach beyond the feature map's edge (3.4).",
        unstated="chosen because 3.4 compares nets with equal feature maps: 27, 13 and 6 with windows of 3, and with "
        "windows of 2 if rounded down. The released code and Caffe round up, which gives the latter 28, 14 and 7",
    )


@dataclass
class DataConfig:
    name: Dataset = key(Dataset.shapes, "Data set.")
    raw: Union[str, None] = key(
        None, "Folder of the source files, for `prepare`; null = download, where that is allowed.", identity=False
    )
    root: Union[str, None] = key(None, "Folder of the store; null = the data set's own in data.cache.", identity=False)
    cache: str = key(
        lambda: os.environ.get("ALEXLAB_CACHE") or str(PROJECT_DIR / "cache"),
        "Folder of downloads and stores; the environment variable ALEXLAB_CACHE sets its default.",
        identity=False,
    )
    stage: Union[str, None] = key(
        None,
        "Folder on a local disk: the store is copied there, verified, and read from there.",
        identity=False,
    )
    format: Union[StoreFormat, None] = key(
        None,
        "raw = uint8 pixels, jpeg = packed JPEGs of a tenth of the size; null = the larger one that fits on the disk.",
        identity=False,
    )
    on_bad: OnBad = key(
        OnBad.report,
        "If a file cannot be stored: report = leave it out and list it, an error if its class has no other; "
        "ignore = the same without that error; stop = always an error.",
        identity=False,
    )
    holdout: int = key(
        0,
        "Training images of each class held out for validation, so that no choice is made on the reported ones; "
        "0 = the data set's own validation split, or the reported one.",
        at_least=0,
    )
    num_classes: Union[int, None] = key(1000, "Number of classes; null = as many as the store has.", at_least=2)
    train_images: Union[int, None] = key(
        None, "Training images that data.name=shapes draws; other data sets have those of their store.", at_least=1
    )
    val_images: Union[int, None] = key(None, "Validation images that data.name=shapes draws.", at_least=1)
    test_images: Union[int, None] = key(None, "Test images that data.name=shapes draws.", at_least=1)
    files_seed: int = key(0, "Seed of the embedded data set.", at_least=0)
    size: int = key(256, "Side of the stored image (2).", at_least=1)
    resize: Resize = key(
        Resize.crop,
        "crop = resize the shorter side, cut out the centre (2); stretch = resize both sides to a square.",
        unstated="the filter. Bilinear with antialiasing (Pillow's) for all protocols, chosen because it avoids "
        "aliasing at any size. The authors' converter of 2014 shrinks by area averaging and enlarges by cubic "
        "interpolation; Caffe's is bilinear without antialiasing",
    )
    map_size: int = key(
        55, "Side of conv1's feature map, for which data.crop_size is chosen; 55 makes it 224 (3.5).", at_least=1
    )
    crop_size: Union[int, None] = key(
        None, "Side of the crop that the net sees; null = from data.map_size (3.5, 4.1).", at_least=1
    )
    mean: Mean = key(
        Mean.image,
        "Subtracted from pixels: image = mean image at the crop's position (2), center = its centre for every crop, "
        "channel = channel means, none (3.3), torchvision = its own.",
    )
    pixel_scale: float = key(1.0, "Multiplies the input pixels (0-255, minus the mean); the paper has 1.", above=0)
    batch_size: int = key(128, "Images per step, over all devices (5).", at_least=1)
    eval_batch_size: int = key(128, "Images per step in evaluation.", identity=False, at_least=1)
    num_workers: int = key(0, "Loader processes; 0 is fastest with a memory-mapped store.", identity=False, at_least=0)
    seed: Union[int, None] = key(
        None,
        "Seed of image order and augmentation; null = seed (5).",
        at_least=0,
        unstated="the order. A new one each epoch, chosen because no batch repeats; the released code and Caffe "
        "shuffle the images once, before training",
    )


@dataclass
class AugmentConfig:
    crop: bool = key(True, "Random crops in training; false = the centre (4.1).")
    flip: bool = key(True, "Mirror half of the training images (4.1).")
    pca: bool = key(True, "Shift colours along the principal components of the training pixels (4.1).")
    pca_std: float = key(0.1, "Standard deviation of the random factor of each component (4.1).", at_least=0)
    pca_unit: PcaUnit = key(
        PcaUnit.variance,
        "What the factor multiplies: variance = the eigenvalue of pixels in 0 to 1 (4.1), deviation = its square root.",
        unstated="the pixels' scale. From 0 to 1, chosen because with 0 to 255 shifts would exceed a thousand grey "
        "levels. Along the first component their standard deviation is then 6 levels; in the released code it is 12",
    )
    pca_divisor: float = key(1.0, "Divides a training input after its colour shift.", above=0)
    pca_until: float = key(1.0, "Fraction of the run after which colours are no longer shifted.", at_least=0, at_most=1)
    inclusive_offsets: bool = key(
        False, "Crop offsets 0 to size - crop, 33 x 33 x 2 crops; false = one fewer per axis, 2048 (4.1)."
    )
    shared_by: int = key(1, "Consecutive images that share one draw of crop and mirroring.", at_least=1, at_most=1e9)


@dataclass
class OptimConfig:
    lr: float = key(0.01, "Initial learning rate (5).", above=0)
    momentum: float = key(0.9, "Momentum (5).", at_least=0, below=1)
    weight_decay: float = key(5e-4, "Weight decay, inside the velocity: - weight_decay * lr * w (5).", at_least=0)
    weight_decays: list[str] = key(
        [], "Decay of single layers, such as [fc8:0.01]; others use optim.weight_decay.", at_least=0, by_layer=float
    )
    decay_biases: bool = key(
        True,
        "Weight decay on biases too (5).",
        unstated="chosen because the rule, though stated for a weight, has no exception; the released code and Caffe "
        "do not decay biases",
    )
    bias_lr_factor: float = key(1.0, "Multiplies the learning rate of biases (5: equal for all layers).", at_least=0)
    drop_biases: bool = key(True, "Learning-rate drops apply to biases too (5: equal for all layers).")
    schedule: Schedule = key(
        Schedule.plateau,
        "plateau = drop when the validation error stalls (5, there by hand), fixed = drop at optim.drops, linear = "
        "decrease by the same amount each epoch, constant.",
    )
    drops: list[float] = key(
        [0.25, 0.55, 0.85], "Fractions of the run at which optim.schedule=fixed drops the rate.", above=0, below=1
    )
    num_drops: int = key(3, "Drops before optim.schedule=plateau ends the run (5).", at_least=0)
    drop_factor: float = key(0.1, "Factor by which a drop multiplies the rate (5).", above=0, below=1)
    conv1_cut_at: Union[float, None] = key(
        None, "Fraction of the run from which conv1 learns at optim.drop_factor times the rate.", at_least=0, at_most=1
    )
    conv1_freeze_at: Union[float, None] = key(
        None, "Fraction of the run from which conv1 is frozen.", at_least=0, at_most=1
    )
    patience: int = key(
        5,
        "Epochs without a lower validation error after which optim.schedule=plateau drops the rate (5).",
        at_least=1,
        unstated="the authors dropped the rate by hand. Chosen because a dozen epochs per rate fit into 90",
    )
    threshold: float = key(
        0.001,
        "Decrease of the error (an absolute fraction) that counts as an improvement (5).",
        at_least=0,
        below=1,
        unstated="the authors dropped the rate by hand. Chosen because .1 points is half the standard error of "
        "40 % on 50,000 validation images",
    )


@dataclass
class TrainerConfig:
    max_epochs: int = key(90, "Epochs: cycles through the training set (5).", at_least=1)
    limit_train_batches: Union[int, float] = key(
        1.0, "Training steps per epoch: a whole number, or a fraction with a decimal point (1.0 = all).", above=0
    )
    limit_val_batches: Union[int, float] = key(
        1.0, "Validation steps, as trainer.limit_train_batches; 0 = no validation.", at_least=0
    )
    train_error_every: Union[float, None] = key(
        None,
        "Epochs between rows of train_error.csv: error of the training batches since the previous row; "
        "null = only metrics.csv, once per epoch.",
        above=0,
        at_most=1,
    )
    stop_at_train_error: Union[float, None] = key(
        None,
        "The run ends with the epoch in which a row of train_error.csv is at most this; null = no such limit.",
        above=0,
        below=1,
    )
    race_epochs: list[float] = key(
        [],
        f"Epochs by which the training error must reach {', '.join(f'{e:g}' for e in RACE_ERRORS)}, or the run ends; "
        "study.rate_search=extend sets it for trials.",
        above=0,
    )
    chance_epochs: Union[int, None] = key(
        2,
        "Epochs (at least 1,000 steps in all) after which a run ends if its training loss is still that of guessing; "
        "null = never.",
        identity=False,
        at_least=1,
    )
    accelerator: Accelerator = key(
        Accelerator.auto,
        "auto (a GPU if there is one), cpu or gpu; from the same seed, a GPU draws other dropout masks than a CPU.",
        identity=False,
    )
    devices: int = key(1, "Number of devices of one run.", identity=False, at_least=1)
    strategy: Strategy = key(
        Strategy.ddp,
        "How several devices share a run: ddp = each has the net and a part of each batch; towers = each has a part "
        "of every layer, as the paper's two GPUs had.",
        identity=False,
    )
    precision: str = key(
        "32-true",
        "Arithmetic precision; tf32-true = float32, but on a GPU factors have a mantissa of 10 bits.",
        choices=("32-true", "tf32-true", "16-mixed", "bf16-mixed", "64-true"),
    )
    channels_last: bool = key(True, "Channels-last memory layout (NHWC) of weights and activations.")
    compile: Compile = key(
        Compile.none, "torch.compile for the net in training steps: none, default, or graphs = with CUDA graphs."
    )
    fused_lrn: bool = key(True, "On a GPU, LRN as one forward and one backward kernel, which save only its input.")
    fused_optimizer: bool = key(True, "Update all weights in one pass over memory instead of four.")
    ahead: bool = key(
        True,
        "On one GPU, prefetch batches and queue steps without waiting for it; false = synchronise at each step.",
        identity=False,
    )
    deterministic: bool = key(True, "Use only deterministic algorithms, which give the same bits each time.")
    gradient_clip_val: Union[float, None] = key(
        None, "Maximum norm of the gradient of all weights; larger ones are scaled down to it; null = none.", above=0
    )
    fast_dev_run: bool = key(False, "One batch of training, validation and test, and no record.", identity=False)
    enable_progress_bar: bool = key(
        True, "Show progress: a live bar in a terminal, otherwise a line per epoch.", identity=False
    )


@dataclass
class CheckpointConfig:
    every_minutes: Union[float, None] = key(
        5.0,
        "Minutes between the checkpoints from which a run resumes; null = by steps alone.",
        identity=False,
        above=0,
    )
    every_steps: Union[int, None] = key(
        None, "Training steps between checkpoints; null = by time alone.", identity=False, at_least=1
    )
    keep: Keep = key(
        Keep.weights,
        "What a finished run keeps: weights = the last and the best; all = the optimiser's state too.",
        identity=False,
    )


@dataclass
class EvaluateConfig:
    checkpoint: Checkpoint = key(
        Checkpoint.last, "Weights to evaluate: the last, as the paper did, or the best in validation."
    )
    average: Average = key(Average.softmax, "What is averaged over the ten views: softmax (4.1) or logits.")
    train_images: int = key(
        50000, "Maximum number of training images on which the final training error is measured.", at_least=1
    )


@dataclass
class DebugConfig:
    name: Debug = key(Debug.none, "Try-out without a record; debug=limit, overfit or profile sets it.", identity=False)
    images: Union[int, None] = key(
        None,
        "Maximum number of images of each split that a try-out evaluates; null = no try-out.",
        identity=False,
        at_least=1,
    )


@dataclass
class LoggerConfig:
    wandb: bool = key(False, "Copy runs to Weights & Biases; logger=wandb sets it.", identity=False)
    tensorboard: bool = key(False, "Write TensorBoard's files; logger=tensorboard sets it.", identity=False)
    mlflow: bool = key(False, "Copy runs to MLflow; logger=mlflow sets it.", identity=False)
    project: str = key("alexlab", "W&B project, and MLflow experiment.", identity=False)
    entity: Union[str, None] = key(None, "W&B user or team; null = the account's default.", identity=False)
    tracking_uri: Union[str, None] = key(
        None,
        "MLflow's server, such as http://localhost:5000; null = MLFLOW_TRACKING_URI, or else MLflow's own default.",
        identity=False,
    )

    @property
    def trackers(self) -> list[str]:
        """The trackers that get a copy of each run."""
        return [name for name in TRACKERS if getattr(self, name)]


@dataclass
class PathsConfig:
    runs: str = key(
        lambda: os.environ.get("ALEXLAB_RUNS") or str(PROJECT_DIR / "runs"),
        "Folder of the records; the environment variable ALEXLAB_RUNS sets its default.",
        identity=False,
    )
    code: Union[str, None] = key(
        None,
        "Folder of the Python file of model.build, which is executed; null = that of --config-dir.",
        identity=False,
    )


@dataclass
class StudyConfig:
    claims: list[str] = key(
        [],
        "Claims whose arms the study runs: a file of conf/claims/, such as paper, or one claim, such as paper/lrn.",
        identity=False,
    )
    seeds: int = key(5, "Runs of each arm; a verdict needs three.", identity=False, at_least=1)
    base_seeds: Union[int, None] = key(
        None,
        "Runs of the base, the other arm of most claims; null = study.seeds times the rounded root of the number of "
        "other arms.",
        identity=False,
        at_least=1,
    )
    first_seed: int = key(0, "The first run's seed; the others count up from it.", identity=False, at_least=0)
    data_seeds: Union[int, None] = key(
        None,
        "Data seeds, from 0, that a study without claims crosses with the base's seeds; null = each run's own seed.",
        identity=False,
        at_least=2,
    )
    rate: Rate = key(
        Rate.protocol,
        "Learning rates: protocol = as configured, for all arms; choose = trials of each arm at several rates, on "
        "other seeds; own = such trials, then each arm at its best.",
        identity=False,
    )
    rates: list[float] = key(
        [0.5, 1, 2],
        "Multiples of optim.lr that study.rate=choose tries, each at most twice the previous one; with "
        "study.rate_search=extend, the first ones.",
        identity=False,
        above=0,
    )
    rate_seeds: int = key(2, "Number of seeds, from 1000 on, by which a rate is chosen.", identity=False, at_least=1)
    rate_length: float = key(
        1.0, "Fraction of trainer.max_epochs that a trial of a rate trains for.", identity=False, above=0, at_most=1
    )
    rate_search: RateSearch = key(
        RateSearch.grid,
        "grid = each of study.rates on each seed; extend = upwards by factors of 2 until three rates are past the "
        "best, then finer around it (docs/how-to/studies.md).",
        identity=False,
    )
    assumed_sd: Union[float, None] = key(
        None,
        "Standard deviation of a run's error in points, for --dry-run to compute what the plan can show; null = from "
        "finished runs at the recipe.",
        identity=False,
        above=0,
        at_most=100,
    )
    budget: Union[str, None] = key(
        None,
        "Hours, such as 40, 1.5h or 3d: --dry-run prints the study that settles the most claims in this time.",
        identity=False,
    )


@dataclass
class Config:
    seed: int = key(0, "Seed of initial weights and dropout, and of the data unless data.seed is set.", at_least=0)
    weights: Union[str, None] = key(None, "Checkpoint whose network the run starts from; null = from scratch.")
    retry: Retry = key(
        Retry.faults,
        "Failed runs to retry: faults = all but those that diverged or do not learn, which are results; all; none.",
        identity=False,
    )
    max_hours: Union[str, None] = key(
        None,
        "Hours, such as 40, 1.5h or 3d, after which the command saves its runs and stops; the same command resumes.",
        identity=False,
    )
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)

    @property
    def is_tryout(self) -> bool:
        """Whether this is a try-out, which keeps no record."""
        return self.trainer.fast_dev_run or self.debug.name is not Debug.none


def load(overrides: list[str] | None = None) -> Config:
    """`alexlab.compose.load`, by its published name."""
    from alexlab import compose  # loads Hydra, so only when a configuration is composed

    return compose.load(overrides)


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, value, dataclass field) of every key below a config."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", value, entry


def flat(config: Config) -> dict[str, Any]:
    """The configuration as {dotted key: plain value}, enums by name."""
    return {name: value.name if isinstance(value, Enum) else value for name, value, _ in walk(config)}


def shown(value: Any) -> str:
    """A value as written on the command line."""
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, float):
        return f"{value:.12g}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def by_layer(values: list[str]) -> dict[str, str]:
    """["conv3:0.03"] as {"conv3": "0.03"}."""
    return dict(item.split(":") for item in values)


def did_you_mean(word: str, known: Any) -> str:
    """`; did you mean 'x'?`, or an empty string if no known word is close."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
