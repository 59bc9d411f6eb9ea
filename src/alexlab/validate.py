"""Check a configuration, each value and combinations of keys, and fill in the keys that others determine."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexlab import own_net
from alexlab.architecture import check_towers, layers
from alexlab.config import (
    CONV1_PADDING,
    CONV_LAYERS,
    HIDDEN_LAYERS,
    ORDER,
    RACE_ERRORS,
    SHAPES_CLASSES,
    Accelerator,
    BatchNorm,
    Checkpoint,
    Compile,
    Config,
    ConfigError,
    Dataset,
    Debug,
    DebugConfig,
    LoggerConfig,
    Mean,
    Padding,
    Rate,
    Schedule,
    Strategy,
    TrainerConfig,
    by_layer,
    did_you_mean,
    shown,
    walk,
)
from alexlab.data.locate import image_counts, stored_manifest


def finish(config: Config, trains: bool = True, stored: bool = True) -> Config:
    """Fill in the keys that others determine, and reject a configuration that cannot run.

    With `trains=False`, for commands that train no network, only values and the data's combinations are checked.
    With `stored=False` the stores of real data are not read.

    Raises:
        ConfigError: for the first impossible value or combination.
    """
    for name, value, entry in walk(config):
        if value is None:
            continue
        if entry.metadata["by_layer"]:
            value[:] = _checked_by_layer(name, value, entry.metadata)
            continue
        values = value if isinstance(value, list) else [value]
        for item in values:
            _check_value(name, value, item, entry.metadata)
        if entry.metadata["unordered"]:
            if len(set(values)) < len(values):
                raise ConfigError(f"{name}={shown(value)}: names an item twice; write each once")
            value.sort()
    if config.model.build is not None:
        own_net.parse(config.model.build)
    for name in ("cache", "raw", "root", "stage"):
        folder = getattr(config.data, name)
        if folder is not None:  # so that each folder has a unique path
            setattr(config.data, name, str(Path(folder).expanduser().resolve()))
    _check_debug(config.debug)
    _check_trackers(config.logger, trains)
    for name, budget in (("study.budget", config.study.budget), ("max_hours", config.max_hours)):
        if budget is not None:
            hours(name, budget)
    if config.study.budget is not None and config.study.rate is not Rate.protocol:
        raise ConfigError(
            f"study.budget={config.study.budget}: cannot plan trials of learning rates, whose number is not known; "
            "set study.rate=protocol, or stop the study after some hours by max_hours"
        )
    images = _check_data(config, stored and trains)
    if trains:
        _check_combinations(config, images.get("train", sys.maxsize))
    if config.data.seed is None:
        config.data.seed = config.seed
    config.paths.runs = str(Path(config.paths.runs).expanduser().absolute())
    return config


def _check_debug(debug: DebugConfig) -> None:
    """Reject keys of a try-out without one, and a try-out without the keys that its option sets."""
    if debug.name is Debug.none and debug.images is not None:
        raise ConfigError(f"debug.images={debug.images}: only in a try-out; add debug=limit")
    if debug.name is not Debug.none and debug.images is None:
        raise ConfigError(f"debug.name={debug.name.name}: write debug={debug.name.name}, which sets more keys")


def _check_trackers(logger: LoggerConfig, is_used: bool) -> None:
    """Reject a password in a key, since `ps`, a shell's history and a sweep's file show it; and a missing package."""
    if logger.tracking_uri is not None and "@" in logger.tracking_uri.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            "logger.tracking_uri: must hold no user or password; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_URI, in the environment"
        )
    for name in logger.trackers:
        spec = find_spec(name) if is_used else None
        if is_used and (spec is None or spec.origin is None):  # else it is just a folder with this name
            raise ConfigError(f"logger={name}: not installed; run pip install '.[{name}]'")


def _check_value(name: str, value: Any, item: Any, metadata: Any) -> None:
    if isinstance(item, str) and not metadata["choices"] and item.lower() in ("none", "null", "~"):
        raise ConfigError(f"{name}={item}: '{item}' is read as a string; use {name}=null")
    if isinstance(item, str) and not item.strip():
        raise ConfigError(f"{name}=: must not be empty")
    if isinstance(item, float) and not math.isfinite(item):
        raise ConfigError(f"{name}={shown(value)}: must be finite")
    for wording, (bound, holds) in metadata["bounds"].items():
        if bound is not None and not holds(item, bound):
            raise ConfigError(f"{name}={shown(value)}: must be {wording} {bound:g}")
    choices = metadata["choices"]
    if choices and item not in choices:
        raise ConfigError(
            f"{name}={shown(value)}: '{item}' is not one of {', '.join(choices)}{did_you_mean(str(item), choices)}"
        )


def _checked_by_layer(name: str, value: list[str], metadata: Any) -> list[str]:
    """Check a list of `layer:value` items; return them in a canonical spelling and order."""
    known = (*CONV_LAYERS, *HIDDEN_LAYERS, "fc8")
    found: dict[str, str] = {}
    for item in value:
        layer, sign, text = item.partition(":")
        if not sign:
            raise ConfigError(f"{name}={shown(value)}: '{item}' must be a layer and its value, such as conv3:...")
        if layer not in known:
            raise ConfigError(
                f"{name}={shown(value)}: '{layer}' is not one of {', '.join(known)}{did_you_mean(layer, known)}"
            )
        if layer in found:
            raise ConfigError(f"{name}={shown(value)}: names {layer} twice; write each once")
        try:
            converted = metadata["by_layer"](text)
        except ValueError:
            raise ConfigError(f"{name}={shown(value)}: '{text}' must be a number") from None
        _check_value(name, value, converted, metadata)
        found[layer] = shown(converted)
    return [f"{layer}:{text}" for layer, text in sorted(found.items())]


def _check_combinations(config: Config, images: int) -> None:
    """Reject incompatible keys; `images`: the number of training images."""
    data, model, optim = config.data, config.model, config.optim
    is_given = data.crop_size is not None
    if config.model.build is None:
        _check_lengths(config)
    else:
        _check_own_net(config)
    _fill_in_crop(config)
    assert data.crop_size is not None
    if data.crop_size > data.size and not is_given:
        raise ConfigError(
            f"data.size={data.size}: is less than the crops of {data.crop_size} that data.map_size={data.map_size} "
            f"requires; name a recipe for such images (recipe=cifar10 has 32), or set data.crop_size"
        )
    if data.crop_size > data.size:
        raise ConfigError(f"data.crop_size={data.crop_size}: must be at most data.size={data.size}")
    if data.mean is Mean.torchvision and data.pixel_scale != 1:
        raise ConfigError(
            f"data.pixel_scale={data.pixel_scale:.12g}: data.mean=torchvision sets its own scale; "
            "set data.pixel_scale=1"
        )
    steps = max(1, images // data.batch_size)
    limit = config.trainer.limit_train_batches
    if isinstance(limit, float) and int(limit * steps) == 0:
        raise ConfigError(f"trainer.limit_train_batches={limit}: is less than one of the {steps} steps of an epoch")
    if model.lrn_size % 2 == 0:
        raise ConfigError(f"model.lrn_size={model.lrn_size}: must be odd, so that the window has a central channel")
    if model.lrn_k < 1e-6 and model.lrn:
        raise ConfigError(f"model.lrn_k={model.lrn_k:g}: must be at least 1e-6, so that no window is divided by 0")
    if model.batch_norm is not BatchNorm.none and min(data.batch_size, images) == 1:
        raise ConfigError("data.batch_size=1: model.batch_norm needs at least two images; raise it")
    cut, freeze = optim.conv1_cut_at, optim.conv1_freeze_at
    if cut is not None and freeze is not None and cut > freeze:
        raise ConfigError(f"optim.conv1_cut_at={cut:g}: must be at most optim.conv1_freeze_at={freeze:g}")
    if optim.drops != sorted(optim.drops):
        raise ConfigError(f"optim.drops={shown(optim.drops)}: must increase from left to right")
    if optim.schedule is Schedule.plateau and config.trainer.limit_val_batches == 0:
        raise ConfigError(
            "trainer.limit_val_batches=0: optim.schedule=plateau needs validation; set optim.schedule=fixed"
        )
    if config.evaluate.checkpoint is Checkpoint.best and config.trainer.limit_val_batches == 0:
        raise ConfigError("trainer.limit_val_batches=0: evaluate.checkpoint=best needs validation; set it to last")
    if min(data.batch_size, images) < config.trainer.devices:
        raise ConfigError(
            f"trainer.devices={config.trainer.devices}: a batch of {min(data.batch_size, images)} images is too "
            "small for so many devices; raise data.batch_size"
        )
    if config.trainer.precision == "16-mixed" and config.trainer.strategy is Strategy.towers:
        raise ConfigError(
            "trainer.precision=16-mixed: with trainer.strategy=towers each device would choose its own loss scale; "
            "use bf16-mixed or 32-true"
        )
    for precision in ("16-mixed", "tf32-true"):
        if config.trainer.precision == precision and config.trainer.accelerator is Accelerator.cpu:
            raise ConfigError(f"trainer.precision={precision}: needs a GPU; on a CPU use bf16-mixed or 32-true")
    if config.trainer.strategy is Strategy.towers and config.trainer.devices > 1:
        if config.trainer.compile is not Compile.none:
            raise ConfigError(
                f"trainer.compile={config.trainer.compile.name}: towers communicate inside the network, "
                "so it cannot be compiled; set it to none"
            )
        if not config.trainer.channels_last:
            raise ConfigError("trainer.channels_last=false: trainer.strategy=towers needs true")
    if config.trainer.gradient_clip_val and config.trainer.strategy is Strategy.towers and config.trainer.devices > 1:
        raise ConfigError(
            f"trainer.gradient_clip_val={config.trainer.gradient_clip_val:g}: with trainer.strategy=towers each device "
            "has a part of the gradient only; set trainer.devices=1"
        )
    _check_train_error(config.trainer)
    for name in ("limit_train_batches", "limit_val_batches"):
        limit = getattr(config.trainer, name)
        if isinstance(limit, float) and limit > 1:
            raise ConfigError(f"trainer.{name}={limit}: a fraction must be at most 1.0; for steps use a whole number")
    if config.model.build is not None:
        return
    net = layers(config)
    if config.trainer.strategy is Strategy.towers:
        check_towers(net, config)


def _check_own_net(config: Config) -> None:
    """Reject features that only AlexNet has if `model.build` names another net."""
    optim, trainer, has_own_keys = config.optim, config.trainer, own_net.has_own_keys(config)
    build = own_net.unpinned(str(config.model.build))
    for name, value, default in (
        ("trainer.compile", trainer.compile, Compile.none),
        ("trainer.strategy", trainer.strategy, Strategy.ddp),
        ("optim.weight_decays", optim.weight_decays if has_own_keys else [], []),
        ("optim.conv1_cut_at", optim.conv1_cut_at if has_own_keys else None, None),
        ("optim.conv1_freeze_at", optim.conv1_freeze_at if has_own_keys else None, None),
    ):
        if value != default:
            raise ConfigError(
                f"{name}={shown(value)}: works only with AlexNet; for {build} set {name}={shown(default)}"
            )


def _check_train_error(trainer: TrainerConfig) -> None:
    """Check the keys that end a run by its training error, which must then be logged."""
    for name in ("stop_at_train_error", "race_epochs"):
        value = getattr(trainer, name)
        if value and trainer.train_error_every is None:
            raise ConfigError(f"trainer.{name}={shown(value)}: needs the log; set trainer.train_error_every=0.25")
    if trainer.race_epochs and len(trainer.race_epochs) != len(RACE_ERRORS):
        levels = ", ".join(f"{error:g}" for error in RACE_ERRORS)
        raise ConfigError(f"trainer.race_epochs={shown(trainer.race_epochs)}: must have one value for each of {levels}")


def _check_data(config: Config, stored: bool) -> dict[str, int]:
    """Check the keys of the data; return the number of images of each split, empty if unknown."""
    data = config.data
    counts = {f"data.{split}_images": getattr(data, f"{split}_images") for split in ("train", "val", "test")}
    if data.name is Dataset.shapes:
        for name, count in counts.items():
            if count is None:
                raise ConfigError(f"{name}=null: data.name=shapes needs the number of images to draw; set one")
        if data.num_classes is None or data.num_classes > SHAPES_CLASSES:
            raise ConfigError(
                f"data.num_classes={shown(data.num_classes)}: data.name=shapes has at most {SHAPES_CLASSES} classes"
            )
        for name, value in (("data.raw", data.raw), ("data.root", data.root)):
            if value is not None:
                raise ConfigError(f"{name}={value}: data.name=shapes is drawn into data.cache; set {name}=null")
    else:
        for name, count in counts.items():
            if count is not None:
                raise ConfigError(
                    f"{name}={count}: data.name={data.name.name} has the images of its store; set {name}=null"
                )
        if not stored:
            return {}
        if data.num_classes is None:
            data.num_classes = len(stored_manifest(data)["classes"])
    images = image_counts(data)
    if data.name is Dataset.shapes and (data.train_images or 0) < data.num_classes:
        raise ConfigError(
            f"data.train_images={data.train_images}: must be at least data.num_classes={data.num_classes}"
        )
    for split, count in images.items():
        if count == 0:
            hint = f"data.holdout={data.holdout} is too large" if split == "train" else "set data.holdout=50"
            raise ConfigError(f"data.name={data.name.name}: no image is left for {split}; {hint}")
    return images


def _check_lengths(config: Config) -> None:
    """Check that lists with one item per layer, and names of layers, match the layers of the network."""
    model, pool = config.model, config.pool
    convs = CONV_LAYERS[: len(model.kernels)]
    if not 2 <= len(model.kernels) <= len(CONV_LAYERS):
        raise ConfigError(f"model.kernels={shown(model.kernels)}: must have two to {len(CONV_LAYERS)} numbers")
    names = [*convs, *HIDDEN_LAYERS[: model.hidden_layers]]
    for name, values, wanted in (
        ("model.kernel_sizes", model.kernel_sizes, convs),
        ("model.paddings", model.paddings, convs[1:]),
    ):
        if len(values) != len(wanted):
            raise ConfigError(f"{name}={shown(values)}: must have one value for each of {', '.join(wanted)}")
    for name, values, known in (
        ("model.remove", model.remove, names),
        ("model.unshared", model.unshared, convs),
        ("pool.after", pool.after, convs),
        ("model.cross_talk", model.cross_talk if model.groups > 1 else [], convs),
        ("model.dropout_after", model.dropout_after if model.dropout > 0 else [], names),
    ):
        for item in values:
            if item not in known:
                raise ConfigError(f"{name}={shown(values)}: this net has no {item}; it has {', '.join(known)}")
    for layer in by_layer(pool.kinds):
        if layer not in pool.after:
            raise ConfigError(f"pool.kinds={shown(pool.kinds)}: there is no pooling after {layer}; see pool.after")
    for name, order in (("model.conv1_order", model.conv1_order), ("model.conv2_order", model.conv2_order)):
        if sorted(order) != sorted(ORDER):
            raise ConfigError(f"{name}={shown(order)}: must name each of {', '.join(ORDER)} once")


def _fill_in_crop(config: Config) -> None:
    """Compute the crop size from the size of the feature maps, or the other way round."""
    data, model = config.data, config.model
    stride, kernel = model.conv1_stride, model.kernel_sizes[0]
    begin, end = CONV1_PADDING[model.conv1_padding.name]
    if data.crop_size is None:
        spare = model.conv1_padding is Padding.both and stride > 1  # 224, although 223 gives the same maps
        data.crop_size = stride * (data.map_size - 1) + kernel - begin - end + spare
    data.map_size = max(0, data.crop_size + begin + end - kernel) // stride + 1


def hours(name: str, budget: str) -> float:
    """The hours of a budget such as 40, 1.5h or 2d; `name` is its key.

    Raises:
        ConfigError: for anything else, and for more than a hundred years.
    """
    factor = {"h": 1, "d": 24}.get(budget[-1:])
    try:
        found = float(budget) if factor is None else factor * float(budget[:-1])
    except ValueError:
        found = math.nan
    if not 0 < found < 876_000:
        raise ConfigError(f"{name}={budget}: give hours or days above 0, such as 40h or 3d")
    return found
